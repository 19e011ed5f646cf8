# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The testbed's scenarios of encrypted disks; sourced by inside.sh. Every kind of volume is made by cryptsetup,
# written by a stock Debian guest under minivmm, and opened and mounted by cryptsetup again.
ICE_CHECK=build/interop/ice_check
VOLUMES="plain512 plain4096 plain4096large luks512 luks4096"

volume_sector() { case $1 in *4096*) echo 4096 ;; *) echo 512 ;; esac; }
volume_is_luks() { case $1 in luks*) return 0 ;; *) return 1 ;; esac; }

# The testbed's kernel has all this as modules; what is built in or loaded already is no failure.
load_crypt_modules() {
    local base=$PWD/.cache/kernels/generic version path
    version=$(cat "$base/version")
    for module in loop dm-crypt xts aesni_intel crc32c_generic ext4; do
        modprobe -d "$base" -S "$version" --show-depends "$module" 2>/dev/null | while read -r verb path _; do
            [ "$verb" != insmod ] || insmod "$path" 2>/dev/null
        done
    done
    [ -e /dev/mapper/control ] || mkdir -p /dev/mapper && mknod /dev/mapper/control c 10 236 2>/dev/null
    [ -e /dev/loop-control ] && grep -q device-mapper /proc/misc && [ -d /sys/module/dm_crypt ]
}

# open_volume KIND IMAGE: /dev/mapper/KIND by cryptsetup.
open_volume() {
    local how=()
    LOOP=$(losetup --find --show "$2") || return 1
    if volume_is_luks "$1"; then
        cryptsetup open --batch-mode --key-file "$KEYS/pass" "$LOOP" "$1"
        return
    fi
    [ "$1" != plain4096large ] || how=(--iv-large-sectors)
    cryptsetup open --batch-mode --type plain --cipher aes-xts-plain64 --key-size 512 --key-file "$KEYS/key" \
        --sector-size "$(volume_sector "$1")" ${how[@]+"${how[@]}"} "$LOOP" "$1"
}

close_volume() { # KIND
    cryptsetup close "$1" && losetup -d "$LOOP"
}

# Makes a volume by cryptsetup alone, with the demonstration's root file system in it.
make_volume() { # KIND IMAGE
    local status
    truncate -s 44M "$2"
    if volume_is_luks "$1"; then
        cryptsetup luksFormat --batch-mode --type luks2 --cipher aes-xts-plain64 --key-size 512 \
            --sector-size "$(volume_sector "$1")" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$KEYS/pass" "$2" ||
            return
    fi
    open_volume "$1" "$2" && dd if="$WORK/root4k.ext4" of="/dev/mapper/$1" bs=1M conv=fsync status=none
    status=$?
    close_volume "$1" || status=1
    return "$status"
}

# Mounts the volume by dm-crypt and gives the guest's file.
read_volume() { # KIND IMAGE FILE
    open_volume "$1" "$2" || return
    mkdir -p /tmp/mounted
    if e2fsck -fn "/dev/mapper/$1" >/tmp/fsck 2>&1 && mount -t ext4 "/dev/mapper/$1" /tmp/mounted; then
        cat "/tmp/mounted/$3"
        umount /tmp/mounted
    else
        echo "not mounted: $(tail -n 1 /tmp/fsck)"
    fi
    close_volume "$1"
}

volume_options() { # KIND: what --disk is told behind the image
    case $1 in
        luks*) echo "encrypt=luks,key=$KEYS/pass" ;;
        plain512) echo "encrypt=$KEYS/key" ;;
        plain4096) echo "encrypt=$KEYS/key,unit=4096" ;;
        plain4096large) echo "encrypt=$KEYS/key,unit=4096,iv-large-sectors=on" ;;
    esac
}

make_keys() {
    KEYS=/tmp/keys
    mkdir -p "$KEYS"
    (umask 077 && head -c 64 /dev/urandom >"$KEYS/key" && printf 'a passphrase of the test' >"$KEYS/pass")
}

marker_absent() { # NAME IMAGE
    check "$1: what the guest wrote is nowhere in the image as plaintext" \
        "$ICE_CHECK" "text=written by Linux" absent "$2"
}

# All kinds of volume in one guest, a disk each: it mounts and writes; then dm-crypt reads.
scenario_volumes() {
    local kind flags=() letter=a letters=(a b c d e)
    make_keys
    if ! load_crypt_modules; then
        skip "volumes: cryptsetup and minivmm open each other's" "the testbed's kernel has no dm-crypt"
        return
    fi
    for kind in $VOLUMES; do
        make_volume "$kind" "/tmp/$kind.img" >/tmp/made 2>&1
        check "volumes: cryptsetup makes $kind" [ $? -eq 0 ]
        sed 's/^/# /' /tmp/made
        flags+=(--disk "/tmp/$kind.img,id=$kind,$(volume_options "$kind")")
    done
    linux volumes "$KERNEL" 0 volumes --memory 256M "${flags[@]}"
    for kind in $VOLUMES; do
        letter=${letters[0]} letters=("${letters[@]:1}")
        saw "volumes: the guest finds $kind in units of $(volume_sector "$kind") bytes" \
            "^guest: volume vd$letter unit $(volume_sector "$kind") mounted"
        marker_absent "volumes: $kind" "/tmp/$kind.img"
        check "volumes: cryptsetup opens and mounts $kind and finds the guest's file" \
            [ "$(read_volume "$kind" "/tmp/$kind.img" note 2>&1)" = "written by Linux on vd$letter" ]
        rm -f "/tmp/$kind.img"
    done
}

# A LUKS2 volume made by cryptsetup as root disk.
scenario_luks_root() {
    make_keys
    if ! load_crypt_modules; then
        skip "luks-root: a volume made by cryptsetup boots" "the testbed's kernel has no dm-crypt"
        return
    fi
    make_volume luks4096 /tmp/root.img
    linux luks-root "$KERNEL" 0 root --memory 256M --disk "/tmp/root.img,$(volume_options luks4096)"
    saw "luks-root: root mounted from /dev/vda" '^guest: mounted /dev/vda as root: /dev/vda /mnt ext4'
    saw "luks-root: the file reads back after remount" '^guest: after remount the file reads: written by Linux'
    marker_absent luks-root /tmp/root.img
    read_volume luks4096 /tmp/root.img written-by-guest >/tmp/read 2>&1
    check "luks-root: cryptsetup mounts it and finds the guest's file" grep -q '^written by Linux' /tmp/read
    echo "another passphrase" >"$KEYS/pass"
    linux luks-wrong "$KERNEL" 2 root --memory 256M --disk "/tmp/root.img,$(volume_options luks4096)"
    rm -f /tmp/root.img
}

# The bare-metal guest's tests, on a complete KVM with a real local APIC. Only by name: with two VMs at once the
# emulated processors were seen to lock up (both in the testbed's own kernel, with interrupts just enabled).
scenario_ice() {
    tests/e2e/ice_kvm.sh >/tmp/ice.log 2>&1
    check "ice: the suite of the crypto engine passes in the testbed too" [ $? -eq 0 ]
    grep -E '^not ok' /tmp/ice.log | sed 's/^/# /'
    tail -n 1 /tmp/ice.log
}
