#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The suite that needs a complete /dev/kvm: prepares images on the host, then runs tests/e2e/inside.sh in one
# boot of the testbed, and checks the disks that came back.
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

tools/testbed/run --results "$WORK/results" --timeout 1500 -- tests/e2e/inside.sh "$WORK" "$@" | tee "$WORK/log"
status=${PIPESTATUS[0]}
passed=$(grep '^ok' "$WORK/log" | grep -vc '# SKIP')
skipped=$(grep -c '^ok.*# SKIP' "$WORK/log")
failed=$(grep -c '^not ok' "$WORK/log")
check "testbed: the suite in it ran to its end (status $status)" grep -q '^# inside done' "$WORK/log"
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
