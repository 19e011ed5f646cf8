#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fleet files that are wrong: each is refused in time, with its place, what was expected and, where one is near,
# what may have been meant; by check, and by up, which then starts nothing. Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
. tests/e2e/fleet_lib.sh
C=$WORK/f.conf
blank "$WORK"/{a,b}.img

# refused NAME PATTERN... < FILE: exit status 2 of check, and of up
refused() {
    local name=$1 pattern lacking='' status
    cat >"$C"
    shift
    quiet fleet check "$C"
    status=$?
    for pattern in "$@"; do says "$pattern" || lacking="$lacking '$pattern'"; done
    if [ "$status" -ne 2 ] || [ -n "$lacking" ]; then
        not_ok "$name: check ended with $status${lacking:+; not said:$lacking}"
        head -c 2000 "$WORK/said" | head -n 8 | sed 's/^/# /'
        return
    fi
    quiet timeout 10 "$PROGRAM" fleet up "$C"
    status=$?
    check "$name" explain [ "$status" -eq 2 ]
}
# The same for lines behind a file's head: they begin at line 11.
refused_lines() { # NAME LINES PATTERN...
    local name=$1 lines=$2
    shift 2
    { fleet_head bad && printf '%b' "$lines"; } >"$WORK/lines"
    refused "$name" "$@" <"$WORK/lines"
}
A="disk = $WORK/a.img\n" B="disk = $WORK/b.img\n"

[ "$(fleet_head bad | wc -l)" -eq 10 ] || not_ok "the file's head has 10 lines"
refused_lines "an unknown key" '[vm a]\nmemroy = 1G\n' "$C:12: error:" "memroy" "did you mean 'memory'?"
refused_lines "an unknown section" '[vms a]\n' "$C:11: error:" "[vms a]" "did you mean 'vm'?"
refused_lines "a name with a slash" '[vm a/b]\n' "$C:11: error:" "a/b" "letters, digits"
refused_lines "a VM twice" '[vm a]\n[vm b]\n[vm a]\n' "$C:13: error:" "$C:11"
refused_lines "no VM at all" '' "VM"
refused_lines "windows that overlap" "[vm a]\nice-slots = 8@4\n${A}[vm b]\nice-slots = 8@8\n$B" "error:" "a" "b" "overlap"
refused_lines "a window beyond the total" "[vm a]\nice-slots = 8@252\n$A" "error: VM 'a'" "256"
refused_lines "windows that are more than the total" "[vm a]\nice-slots = 200\n${A}[vm b]\nice-slots = 100\n$B" "error:" "256"
refused_lines "no gap is large enough" "[vm a]\nice-slots = 8@124\n${A}[vm b]\nice-slots = 140\n$B" "error:" "b"
refused_lines "a missing image" "[vm a]\ndisk = $WORK/none.img\n" "$C:12: error:" "$WORK/none.img" "No such file"
refused_lines "a missing kernel" "[vm a]\nkernel = $WORK/none\n" "$C:12: error:" "$WORK/none" "No such file"
refused_lines "a disk that two VMs share" "[vm a]\n${A}[vm b]\n$A" "$C:14: error:" "$WORK/a.img" "$C:12"
ln -s "$WORK/a.img" "$WORK/link.img"
refused_lines "the same by a symbolic link" "[vm a]\n${A}[vm b]\ndisk = $WORK/link.img\n" "$C:14: error:" "link.img"
refused_lines "a missing key file" "[vm a]\ndisk = $WORK/a.img,encrypt=$WORK/none.key\n" "$C:12: error:" "none.key"
(umask 022 && head -c 64 /dev/urandom >"$WORK/open.key")
refused_lines "a key file that others can read" "[vm a]\ndisk = $WORK/a.img,encrypt=$WORK/open.key\n" "$C:12: error:" "chmod 600"
refused_lines "a restart policy that is none" '[vm a]\nrestart = sometimes\n' "$C:12: error:" "never, on-failure"
refused_lines "a value out of range" '[vm a]\ncpus = 99\n' "$C:12: error:" "cpus" "from 1 to 32"
refused_lines "a flag that no file may hold" '[vm a]\nready-fd = 3\n' "$C:12: error:" "ready-fd"
refused_lines "ten errors are ten lines" "$(for n in {1..10}; do printf '[vm v%s]\\nmemroy = 1\\n' "$n"; done)" "$C:12: error:" "$C:30: error:"
check "ten errors are ten lines: all" [ "$(fleet check "$C" 2>&1 | grep -c ': error: ')" -eq 10 ]
refused_lines "10,000 VMs" '[vm v%%i]\ncount = 10000\n' "$C:1" "4096"
for n in {1..10000}; do echo "[vm v$n]"; done >"$WORK/many"
refused "10,000 sections" "4096" < <(fleet_head bad && cat "$WORK/many")

: >"$WORK/nothing"
refused "an empty file" "empty" <"$WORK/nothing"
refused "a binary file" "not a text file" < <(head -c 20000 /dev/urandom)
refused "an executable" "not a text file" <"$PROGRAM"
truncate -s 100M "$WORK/huge"
refused "100 MB of zeros" "$C" "larger than" <"$WORK/huge"
refused "100 MB of text" "larger than" < <(yes '[vm a]' | head -c 100000000)
rm -f "$WORK/huge"
rm -f "$C"
quiet fleet check "$C"
check "a missing file" explain says "No such file"
mkdir "$C"
quiet fleet check "$C"
check "a directory" explain says "$C"
rmdir "$C"
printf '[vm a]\nkernel = %s\n' "$GUEST" >"$C"
chmod 0 "$C"
quiet setpriv --reuid=65534 --regid=65534 --clear-groups env MINIVMM_RUN_DIR="$WORK/nobody" "$PROGRAM" fleet check "$C"
check "a file that may not be read" explain [ $? -eq 2 ]
check "and why" says "Permission denied"
chmod 644 "$C"

refused "an include of itself" "$C:2: error:" "circles" <<<$'[fleet]\ninclude = f.conf'
printf '[fleet]\ninclude = two.conf\n' >"$WORK/one.conf"
printf '[fleet]\ninclude = one.conf\n' >"$WORK/two.conf"
refused "includes that go in a circle" "circles" <<<$'[fleet]\ninclude = one.conf'
refused "a missing include" "$C:2: error:" "none.conf" "No such file" <<<$'[fleet]\ninclude = none.conf'
mkdir "$C.d"
printf '[vm extra]\nmemroy = 1\n' >"$C.d/10-extra.conf"
refused_lines "an error in FILE.d is told where it stands" '[vm a]\n' "$C.d/10-extra.conf:2: error:" "did you mean 'memory'?"
printf '[vm extra]\n' >"$C.d/10-extra.conf"
{ fleet_head good && echo '[vm a]'; } >"$C"
check "FILE.d is read beside FILE" explain quiet fleet check "$C"
quiet fleet plan "$C"
check "plan shows its VM" explain says extra
check "plan: no more than 80 columns" [ "$(wc -L <"$WORK/said")" -le 80 ]
rm -r "$C.d"

quiet fleet chek "$C"
check "an unknown command, near a known one" explain says "did you mean 'check'?"
quiet fleet up
check "up without a file" explain [ $? -eq 2 ]
check "nothing was started by any of it" no_process
check "and nothing is left" gone 1
finish
