# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Running VMs from outside: locks on images, names in use, stop, pause, resume, status. Part of cli.sh.

# start NAME ARG...: a VM that halts for ever; 0 when it answers. Its pid is in $pid, what it says in $WORK/NAME.err.
start() {
    local name=$1 tries
    shift
    "$MINIVMM" --kernel "$K" --memory 32M --console none --name "$name" "$@" </dev/null >"$WORK/$name.err" 2>&1 &
    pid=$!
    for ((tries = 0; tries < 100; tries++)); do
        "$MINIVMM" status "$name" >/dev/null 2>&1 && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

ended_with() { # STATUS: of the VM $pid; waits, 20 s at most
    local status
    for _ in {1..200}; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null
    wait "$pid"
    status=$?
    [ "$status" -eq "$1" ] || { echo "# the VM ended with $status" && false; }
}

state_is() { "$MINIVMM" status "$1" | grep -x "state=$2" >/dev/null; } # NAME STATE

test_locks() {
    image "$WORK/locked.img"
    check "locked image: the first VM runs" start holder --disk "$WORK/locked.img"
    answers "locked image: a second writer" 2 "--disk: $WORK/locked.img: is locked by process $pid" "its own image" -- \
        --kernel "$K" --disk "$WORK/locked.img"
    answers "locked image: a reader beside the writer" 2 "--disk: $WORK/locked.img: is locked by process $pid" "copy" -- \
        --kernel "$K" --disk "$WORK/locked.img,ro"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    check "locked image: free at once after kill -9" start holder --disk "$WORK/locked.img"
    "$MINIVMM" stop holder --force >/dev/null 2>&1
    check "stop --force ends it with 6" ended_with 6
    check "two VMs read one image" start reader1 --disk "$WORK/locked.img,ro"
    local first=$pid
    check "two VMs read one image: the second" start reader2 --disk "$WORK/locked.img,ro"
    kill "$first" "$pid"
    wait "$first"
    check "SIGTERM ends a VM with 6" ended_with 6
}

test_lock_of_qemu() {
    if ! command -v qemu-io >/dev/null; then
        skip "an image that QEMU writes" "no qemu-io: install qemu-utils"
        return
    fi
    mkfifo "$WORK/qemu-in"
    qemu-io -f raw "$WORK/locked.img" <"$WORK/qemu-in" >"$WORK/qemu-out" 2>&1 &
    local qemu=$!
    exec 9>"$WORK/qemu-in"
    echo 'write 0 512' >&9
    for _ in {1..100}; do
        grep -q wrote "$WORK/qemu-out" && break
        sleep 0.1
    done
    answers "an image that QEMU writes" 2 "--disk: $WORK/locked.img: is locked by" "its own image" -- \
        --kernel "$K" --disk "$WORK/locked.img"
    exec 9>&-
    wait "$qemu"
    check "QEMU is refused an image of ours: the VM runs" start holder --disk "$WORK/locked.img"
    check "QEMU is refused an image of ours" \
        sh -c '! qemu-io -f raw -c "write 0 512" "$0" 2>&1 | tee "$1" | grep -q wrote && grep -qi lock "$1"' \
        "$WORK/locked.img" "$WORK/qemu-out"
    kill "$pid"
    wait "$pid"
}

test_control() {
    answers "status with no VM" 0 "no VM is running" -- status
    answers "stop of no VM" 1 "no VM named ghost is running" -- stop ghost
    answers "stop without a name" 2 "stop: the name of a VM is needed" "minivmm status" -- stop
    answers "stop with an unknown flag" 2 "stop: unknown flag '--now'" "minivmm stop --help" -- stop x --now
    answers "stop of a bad name" 2 "'a/b' is not a name" "letters, digits" -- stop a/b
    check "a VM named worker runs" start worker
    answers "a name in use" 2 "worker" "--name" -- --kernel "$K" --name worker --console none --memory 32M
    answers "status of a near miss" 1 "did you mean worker?" -- status workr
    check "status: running" state_is worker running
    answers "pause" 0 -- pause worker
    check "status: paused" state_is worker paused
    answers "pause of a paused VM" 1 "worker" "not running" -- pause worker
    answers "resume" 0 -- resume worker
    check "status: running again" state_is worker running
    answers "status lists it" 0 "NAME" "worker" "running" -- status
    check "status --json of all is JSON" sh -c '"$0" status --json | python3 -c "
import json, sys
vms = json.load(sys.stdin)
assert [v[\"name\"] for v in vms] == [\"worker\"], vms"' "$MINIVMM"
    check "status --json of one is JSON" sh -c '"$0" status worker --json | python3 -c "
import json, sys
assert json.load(sys.stdin)[\"state\"] == \"running\""' "$MINIVMM"
    answers "stop of a guest that heeds no power button" 1 "worker still runs after 1 s" "--force" -- stop worker --timeout 1
    answers "stop --force" 0 -- stop worker --force
    check "the VM stopped by force ended with 6" ended_with 6
}

test_left_behind() {
    check "kill -9: a VM named victim runs" start victim
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    answers "kill -9: status says that it is gone" 1 "no VM named victim is running" -- status victim
    check "kill -9: the next start replaces its socket" start victim
    check "kill -9: and answers" state_is victim running
    kill "$pid"
    check "kill -9: and ends" ended_with 6
    check "an ended VM leaves no socket" sh -c '! ls "$0" | grep -q victim' "$MINIVMM_RUN_DIR"
}

if [ -n "$NO_KVM" ]; then
    skip "running VMs: locks, names, stop, pause, resume, status" "$NO_KVM"
else
    test_locks 2>/dev/null
    test_lock_of_qemu
    test_control
    test_left_behind 2>/dev/null
fi
