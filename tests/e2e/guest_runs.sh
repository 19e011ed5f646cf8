# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Runs of the bare-metal test guest, the same over any /dev/kvm. Needs lib.sh.

# run_guest WORK LABEL KERNEL DISK-OPTIONS FLAG...: the guest's TAP lines with the label, then two of our own.
run_guest() {
    local work=$1 label=$2 kernel=$3 options=$4 cmdline="serial=MARKED" status p f
    shift 4
    case " $* " in *" --cpus 2 "*) cmdline="$cmdline cpus=2" ;; esac
    make_marked_image "$work/disk.img"
    timeout 300 "$MINIVMM" --kernel "$kernel" --disk "$work/disk.img,serial=MARKED,queues=2$options" --debug-exit \
        --console stdio --cmdline "$cmdline" "$@" </dev/null >"$work/out" 2>"$work/err"
    status=$?
    sed -n -e "s/^\(\(not \)\?ok\) [0-9]* - /\1 - $label: /p" -e '/^#/p' -e '/^Bail/p' "$work/out"
    sed 's/^/# minivmm: /' "$work/err" | tail -n 30
    p=$(grep -c '^ok' "$work/out")
    f=$(grep -c '^not ok' "$work/out")
    passed=$((passed + p)) failed=$((failed + f))
    check "$label: all tests ran and minivmm ended with 0 (it was $status)" [ "$status" -eq 0 ]
    check "$label: what the guest wrote is in the image" has_guest_mark "$work/disk.img"
}

run_guest_matrix() { # WORK
    run_guest "$1" "guest ELF64" build/guest/guest.elf ""
    run_guest "$1" "guest PVH, 2 CPUs" build/guest/guest-pvh.elf "" --cpus 2
    run_guest "$1" "guest, engine=sync" build/guest/guest.elf ",engine=sync"
    run_guest "$1" "guest, memory over the hole" build/guest/guest.elf "" --memory 3300M
}
