#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The release build from clean, what make install puts where, and how the installed binary is hardened. Works on
# a copy of the tracked files, so that nothing is found only because it lies about here. Prints TAP.
#
# usage: tests/e2e/install.sh
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
SIZE_MOST=$((300 * 1024))

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
TREE=$WORK/tree
DEST=$WORK/dest
BIN=$DEST/usr/bin/minivmm
mkdir "$TREE"
git ls-files -z | xargs -0 cp --parents -t "$TREE" || exit 2

quiet_build() { # release build; nothing but its own progress lines may be said
    local status began=$SECONDS
    make -C "$TREE" --no-print-directory -j2 >"$WORK/build" 2>&1
    status=$?
    echo "# the release build took $((SECONDS - began)) s"
    grep -vE '^  (CC|AR|LINK|HOST|GEN) ' "$WORK/build" | head -20 | sed 's/^/# /'
    [ "$status" -eq 0 ] && ! grep -qvE '^  (CC|AR|LINK|HOST|GEN) ' "$WORK/build"
}

is_mode() { [ "$(stat -c %a "$2")" = "$1" ]; } # MODE FILE

# Everything that make install put there, so that nothing unexpected comes along.
installed_files() { (cd "$DEST" && find . -type f | LC_ALL=C sort); }

same_files() {
    diff <(printf '%s\n' ./usr/bin/minivmm{,-fleet} ./usr/lib/systemd/system/minivmm{.service,-fleet@.service} \
        ./usr/share/doc/minivmm/{README.md,fleet.md,security.md,examples/fleet.conf} ./usr/share/man/man1/minivmm.1 |
        LC_ALL=C sort) <(installed_files)
}

# Copies of the units that name the program where it lies now, for nothing is installed into this system.
place_units() {
    mkdir "$WORK/units" && for unit in minivmm.service minivmm-fleet@.service; do
        sed "s,/usr/bin/,$DEST/usr/bin/," "$DEST/usr/lib/systemd/system/$unit" >"$WORK/units/$unit" || return
    done
}

unit_is_clean() { # UNIT: systemd has nothing to say about it
    local said
    said=$(systemd-analyze verify "$WORK/units/$1" 2>&1) && [ -z "$said" ] && return
    printf '%s\n' "$said" | sed 's/^/# /'
    return 1
}

exposure_is_low() { # UNIT: at most 3.0
    local said
    said=$(systemd-analyze security --offline=true --threshold=30 --no-pager "$WORK/units/$1" 2>&1)
    local status=$?
    printf '%s\n' "$said" | tail -1 | sed 's/^/# /'
    return $status
}

# The units allow what a VM's cell needs: calls that the filter knows by name, and none of them taken away again.
filter_allows() { # UNIT
    local lines call
    lines=$(grep '^SystemCallFilter=' "$WORK/units/$1")
    for call in mount umount2 pivot_root seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret; do
        grep -v '=~' <<<"$lines" | grep -qw "$call" || { echo "# $call"; return 1; }
    done
    ! grep '=~' <<<"$lines" | grep -qwE 'unshare|memfd_create|io_uring_setup|@process|@mount|@sandbox|@aio'
}

elf_says() { readelf -W "$1" "$BIN" | grep -E -- "$2" >/dev/null; } # OPTION REGEX

# In our own objects: the libraries that are linked in bring the symbol along as well.
is_protected() { # SYMBOL: at least 20 objects call it
    [ "$(find "$TREE/build/gcc" -name '*.o' -exec sh -c 'nm "$1" | grep -q " U $0"' "$1" {} \; -print | wc -l)" -ge 20 ]
}

imports() { readelf -W --dyn-syms "$BIN" | grep -E "UND .*$1" >/dev/null; } # REGEX

no_writable_code() { ! readelf -lW "$BIN" | grep -E ' (LOAD|GNU_STACK) ' | grep ' RWE ' >/dev/null; }

only_libc() { ! readelf -dW "$BIN" | grep NEEDED | grep -qvE '\[(libc\.so\.6|ld-linux-x86-64\.so\.2)\]'; }

small_enough() {
    local bytes
    bytes=$(stat -c %s "$BIN")
    echo "# $bytes bytes, at most $SIZE_MOST"
    [ "$bytes" -le "$SIZE_MOST" ]
}

is_compile_commands() {
    make -C "$TREE" -s compile_commands.json && python3 - "$TREE" <<'PY'
import json, os, shlex, sys
tree = sys.argv[1]
entries = json.load(open(tree + "/compile_commands.json"))
files = {e["file"] for e in entries}
assert "vmm/main.c" in files and len(files) == len(entries) >= 40, len(entries)
for e in entries:
    assert os.path.exists(os.path.join(e["directory"], e["file"])), e["file"]
    words = shlex.split(e["command"])
    assert words[-1] == e["file"] and any(w.startswith('-DMINIVMM_VERSION="') for w in words), e["command"]
PY
}

# Its first command line, as a tool would run it.
compile_command_works() {
    local line
    line=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[0]["command"])' "$TREE/compile_commands.json") &&
        (cd "$TREE" && sh -c "$line -o /dev/null")
}

check "the release build from clean says nothing" quiet_build
check "make install with DESTDIR and PREFIX" \
    make -C "$TREE" -s install DESTDIR="$DEST" PREFIX=/usr
check "it installs program, documentation and units, and nothing else" same_files
check "the units name the installed program" \
    sh -c 'grep -h "^Exec" "$0"/* | grep -vc "=/usr/bin/minivmm " | grep -qx 0' "$DEST/usr/lib/systemd/system"
check "the units may be read by all" is_mode 644 "$DEST/usr/lib/systemd/system/minivmm-fleet@.service"
place_units
for unit in minivmm.service minivmm-fleet@.service; do
    check "$unit is clean to systemd" unit_is_clean "$unit"
    check "$unit exposes little" exposure_is_low "$unit"
    check "$unit lets a VM's cell be built" filter_allows "$unit"
done
check "the program may be run by all" is_mode 755 "$BIN"
check "the man page may be read by all" is_mode 644 "$DEST/usr/share/man/man1/minivmm.1"
check "the installed program runs" sh -c '"$0" --version | grep -qx "minivmm [0-9.]*"' "$BIN"
check "the man page is of this program" grep -q '^\.Dt MINIVMM 1' "$DEST/usr/share/man/man1/minivmm.1"
check "hardening: position-independent" elf_says -h 'Type: +DYN .*Position-Independent Executable'
check "hardening: RELRO" elf_says -l 'GNU_RELRO'
check "hardening: all symbols bound at the start" elf_says -d '\(FLAGS\) .*BIND_NOW'
check "hardening: the stack is not executable" elf_says -l 'GNU_STACK .* RW +0x'
check "hardening: nothing is writable and executable" no_writable_code
check "hardening: stack protector" is_protected __stack_chk_fail
check "hardening: _FORTIFY_SOURCE" imports '__(read|snprintf|printf)_chk@'
check "the program needs libc alone" only_libc
check "the program is stripped" sh -c '! readelf -SW "$0" | grep -qE " \.(symtab|debug_info) "' "$BIN"
check "the program is small" small_enough
check "compile_commands.json is valid and names every source" is_compile_commands
check "compile_commands.json: its commands compile" compile_command_works
check "make clean leaves no product" sh -c 'make -C "$0" -s clean && [ ! -e "$0/minivmm" ] && [ ! -e "$0/build" ]' "$TREE"
finish
