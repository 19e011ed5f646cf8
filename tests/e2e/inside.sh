#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What runs in the testbed: the test guest, and stock Debian kernels under minivmm in every shape.
#
# usage: tests/e2e/inside.sh WORK [SCENARIO...]     (none: all)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
. tests/e2e/guest_runs.sh
. tests/e2e/inside_ice.sh
. tests/e2e/inside_fleet.sh
. tests/e2e/inside_filters.sh
. tests/e2e/inside_cell.sh
WORK=$1
shift
OUT=/tmp/out

# linux NAME KERNEL WANTED-STATUS DO FLAG...: boots, keeps the console in /tmp/out and with the results.
linux() {
    local name=$1 kernel=$2 wanted=$3 actions=$4 status
    shift 4
    echo "# $name: starts at ${SECONDS}s"
    timeout 180 "$MINIVMM" --kernel "$kernel" --initrd "$WORK/initrd.img" --console stdio --timeout 150 \
        --cmdline "console=ttyS0 $CMDLINE_MORE minivmm.do=$actions" "$@" <"$CONSOLE_IN" >"$OUT" 2>"$OUT.err"
    status=$?
    cp "$OUT" "$TESTBED_RESULTS/$name.log"
    cat "$OUT.err" >>"$TESTBED_RESULTS/$name.log"
    check "$name: exit status $wanted (it was $status)" [ "$status" -eq "$wanted" ]
    [ "$status" -eq "$wanted" ] || tail -n 15 "$TESTBED_RESULTS/$name.log" | sed 's/^/# /'
}
CMDLINE_MORE=quiet CONSOLE_IN=/dev/null

saw() { # NAME REGEX
    check "$1" grep -Eq "$2" "$OUT"
}

fresh_disk() { cp "$WORK/root.ext4" "/tmp/$1.ext4"; }
keep_disk() { cp "/tmp/$1.ext4" "$TESTBED_RESULTS/$1.ext4" && rm "/tmp/$1.ext4"; }

scenario_guest() { run_guest_matrix /tmp; }

scenario_bzimage() {
    fresh_disk bzimage
    linux bzimage "$KERNEL" 0 memory,random,root --memory 256M --disk /tmp/bzimage.ext4
    saw "bzimage: root mounted from /dev/vda" '^guest: mounted /dev/vda as root: /dev/vda /mnt ext4'
    saw "bzimage: the file reads back after remount" '^guest: after remount the file reads: written by Linux'
    saw "bzimage: entropy from virtio-rng" '^guest: rng virtio_rng.0 8'
    keep_disk bzimage
}

scenario_smp() {
    fresh_disk smp
    linux smp "$KERNEL" 0 queues,root --memory 256M --cpus 2 --disk /tmp/smp.ext4,queues=2
    saw "smp: two CPUs" '^guest: cpus 2'
    saw "smp: queue 0 is CPU 0's" '^guest: mq 0 cpus 0'
    saw "smp: queue 1 is CPU 1's" '^guest: mq 1 cpus 1'
    saw "smp: /proc/interrupts has a column for each CPU" '^ +CPU0 +CPU1'
    saw "smp: the disk's line is edge-triggered and has counted" ' [1-9][0-9]* .*IO-APIC +[0-9]+-edge +virtio'
    saw "smp: the file reads back after remount" '^guest: after remount the file reads: written by Linux'
    keep_disk smp
}

scenario_pvh() {
    fresh_disk pvh
    linux pvh "$WORK/vmlinux" 0 root --memory 256M --disk /tmp/pvh.ext4
    saw "pvh: the file reads back after remount" '^guest: after remount the file reads: written by Linux'
    keep_disk pvh
}

scenario_sync() {
    fresh_disk sync
    linux sync "$KERNEL" 0 root --memory 256M --disk /tmp/sync.ext4,engine=sync,cache=writethrough
    saw "sync: the file reads back after remount" '^guest: after remount the file reads: written by Linux'
    keep_disk sync
}

scenario_boot_test() {
    fresh_disk boottest
    timeout 400 "$MINIVMM" boot-test --kernel "$KERNEL" --initrd "$WORK/initrd.img" --disk /tmp/boottest.ext4 \
        --memory 256M --cmdline "console=ttyS0 quiet minivmm.do=disk" --expect 'init runs' \
        --expect 'read back: written' --reject 'FAILED' --repeat 3 --timeout 120 </dev/null >"$OUT" 2>&1
    check "boot-test: three boots pass" [ $? -eq 0 ]
    cp "$OUT" "$TESTBED_RESULTS/boot-test.log"
    timeout 200 "$MINIVMM" boot-test --kernel "$KERNEL" --initrd "$WORK/initrd.img" --memory 256M \
        --cmdline "console=ttyS0 quiet" --expect 'no such line' --timeout 120 </dev/null >"$OUT" 2>&1
    check "boot-test: a line that never comes fails it" [ $? -eq 1 ]
}

scenario_reset() { linux reset "$KERNEL" 4 reboot --memory 256M; }

scenario_panic() { linux panic "$KERNEL" 3 panic --memory 256M; }

scenario_button() {
    linux button "$KERNEL" 0 button --memory 256M --name button &
    local vm=$!
    for _ in $(seq 240); do
        grep -q 'waiting for the power button' "$OUT" 2>/dev/null && break
        sleep 0.5
    done
    "$MINIVMM" stop button
    check "button: minivmm stop is accepted" [ $? -eq 0 ]
    wait "$vm"
    saw "button: the guest saw the power button" '^guest: power button pressed'
}

scenario_disks() {
    local flags=() n
    for n in $(seq 14); do
        truncate -s 1M "/tmp/disk$n"
        flags+=(--disk "/tmp/disk$n")
    done
    linux disks "$KERNEL" 0 disks --memory 256M "${flags[@]}"
    saw "disks: all 14 are readable" '^guest: disks readable 14'
    rm -f /tmp/disk*
}

scenario_memory() {
    linux memory "$KERNEL" 0 memory --memory 3500M
    saw "memory: over 3300 MiB seen across the hole" '^guest: MemTotal 3[3-9][0-9]{5} kB'
}

scenario_acpi_off() {
    # The generic kernel has MP-table support; its modules differ from the initrd's, so only init is reached.
    CMDLINE_MORE="acpi=off"
    linux acpi-off .cache/kernels/generic/vmlinuz 4 kernel,reboot --memory 256M
    CMDLINE_MORE=quiet
    saw "acpi-off: the IOAPIC comes from the MP table" '^guest: dmesg .*IOAPIC\[0\]: apic_id'
    saw "acpi-off: init runs" '^guest: init runs'
}

[ $# -gt 0 ] || set -- guest bzimage smp pvh sync boot_test reset panic disks memory acpi_off button fleet volumes luks_root \
    cell filters records
for scenario in "$@"; do
    "scenario_$scenario"
done
echo "# inside done: $passed passed, $failed failed, ${SECONDS}s"
[ "$failed" -eq 0 ]
