#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds each tests/fuzz/fuzz_*.c with libFuzzer, AddressSanitizer and UBSan, replays its corpus, then fuzzes it
# for a few seconds. Where clang has no libFuzzer, the corpus is replayed with gcc's sanitizers and the fuzzing
# counts as skipped. Prints TAP; what a crash leaves is in build/fuzz.
#
# usage: tests/fuzz/run.sh [NAME...]     (none: all; FUZZ_SECONDS: a target's fuzzing time, default 8)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
FUZZ_SECONDS=${FUZZ_SECONDS:-8}
JOBS=2
WORK=build/fuzz
# Long inputs only slow the fuzzer down: rings and data areas are full well below this.
LIMITS="-timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1"

# shellcheck disable=SC2046 # names without spaces
[ $# -gt 0 ] || set -- $(basename -s .c -a tests/fuzz/fuzz_*.c | sed 's/^fuzz_//')
mkdir -p "$WORK/status"

if echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n > 3; }' |
    clang -fsanitize=fuzzer,address,undefined -x c -o "$WORK/probe" - 2>"$WORK/probe.log"; then
    CC=clang LIB_SAN=fuzzer-no-link,address,undefined LINK_SAN=fuzzer,address,undefined DRIVER=""
else
    CC=gcc LIB_SAN=address,undefined LINK_SAN=address,undefined DRIVER=tests/fuzz/replay.c
fi
LIB=build/$CC-${LIB_SAN//,/-}/libminivmm.a
make -s -j$JOBS CC=$CC SAN=$LIB_SAN "$LIB" || { echo "not ok - fuzz: the library does not build"; exit 1; }

build() { # NAME
    $CC -std=gnu17 -D_GNU_SOURCE -g -O1 -fno-omit-frame-pointer -fsanitize=$LINK_SAN -fno-sanitize-recover=all \
        -Wall -Wextra -Werror -Iinclude -I. -o "$WORK/$1" "tests/fuzz/fuzz_$1.c" $DRIVER "$LIB" \
        -l:liburing.a -l:libinih.a -lpthread
}

replay() { # NAME: the corpus as it is, the inputs alone
    local inputs
    inputs=$(find "tests/fuzz/corpus/$1" -type f 2>/dev/null)
    if [ -z "$inputs" ]; then
        echo "not ok - fuzz $1: tests/fuzz/corpus/$1 holds no input"
        return
    fi
    # shellcheck disable=SC2086 # a list; names in the corpus have no spaces
    if timeout 120 "$WORK/$1" $inputs >"$WORK/$1.replay.log" 2>&1; then
        echo "ok - fuzz $1: $(wc -l <<<"$inputs") inputs of the corpus"
    else
        echo "not ok - fuzz $1: the corpus, exit status $?; see $WORK/$1.replay.log"
        grep -m 5 -E 'ERROR: |SUMMARY|runtime error|fuzz_' "$WORK/$1.replay.log" | sed 's/^/# /'
    fi
}

fuzz() { # NAME
    local log=$WORK/$1.log status runs
    if [ -n "$DRIVER" ]; then
        echo "ok - fuzz $1: new inputs # SKIP clang has no libFuzzer here: install clang and libclang-rt-14-dev"
        return
    fi
    mkdir -p "$WORK/corpus/$1"
    # shellcheck disable=SC2086 # a list
    timeout $((FUZZ_SECONDS + 60)) "$WORK/$1" $LIMITS -max_total_time="$FUZZ_SECONDS" \
        -artifact_prefix="$WORK/$1-" "$WORK/corpus/$1" "tests/fuzz/corpus/$1" >"$log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "ok - fuzz $1: $runs runs"
    else
        echo "not ok - fuzz $1: exit status $status after ${runs:-no} runs; see $log"
        grep -m 5 -E 'ERROR: |SUMMARY|runtime error|Test unit written|fuzz_.*:' "$log" | sed 's/^/# /'
    fi
}

one() { # NAME
    if build "$1" >"$WORK/$1.build.log" 2>&1; then
        replay "$1"
        fuzz "$1"
    else
        echo "not ok - fuzz $1: does not build"
        head -5 "$WORK/$1.build.log" | sed 's/^/# /'
    fi
}

for name in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge $JOBS ]; do wait -n; done
    one "$name" >"$WORK/status/$name" &
done
wait
for name in "$@"; do
    cat "$WORK/status/$name"
done
! cat "${@/#/$WORK/status/}" | grep -q '^not ok'
