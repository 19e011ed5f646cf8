#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The README's promise on a fresh Debian: a minimal bookworm with none of our packages, the committed tree in it,
# and one command. Needs root, debootstrap and a Debian mirror (the one of this machine's apt). Prints TAP.
#
# usage: tests/e2e/fresh.sh [COMMAND ARG...]     (default: make minivmm)
#
# What runs there is `sh tools/setup.sh --then COMMAND ARG...`, and then `./minivmm --version`. The minimal system
# is kept in .cache/fresh/base; each run works in a copy of it, so that it starts from nothing every time.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
PATH=$PATH:/usr/sbin:/sbin
SUITE=bookworm
CACHE=$PWD/.cache/fresh
BASE=$CACHE/base
ROOT=$CACHE/root
[ $# -gt 0 ] || set -- make minivmm

die() {
    echo "not ok - fresh: $*"
    exit 1
}

# The mirror of this machine's apt for the suite, from either format of its sources.
mirror() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(CREATED_BY)' 2>/dev/null |
        awk -v suite="$SUITE" '$2 == suite && $3 == "Packages" { print $1; exit }'
}

make_base() {
    local from
    from=$(mirror)
    [ -n "$from" ] || die "apt's sources name no mirror of $SUITE: run apt-get update, and see /etc/apt"
    echo "# debootstrap: a minimal $SUITE"
    rm -rf "$BASE.new"
    mkdir -p "$CACHE"
    debootstrap --variant=minbase "$SUITE" "$BASE.new" "$from" >"$CACHE/debootstrap.log" 2>&1 ||
        die "debootstrap failed: see .cache/fresh/debootstrap.log"
    mv "$BASE.new" "$BASE"
}

# What lets apt reach the mirror from inside, whatever this machine uses for it: name server, sources, proxy,
# certificates.
copy_network() {
    local file
    cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -s "$file" ] || install -D -m 644 "$file" "$ROOT$file"
    done
    [ ! -s /etc/apt/sources.list.d/debian.sources ] || [ -s /etc/apt/sources.list ] || rm -f "$ROOT/etc/apt/sources.list"
    apt-config dump | grep -iE '^Acquire::https?::(proxy|cainfo)' >"$ROOT/etc/apt/apt.conf.d/99host"
    mkdir -p "$ROOT/etc/ssl/certs"
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
}

# In a mount namespace of its own, so that nothing stays mounted.
run_inside() { # SHELL TEXT
    unshare --mount --pid --fork --kill-child sh -c '
        mount --make-rprivate / && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" &&
        exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive sh -c "$2"' sh "$ROOT" "$1" </dev/null
}

[ "$(id -u)" -eq 0 ] || die "needs root, for chroot"
command -v debootstrap >/dev/null || die "needs debootstrap: apt-get install debootstrap"
[ -d "$BASE" ] || make_base
rm -rf "$ROOT"
cp -a --reflink=auto "$BASE" "$ROOT" || die "no copy of the minimal system"
trap 'rm -rf "$ROOT"' EXIT
copy_network
mkdir -p "$ROOT/src"
git archive HEAD | tar -x -C "$ROOT/src" || die "git archive failed"
printf -v command_line '%q ' "$@"
if run_inside "cd /src && sh tools/setup.sh --then $command_line" >"$CACHE/run.log" 2>&1; then
    echo "ok - fresh $SUITE: sh tools/setup.sh --then $*"
else
    tail -25 "$CACHE/run.log" | sed 's/^/# /'
    die "sh tools/setup.sh --then $*: see .cache/fresh/run.log"
fi
if version=$(run_inside "cd /src && ./minivmm --version"); then
    echo "ok - fresh $SUITE: $version"
else
    die "./minivmm --version: $version"
fi
