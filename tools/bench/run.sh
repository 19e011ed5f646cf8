#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `make bench` runs, with everything built: measures minivmm and QEMU's microvm in turns (docs/bench.md says
# what each figure is), prints the table and leaves build/bench/results.tsv. Status 1: a budget is missed.
#
# usage: tools/bench/run.sh [start|io|size|boot]...     (none: all)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
WORK=$PWD/build/bench
PROBE=$WORK/startprobe
RAW=$WORK/raw.tsv
LOG=$WORK/log
START_PAIRS=${START_PAIRS:-15}
IO_PAIRS=${IO_PAIRS:-3}
BOOT_PAIRS=${BOOT_PAIRS:-3}
MICROVM="qemu-system-x86_64 -nodefaults -no-user-config -m 128"

say() { echo "bench: $*" >&2; }
record() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$RAW"; } # FIGURE SIDE PAIR VALUE
why_not() { printf '%s\t%s\t-\t%s\n' "$1" "$2" "$3" >>"$RAW"; } # FIGURE SIDE REASON
field() { sed -n "s/^$1=//p"; }

kvm_usable() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }

ours() { # KERNEL FLAG...
    local kernel=$1
    shift
    echo "$MINIVMM" --kernel "$kernel" --disk "$WORK/disk.img" --memory 128M "$@"
}

peer() { # KERNEL FLAG...
    local kernel=$1
    shift
    echo "$MICROVM" -kernel "$kernel" -drive "id=d,file=$WORK/disk.img,format=raw,if=none" \
        -device virtio-blk-device,drive=d "$@"
}

# Why the peer didn't run: its last words that are no warning.
last_words() { grep -v warning "$LOG" | tail -n 1 | tr '\t' ' ' | cut -c 1-100; }

# One start without the cell, which QEMU has none of: figure bare_cpu.
bare_once() { # SIDE PAIR COMMAND...
    local side=$1 pair=$2 out
    shift 2
    out=$("$PROBE" start "$@" 2>"$LOG") || { why_not bare_cpu "$side" "$(last_words)" && return; }
    [ "$pair" -gt 0 ] && record bare_cpu "$side" "$pair" "$(field cpu_us <<<"$out")"
}

# One start; figures start_cpu, start_wall and start_pss.
start_once() { # SIDE PAIR COMMAND...
    local side=$1 pair=$2 out
    shift 2
    : >"$LOG"
    if ! out=$("$PROBE" start "$@" 2>"$LOG"); then
        for figure in start_cpu start_wall start_pss; do why_not "$figure" "$side" "$(last_words)"; done
        return
    fi
    [ "$pair" -gt 0 ] || return # the first of each warms the page cache
    record start_cpu "$side" "$pair" "$(field cpu_us <<<"$out")"
    record start_wall "$side" "$pair" "$(field wall_us <<<"$out")"
    record start_pss "$side" "$pair" "$(field pss_kib <<<"$out")"
}

measure_start() {
    local pair
    say "start: $START_PAIRS pairs"
    "$WORK/mkbzimage" "$WORK/kernel.bzimage" || exit 2
    for pair in $(seq 0 "$START_PAIRS"); do
        # shellcheck disable=SC2046 # command lines
        start_once minivmm "$pair" $(ours "$WORK/kernel.bzimage")
        # shellcheck disable=SC2046
        start_once qemu "$pair" $(peer "$WORK/kernel.bzimage" -M microvm,accel=kvm -nographic)
        # shellcheck disable=SC2046
        bare_once minivmm "$pair" $(ours "$WORK/kernel.bzimage" --no-sandbox)
        # shellcheck disable=SC2046
        bare_once qemu "$pair" $(peer "$WORK/kernel.bzimage" -M microvm,accel=kvm -nographic)
    done
}

LOAD_OURS="--debug-exit --console stdio"
# Its devices are of version 1 unless told, and the load drives version 2.
LOAD_PEER="-M microvm,accel=kvm,acpi=off,ioapic2=off -global virtio-mmio.force-legacy=false -display none
    -serial stdio -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=1"
PEER_DEVICES="mmio=$((0xfeb00000)) stride=512 windows=8 gsi=5"

load_memory() { # SIDE PAIR COMMAND...
    local side=$1 pair=$2 out
    shift 2
    if out=$("$PROBE" memory 'bench: start' 'bench: end' "$WORK/load.log" "$@" 2>"$LOG"); then
        record io_pss "$side" "$pair" "$(field pss_kib <<<"$out")"
    else
        why_not io_pss "$side" "$(last_words)"
    fi
}

counters() { # NAME: exits and requests
    "$MINIVMM" status "$1" 2>>"$LOG" |
        awk -F= '/^exits\./ { exits += $2 } /^disk0\.requests=/ { requests = $2 } END { print exits + 0, requests + 0 }'
}

# The monitor's own counters, twice while the load runs undisturbed.
exits_ours() { # DEPTH PAIR
    local name=bench-$$ pid before after
    : >"$LOG"
    # shellcheck disable=SC2046,SC2086
    $(ours "$PWD/build/guest/guest.elf" $LOAD_OURS) --name "$name" --cmdline "bench=depth$1 count=1000000000" \
        </dev/null >"$WORK/load.log" 2>"$LOG" &
    pid=$!
    for _ in $(seq 200); do
        grep -q 'bench: start' "$WORK/load.log" && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    before=$(counters "$name")
    sleep 1
    after=$(counters "$name")
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    if [ "${after#* }" -gt "${before#* }" ]; then
        record "exits_$1" minivmm "$2" "$(awk -v a="$after" -v b="$before" \
            'BEGIN { split(a, x, " "); split(b, y, " "); printf "%.4f", (x[1] - y[1]) / (x[2] - y[2]) }')"
    else
        why_not "exits_$1" minivmm "no requests counted: $(last_words)"
    fi
}

# QEMU has no such counters: its KVM_RUN calls are counted from outside.
exits_peer() { # DEPTH PAIR
    local out count=2000
    # shellcheck disable=SC2046,SC2086
    if out=$("$PROBE" exits 'bench: start' 'bench: end' "$WORK/load.log" \
        $(peer "$PWD/build/guest/guest-pvh.elf" $LOAD_PEER) -append "bench=depth$1 count=$count $PEER_DEVICES" 2>"$LOG"); then
        # "bench: end" itself is not the requests'.
        record "exits_$1" qemu "$2" "$(awk -v runs="$(field runs <<<"$out")" -v n="$count" \
            'BEGIN { printf "%.4f", (runs - length("bench: end\n")) / n }')"
    else
        why_not "exits_$1" qemu "$(last_words)"
    fi
}

measure_io() {
    local pair depth
    say "disk load of the test guest: $IO_PAIRS pairs"
    for pair in $(seq "$IO_PAIRS"); do
        # shellcheck disable=SC2046,SC2086
        load_memory minivmm "$pair" $(ours "$PWD/build/guest/guest.elf" $LOAD_OURS) --cmdline "bench=depth32 count=20000"
        # shellcheck disable=SC2046,SC2086
        load_memory qemu "$pair" $(peer "$PWD/build/guest/guest-pvh.elf" $LOAD_PEER) \
            -append "bench=depth32 count=20000 $PEER_DEVICES"
        for depth in 1 32; do
            exits_ours "$depth" "$pair"
            exits_peer "$depth" "$pair"
        done
    done
}

measure_size() {
    local cc
    for cc in gcc clang; do
        if strip -o "$WORK/minivmm-$cc" "build/$cc/minivmm" 2>"$LOG"; then
            record "size_$cc" minivmm 1 "$(stat -c %s "$WORK/minivmm-$cc")"
        else
            why_not "size_$cc" minivmm "$(last_words)"
        fi
    done
}

measure_boot() {
    say "Debian's kernel in the testbed: $BOOT_PAIRS pairs, which takes some minutes"
    mkdir -p "$WORK/testbed"
    make_guest_initrd "$WORK/initrd.img" && make_root_image "$WORK/root.ext4" || exit 2
    rm -f "$WORK/testbed/boot.tsv"
    tools/testbed/run --results "$WORK/testbed" --timeout 900 -- \
        tools/bench/boots.sh "$WORK" "$MINIVMM" "$KERNEL" "$BOOT_PAIRS" >&2 || say "the testbed ended with status $?"
    if [ -s "$WORK/testbed/boot.tsv" ]; then
        cat "$WORK/testbed/boot.tsv" >>"$RAW"
    else
        for figure in boot_first boot_off; do why_not "$figure" minivmm "the testbed gave no figures"; done
    fi
}

mkdir -p "$WORK"
: >"$RAW"
[ -e "$WORK/disk.img" ] || head -c 16M /dev/urandom >"$WORK/disk.img"
[ $# -gt 0 ] || set -- start io size boot
for part in "$@"; do
    case $part in
        start | io)
            if kvm_usable; then
                "measure_$part"
            else
                [ "$part" = start ] && figures="start_cpu start_pss" || figures="io_pss exits_1 exits_32"
                for figure in $figures; do
                    why_not "$figure" minivmm "there is no /dev/kvm that this user can open"
                done
            fi
            ;;
        size | boot) "measure_$part" ;;
        *) echo "usage: tools/bench/run.sh [start|io|size|boot]..." >&2 && exit 2 ;;
    esac
done
awk -f tools/bench/report.awk -v results="$WORK/results.tsv" "$RAW"
