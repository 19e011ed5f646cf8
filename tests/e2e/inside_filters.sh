# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The testbed's scenario of system-call filters: a stock Debian kernel under strace does all that such a guest does;
# sourced by inside.sh. And the kernel's own record of filters that killed.
. tests/e2e/filters_lib.sh

out_says() { # REGEX
    for _ in $(seq 300); do
        grep -Eq "$1" "$OUT" 2>/dev/null && return 0
        sleep 0.5
    done
    return 1
}

# Two CPUs; disks by io_uring, engine=sync, and encrypted; keyslots; console both ways; all that the control socket
# takes; the power button.
scenario_filters() {
    local words vm
    TRACES=/tmp/traces
    mkdir -p "$TRACES"
    if ! can_trace; then
        skip "filters: what a Linux guest's VM does is in their tables" "strace is missing"
        return
    fi
    traced linux
    make_keys
    fresh_disk filters
    truncate -s 8M /tmp/scratch.img /tmp/secret.img
    rm -f /tmp/in && mkfifo /tmp/in
    exec 8<>/tmp/in
    CONSOLE_IN=/tmp/in MINIVMM=$TRACES/linux linux filters "$KERNEL" 0 queues,random,scratch,disk,console,button \
        --memory 256M --cpus 2 --name filters --ice-slots 4@3 --disk /tmp/filters.ext4,queues=2 \
        --disk /tmp/scratch.img,engine=sync --disk "/tmp/secret.img,id=secret,encrypt=$KEYS/key" &
    vm=$!
    check "filters: the guest waits for a line" out_says 'waiting for a line'
    echo "from the host" >&8
    check "filters: the guest waits for the power button" out_says 'waiting for the power button'
    for words in "status filters" "status filters --json" "stats filters" "pause filters" "status filters" \
        "resume filters" "key list --vm filters" "key evict --vm filters --slot 0" \
        "key set --vm filters --slot 0 --file $KEYS/key" "stop filters --timeout 60"; do
        # shellcheck disable=SC2086 # words
        "$MINIVMM" $words >/tmp/said 2>&1
        check "filters: $words" [ $? -eq 0 ]
    done
    wait "$vm"
    exec 8>&-
    saw "filters: the line came" '^guest: the line is: from the host'
    saw "filters: discard" '^guest: discarded vdb'
    saw "filters: engine=sync" '^guest: vdb gives back'
    saw "filters: an encrypted disk" '^guest: vdc gives back'
    saw "filters: ext4 by io_uring" '^guest: read back: written in'
    saw "filters: the power button" '^guest: power button pressed'
    filters_seen filters "$TRACES"/linux.*
    cp "$TRACES"/linux.* "$TESTBED_RESULTS/filters.strace"
    rm -rf "$TRACES" /tmp/filters.ext4 /tmp/scratch.img /tmp/secret.img
}

# Of all that ran in this boot. That the kernel does record is shown first, by a process that kills itself so.
scenario_records() {
    # prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); then it exits, which is forbidden.
    { perl -e 'syscall(157, 22, 1, 0, 0, 0)'; } 2>/dev/null
    dmesg | grep 'type=1326' >/tmp/records
    check "records: the kernel's log tells of a process that was killed by a filter" grep -q 'comm="perl"' /tmp/records
    check "records: it tells of none of minivmm's" [ "$(grep -c minivmm /tmp/records)" -eq 0 ]
    grep minivmm /tmp/records | sed 's/^/# /'
}
