#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at every 10 ms of start-up: of a fleet's supervisor, and of the command that runs one VM. After each, no
# process runs and no lock is held, and the next start works without help. Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh
. tests/e2e/fleet_lib.sh
STEP_MS=10
FLEET_MS=${FLEET_MS:-600}
VM_MS=${VM_MS:-200}

key() { (umask 077 && head -c 64 /dev/urandom >"$1"); }
key "$WORK/disk.key" && key "$WORK/kek"
blank "$WORK"/{a,b,c,vm}.img
{ fleet_head kill | sed "s|^ice-total.*|&\nice-kek = $WORK/kek|"
    for n in a b; do
        vm_section "$n" 'cmdline = ice=idle then=button' 'ice-slots = 4' "disk = $WORK/$n.img" "log = $WORK/$n.log"
    done
    vm_section c 'cmdline = ice=idle then=button' "disk = $WORK/c.img,encrypt=$WORK/disk.key"; } >"$WORK/f.conf"

# Waits without a process: the moment is the test's matter.
pause_ms() { read -r -t "$(printf '0.%03d' "$1")" <>"$WORK/never" || true; }
mkfifo "$WORK/never"

# The sentences of all moments that went wrong; one result for all.
moments() { # WHAT MOST-MS KILL AGAIN
    local what=$1 most=$2 ms bad=0 running=0
    for ((ms = 0; ms <= most; ms += STEP_MS)); do
        "$3" "$ms"
        if ! gone 1; then
            echo "# $what killed after $ms ms: something is left" && bad=$((bad + 1))
            kill_ours
        fi
        if "$4"; then
            running=$((running + 1))
        else
            echo "# $what killed after $ms ms: the next start fails" && bad=$((bad + 1))
            sed 's/^/# /' "$WORK/up.log" | tail -n 5
            kill_ours
        fi
    done
    check "$what: kill -9 at $((most / STEP_MS + 1)) moments of its start leaves nothing, and the next start works ($running did)" \
        [ "$bad" -eq 0 ]
}

kill_fleet() { # MS
    up "$WORK/f.conf"
    pause_ms "$1"
    kill -9 "$supervisor"
    { wait "$supervisor"; } 2>/dev/null
}
fleet_again() {
    up "$WORK/f.conf"
    until_true 20 all_running 3 && down && gone 1 && no_socket
}

vm() {
    "$PROGRAM" --kernel "$GUEST" --memory 16M --console none --name vm --cmdline 'ice=idle then=button' --ice-map "$MAP" \
        --ice-total 256 --ice-slots 4 --disk "$WORK/vm.img" </dev/null >"$WORK/up.log" 2>&1 &
    supervisor=$!
}
kill_vm() {
    vm
    pause_ms "$1"
    kill -9 "$supervisor"
    { wait "$supervisor"; } 2>/dev/null
}
vm_answers() { "$PROGRAM" status vm >/dev/null 2>&1; }
vm_again() {
    vm
    until_true 20 vm_answers && "$PROGRAM" stop vm >/dev/null 2>&1 && wait "$supervisor" && gone 1 && no_socket
}

moments "a single VM" "$VM_MS" kill_vm vm_again
moments "a fleet of three" "$FLEET_MS" kill_fleet fleet_again
echo "# ${SECONDS}s"
finish
