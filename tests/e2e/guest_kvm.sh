#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The bare-metal test guest over this host's own /dev/kvm.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    skip "test guest over /dev/kvm" "there is no /dev/kvm that this user can open"
    finish
    exit
fi
make -s guest minivmm || exit 1
# Under build/, not /tmp: direct I/O needs a file system that has it.
mkdir -p build
WORK=$(mktemp -d -p build)
trap 'rm -rf "$WORK"' EXIT
. tests/e2e/guest_runs.sh
run_guest_matrix "$WORK"
run_guest "$WORK" "guest, direct=on" build/guest/guest.elf ",direct=on"
finish
