#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The inline crypto engine against its budgets: icebench beside qemu-storage-daemon over a LUKS image, and the engine's
# own loop beside `openssl speed`. All images lie on tmpfs. Exit status 1 when a budget is missed.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROUNDS=${ROUNDS:-7} MILLISECONDS=${MILLISECONDS:-300}
DIR=$(mktemp -d /dev/shm/minivmm-bench-XXXXXX)
peer=
trap 'if [ -n "$peer" ]; then kill "$peer"; fi; rm -rf "$DIR"' EXIT
head -c 64M /dev/urandom >"$DIR/plain.img"
cp "$DIR/plain.img" "$DIR/ice.img"
cp "$DIR/plain.img" "$DIR/free.img"
mkdir -m 700 "$DIR/run"
printf 'bench' >"$DIR/pass"
qemu-img create -q -f luks --object "secret,id=s,file=$DIR/pass" -o key-secret=s,iter-time=10 "$DIR/luks.img" 64M
qemu-storage-daemon --object "secret,id=s,file=$DIR/pass" --blockdev "driver=file,filename=$DIR/luks.img,node-name=f" \
    --blockdev driver=luks,file=f,key-secret=s,node-name=l \
    --export "type=vhost-user-blk,id=e,addr.type=unix,addr.path=$DIR/sock,node-name=l,writable=on" &
peer=$!
status=0
build/bench/icebench "$DIR" "$ROUNDS" "$MILLISECONDS" "$DIR/sock" "$peer" || status=1
# In turns, since the machine's speed drifts. The last column of openssl's last line: thousands of bytes a second.
for _ in 1 2 3 4 5; do
    ours=$(build/bench/icebench engine 1000)
    openssl speed -seconds 1 -evp aes-256-xts -bytes 4096 2>/dev/null |
        awk -v ours="$ours" 'END { sub(/k$/, "", $NF); other = $NF * 1000 / 1048576; print ours / other, ours, other }'
done | sort -n | sed -n 3p | awk '{
    verdict = ($1 < 0.95) ? "MISS" : "ok"
    printf "%-58s %10.0f %10.0f %8.2f %8.2f  %s\n", "engine loop, MiB/s against openssl speed", $2, $3, $1, 0.95, verdict
    exit ($1 < 0.95) }' || status=1

# A start with keyslots, up to the first KVM_RUN: the kernel is the one of the start benchmark, and never runs.
build/bench/mkbzimage "$DIR/kernel.bzimage"
for _ in 1 2 3 4 5 6 7 8 9; do
    MINIVMM_RUN_DIR=$DIR/run build/bench/startprobe start ./minivmm --kernel "$DIR/kernel.bzimage" --memory 128M \
        --disk "$DIR/free.img,ice=on" --ice-slots 8 2>/dev/null | tr '\n' ' '
    echo
done >"$DIR/starts"
most() { # WORD UNIT DIVISOR MOST: the median of a figure of the starts
    sed -n "s/.*$1=\([0-9]*\).*/\1/p" "$DIR/starts" | sort -n | sed -n 5p |
        awk -v unit="$2" -v by="$3" -v most="$4" '{
            verdict = ($1 / by > most) ? "MISS" : "ok"
            printf "%-58s %10.2f %10s %8s %8.2f  %s\n", "start with 8 keyslots, " unit ", at most", $1 / by, "-", "-", most, verdict
            exit ($1 / by > most) }' || status=1
}
most cpu_us "ms of CPU" 1000 6
most pss_kib "MiB beyond guest RAM" 1024 6
exit "$status"
