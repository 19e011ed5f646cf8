#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `make boot` runs: Debian's stock kernel boots under minivmm, mounts its ext4 root from an encrypted
# virtio-mmio disk, writes a file, reads it back after a remount, and powers off; then the host checks that the
# image is ciphertext, decrypts it with nettle (minivmm uses OpenSSL), and checks the file system in it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/e2e/lib.sh
WORK=$PWD/build/boot
ICE_CHECK=build/interop/ice_check

step() { echo "==> $*"; }
fail() {
    echo "make boot: $*" >&2
    exit 1
}

mkdir -p "$WORK"
step "building the initrd (busybox and the kernel's virtio modules) and an ext4 disk image, encrypted with a new key"
make_guest_initrd "$WORK/initrd.img"
make_root_image "$WORK/root.ext4"
rm -f "$WORK/disk.key"
(umask 077 && head -c 64 /dev/urandom >"$WORK/disk.key")
"$ICE_CHECK" "key-file=$WORK/disk.key" encrypt "$WORK/root.ext4" "$WORK/root.img"
rm "$WORK/root.ext4"

where=direct
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    "$MINIVMM" doctor --probe native || where=testbed
    why=$("$MINIVMM" doctor 2>&1 | sed -n 's/^[a-z]* *guest kernel code: //p' || true)
else
    where=testbed why="there is no /dev/kvm that this user can open"
fi
boot() { # DISK
    "$MINIVMM" --kernel "$KERNEL" --initrd "$WORK/initrd.img" --disk "$1,encrypt=$WORK/disk.key" --memory 256M --console stdio \
        --timeout 300 --cmdline "console=ttyS0 quiet minivmm.do=root pci=off"
}
status=0
if [ "$where" = direct ]; then
    step "booting directly on /dev/kvm: it runs guest kernels natively"
    # The map of keyslots in use lies there; without a session's folder, one of our own will do.
    [ "$(id -u)" -eq 0 ] || export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$WORK}"
    boot "$WORK/root.img" </dev/null | tee "$WORK/console.log" || status=$?
else
    step "booting in the testbed (an emulated PC, so give it half a minute): $why"
    export -f boot
    export MINIVMM KERNEL WORK
    # The testbed sees the checkout read-only: the disk is copied in, and back out with the results.
    tools/testbed/run --results "$WORK/results" --timeout 600 -- env MINIVMM="$MINIVMM" KERNEL="$KERNEL" WORK="$WORK" \
        bash -c "$(declare -f boot); cp '$WORK/root.img' /tmp/root.img; boot /tmp/root.img </dev/null; status=\$?;
                 cp /tmp/root.img \"\$TESTBED_RESULTS/root.img\"; exit \$status" | tee "$WORK/console.log" || status=$?
    cp "$WORK/results/root.img" "$WORK/root.img" || fail "the testbed gave no disk back"
fi
[ "$status" -eq 0 ] || fail "minivmm ended with status $status (see above and build/boot/console.log)"
grep -q '^guest: after remount the file reads: written by Linux' "$WORK/console.log" ||
    fail "the guest powered off without having read its file back (build/boot/console.log)"

step "the guest powered off; checking its disk on the host: first that the image is ciphertext"
for text in "written by Linux" "guest: after remount"; do
    "$ICE_CHECK" "text=$text" absent "$WORK/root.img" || fail "the image holds plaintext: '$text'"
done
step "decrypting it with its key, by nettle"
"$ICE_CHECK" "key-file=$WORK/disk.key" decrypt "$WORK/root.img" "$WORK/root.ext4"
e2fsck -fn "$WORK/root.ext4" || fail "e2fsck found the file system damaged"
text=$(debugfs -R 'cat /written-by-guest' "$WORK/root.ext4" 2>/dev/null)
case $text in
    "written by Linux"*) ;;
    *) fail "the guest's file isn't on the disk" ;;
esac
step "the file on the disk says: $text"
step "done: booted, mounted, written, read back, powered off, and the file system is clean; only ciphertext was on the disk"
