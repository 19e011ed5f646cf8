#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches Debian's own kernel packages and unpacks them (no installation) into .cache/kernels.
#
# usage: tools/kernels.sh [cloud|generic]...
#
#   cloud    linux-image-cloud-amd64: the stock kernel that the guests boot
#   generic  linux-image-amd64: the kernel of the testbed (it has KVM and 9p)
#
# Each ends as .cache/kernels/KIND/{vmlinuz,config,lib/modules/VERSION,version}.
set -eu
cd "$(dirname "$0")/.."
CACHE=$PWD/.cache/kernels

die() {
    echo "kernels: $*" >&2
    exit 1
}

apt_get() {
    if [ "$(id -u)" -eq 0 ]; then
        # apt's download user may not write into a checkout; it has no more rights than we have.
        apt-get -o APT::Sandbox::User=root "$@"
    else
        apt-get "$@"
    fi
}

# The versioned package behind a meta package: linux-image-cloud-amd64 -> linux-image-6.1.0-NN-cloud-amd64.
resolve() {
    apt-cache depends --important "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

update_lists() {
    echo "kernels: no package lists yet, so: apt-get update"
    if [ "$(id -u)" -eq 0 ]; then apt-get update -q; else sudo apt-get update -q; fi ||
        die "apt-get update failed: check the network and /etc/apt/sources.list"
}

unpack() { # KIND META
    kind=$1 meta=$2
    [ ! -e "$CACHE/$kind/version" ] || return 0
    package=$(resolve "$meta")
    [ -n "$package" ] || update_lists
    package=$(resolve "$meta")
    [ -n "$package" ] || die "apt knows no package $meta: is this Debian bookworm on amd64?"
    work=$CACHE/$kind.tmp
    rm -rf "$work" "${CACHE:?}/$kind"
    mkdir -p "$work/deb" "$work/tree"
    echo "kernels: downloading $package"
    (cd "$work/deb" && apt_get -q download "$package") || die "could not download $package (see apt's message above)"
    echo "kernels: unpacking $package"
    dpkg -x "$work"/deb/*.deb "$work/tree" || die "could not unpack $package"
    version=$(basename "$work"/tree/lib/modules/*)
    mv "$work/tree/boot/vmlinuz-$version" "$work/vmlinuz"
    mv "$work/tree/boot/config-$version" "$work/config"
    mv "$work/tree/lib" "$work/lib"
    rm -rf "$work/deb" "$work/tree"
    PATH=$PATH:/usr/sbin:/sbin depmod -b "$work" "$version" || die "depmod failed for $version"
    echo "$version" >"$work/version"
    mv "$work" "$CACHE/$kind"
    echo "kernels: $version is in .cache/kernels/$kind"
}

[ $# -gt 0 ] || set -- cloud generic
mkdir -p "$CACHE"
for name in "$@"; do
    case $name in
        cloud) unpack cloud linux-image-cloud-amd64 ;;
        generic) unpack generic linux-image-amd64 ;;
        *) die "unknown kernel '$name': cloud or generic" ;;
    esac
done
