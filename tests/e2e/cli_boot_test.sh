# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# boot-test with guests of a few instructions: exit codes and reports. Part of cli.sh.

# speaks FILE TEXT AFTERWARDS: a kernel that writes the text to COM1 and then does what the assembler lines say
speaks() {
    {
        printf '.globl _start\n_start: lea text(%%rip), %%rsi\n mov $0x3f8, %%edx\n'
        printf '1: mov (%%rsi), %%al\n test %%al, %%al\n jz 2f\n out %%al, %%dx\n inc %%rsi\n jmp 1b\n'
        printf '2: %s\n3: cli\n hlt\n jmp 3b\ntext: .asciz "%s"\n' "$3" "$2"
    } | assemble "$1"
}

is_junit() { # FILE TESTS FAILURES
    python3 - "$@" <<'PY'
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
cases = [c for s in suites for c in s.findall("testcase")]
bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
assert (len(cases), len(bad)) == (int(sys.argv[2]), int(sys.argv[3])), (len(cases), len(bad))
assert sum(int(s.get("tests")) for s in suites) == len(cases)
PY
}

is_json() { # FILE
    python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))' "$1"
}

test_boot_test() {
    local text='hello from <guest> & \"friends\"\r\nlogin: '
    speaks "$WORK/login" "$text" 'nop'
    speaks "$WORK/off" "$text" 'mov $0x600, %edx; mov $0x34, %al; out %al, %dx'
    speaks "$WORK/panics" "Kernel panic - not syncing: <no> root\r\n" 'mov $0x505, %edx; mov $1, %al; out %al, %dx'
    local run=(--memory 32M --no-control)
    answers "boot-test passes: --expect, in order" 0 -- \
        boot-test "${run[@]}" --kernel "$WORK/login" --expect 'hello.*friends' --expect 'login: ' --timeout 15
    answers "boot-test passes: powered off" 0 -- boot-test "${run[@]}" --kernel "$WORK/off" --timeout 15
    answers "boot-test fails: --reject" 1 "--reject 'hello'" -- \
        boot-test "${run[@]}" --kernel "$WORK/login" --reject hello --expect never --timeout 15
    answers "boot-test fails: powered off too early" 1 "'never'" -- \
        boot-test "${run[@]}" --kernel "$WORK/off" --expect never --timeout 15
    answers "boot-test: order matters" 124 "'hello'" -- \
        boot-test "${run[@]}" --kernel "$WORK/login" --expect login --expect hello --timeout 1
    answers "boot-test: time-out" 124 "time-out after 1 s" "'never'" -- \
        boot-test "${run[@]}" --kernel "$WORK/login" --expect never --timeout 1
    answers "boot-test: panic" 3 "panicked" -- boot-test "${run[@]}" --kernel "$WORK/panics" --expect never --timeout 15
    answers "boot-test: a kernel that is not there" 2 "$WORK/absent" -- boot-test --kernel "$WORK/absent" --expect x
    test_boot_reports "${run[@]}"
}

test_boot_reports() {
    local dir=$WORK/reports
    mkdir "$dir"
    answers "boot-test: --repeat and all reports" 0 "ok 1" "1..3" -- \
        boot-test "$@" --kernel "$WORK/login" --expect login --timeout 15 --repeat 3 --log "$dir/log" \
        --report tap --report "junit:$dir/pass.xml" --report "json:$dir/pass.json" --report "text:$dir/pass.txt"
    check "boot-test: JUnit of 3 passes" is_junit "$dir/pass.xml" 3 0
    check "boot-test: JSON of 3 passes" is_json "$dir/pass.json"
    check "boot-test: the text report tells something" test -s "$dir/pass.txt"
    check "boot-test: the log holds what each run said" test "$(grep -c 'hello from <guest> & "friends"' "$dir/log")" -eq 3
    answers "boot-test: a panic, reported" 3 "not ok 1" -- \
        boot-test "$@" --kernel "$WORK/panics" --expect '<&">' --timeout 15 \
        --report tap --report "junit:$dir/panic.xml" --report "json:$dir/panic.json"
    check "boot-test: JUnit of a panic, with markup in the console" is_junit "$dir/panic.xml" 1 1
    check "boot-test: JSON of a panic" is_json "$dir/panic.json"
    answers "boot-test: a report that can't be written" 2 "/nonexistent/r.xml" -- \
        boot-test "$@" --kernel "$WORK/login" --expect login --report junit:/nonexistent/r.xml
}

answers "boot-test without a kernel" 2 "--kernel" -- boot-test --expect x
answers "boot-test: a pattern that is none" 2 "--expect" "'('" "regular expression" -- boot-test --kernel "$K" --expect '('
answers "boot-test: an unknown flag" 2 "unknown flag '--expct'" "did you mean '--expect'?" -- boot-test --kernel "$K" --expct x
answers "boot-test: an unknown kind of report" 2 "--report" "'xml'" "junit" -- boot-test --kernel "$K" --report xml
answers "boot-test: --console" 2 "--console" "--log FILE" -- boot-test --kernel "$K" --console stdio
answers "boot-test: no runs at all" 2 "--repeat" "from 1 to 1000" -- boot-test --kernel "$K" --repeat 0
if [ -n "$NO_KVM" ]; then
    skip "boot-test with guests: exit codes and reports" "$NO_KVM"
else
    test_boot_test
fi
