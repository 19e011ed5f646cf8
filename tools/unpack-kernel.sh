#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the ELF kernel (vmlinux, with its PVH note) out of a bzImage. The payload's place is in the setup
# header (Linux's Documentation/arch/x86/boot: payload_offset, payload_length).
#
# usage: tools/unpack-kernel.sh BZIMAGE VMLINUX
set -euo pipefail

number() { # FILE OFFSET BYTES: a little-endian field
    od -An -tu"$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

[ $# -eq 2 ] || { echo "usage: tools/unpack-kernel.sh BZIMAGE VMLINUX" >&2 && exit 2; }
[ "$(od -An -c -j $((0x202)) -N 4 "$1" 2>/dev/null | wc -w)" -gt 0 ] && [ "$(dd if="$1" bs=1 skip=$((0x202)) count=4 status=none)" = HdrS ] ||
    { echo "unpack-kernel: $1 is not a bzImage" >&2 && exit 1; }
setup=$(number "$1" $((0x1f1)) 1)
start=$(((setup + 1) * 512 + $(number "$1" $((0x248)) 4)))
length=$(number "$1" $((0x24c)) 4)
payload() { tail -c +$((start + 1)) "$1" | head -c "$length"; }
magic=$(payload "$1" | head -c 4 | od -An -tx1 | tr -d ' ' || true)
# Each payload is followed by its unpacked size, on which the tools remark: the ELF check below decides.
case $magic in
    02214c18) payload "$1" | lz4 -dc >"$2" 2>/dev/null || true ;;
    fd377a58) payload "$1" | xz -dc >"$2" 2>/dev/null || true ;;
    28b52ffd) payload "$1" | zstd -dc >"$2" 2>/dev/null || true ;;
    1f8b08*) payload "$1" | gzip -dc >"$2" 2>/dev/null || true ;;
    *) echo "unpack-kernel: unknown compression (magic $magic)" >&2 && exit 1 ;;
esac
[ "$(od -An -tx1 -N 4 "$2" | tr -d ' ')" = 7f454c46 ] || { echo "unpack-kernel: what came out is no ELF file" >&2 && exit 1; }
