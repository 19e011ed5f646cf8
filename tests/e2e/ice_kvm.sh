#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks with the inline crypto engine over this host's own /dev/kvm: the bare-metal test guest writes, and the
# host looks at the images with nettle (ice_check), which minivmm does not use. Runs in the testbed too. Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    skip "crypto engine over /dev/kvm" "there is no /dev/kvm that this user can open"
    finish
    exit
fi
if [ -n "${IN_TESTBED:-}" ]; then
    WORK=$(mktemp -d)
else
    make -s guest minivmm ice-check || exit 1
    mkdir -p build
    WORK=$(mktemp -d -p build)
fi
MAP=$WORK/ice.slots
export MINIVMM_RUN_DIR=$WORK # names of VMs are ours alone
GUEST=build/guest/guest.elf
ICE_CHECK=build/interop/ice_check
MARK="minivmm: plaintext marker of ICE"
ALGS=(aes-xts bitlocker-aes-cbc aes-ecb essiv-aes-cbc) # by their numbers in docs/ice-spec.md, 6
started=()
cleanup() {
    local left
    left=$(jobs -pr)
    # shellcheck disable=SC2086 # a list
    [ -z "$left" ] || kill $left
    rm -rf "$WORK"
}
trap cleanup EXIT

# vm NAME MODE FLAG...: runs the guest in the foreground; its status. Output in $WORK/NAME.out and .err.
vm() {
    local name=$1 mode=$2
    shift 2
    "$MINIVMM" --kernel "$GUEST" --debug-exit --console stdio --timeout 120 --ice-map "$MAP" --name "$name" \
        --cmdline "ice=$mode" "$@" >"$WORK/$name.out" 2>"$WORK/$name.err"
}

# The guest's own results, with a label; its comments on the written ranges are for us, not for people.
relay() { # NAME
    local p f
    sed -n -e "s/^\(\(not \)\?ok\) [0-9]* - /\1 - $1: /p" -e '/^# written/d' -e '/^#/p' -e '/^Bail/p' "$WORK/$1.out"
    p=$(grep -c '^ok' "$WORK/$1.out")
    f=$(grep -c '^not ok' "$WORK/$1.out")
    passed=$((passed + p)) failed=$((failed + f))
    [ "$f" -eq 0 ] || sed 's/^/# minivmm: /' "$WORK/$1.err" | tail -n 20
}

blank() { # IMAGE...
    local image
    for image in "$@"; do
        rm -f "$image"
        truncate -s 2M "$image"
    done
}

make_key() { # FILE BYTES
    (umask 077 && head -c "$2" /dev/urandom >"$1")
}

# one_range IMAGE-PREFIX DUN-OFFSET KEY-OFFSET FIELDS...: what the fields of a "# written:" line say of one range,
# but with the DUN or the key moved.
one_range() {
    local prefix=$1 more_dun=$2 more_key=$3 field
    local disk=0 offset=0 length=0 alg=0 unit=0 key_seed=0 key_bytes=0 dun=0 seed=0
    shift 3
    for field in "$@"; do
        case $field in
            disk=*) disk=${field#*=} ;;
            offset=*) offset=${field#*=} ;;
            length=*) length=${field#*=} ;;
            alg=*) alg=${field#*=} ;;
            unit=*) unit=${field#*=} ;;
            key-seed=*) key_seed=${field#*=} ;;
            key-bytes=*) key_bytes=${field#*=} ;;
            dun=*) dun=${field#*=} ;;
            seed=*) seed=${field#*=} ;;
        esac
    done
    "$ICE_CHECK" "alg=${ALGS[$alg]}" "unit=$unit" "key-seed=$((key_seed + more_key))" "key-bytes=$key_bytes" \
        "dun=$((dun + more_dun))" "seed=$seed" "offset=$offset" "length=$length" pattern "$prefix$disk.img"
}

# How many ranges of a run decrypt with the DUN and the key moved by so much.
count_ranges() { # NAME DUN-OFFSET KEY-OFFSET
    local n=0 fields
    while read -r -a fields; do
        one_range "$WORK/$1-" "$2" "$3" "${fields[@]}" && n=$((n + 1))
    done < <(sed -n 's/^# written: //p' "$WORK/$1.out")
    echo "$n"
}

absent() { # NAME IMAGE...
    local name=$1 image
    shift
    for image in "$@"; do
        check "$name: the plaintext marker is nowhere in $(basename "$image")" "$ICE_CHECK" "text=$MARK" absent "$image"
    done
}

# Two disks with two queues each and a third with a key of the operator's.
engine() {
    local status ranges right
    make_key "$WORK/operator.key" 64
    blank "$WORK"/engine-{0,1,2}.img
    vm engine "check operator=40" --ice-slots 8@20 --disk "$WORK/engine-0.img,queues=2" \
        --disk "$WORK/engine-1.img,queues=2,ice=required" --disk "$WORK/engine-2.img,id=operator" \
        --ice-key "slot=40,disk=operator,alg=aes-xts,unit=4096,file=$WORK/operator.key" </dev/null
    status=$?
    relay engine
    check "engine: all tests ran and minivmm ended with 0 (it was $status)" [ "$status" -eq 0 ]
    check "engine: the window is the one asked for" grep -q '^# window: first=20 slots=8' "$WORK/engine.out"
    ranges=$(grep -c '^# written' "$WORK/engine.out")
    right=$(count_ranges engine 0 0)
    check "engine: nettle decrypts all of the guest's $ranges ranges ($right)" [ "$ranges" -ge 56 ] && [ "$right" -eq "$ranges" ]
    right=$(count_ranges engine 1 0)
    check "engine: none of them with the next data unit's number ($right)" [ "$right" -eq 0 ]
    right=$(count_ranges engine 0 1)
    check "engine: none of them with another key ($right)" [ "$right" -eq 0 ]
    absent engine "$WORK"/engine-{0,1,2}.img
    check "engine: no log line tells a key's bytes" not_in "$(od -An -v -tx1 "$WORK/operator.key" | tr -d ' \n')" "$WORK/engine.err"
}

not_in() { ! grep -qiF -- "$1" "$2"; } # TEXT FILE

wait_for() { # FILE REGEX
    for _ in $(seq 200); do
        grep -Eq "$2" "$1" 2>/dev/null && return 0
        sleep 0.1
    done
    return 1
}

# hold NAME: a VM that keeps a key in its first slot until a byte comes down $WORK/NAME.in.
hold() {
    local name=$1
    mkfifo "$WORK/$name.in"
    blank "$WORK/$name-0.img" "$WORK/$name-1.img"
    # Opened for both, or the start would wait for the other end.
    vm_hold "$name" <>"$WORK/$name.in" &
    started+=($!)
    wait_for "$WORK/$name.out" '^# holding' || not_ok "$name: holds its key"
}
vm_hold() {
    exec "$MINIVMM" --kernel "$GUEST" --debug-exit --console stdio --timeout 120 --ice-map "$MAP" --name "$1" \
        --cmdline "ice=hold" --ice-slots 4 --disk "$WORK/$1-0.img,queues=2" --disk "$WORK/$1-1.img,queues=2" \
        >"$WORK/$1.out" 2>"$WORK/$1.err"
}

window_of() { # NAME: "FIRST SLOTS" as its guest was told
    sed -n 's/^# \(window\|holding\): first=\([0-9]*\) slots=\([0-9]*\).*/\2 \3/p' "$WORK/$1.out"
}

in_map() { "$MINIVMM" slots --ice-map "$MAP" >"$WORK/map" && grep -qw -- "$1" "$WORK/map"; } # NAME
not_in_map() { "$MINIVMM" slots --ice-map "$MAP" >"$WORK/map" && ! grep -qw -- "$1" "$WORK/map"; }
disjoint() { [ $(($1 + $2)) -le "$3" ] || [ $(($3 + $4)) -le "$1" ]; } # FIRST SLOTS FIRST SLOTS

# Two VMs started apart; then one is killed.
two_vms() {
    local first_a slots_a first_b slots_b status
    hold alice
    check "two VMs: the map names the first" in_map alice
    blank "$WORK"/bob-{0,1}.img
    vm bob neighbour --ice-slots 4 --disk "$WORK/bob-0.img,queues=2" --disk "$WORK/bob-1.img,queues=2" </dev/null
    status=$?
    relay bob
    check "two VMs: the second was refused all slots but its own (status $status)" [ "$status" -eq 0 ]
    read -r first_a slots_a <<<"$(window_of alice)"
    read -r first_b slots_b <<<"$(window_of bob)"
    check "two VMs: windows $first_a+$slots_a and $first_b+$slots_b are disjoint" \
        disjoint "$first_a" "$slots_a" "$first_b" "$slots_b"
    vm carol neighbour --ice-slots "4@$first_a" --disk "$WORK/bob-0.img" </dev/null
    check "two VMs: a window that overlaps is refused" [ $? -ne 0 ]
    check "two VMs: the refusal names the holder" grep -q alice "$WORK/carol.err"
    echo >"$WORK/alice.in"
    wait "${started[0]}"
    check "two VMs: the first's key and data are untouched" [ $? -eq 0 ]
    relay alice
    check "two VMs: the map is empty when both are gone" not_in_map alice
    killed
}

killed() {
    local first slots status
    hold dave
    read -r first slots <<<"$(window_of dave)"
    check "kill -9: the map names the VM before" in_map dave
    kill -9 "${started[1]}"
    wait "${started[1]}" 2>/dev/null
    check "kill -9: its window is free at once" not_in_map dave
    blank "$WORK"/erin-{0,1}.img
    vm erin neighbour --ice-slots "$slots@$first" --disk "$WORK/erin-0.img,queues=2" --disk "$WORK/erin-1.img,queues=2" </dev/null
    status=$?
    check "kill -9: another VM gets the very same window (status $status)" [ "$status" -eq 0 ]
    absent "kill -9" "$WORK/dave-0.img"
}

# transparent NAME KEY-BYTES STRIDE OPTIONS: a guest without a driver for the engine, and dm-crypt's rules for IVs.
transparent() {
    local name=$1 bytes=$2 stride=$3 options=$4 unit=512 image=$WORK/$1-0.img status at crypt dun wrong=0
    case $options in *unit=4096*) unit=4096 ;; esac
    make_key "$WORK/$name.key" "$bytes"
    crypt=("key-file=$WORK/$name.key" "unit=$unit" "stride=$stride")
    blank "$WORK/plain.img"
    printf 'minivmm: written by the host' | dd of="$WORK/plain.img" bs=512 seek=104 conv=notrunc status=none
    "$ICE_CHECK" "${crypt[@]}" encrypt "$WORK/plain.img" "$image" || not_ok "$name: ice_check encrypts"
    vm "$name" "transparent unit=$unit" --disk "$image,queues=2,encrypt=$WORK/$name.key$options" </dev/null
    status=$?
    relay "$name"
    check "$name: minivmm ended with 0 (it was $status)" [ "$status" -eq 0 ]
    for at in "$((1024 * 512)) 4096 41" "$((2048 * 512)) 65536 42"; do
        # shellcheck disable=SC2086 # offset, length, seed
        set -- $at
        dun=$(($1 / unit)) && dun=$((dun * stride))
        check "$name: nettle decrypts what the guest wrote at byte $1" "$ICE_CHECK" "${crypt[@]}" \
            "dun=$dun" "offset=$1" "length=$2" "seed=$3" pattern "$image"
        "$ICE_CHECK" "${crypt[@]}" "dun=$((dun + 1))" "offset=$1" "length=$2" "seed=$3" pattern "$image" &&
            wrong=$((wrong + 1))
        "$ICE_CHECK" "key-file=$WORK/wrong.key" "unit=$unit" "stride=$stride" "dun=$dun" "offset=$1" \
            "length=$2" "seed=$3" pattern "$image" && wrong=$((wrong + 1))
    done
    check "$name: not with another IV or key" [ "$wrong" -eq 0 ]
    absent "$name" "$image"
    check "$name: the host's plaintext is nowhere either" "$ICE_CHECK" "text=minivmm: written by the host" absent "$image"
}

# The whole suite of the plain guest, which knows nothing of encryption, on a disk that has it.
stock_guest() {
    local status image=$WORK/stock.img
    make_marked_image "$WORK/plain.img"
    "$ICE_CHECK" "key-file=$WORK/wrong.key" encrypt "$WORK/plain.img" "$image"
    "$MINIVMM" --kernel "$GUEST" --debug-exit --console stdio --timeout 120 --ice-map "$MAP" --name stock --cmdline serial=MARKED \
        --disk "$image,serial=MARKED,queues=2,encrypt=$WORK/wrong.key" </dev/null >"$WORK/stock.out" 2>"$WORK/stock.err"
    status=$?
    relay stock
    check "stock guest: all tests pass on a transparent disk (status $status)" [ "$status" -eq 0 ]
    check "stock guest: the image is not what the guest saw" not_in "minivmm: written by" "$image"
    "$ICE_CHECK" "key-file=$WORK/wrong.key" decrypt "$image" "$WORK/plain.img"
    check "stock guest: decrypted, the image holds the guest's mark" has_guest_mark "$WORK/plain.img"
}

refused_keys() {
    blank "$WORK/refused.img" "$WORK/zeroes.img"
    make_key "$WORK/open.key" 64
    chmod 644 "$WORK/open.key"
    vm open "transparent" --disk "$WORK/refused.img,encrypt=$WORK/open.key" </dev/null
    check "keys: a file that others can read is refused" [ $? -eq 2 ]
    check "keys: the refusal says how to mend it" grep -q 'chmod 600' "$WORK/open.err"
    make_key "$WORK/short.key" 63
    vm short "transparent" --disk "$WORK/refused.img,encrypt=$WORK/short.key" </dev/null
    check "keys: a key of 63 bytes is refused" [ $? -eq 2 ]
    check "keys: a refused start left the image as it was" cmp -s "$WORK/refused.img" "$WORK/zeroes.img"
}

make_key "$WORK/wrong.key" 64
engine
two_vms
transparent plain512 64 1 ""
transparent plain4096 64 8 ",unit=4096"
transparent plain4096-large 64 1 ",unit=4096,iv-large-sectors=on"
transparent plain512-128bit 32 1 ",engine=sync"
stock_guest
refused_keys
finish
