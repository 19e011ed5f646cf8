#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The crypto engine from outside a running VM: slots, key and stats, what can be seen of keys, LUKS2 volumes, and
# starts that are refused. Over this host's own /dev/kvm with the bare-metal test guest. Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    skip "crypto engine on the command line" "there is no /dev/kvm that this user can open"
    finish
    exit
fi
make -s guest minivmm ice-check || exit 1
mkdir -p build
WORK=$(mktemp -d -p build)
MINIVMM_RUN_DIR=$(mktemp -d)
export MINIVMM_RUN_DIR
GUEST=build/guest/guest.elf
ICE_CHECK=build/interop/ice_check
vm=
cleanup() {
    [ -z "$vm" ] || kill -9 "$vm" 2>/dev/null
    rm -rf "$WORK" "$MINIVMM_RUN_DIR"
}
trap cleanup EXIT

blank() { rm -f "$1" && truncate -s 2M "$1"; } # IMAGE
# Keys of printable characters, so that grep can look for them.
make_key() { (umask 077 && head -c 48 /dev/urandom | base64 -w0 >"$1"); } # FILE
says() { grep -qF -- "$1" "$2"; }                                        # TEXT FILE
not_in() { ! grep -qF -- "$1" "$2"; }                                    # TEXT FILE

# VM "box", whose guest keeps a key in its window's first slot; returns when it does so.
start() {
    blank "$WORK/a.img" && blank "$WORK/b.img" && blank "$WORK/c.img"
    rm -f "$WORK/in" && mkfifo "$WORK/in"
    # Opened for both, or the start would wait for the other end.
    (cd "$WORK" && ulimit -c unlimited && exec "$MINIVMM" --kernel "$OLDPWD/$GUEST" --debug-exit --timeout 120 \
        --name box --memory 16M --cmdline ice=hold --ice-slots 4@3 --disk a.img,queues=2 \
        --disk b.img,queues=2 --disk c.img,id=secret,encrypt=key <>in >out 2>err) &
    vm=$!
    for _ in $(seq 200); do
        grep -q '^# holding' "$WORK/out" && return 0
        sleep 0.05
    done
    not_ok "the VM starts" && sed 's/^/# /' "$WORK/err"
    return 1
}

run() { "$MINIVMM" "$@" >"$WORK/said" 2>&1; } # its status; the words in $WORK/said

# refused NAME STATUS TEXT ARGUMENT...: ends with the status and a sentence that has the text
refused() {
    local name=$1 status=$2 text=$3 got
    shift 3
    run "$@"
    got=$?
    if [ "$got" -eq "$status" ] && says "$text" "$WORK/said"; then
        ok "$name"
    else
        not_ok "$name" && sed "s/^/# status $got: /" "$WORK/said"
    fi
}

map_and_keys() {
    run slots
    check "slots: the window, by name and pid" grep -Eq "^3-6 +4 +box +$vm\$" "$WORK/said"
    check "slots: the slot of the encrypted disk" grep -Eq "^0-0 +1 +box +$vm\$" "$WORK/said"
    check "slots: what is free" grep -Eq "^7-63 +57 +- +-\$" "$WORK/said"
    run slots --json
    check "slots --json: the window" says '"name": "box"' "$WORK/said"
    refused "slots: an unknown flag" 2 "'--jsn'" slots --jsn
    refused "a window that overlaps is refused, naming the holder" 2 "VM 'box' (pid $vm, slots 3 to 6)" \
        --kernel "$GUEST" --name other --console none --ice-slots 4@5 --disk "$WORK/c2.img"
    refused "an operator's slot that overlaps too" 2 "--ice-key slot=4:" --kernel "$GUEST" --name other \
        --console none --disk "$WORK/c2.img,id=x" --ice-key "slot=4,disk=x,alg=aes-xts,unit=512,file=$WORK/key"

    run key list --vm box
    check "key list: the operator's slot" says "slot=0 disk=2 by=operator alg=aes-xts bits=256 unit=512" "$WORK/said"
    check "key list: the guest's key" says "slot=3 disk=0 by=guest alg=aes-xts bits=256 unit=4096" "$WORK/said"
    check "key list: an empty slot" says "slot=6 disk=1 by=guest empty" "$WORK/said"
    check "key list: no key" not_in "$(head -c 16 "$WORK/key")" "$WORK/said"
    refused "key set: not in a slot of the guest's" 1 "the guest's own" key set --vm box --slot 3 --file "$WORK/key2"
    refused "key evict: not one of the guest's" 1 "the guest's own" key evict --vm box --slot 3
    refused "key set: not in another's slot" 1 "not this VM's" key set --vm box --slot 60 --file "$WORK/key2"
    refused "key set: not a file that others can read" 2 "chmod 600" key set --vm box --slot 0 --file "$WORK/open"
    refused "key set: not a key of 63 bytes" 1 "takes 32 or 64" key set --vm box --slot 0 --file "$WORK/short"
    refused "key set: not equal halves" 1 "halves" key set --vm box --slot 0 --file "$WORK/equal"
    refused "key set: a file is needed" 2 "--file is missing" key set --vm box --slot 0
    refused "key set: an unknown VM" 1 "no VM named bex" key list --vm bex
    check "key evict" run key evict --vm box --slot 0
    run key list --vm box
    check "key evict: the slot is empty" says "slot=0 disk=2 by=operator empty" "$WORK/said"
    check "key set" run key set --vm box --slot 0 --file "$WORK/key2"
    run key list --vm box
    check "key set: the slot has a key" says "slot=0 disk=2 by=operator alg=aes-xts" "$WORK/said"
    run stats box
    check "stats: the guest's requests" grep -Eq '^slot3.requests=[1-9]' "$WORK/said"
    check "stats: the guest's disk" grep -Eq '^disk0.ice_requests=[1-9]' "$WORK/said"
    run stats box --json
    check "stats --json" grep -Eq '"slot3.bytes": [1-9]' "$WORK/said"
    refused "stats: a name is needed" 2 "minivmm stats NAME" stats
}

# Where the text stands in the memory of a VM's process, as far as anybody can read it: ranges of /proc/PID/maps.
find_in_memory() { # PID TEXT
    local vm=$1 range rest from to
    shift
    while read -r range rest; do
        case $rest in ---* | *"[vvar"* | *"[vsyscall]"*) continue ;; esac
        from=$((16#${range%-*})) to=$((16#${range#*-}))
        dd if="/proc/$vm/mem" iflag=skip_bytes,count_bytes bs=1M skip="$from" count=$((to - from)) 2>/dev/null |
            LC_ALL=C grep -aqF -- "$1" && echo "$range"
    done <"/proc/$vm/maps"
}

# True when all ranges are locked and kept out of dumps: where the kernel has no memfd_secret, root can read the
# arena of keys, but it is the only place.
only_locked() { # PID RANGE...
    local vm=$1 range flags
    shift
    for range in "$@"; do
        flags=$(awk -v r="$range" '$1 == r { on = 1 } on && /^VmFlags/ { print; exit }' "/proc/$vm/smaps")
        [[ $flags == *" lo"* && $flags == *" dd"* ]] || return 1
    done
}

# The VM's two processes: the keeper, which is the one that was started, and its child inside the cell.
nothing_shows_keys() {
    local inside
    inside=$(tr -d ' ' <"/proc/$vm/task/$vm/children")
    check "the VM's process is a child of its keeper" [ -n "$inside" ]
    nothing_shows_keys_in "keeper" "$vm"
    nothing_shows_keys_in "VM" "$inside"
}

nothing_shows_keys_in() { # WHAT PID
    local what=$1 vm=$2 part hits
    tr '\0' '\n' <"/proc/$vm/cmdline" >"$WORK/proc"
    tr '\0' '\n' <"/proc/$vm/environ" >>"$WORK/proc"
    cat "/proc/$vm/maps" "/proc/$vm/status" "$WORK/err" "$WORK/out" >>"$WORK/proc"
    check "$what: memory can be searched: the VM's own disk is named there" [ -n "$(find_in_memory "$vm" c.img)" ]
    for part in "$(head -c 32 "$WORK/key2")" "$(tail -c 32 "$WORK/key2")" "$(head -c 32 "$WORK/key")"; do
        check "$what: no key in cmdline, environ, maps, status, output or log" not_in "$part" "$WORK/proc"
        # shellcheck disable=SC2207 # ranges have no blanks
        hits=($(find_in_memory "$vm" "$part"))
        check "$what: no key in readable memory but in the arena (${#hits[@]} places)" only_locked "$vm" "${hits[@]}"
    done
    check "$what: the key that was replaced is nowhere" [ "${#hits[@]}" -eq 0 ]
    check "$what: core files are off" grep -Eq '^Max core file size +0 +0' "/proc/$vm/limits"
}

no_core() {
    kill -ABRT "$vm"
    { wait "$vm"; } 2>/dev/null
    vm=
    check "a crash leaves no core file" [ -z "$(find "$WORK" -name 'core*')" ]
    run slots
    check "a crash leaves no keyslot behind" not_in box "$WORK/said"
}

# luks SECTOR: a guest reads and writes in the data segment of a volume that cryptsetup made.
luks() {
    local sector=$1 stride=$(($1 / 512)) image=$WORK/luks.img status
    local rule=("key-file=$WORK/key" "unit=$sector" "stride=$stride")
    rm -f "$image" && truncate -s 18M "$image"
    cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --cipher aes-xts-plain64 \
        --sector-size "$sector" --offset 32768 --key-size 512 --volume-key-file "$WORK/key" "$image" "$WORK/pass" \
        >"$WORK/said" 2>&1 || { not_ok "cryptsetup makes a volume" && sed 's/^/# /' "$WORK/said"; }
    blank "$WORK/plain.img"
    printf 'minivmm: written by the host' | dd of="$WORK/plain.img" bs=512 seek=104 conv=notrunc status=none
    "$ICE_CHECK" "${rule[@]}" encrypt "$WORK/plain.img" "$WORK/data.img"
    dd if="$WORK/data.img" of="$image" bs=1M seek=16 conv=notrunc status=none
    run --kernel "$GUEST" --debug-exit --timeout 60 --name luks --cmdline "ice=transparent unit=$sector" \
        --disk "$image,queues=2,encrypt=luks,key=$WORK/pass" </dev/null
    status=$?
    check "LUKS2, sectors of $sector: the guest reads and writes (status $status)" [ "$status" -eq 0 ]
    dd if="$image" of="$WORK/data.img" bs=1M skip=16 status=none
    check "LUKS2, sectors of $sector: nettle decrypts what the guest wrote" "$ICE_CHECK" "${rule[@]}" \
        "dun=1024" "offset=$((1024 * 512))" length=4096 seed=41 pattern "$WORK/data.img"
    refused "LUKS2: the wrong passphrase is refused" 2 "--disk" --kernel "$GUEST" --console none --name luks \
        --disk "$image,encrypt=luks,key=$WORK/key2"
}

# A key by descriptor, and wrapped keys with the host's key-encryption key.
other_ways() {
    local rule=("key-file=$WORK/key" unit=4096 stride=8)
    blank "$WORK/plain.img"
    printf 'minivmm: written by the host' | dd of="$WORK/plain.img" bs=512 seek=104 conv=notrunc status=none
    "$ICE_CHECK" "${rule[@]}" encrypt "$WORK/plain.img" "$WORK/fd.img"
    run --kernel "$GUEST" --debug-exit --timeout 60 --name fd --cmdline "ice=transparent unit=4096" \
        --disk "$WORK/fd.img,queues=2,id=x" --ice-key slot=50,disk=x,alg=aes-xts,unit=4096,fd=9 9<"$WORK/key" </dev/null
    check "a key by descriptor: the guest reads and writes" [ $? -eq 0 ]
    check "a key by descriptor: nettle decrypts what the guest wrote" "$ICE_CHECK" "${rule[@]}" \
        "dun=1024" "offset=$((1024 * 512))" length=4096 seed=41 pattern "$WORK/fd.img"
    blank "$WORK/e.img" && blank "$WORK/f.img"
    run --kernel "$GUEST" --debug-exit --timeout 60 --name kek --cmdline "ice=neighbour" --ice-slots 4 \
        --ice-kek "$WORK/key" --disk "$WORK/e.img,queues=2" --disk "$WORK/f.img,queues=2" </dev/null
    check "a key-encryption key: the guest runs" [ $? -eq 0 ]
}

refusals() {
    local vm_flags=(--kernel "$GUEST" --console none --name refused)
    blank "$WORK/d.img"
    truncate -s $((2 * 1024 * 1024 + 512)) "$WORK/odd.img"
    refused "a unit that does not divide the image" 2 "--disk $WORK/odd.img" "${vm_flags[@]}" \
        --disk "$WORK/odd.img,encrypt=$WORK/key,unit=4096"
    refused "a key file that is missing" 2 "none.key could not be opened" "${vm_flags[@]}" \
        --disk "$WORK/d.img,encrypt=none.key"
    refused "a directory as key file" 2 "is a directory" "${vm_flags[@]}" --disk "$WORK/d.img,encrypt=$WORK"
    refused "a descriptor that is not open" 2 "--ice-key slot=9: descriptor 77" "${vm_flags[@]}" \
        --disk "$WORK/d.img,id=x" --ice-key slot=9,disk=x,alg=aes-xts,unit=512,fd=77
    refused "a short key-encryption key" 2 "--ice-kek: $WORK/kek holds 15 bytes" "${vm_flags[@]}" \
        --disk "$WORK/d.img" --ice-slots 2 --ice-kek "$WORK/kek"
    refused "sizes that don't sum up" 2 "--ice-slots: 4 keyslots" "${vm_flags[@]}" \
        --disk "$WORK/d.img,ice-slots=3" --ice-slots 4
    refused "a window without a disk" 2 "no disk" "${vm_flags[@]}" --ice-slots 4
    refused "not LUKS" 2 "--disk $WORK/d.img,encrypt" "${vm_flags[@]}" \
        --disk "$WORK/d.img,encrypt=luks,key=$WORK/pass"
    refused "an image in use" 2 "--disk" "${vm_flags[@]}" --disk "$WORK/c.img,encrypt=$WORK/key"
}

make_key "$WORK/key" && make_key "$WORK/key2" && make_key "$WORK/open" && chmod 644 "$WORK/open"
blank "$WORK/c2.img"
(umask 077
    head -c 63 /dev/urandom >"$WORK/short"
    head -c 15 /dev/urandom >"$WORK/kek"
    printf 'zyxwvutsrqponmlkzyxwvutsrqponmlk%.0s' 1 2 >"$WORK/equal"
    printf 'open sesame' >"$WORK/pass")
start || { finish; exit 1; }
map_and_keys
nothing_shows_keys
other_ways
refusals
no_core
luks 512
luks 4096
finish
