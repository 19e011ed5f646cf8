#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The bare-metal test guest under strace, over this host's own /dev/kvm: everything that a VM's threads do behind
# their filters is in the filters' tables. Linux guests do the same in the testbed (inside_filters.sh). Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
. tests/e2e/filters_lib.sh

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    skip "system calls behind the filters" "there is no /dev/kvm that this user can open"
    finish
    exit
fi
if ! can_trace; then
    skip "system calls behind the filters" "strace is missing or may not trace here"
    finish
    exit
fi
make -s guest minivmm || exit 1
mkdir -p build
WORK=$(mktemp -d -p build)
TRACES=$PWD/$WORK/traces
MINIVMM_RUN_DIR=$(mktemp -d)
export MINIVMM_RUN_DIR
GUEST=build/guest/guest.elf
vm=
cleanup() {
    "$MINIVMM" stop box --force >/dev/null 2>&1
    [ -z "$vm" ] || kill -9 "$vm" 2>/dev/null
    rm -rf "$WORK" "$MINIVMM_RUN_DIR"
}
trap cleanup EXIT
mkdir -p "$TRACES"
for name in disks sync crypto hold forced crash terminal; do
    traced $name
done

blank() { rm -f "$1" && truncate -s 2M "$1"; }           # IMAGE
make_key() { (umask 077 && head -c 64 /dev/urandom >"$1"); } # FILE
ran() { check "traced: $1 ends with $2 (it was $3)" [ "$3" -eq "$2" ]; } # NAME WANTED STATUS

kernel() { # FILE INSTRUCTIONS: an ELF kernel of a few, entered in 64-bit mode
    printf '_start: %s\n.globl _start\n' "$2" | as --64 -o "$WORK/asm.o" - &&
        ld -N --no-warn-rwx-segments -e _start -Ttext=0x200000 -o "$WORK/$1" "$WORK/asm.o"
}

disks() { # NAME OPTIONS
    make_marked_image "$WORK/disk.img"
    timeout 120 "$TRACES/$1" --kernel "$GUEST" --disk "$WORK/disk.img,serial=MARKED,queues=2$2" --cpus 2 --debug-exit \
        --console "file:$WORK/console" --cmdline "serial=MARKED cpus=2" </dev/null >"$WORK/$1.out" 2>&1
    ran "$1" 0 $?
}

# A pipe as console. Wrapped keys, keys of the guest's and of the operator's.
crypto() {
    make_key "$WORK/key"
    blank "$WORK/a.img" && blank "$WORK/b.img" && blank "$WORK/c.img"
    timeout 120 "$TRACES/crypto" --kernel "$GUEST" --debug-exit --console stdio --cmdline "ice=check operator=40" \
        --ice-slots 8@20 --disk "$WORK/a.img,queues=2" --disk "$WORK/b.img,queues=2,ice=required,engine=sync" \
        --disk "$WORK/c.img,id=operator" \
        --ice-key "slot=40,disk=operator,alg=aes-xts,unit=4096,file=$WORK/key" </dev/null 2>&1 | cat >"$WORK/crypto.out"
    ran crypto 0 "${PIPESTATUS[0]}"
}

holding() {
    for _ in $(seq 200); do
        grep -q '^# holding' "$WORK/out" 2>/dev/null && return 0
        sleep 0.1
    done
    return 1
}

# Everything that the control socket takes, while the guest waits; then a byte on its console lets it go on.
hold() {
    make_key "$WORK/key" && make_key "$WORK/key2"
    blank "$WORK/a.img" && blank "$WORK/b.img" && blank "$WORK/c.img"
    mkfifo "$WORK/in"
    timeout 120 "$TRACES/hold" --kernel "$GUEST" --debug-exit --name box --memory 16M --cmdline ice=hold \
        --ice-slots 4@3 --disk "$WORK/a.img,queues=2" --disk "$WORK/b.img,queues=2" \
        --disk "$WORK/c.img,id=secret,encrypt=$WORK/key" <>"$WORK/in" >"$WORK/out" 2>"$WORK/err" &
    vm=$!
    check "traced: the guest holds its key" holding
    for words in "status box" "status box --json" "stats box" "pause box" "status box" "resume box" \
        "key list --vm box" "key evict --vm box --slot 0" "key set --vm box --slot 0 --file $WORK/key2"; do
        # shellcheck disable=SC2086 # words
        "$MINIVMM" $words >"$WORK/said" 2>&1
        check "traced: $words" [ $? -eq 0 ]
    done
    "$MINIVMM" stop box --timeout 1 >"$WORK/said" 2>&1
    check "traced: stop of a guest that does not listen" grep -q 'still runs' "$WORK/said"
    printf x >"$WORK/in"
    wait "$vm"
    ran hold 0 $?
    vm=
}

answers() {
    for _ in $(seq 200); do
        "$MINIVMM" status "$1" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}

# A guest that does not heed the power button, on a pseudo-terminal.
forced() {
    kernel halts 'cli; 1: hlt; jmp 1b'
    timeout 60 "$TRACES/forced" --kernel "$WORK/halts" --name box --memory 16M --console pty </dev/null >"$WORK/said" 2>&1 &
    vm=$!
    check "traced: a guest that halts answers" answers box
    # As a fleet's supervisor asks: the button, and an end to the VM's time.
    python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"stop 1\n")
print(s.recv(100).decode())' "$MINIVMM_RUN_DIR/box.sock" >"$WORK/said" 2>&1
    check "traced: stop within a second" grep -qx ok "$WORK/said"
    wait "$vm"
    ran forced 6 $?
    vm=
}

# A crash has the vCPU look at the guest's registers and code.
crash() {
    kernel crashes ud2
    timeout 60 "$TRACES/crash" --kernel "$WORK/crashes" --memory 16M --cpus 2 --console none </dev/null >"$WORK/said" 2>&1
    ran crash 5 $?
}

# A terminal, which is the keeper's to restore.
terminal() {
    make_marked_image "$WORK/disk.img"
    timeout 60 script -qec "stty -g >$WORK/before; $TRACES/terminal --kernel $GUEST --debug-exit \
        --disk $WORK/disk.img,serial=MARKED,queues=2 --cmdline serial=MARKED; s=\$?; stty -g >$WORK/after; exit \$s" \
        "$WORK/typescript" </dev/null >"$WORK/said" 2>&1
    ran terminal 0 $?
    check "traced: the terminal's settings are restored" cmp "$WORK/before" "$WORK/after"
    check "traced: the terminal was one" grep -q . "$WORK/before"
}

disks disks ""
disks sync ",engine=sync"
crypto
hold
forced
crash
terminal
filters_seen traced "$TRACES"/*.[0-9]*
finish
