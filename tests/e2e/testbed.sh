#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The suite that needs a complete /dev/kvm: prepares images on the host, then runs tests/e2e/inside.sh in the
# testbed, and checks the disks that came back.
#
# usage: tests/e2e/testbed.sh [SCENARIO...]     (none: all)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
WORK=$PWD/build/e2e

make -s guest minivmm ice-check || exit 1
rm -rf "$WORK" && mkdir -p "$WORK/results"
make_guest_initrd "$WORK/initrd.img" || exit 1
make_root_image "$WORK/root.ext4" || exit 1
make_root_image "$WORK/root4k.ext4" -b 4096 || exit 1
tools/unpack-kernel.sh "$KERNEL" "$WORK/vmlinux" || exit 1

# A boot for each group. A second one when the emulated machine locked up in its own kernel (123), or was not done in
# time (124: every scenario has its own, shorter time): QEMU's emulated processors were seen to do both.
if [ $# -gt 0 ]; then
    groups=("$*")
else
    groups=("guest bzimage smp pvh sync" "boot_test reset panic disks" "memory acpi_off button fleet"
        "volumes luks_root cell filters")
fi
: >"$WORK/log"
ended=0
for group in "${groups[@]}"; do
    for _ in 1 2; do
        # shellcheck disable=SC2086 # a list
        tools/testbed/run --results "$WORK/results" --timeout 300 -- tests/e2e/inside.sh "$WORK" $group records \
            >"$WORK/group" </dev/null
        status=$?
        [ "$status" -eq 123 ] || [ "$status" -eq 124 ] || break
        echo "# the testbed locked up ($status) in: $group; its last line: $(tail -n 1 "$WORK/group")"
        mv "$WORK/results/testbed-console.log" "$WORK/results/locked-up.log"
    done
    tee -a "$WORK/log" <"$WORK/group"
    ! grep -q '^# inside done' "$WORK/group" || ended=$((ended + 1))
done
passed=$(grep '^ok' "$WORK/log" | grep -vc '# SKIP')
skipped=$(grep -c '^ok.*# SKIP' "$WORK/log")
failed=$(grep -c '^not ok' "$WORK/log")
check "testbed: all groups of scenarios ran to their end ($ended of ${#groups[@]})" [ "$ended" -eq "${#groups[@]}" ]
for image in "$WORK"/results/*.ext4; do
    [ -e "$image" ] || continue
    name=$(basename "$image" .ext4)
    check "$name: e2fsck finds the file system clean" e2fsck -fn "$image" >/dev/null 2>&1
    case $(debugfs -R 'cat /written-by-guest' "$image" 2>/dev/null) in
        "written by Linux"*) ok "$name: the guest's file is on the disk" ;;
        *) not_ok "$name: the guest's file is on the disk" ;;
    esac
done
finish
