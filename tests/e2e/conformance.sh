#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/ice-conformance.md has a row for each numbered rule of docs/ice-spec.md and for no other, no empty cell, and
# names only code and tests that are there and run. Prints TAP.
#
# usage: tests/e2e/conformance.sh     (SPEC, TABLE: other files in their place)
set -u
cd "$(dirname "$0")/../.." || exit 2
SPEC=${SPEC:-docs/ice-spec.md}
TABLE=${TABLE:-docs/ice-conformance.md}
failed=0

check() { # NAME COMMAND...: ok when the command says nothing
    local name=$1 said
    shift
    said=$("$@" 2>&1)
    if [ -z "$said" ]; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        printf '%s\n' "$said" | sed 's/^/# /'
        failed=1
    fi
}

rules() { grep -oE '\[[0-9]+\.[0-9]+ [TD]' "$SPEC" | sed -E 's/\[([0-9.]+) .*/\1/'; }
rows() { grep -E '^\| [0-9]+\.[0-9]+ \|' "$TABLE"; }
row_rules() { rows | sed -E 's/^\| ([0-9.]+) .*/\1/'; }

unnumbered() { grep -nE '\[[TD][]:;, ]' "$SPEC"; }
twice() { { rules | sort | uniq -d; } && row_rules | sort | uniq -d; }
not_in_step() { diff <(rules | sort -u) <(row_rules | sort -u); }
too_few() { [ "$(rules | wc -l)" -ge 80 ] || echo "only $(rules | wc -l) rules were found"; }

empty_cells() {
    local id what code test rest
    while IFS='|' read -r _ id what code test rest; do
        [ -n "${what// /}" ] && [ -z "$rest" ] && [[ $code == *\`*:*\`* ]] && [[ $test == *\`*:\ *\`* ]] ||
            echo "rule$id: what, code or test is missing"
    done < <(rows)
}

# A function, type or constant of the file.
code_is_there() { # FILE NAME
    [ -f "$1" ] || return 1
    case $2 in
        [A-Z]*) grep -qw "$2" "$1" ;;
        *) grep -qE "^([a-z].*[ *]$2\(|enum $2 )" "$1" ;;
    esac
}

# libcheck: defined and registered; the guest: in its table; scripts: a result's label.
test_is_there() { # FILE NAME
    [ -f "$1" ] || return 1
    case $1 in
        tests/unit/* | tests/ring/*)
            grep -qF "START_TEST($2)" "$1" && grep -qE "(tcase_add_(loop_)?test\([a-z]+, |^    &)$2[,)]" "$1"
            ;;
        tests/guest/*) grep -qF "{\"$2\", run_" "$1" ;;
        *) grep -qF -- "$2" "$1" && grep -qE "(check|ok|answers) .*$(sed 's/[][\.*^$+?(){}|]/./g' <<<"$2")" "$1" ;;
    esac
}

names_of() { # COLUMN: the names between backquotes, a line each
    rows | cut -d '|' -f "$1" | grep -oE '`[^`]+`' | tr -d '`' | sort -u
}

lost_code() {
    names_of 4 | while read -r name; do
        code_is_there "${name%%:*}" "${name#*:}" || echo "$name"
    done
}

lost_tests() {
    names_of 5 | while read -r name; do
        test_is_there "${name%%: *}" "${name#*: }" || echo "$name"
    done
}

check "conformance: the rules are found" too_few
check "conformance: all marks of the rules have numbers" unnumbered
check "conformance: no number is used twice" twice
check "conformance: the rules have rows, and the rows rules" not_in_step
check "conformance: no cell is empty" empty_cells
check "conformance: the code named is in the tree" lost_code
check "conformance: the tests named are in the tree, and run" lost_tests
exit $failed
