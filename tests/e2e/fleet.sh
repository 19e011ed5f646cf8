#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fleets over this host's own /dev/kvm with the bare-metal test guest: 64 VMs that encrypt with keys of their own,
# reload, restarts, deaths of VMs and of the supervisor, stops, consoles, keys, an ordinary user. Prints TAP.
#
# usage: tests/e2e/fleet.sh [PART...]     (none: all)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
. tests/e2e/fleet_lib.sh
. tests/e2e/fleet_life.sh
. tests/e2e/fleet_host.sh
VMS=64
CONF=$WORK/f.conf

# The file of the large run: 62 VMs by count, and two more by name, of which the reload changes one. worker takes
# what the file says of the VM with the number 62, and the last name and number are to be told.
large_file() { # MEMORY-OF-WORKER LAST-NAME LAST-NUMBER
    fleet_head large 'ice-slots = 4' 'stop-timeout = 30'
    printf "[vm g%%i]\ncount = %s\n" $((VMS - 2))
    printf '%s\n' "disk = $WORK/vm%i.img" "log = $WORK/vm%i.log" 'cmdline = ice=fleet vm=%i then=button' ''
    vm_section worker "memory = $1" "disk = $WORK/vm62.img" "log = $WORK/vm62.log" 'cmdline = ice=fleet vm=62 then=button'
    vm_section "$2" "disk = $WORK/vm$3.img" "log = $WORK/vm$3.log" "cmdline = ice=fleet vm=$3 then=button"
}

# Each guest says so on its console when all of its 1 MiB came back through its own key, and no other's.
verified() { # NUMBER...
    local n
    for n in "$@"; do
        grep -q "^# fleet: vm=$n first=[0-9]* slots=4 slot=[0-9]* bytes=1048576" "$WORK/vm$n.log" 2>/dev/null &&
            grep -q '^ok 1 - guest: fleet' "$WORK/vm$n.log" && grep -q 'waits for the power button' "$WORK/vm$n.log" || return 1
    done
}
none_failed() { ! grep -l '^not ok\|^Bail' "$WORK"/vm*.log; }
numbers() { seq 0 $((VMS - 1)); }

# By the guests' own words, the last ones of each: every one has a window, and no slot is in two.
windows_disjoint() {
    awk -v vms="$VMS" '/^# fleet: vm=/ { sub("first=", "", $4); first[FILENAME] = $4 }
        END {
            for (file in first) for (i = 0; i < 4; i++) if (seen[first[file] + i]++) bad = 1
            exit bad || length(first) != vms || length(seen) != 4 * vms
        }' "$WORK"/vm*.log
}

# By the host's map: so many slots used, none twice.
slots_used() { # HOW-MANY
    "$PROGRAM" slots --json --ice-map "$MAP" --ice-total 256 | python3 -c '
import json, sys
used = [s for w in json.load(sys.stdin) if not w["free"] for s in range(w["first"], w["first"] + w["count"])]
sys.exit(len(used) != int(sys.argv[1]) or len(set(used)) != len(used))' "$1"
}

pids() { fleet ps --json | python3 -c 'import json, sys
for vm in json.load(sys.stdin): print(vm["name"], vm["pid"])' | sort; }

large_start() {
    local n
    rm -f "$WORK"/vm*.log
    for n in $(numbers) 64; do blank "$WORK/vm$n.img"; done
    large_file 16M last 63 >"$CONF"
    up "$CONF"
    check "$1: all $VMS VMs run" until_true 60 all_running "$VMS"
}

large_end() {
    check "$1: every guest wrote and read 1 MiB with its own key" until_true 60 verified "${@:2}"
    check "$1: no guest found anything wrong" none_failed
    check "$1: the windows that the guests saw are disjoint" windows_disjoint
    check "$1: 256 slots are used, none twice" slots_used 256
    check "$1: fleet down ends the supervisor with 0" down
    check "$1: nothing is left: no process, no slot, no lock" gone 1
    check "$1: and no socket" no_socket
}

large_checks() {
    local n
    for n in $(numbers) 64; do blank "$WORK/vm$n.img"; done
    large_file 16M last 63 >"$CONF"
    explain quiet fleet check "$CONF"
}

part_large() {
    # shellcheck disable=SC2046 # numbers
    set -- $(numbers)
    check "fleet check finds nothing wrong" large_checks
    large_start "64 VMs"
    in_use "$@"
    reloads
    large_end "64 VMs" "$@"
    check "64 VMs: each ended by its power button" all_powered_off "$@"
    for run in 2 3; do
        large_start "64 VMs, run $run"
        large_end "64 VMs, run $run" "$@"
    done
}

all_powered_off() {
    local n
    for n in "$@"; do grep -q '^# fleet: powers off' "$WORK/vm$n.log" || return 1; done
}

# ps, top, status and a second up, while the guests work.
in_use() {
    quiet fleet ps
    check "ps: a line a VM" explain [ "$(grep -c ' running ' "$WORK/said")" -eq "$VMS" ]
    check "ps: no more than 80 columns" [ "$(wc -L <"$WORK/said")" -le 80 ]
    quiet fleet top --json -n 1
    check "top --json: all VMs" explain python3 -c '
import json, sys
rows = [row for line in open(sys.argv[1]) for row in (lambda x: x if isinstance(x, list) else x.get("vms", [x]))(json.loads(line))]
assert len({row["name"] for row in rows}) == int(sys.argv[2]), len(rows)' "$WORK/said" "$VMS"
    quiet fleet top -n 1
    check "top: no more than 80 columns" [ "$(wc -L <"$WORK/said")" -le 80 ]
    check "top: a line a VM" explain says worker
    check "status of one VM works as ever" explain quiet "$PROGRAM" status worker
    quiet fleet up "$CONF"
    check "a second supervisor of the same file is refused" explain [ $? -ne 0 ]
    check "the refusal says who has it" explain says "$supervisor"
    check "the first is as it was" all_running "$VMS"
    check "every guest works on" until_true 60 verified "$@"
}

reloads() {
    pids >"$WORK/before"
    large_file 24M added 64 >"$CONF"
    quiet fleet plan "$CONF"
    check "plan: names what a reload would change" explain grep -q added "$WORK/said"
    check "reload: is done" explain quiet fleet reload
    check "reload: the new VM has done its work" until_true 30 verified 64
    check "reload: all run" until_true 30 all_running "$VMS"
    pids >"$WORK/after"
    check "reload: one VM came, one went" [ "$(comm -3 <(cut -d' ' -f1 "$WORK/before") <(cut -d' ' -f1 "$WORK/after") | xargs)" = "added last" ]
    check "reload: one VM was restarted, the rest goes on" \
        [ "$(comm -13 "$WORK/before" "$WORK/after" | cut -d' ' -f1 | xargs)" = "added worker" ]
    check "reload: who went was asked by its power button" grep -q '^# fleet: powers off' "$WORK/vm63.log"
    printf 'memroy = 1G\n' >>"$CONF"
    quiet fleet reload
    check "reload: a file with an error changes nothing" explain [ $? -ne 0 ]
    check "reload: and the error has its place" says "$CONF:$(grep -n memroy "$CONF" | cut -d: -f1)"
    check "reload: the VMs go on" diff "$WORK/after" <(pids)
    large_file 16M last 63 >"$CONF"
    check "reload: back again" explain quiet fleet reload
    rm -f "$WORK/vm64.log"
}

[ $# -gt 0 ] || set -- large restarts deaths stops consoles starts_cut full_disk notify keys user
for part in "$@"; do
    echo "# $part: from ${SECONDS}s"
    "part_$part"
    kill_ours
    rm -f "$MAP"
done
echo "# ${SECONDS}s"
finish
