# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The testbed's scenario of a fleet; sourced by inside.sh. A stock Debian kernel under the supervisor.
FLEET=/tmp/fleet

fleet_saw() { grep -q "$1" "$FLEET/debian.log" 2>/dev/null; } # REGEX
fleet_wait() { # SECONDS REGEX
    local n
    for ((n = 0; n < 2 * $1; n++)); do
        fleet_saw "$2" && return 0
        sleep 0.5
    done
    return 1
}

fleet_file() {
    cat <<EOF
[fleet]
name = testbed
ice-map = $FLEET/ice.slots

[vm debian]
kernel = $KERNEL
initrd = $WORK/initrd.img
memory = 256M
cmdline = console=ttyS0 quiet minivmm.do=disk,button
disk = /tmp/fleet.ext4
ice-slots = 4
log = $FLEET/debian.log
restart = on-failure
stop-timeout = 120
EOF
}

# The kernel has button and evdev as modules, which the initrd loads; its init listens, and powers off.
scenario_fleet() {
    local supervisor
    mkdir -p "$FLEET"
    fresh_disk fleet
    fleet_file >"$FLEET/fleet.conf"
    "$MINIVMM" fleet up "$FLEET/fleet.conf" </dev/null >"$OUT.err" 2>&1 &
    supervisor=$!
    check "fleet: the Debian guest waits for its power button" fleet_wait 150 'waiting for the power button'
    check "fleet: it has read back what it wrote" fleet_saw 'read back: written'
    timeout 150 "$MINIVMM" fleet stop debian >"$OUT" 2>&1
    check "fleet: stop ends it" [ $? -eq 0 ]
    check "fleet: the guest saw the power button" fleet_saw 'power button pressed'
    "$MINIVMM" fleet ps --json >"$OUT" 2>&1
    check "fleet: it is stopped" grep -q '"state": "stopped"' "$OUT"
    check "fleet: with exit code 0" grep -q '"exit": 0' "$OUT"
    timeout 30 "$MINIVMM" fleet down >>"$OUT" 2>&1
    wait "$supervisor"
    check "fleet: the supervisor ends with 0" [ $? -eq 0 ]
    cat "$FLEET/debian.log" "$OUT.err" "$OUT" >"$TESTBED_RESULTS/fleet.log" 2>/dev/null
    rm -f /tmp/fleet.ext4
}
