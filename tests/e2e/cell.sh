#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a VM's process has in its cell: descriptors, each of a kind that it needs, and no environment.
#
# usage: tests/e2e/cell.sh
set -uo pipefail
exec </dev/null
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    echo "# SKIPPED 1 a VM's process in its cell: /dev/kvm is missing or not permitted here"
    exit 0
fi
make -s guest || exit 1
WORK=$(mktemp -d)
export MINIVMM_RUN_DIR=$WORK/run
keeper=
trap '[ -z "$keeper" ] || kill -9 "$keeper"; rm -rf "$WORK"' EXIT
truncate -s 1M "$WORK/a.img" "$WORK/b.img"
(umask 077 && head -c 64 /dev/urandom >"$WORK/disk.key" && head -c 32 /dev/urandom >"$WORK/kek")

until_true() { # SECONDS CONDITION...
    local i tries=$(($1 * 20))
    shift
    for ((i = 0; i < tries; i++)); do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}

# start CMD...: sets keeper and vm when the guest idles.
start() {
    : >"$WORK/out"
    exec 3<&0 # a job in the background would get /dev/null
    "$MINIVMM" --kernel build/guest/guest.elf --memory 16M --name cell --ice-map "$WORK/map" --timeout 60 \
        --cmdline 'ice=idle then=button' "$@" >"$WORK/out" 2>"$WORK/err" <&3 &
    keeper=$!
    exec 3<&-
    until_true 20 grep -q 'ok 1 - guest: idle' "$WORK/out" || { cat "$WORK/err" && return 1; }
    vm=$(tr -d ' ' <"/proc/$keeper/task/$keeper/children")
}

stop() {
    "$MINIVMM" stop cell --force >/dev/null
    wait "$keeper"
    keeper=
}

descriptors() { # PID: what its descriptors above 2 refer to
    local fd
    for fd in "/proc/$1/fd"/*; do
        [ "${fd##*/}" -le 2 ] || readlink "$fd"
    done
}

# Those that are none of the kinds that a VM at work needs.
strangers() {
    descriptors "$vm" | grep -vE "^(anon_inode:(\[(eventfd|timerfd|signalfd|eventpoll|io_uring)\]|kvm-vm|kvm-vcpu:[0-9]+)|socket:\[[0-9]+\]|$WORK/[ab]\.img|/proc/$vm/statm)$"
}

empty() { [ -z "$(tr -d '\0' <"$1")" ]; }
has_ended() { [ "$(cat "$1")" = "ready
end" ]; }

MARK=of-the-environment
export MARK
start --disk "$WORK/a.img,ice=on" --disk "$WORK/b.img,encrypt=$WORK/disk.key" --ice-slots 4 --ice-kek "$WORK/kek"
check "the VM's process was found" [ -n "$vm" ]
check "all its descriptors are of kinds that it needs" [ "$(strangers)" = "" ]
check "one control socket" [ "$(descriptors "$vm" | grep -c '^socket:')" -eq 1 ]
check "the environment of its user is gone" empty "/proc/$vm/environ"
check "the keeper's is as it was" grep -qz "MARK=$MARK" "/proc/$keeper/environ"
check "it is asked and answers all the same" grep -q '^state=running' <("$MINIVMM" status cell)
stop

# Keys, the kernel and a disk by descriptors that were handed down, and one that nobody named.
mkfifo "$WORK/ready.fifo"
(cat "$WORK/ready.fifo" && echo end) >"$WORK/ready" &
start --disk "/dev/fd/6,ice=on" --disk "$WORK/b.img,encrypt=/dev/fd/7" --ice-slots 4 --ice-kek /dev/fd/8 --ready-fd 9 \
    5<"$WORK/kek" 6<>"$WORK/a.img" 7<"$WORK/disk.key" 8<"$WORK/kek" 9>"$WORK/ready.fifo"
check "handed down: the guest runs" [ -n "$vm" ]
check "handed down: no key, and nothing else that it does not need, is left open in it" [ "$(strangers)" = "" ]
check "handed down: no key is left open in the keeper" [ -z "$(descriptors "$keeper" | grep -E '/(kek|disk\.key)$')" ]
check "--ready-fd: the line, and then the end of the file" until_true 10 has_ended "$WORK/ready"
stop

start --disk "$WORK/a.img,ice=on" --ice-slots 4 --ice-kek /dev/fd/0 <"$WORK/kek"
check "from standard input: the key-encryption key is not left open" [ "$(readlink "/proc/$vm/fd/0")" = /dev/null ]
stop
finish
