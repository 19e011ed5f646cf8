#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM's process that was taken over, in its closed cell: what it tries, and what refuses it, a TAP line each.
# build/gcc/hostile (tests/hostile) is minivmm with the intruder's code linked in. As root it runs twice, the
# second time as an unprivileged user with a KVM device node of the test's own.
#
# usage: tests/e2e/hostile.sh
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh

make -s CC=gcc build/gcc/hostile || exit 1
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    echo "# SKIPPED 1 the hostile VM process: /dev/kvm is missing or not permitted here"
    exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 711 "$dir"
install -m 755 build/gcc/hostile "$dir/hostile"
status=0

run() { # FOLDER KVM-DEVICE WHAT PREFIX [COMMAND...]
    local folder=$1 kvm=$2 what=$3 prefix=$4
    shift 4
    "$@" "$dir/hostile" "$folder" "$kvm" "$what" | sed -E "s/^(ok|not ok) - /&$prefix/" || status=1
}

mkdir -m 700 "$dir/own"
run "$dir/own" /dev/kvm attempts ""
run "$dir/own" /dev/kvm calls ""
if [ "$(id -u)" -eq 0 ]; then
    mkdir -m 700 "$dir/other"
    mknod -m 600 "$dir/other/kvm" c 10 232 && chown -R 65534:65534 "$dir/other"
    if setpriv --reuid 65534 --regid 65534 --clear-groups test -w "$dir/other/kvm"; then
        run "$dir/other" "$dir/other/kvm" attempts "unprivileged: " setpriv --reuid 65534 --regid 65534 --clear-groups
    else
        skip "unprivileged: all attempts" "device nodes can't be used in $dir"
    fi
fi
exit $status
