# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the end-to-end scripts share. Sourced with the checkout as current directory. Results are TAP lines.
PATH=$PATH:/usr/sbin:/sbin
MINIVMM=${MINIVMM:-$PWD/minivmm}
# shellcheck disable=SC2034 # used by those who source this
KERNEL=$PWD/.cache/kernels/cloud/vmlinuz
GUEST_MODULES="virtio_mmio virtio_blk virtio-rng pvpanic-mmio button evdev"
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)) && echo "ok - $*"; }
not_ok() { failed=$((failed + 1)) && echo "not ok - $*"; }
skip() { skipped=$((skipped + 1)) && echo "ok - $1 # SKIP $2"; } # NAME WHY

# check NAME CONDITION...: the condition's exit status is the result.
check() {
    local name=$1
    shift
    if "$@"; then ok "$name"; else not_ok "$name"; fi
}

finish() {
    echo "# $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

# make_root_image FILE [MKE2FS-OPTION...]: ext4 with busybox and disk-init as its only contents. Needs no root.
make_root_image() {
    local stage image=$1
    shift
    stage=$(mktemp -d)
    mkdir -p "$stage"/{bin,sbin,proc,sys,dev}
    install -m 755 "$(command -v busybox)" "$stage/bin/busybox"
    for applet in sh mount grep cat echo uname sync poweroff; do
        ln -s busybox "$stage/bin/$applet"
    done
    install -m 755 tests/e2e/disk-init "$stage/sbin/init"
    rm -f "$image"
    mke2fs -q -t ext4 "$@" -d "$stage" -E root_owner=0:0 "$image" 24M
    rm -rf "$stage"
}

# make_marked_image FILE: 2 MiB with the mark that the test guest's "read" expects at sector 100.
make_marked_image() {
    rm -f "$1"
    truncate -s 2M "$1"
    printf 'minivmm: written by the host' | dd of="$1" bs=512 seek=100 conv=notrunc status=none
}

# True when the test guest's own mark is at sector 200.
has_guest_mark() {
    [ "$(dd if="$1" bs=1 skip=$((200 * 512)) count=29 status=none | tr -d '\0')" = "minivmm: written by the guest" ]
}

make_guest_initrd() { # OUT
    # shellcheck disable=SC2086 # a list
    tools/mkinitrd.sh cloud tests/e2e/guest-init "$1" $GUEST_MODULES
}
