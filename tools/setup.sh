#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what minivmm needs on Debian bookworm, and only what is missing.
#
# usage: sh tools/setup.sh [build|boot|check|bench]... [--then COMMAND ARG...]
#
#   build  compiler and libraries for ./minivmm
#   boot   build, and what `make boot` runs: e2fsprogs, QEMU for the testbed, Debian's kernels (unpacked into
#          .cache/kernels, never installed)
#   check  boot, and what `make check` runs: libcheck, clang, acpica-tools ...
#   bench  check, and the peers that `make bench` measures against
#
# --then runs COMMAND afterwards. Without a purpose it is taken from COMMAND: `make boot` means boot, and so on.
# With everything there, this is fast, quiet and needs neither network nor root.
set -eu
cd "$(dirname "$0")/.."

BUILD="make gcc libc6-dev liburing-dev libinih-dev libseccomp-dev libssl-dev libcryptsetup-dev libjson-c-dev"
BOOT="bash binutils qemu-system-x86 busybox-static cpio kmod e2fsprogs lz4 xz-utils zstd nettle-dev"
CHECK="check libsubunit-dev acpica-tools clang clang-tidy clang-format libclang-rt-14-dev mandoc qemu-utils cryptsetup-bin git strace util-linux python3 systemd"
BENCH="openssl"

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "packages are missing ($missing) and installing them needs root: run as root, or install sudo"
    fi
}

# The packages of its arguments that dpkg doesn't report as installed, in one line.
missing_of() {
    for package in "$@"; do
        # shellcheck disable=SC2016 # ${Status} is dpkg-query's, not the shell's
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) printf '%s ' "$package" ;;
        esac
    done
}

install_packages() {
    # shellcheck disable=SC2086 # lists of names
    missing=$(missing_of $1)
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 || die "needs $missing; apt-get isn't here, so install their like by hand"
    say "installing: $missing"
    as_root apt-get update -q || die "apt-get update failed: check the network and /etc/apt/sources.list"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing ||
        die "apt-get could not install: $missing(see its message above)"
}

packages='' kernels='' purposes=''
add_purpose() {
    case $1 in
        build) packages="$packages $BUILD" ;;
        boot)
            packages="$packages $BUILD $BOOT"
            kernels=yes
            ;;
        check)
            packages="$packages $BUILD $BOOT $CHECK"
            kernels=yes
            ;;
        bench)
            packages="$packages $BUILD $BOOT $CHECK $BENCH"
            kernels=yes
            ;;
        *) die "unknown purpose '$1': build, boot, check or bench" ;;
    esac
    purposes="$purposes $1"
}

while [ $# -gt 0 ]; do
    if [ "$1" = --then ]; then
        shift
        [ $# -gt 0 ] || die "--then needs a command"
        break
    fi
    add_purpose "$1"
    shift
done
if [ -z "$purposes" ]; then
    purpose=build
    for word in "$@"; do
        case $word in boot | check | bench) purpose=$word ;; esac
    done
    add_purpose "$purpose"
fi

install_packages "$packages"
if [ -n "$kernels" ]; then
    tools/kernels.sh cloud generic
fi
[ $# -eq 0 ] || exec "$@"
