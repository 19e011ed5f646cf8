#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests: runs each suite, keeps its output in build/check/, counts results and closes with
# "N passed, N failed, N skipped". Exit status 0 only when nothing failed and something passed.
#
# usage: tools/check.sh [SUITE ...]     (none: all; --list prints the names)
#
# How a suite is counted: libcheck programs by their "NN%: Checks: N, Failures: N, Errors: N" line, scripts by
# their "ok"/"not ok" lines (TAP); programs also by "# SKIP WHY" (a test that passed without doing its work) and
# "# SKIPPED N WHY" (tests that were not run). A program that prints no counts, or exits non-zero with no failure
# among them, is one failure; so is such a suite.
set -u
cd "$(dirname "$0")/.." || exit 2
LOGS=build/check
JOBS=$(nproc)
passed=0 failed=0 skipped=0

suite_names=(build-gcc build-clang style docs unit-gcc unit-asan unit-tsan fuzz cli guest-kvm guest-ice fleet hostile install testbed)

say() { printf '%s\n' "$*"; }

make_quiet() { make -j"$JOBS" -s "$@"; }

# Builds and runs the libcheck programs of one variant; every program runs even when one fails.
run_libcheck() { # ARGS OF MAKE...
    local bin status=0
    make_quiet "$@" unit-binaries || return 1
    for bin in $(make -s --no-print-directory "$@" print-test-binaries); do
        say "== $bin"
        timeout 300 "$bin" || { status=$?; say "== $bin: exit status $status"; }
    done
    return "$status"
}

suite_build_gcc() { make_quiet CC=gcc minivmm && say "ok - builds with gcc without a warning"; }
suite_build_clang() { make_quiet CC=clang build/clang/minivmm build/clang/minivmm-fleet && say "ok - builds with clang without a warning"; }
suite_style() {
    if make_quiet format-check; then say "ok - clang-format"; else say "not ok - clang-format"; fi
    if make_quiet tidy; then say "ok - clang-tidy"; else say "not ok - clang-tidy"; fi
}
suite_docs() {
    make_quiet minivmm || return 1
    tests/e2e/docs.sh
    tests/e2e/conformance.sh
}
suite_unit_gcc() { run_libcheck CC=gcc; }
suite_unit_asan() { run_libcheck CC=gcc SAN=address,undefined; }
suite_unit_tsan() { run_libcheck CC=gcc SAN=thread; }
suite_fuzz() { tests/fuzz/run.sh; }
suite_cli() { make_quiet minivmm && tests/e2e/cli.sh; }
suite_guest_kvm() {
    local status=0
    tests/e2e/guest_kvm.sh || status=1
    tests/e2e/filters.sh || status=1
    return $status
}
suite_guest_ice() {
    local status=0
    tests/e2e/ice_kvm.sh || status=1
    tests/e2e/ice_cli.sh || status=1
    return $status
}
suite_fleet() {
    local status=0
    tests/e2e/fleet.sh || status=1
    tests/e2e/fleet_bad.sh || status=1
    tests/e2e/fleet_kill.sh || status=1
    return $status
}
suite_hostile() {
    local status=0
    make_quiet minivmm || return 1
    tests/e2e/cell.sh || status=1
    tests/e2e/hostile.sh || status=1
    return $status
}
suite_install() { tests/e2e/install.sh; }
suite_testbed() { tests/e2e/testbed.sh; }

count() { # STATUS LOG SECONDS
    local status=$1 log=$2 took=$3 p f s
    read -r p f s < <(awk '
        function end_program() { if (program && !counted) f++; program = 0 }
        /^== .*: exit status/ { if (counted && !bad) f++; next }
        /^== /                { end_program(); program = 1; counted = bad = 0; next }
        /^[0-9]+%: Checks: /  { gsub(/,/, ""); counted = 1; bad = $5 + $7; p += $3 - bad; f += bad; next }
        /^not ok/             { f++; next }
        /^ok.*# SKIP/         { s++; next }
        /^ok/                 { p++; next }
        /^# SKIP /            { s++; p-- }
        /^# SKIPPED [0-9]/    { s += $3 }
        END { end_program(); printf "%d %d %d\n", p, f, s }' "$log")
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        say "    the suite ended with status $status"
        f=1
    elif [ $((p + f + s)) -eq 0 ]; then
        say "    the suite ran no test"
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    say "    $p passed, $f failed, $s skipped ($took s)"
    if [ "$f" -ne 0 ]; then
        grep -nE '^not ok|:[FE]:|exit status|ERROR: |error:|\*\*\*|runtime error' "$log" | head -40
        say "    ---- end of $log:"
        tail -25 "$log" | sed 's/^/    | /'
    fi
    grep -hE '# SKIP' "$log" | sed 's/^/    /'
    return 0
}

# A function, so that all is read before anything runs and an edit meanwhile does no harm.
main() {
    if [ "${1:-}" = --list ]; then
        printf '%s\n' "${suite_names[@]}"
        exit 0
    fi
    [ $# -eq 0 ] || suite_names=("$@")
    mkdir -p "$LOGS"
    for name in "${suite_names[@]}"; do
        run=suite_${name//-/_}
        declare -F "$run" >/dev/null || { say "check: no suite '$name'; --list names them"; exit 2; }
        say "[$name]"
        began=$SECONDS
        "$run" >"$LOGS/$name.log" 2>&1 </dev/null
        count $? "$LOGS/$name.log" $((SECONDS - began))
    done
    say "# all suites: $SECONDS s"
    say "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
main "$@"; exit
