#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The man page and README.md tell of each flag, disk key, command and exit code that the program has, and of no
# other flag. Prints TAP.
#
# usage: tests/e2e/docs.sh     (MINIVMM: the program, default ./minivmm)
set -u
cd "$(dirname "$0")/../.." || exit 2
MINIVMM=${MINIVMM:-./minivmm}
MAN=docs/minivmm.1
failed=0

check() { # NAME COMMAND...: ok when the command succeeds
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok - $name"
    else
        echo "not ok - $name"
        [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/# /'
        failed=1
    fi
}

same() { # WANTED GOT, lists a line each
    diff <(printf '%s\n' "$1" | sort -u) <(printf '%s\n' "$2" | sort -u)
}

quiet_lint() {
    local said
    said=$(mandoc -T lint "$MAN" 2>&1)
    [ -z "$said" ] || { printf '%s\n' "$said"; return 1; }
}

help=$("$MINIVMM" --help) || { echo "not ok - $MINIVMM --help"; exit 1; }
flags=$(sed -nE 's/^  (--[a-z-]+( [A-Z][^ ]*)?)( .*)?$/\1/p' <<<"$help")
names=$(sed -E 's/ .*//' <<<"$flags")
keys=$(sed -n '/^Keys of --disk:/,/^$/p' <<<"$help" | sed -nE 's/^  ([a-z-]+=[^ ]+).*/\1/p')
commands=$(sed -n '/^Commands:/,/^$/p' <<<"$help" | sed -nE 's/^  ([a-z-]+) .*/\1/p')
codes=$(sed -nE 's/^ +EXIT_CODE_[A-Z_]+ = ([0-9]+),.*/\1/p' vmm/exit_codes.h)

readme_flags=$(sed -nE 's/^\| `(--[^`]+)` \|.*/\1/p' README.md)
readme_keys=$(sed -nE 's/^\| `([a-z-]+=[^`]+)` \|.*/\1/p' README.md | sed 's/\\|/|/g')
man_flags=$(sed -n '/^\.Sh DESCRIPTION/,/^\.Ss Commands/p' "$MAN" | sed -nE 's/^\.It Fl -([a-z-]+).*/--\1/p')
man_keys=$(sed -n '/^\.Ss Disk keys/,/^\.El/p' "$MAN" | sed -nE 's/^\.It Cm ([a-z-]+) Ns = Ns (Cm|Ar) .*/\1/p')

check "--help lists flags, keys, commands" \
    test "$(wc -l <<<"$flags")" -ge 20 -a "$(wc -l <<<"$keys")" -ge 10 -a "$(wc -l <<<"$commands")" -ge 6
check "--help fits 80 columns" awk 'length > 80 { print; bad = 1 } END { exit bad }' <<<"$help"
check "README's flags are the program's" same "$flags" "$readme_flags"
check "README's disk keys are the program's" same "$keys" "$readme_keys"
check "the man page's flags are the program's" same "$names" "$man_flags"
check "the man page's disk keys are the program's" same "$(sed 's/=.*//' <<<"$keys")" "$man_keys"
for command in $commands; do
    check "the man page tells of '$command'" grep -qE "^\\.It Cm $command( |\$)" "$MAN"
    check "README tells of '$command'" grep -qE "\`(minivmm )?$command( [a-z]+)?\`|minivmm $command" README.md
done
for code in $codes; do
    check "exit code $code is in README" grep -qE "^\\| $code( |\$)" README.md
    check "exit code $code is in the man page" grep -qE "^\\.It $code( |\$)" "$MAN"
done
check "the man page is clean to mandoc" quiet_lint

filters_are_told() {
    make -s filters-doc >/dev/null || return 1 # what it builds is told on the same output
    diff <(make -s --no-print-directory filters-doc) \
        <(sed -n '/^<!-- filters -->$/,/^<!-- end of filters -->$/p' docs/security.md | sed '1,2d;$d')
}
check "docs/security.md's filters are those of vmm/seccomp_policy.h" filters_are_told
exit $failed
