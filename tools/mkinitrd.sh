#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds an initial RAM file system: a static busybox, an init script, and modules of an unpacked kernel with
# all that they depend on, in load order in /modules/order.
#
# usage: tools/mkinitrd.sh KIND INIT OUT MODULE...
#        KIND: a kernel in .cache/kernels (cloud, generic); INIT: the script that becomes /init
#
# It stays uncompressed: guests here are slow at unpacking, and hosts map it without reading it.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

[ $# -ge 3 ] || {
    echo "usage: tools/mkinitrd.sh KIND INIT OUT MODULE..." >&2
    exit 2
}
kernel=.cache/kernels/$1 init=$2 out=$3
shift 3
version=$(cat "$kernel/version") || {
    echo "mkinitrd: no kernel in $kernel: run tools/setup.sh boot" >&2
    exit 1
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage"/{bin,dev,proc,sys,tmp,run,mnt,modules}
install -m 755 "$(command -v busybox)" "$stage/bin/busybox"
ln -s busybox "$stage/bin/sh"
install -m 755 "$init" "$stage/init"
for module in "$@"; do
    # Lists what modprobe would do: "insmod PATH ARGS" in order, or "builtin NAME".
    modprobe -d "$kernel" -S "$version" --show-depends "$module" ||
        { echo "mkinitrd: $version has no module $module" >&2; exit 1; }
done | while read -r verb path _; do
    [ "$verb" = insmod ] || continue
    name=$(basename "$path")
    [ -e "$stage/modules/$name" ] && continue
    cp "$path" "$stage/modules/$name"
    echo "$name" >>"$stage/modules/order"
done
mkdir -p "$(dirname "$out")"
(cd "$stage" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --reproducible --quiet) >"$out.tmp"
mv "$out.tmp" "$out"
