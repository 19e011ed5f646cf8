#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the testbed for tools/bench/run.sh: the same Debian kernel, initrd, disk and command line under minivmm
# and under QEMU's microvm in turns; leaves boot.tsv with the results.
#
# usage: tools/bench/boots.sh WORK MINIVMM KERNEL PAIRS
set -uo pipefail
WORK=$1 PAIRS=$4
OUT=$TESTBED_RESULTS/boot.tsv
# Copied, so that no figure holds the share's read times.
cp "$2" /tmp/minivmm && cp "$3" /tmp/kernel && cp "$WORK/initrd.img" /tmp/initrd.img && cp "$WORK/firstbyte" /tmp/firstbyte || exit 1
# edd=off: QEMU enters the kernel through its real-mode code, which else prints by the firmware before Linux begins.
CMDLINE="console=ttyS0 edd=off minivmm.do=disk,poweroff"

boot_minivmm() { # FIRSTBYTE-FLAG...
    /tmp/firstbyte "$@" /tmp/console /tmp/minivmm --kernel /tmp/kernel --initrd /tmp/initrd.img --disk /tmp/root.ext4 \
        --memory 256M --console stdio --cmdline "$CMDLINE"
}

boot_qemu() {
    /tmp/firstbyte "$@" /tmp/console qemu-system-x86_64 -M microvm,accel=kvm -cpu host -m 256 -nodefaults \
        -no-user-config -display none -serial stdio -no-reboot -kernel /tmp/kernel -initrd /tmp/initrd.img \
        -drive id=d,file=/tmp/root.ext4,format=raw,if=none -device virtio-blk-device,drive=d -append "$CMDLINE"
}

note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$OUT"; }

boot() { # SIDE PAIR
    local out
    cp "$WORK/root.ext4" /tmp/root.ext4
    out=$("boot_$1" 2>/tmp/errors)
    cp /tmp/console "$TESTBED_RESULTS/boot-$1.log"
    cat /tmp/errors >>"$TESTBED_RESULTS/boot-$1.log"
    if grep -q '^guest: read back' /tmp/console; then
        note boot_first "$1" "$2" "$(sed -n 's/^first_us=//p' <<<"$out")"
        note boot_off "$1" "$2" "$(sed -n 's/^end_us=//p' <<<"$out")"
    else
        note boot_first "$1" - "the guest did not come to its disk: $(tail -n 1 /tmp/errors | tr '\t' ' ' | cut -c 1-100)"
        note boot_off "$1" - "see boot_first"
    fi
    echo "bench: pair $2, $1: $(tr '\n' ' ' <<<"$out")"
}

# The programs into the page cache, for both alike.
cp "$WORK/root.ext4" /tmp/root.ext4
boot_minivmm --stop >/dev/null 2>&1
boot_qemu --stop >/dev/null 2>&1
for pair in $(seq "$PAIRS"); do
    boot minivmm "$pair"
    boot qemu "$pair"
done
