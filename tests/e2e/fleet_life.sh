# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Parts of fleet.sh: restarts, deaths, stops, consoles.

IDLE='cmdline = ice=idle then=button'

starts_of() { cat "$WORK/$1.log" 2>/dev/null | grep -c "$2"; }          # NAME LINE
started() { [ "$(starts_of "$1" "$2")" -ge "$3" ]; }             # NAME LINE HOW-OFTEN
changed() { local now && now=$(fact "$1" pid) && [ -n "$now" ] && [ "$now" != "$2" ]; } # NAME PID
ended() { ! kill -0 "$1" 2>/dev/null; }                          # PID

part_restarts() {
    { fleet_head policies
        vm_section panics 'restart = on-failure' 'cmdline = ice=panic' "log = $WORK/panics.log"
        vm_section once 'restart = never' 'cmdline = ice=panic' "log = $WORK/once.log"
        vm_section again 'restart = always' 'debug-exit = on' 'cmdline = ice=idle then=exit' "log = $WORK/again.log"
        vm_section done 'restart = on-failure' 'debug-exit = on' 'cmdline = ice=idle then=exit' "log = $WORK/done.log"
        vm_section steady "$IDLE" "log = $WORK/steady.log"; } >"$CONF"
    up "$CONF"
    check "restarts: a guest that panics is started anew" until_true 20 started panics '# fleet: panics' 3
    check "restarts: always holds for a guest that ends well" until_true 20 started again '^ok 1 - guest: idle' 2
    sleep 3
    # The back-off begins at half a second or more and doubles: so many starts would take minutes.
    check "restarts: the back-off holds ($(starts_of panics panics) starts)" [ "$(starts_of panics '# fleet: panics')" -le 7 ]
    check "restarts: no more processes than the VMs' own" [ "$(ours | wc -l)" -le 12 ]
    check "restarts: ps counts them" [ "$(fact panics restarts)" -ge 2 ]
    check "restarts: never means once" [ "$(starts_of once '# fleet: panics')" -eq 1 ]
    check "restarts: and ps says that it failed, and how" [ "$(fact once state) $(fact once exit)" = "failed 3" ]
    check "restarts: on-failure lets be who ends well" [ "$(starts_of done '^ok 1 - guest: idle') $(fact done state)" = "1 stopped" ]
    check "restarts: a neighbour has seen none of it" [ "$(fact steady state) $(fact steady restarts)" = "running 0" ]
    check "restarts: a stopped VM starts by order" explain quiet fleet start done
    check "restarts: and did" until_true 10 started done '^ok 1 - guest: idle' 2
    check "restarts: fleet stop ends a back-off" explain quiet fleet stop panics
    check "restarts: and ps says so" state_is panics stopped
    check "restarts: down while others wait" down
    check "restarts: nothing is left" gone 1
}

# Three VMs with slots, disks and logs that wait for the button.
three() { # NAME [LINE...]
    local n
    fleet_head "$@"
    for n in a b c; do
        vm_section "$n" "$IDLE" 'ice-slots = 4' "disk = $WORK/$n.img" "log = $WORK/$n.log"
    done
}
three_up() {
    blank "$WORK"/{a,b,c}.img
    rm -f "$WORK"/{a,b,c}.log
    RESTART=on-failure three three >"$CONF"
    up "$CONF"
    until_true 20 all_running 3
}

# Other fleets that want what this one has: a name, slots, a disk. Each says so, and the first goes on.
rivals() {
    local pids
    pids="$(fact a pid) $(fact b pid) $(fact c pid)"
    blank "$WORK/other.img"
    rival "the name of a VM" "a" "$IDLE"
    rival "slots" "'a'" "$IDLE" "ice-slots = 4@0" "disk = $WORK/other.img"
    rival "an image" "$WORK/c.img" "$IDLE" "disk = $WORK/c.img"
    check "two fleets: the first is as it was" [ "$(fact a pid) $(fact b pid) $(fact c pid)" = "$pids" ]
}
rival() { # WHAT TEXT LINE...
    local what=$1 text=$2 name=other second
    shift 2
    [ "$what" != "the name of a VM" ] || name=a
    { fleet_head rival && vm_section "$name" "$@"; } >"$WORK/rival.conf"
    : >"$WORK/said" # not in the background: what the last one said is none of this one's
    timeout -k 5 15 "$PROGRAM" fleet up "$WORK/rival.conf" </dev/null >>"$WORK/said" 2>&1 &
    second=$!
    check "two fleets: the second is refused $what" explain until_true 10 grep -Eq 'error|failed: ' "$WORK/said"
    check "two fleets: the sentence names the holder of $what" explain says "$text"
    kill "$second" 2>/dev/null
    wait "$second" 2>/dev/null
}

# The process in the cell: the child of the one that ps tells.
inside_of() { xargs -n 1 <"/proc/$(fact "$1" pid)/task/$(fact "$1" pid)/children"; } # NAME

part_deaths() {
    local victim others inside
    check "deaths: three VMs run" three_up
    others="$(fact a pid) $(fact c pid)"
    victim=$(fact b pid)
    kill -9 "$victim"
    check "deaths: a VM whose process is killed comes again" until_true 20 changed b "$victim"
    check "deaths: and runs" until_true 20 state_is b running
    victim=$(fact b pid)
    inside=$(inside_of b)
    check "deaths: the VM's process inside its cell is known" [ -n "$inside" ]
    kill -9 "$inside"
    check "deaths: the same for the process inside the cell" until_true 20 changed b "$victim"
    check "deaths: the others are the same processes" [ "$(fact a pid) $(fact c pid)" = "$others" ]
    check "deaths: all run again" until_true 20 all_running 3

    rivals

    kill -9 "$supervisor"
    wait "$supervisor" 2>/dev/null
    check "deaths: a second after the supervisor's kill -9 nothing runs, no slot and no lock is held" gone 1
    check "deaths: ps says that no fleet runs" eval '! quiet fleet ps'
    check "deaths: the next up works without help" three_up
    check "deaths: and slots are theirs" slots_used 12
    quiet fleet ps
    check "deaths: only this fleet is known" explain says running
    check "deaths: down" down
    check "deaths: nothing is left" gone 1
    check "deaths: what the dead left is gone too" no_socket
}

part_stops() {
    { fleet_head stops
        vm_section heeds "$IDLE" "log = $WORK/heeds.log"
        vm_section ignores 'cmdline = ice=idle then=ignore' 'stop-timeout = 1' "log = $WORK/ignores.log"
        vm_section later "$IDLE" 'autostart = off' "log = $WORK/later.log"; } >"$CONF"
    up "$CONF"
    check "stops: two of three run" until_true 20 all_running 2
    check "stops: who is not to start waits" [ "$(fact later state)" != running ]
    check "stops: start by order" explain quiet fleet start later
    check "stops: all run" until_true 20 all_running 3
    until_true 20 grep -q waits "$WORK/heeds.log"
    until_true 20 grep -q ignores "$WORK/ignores.log"
    check "stops: a guest that heeds its power button" explain quiet fleet stop heeds
    check "stops: has powered off" grep -q '^# fleet: powers off' "$WORK/heeds.log"
    check "stops: with exit code 0" [ "$(fact heeds state) $(fact heeds exit)" = "stopped 0" ]
    local pid
    pid=$(fact ignores pid)
    quiet fleet stop ignores
    check "stops: one that ignores it is killed after its deadline" ended "$pid"
    check "stops: and is stopped" state_is ignores stopped
    check "stops: restart" explain quiet fleet restart later
    check "stops: and it ran twice" until_true 10 started later '^ok 1 - guest: idle' 2
    quiet fleet stop nobody
    check "stops: an unknown VM is refused by name" explain says nobody
    check "stops: SIGTERM ends the supervisor" kill "$supervisor"
    wait "$supervisor"
    check "stops: with 0" [ $? -eq 0 ]
    check "stops: nothing is left" gone 1
}

part_consoles() {
    blank "$WORK"/h{0,1}.img
    { fleet_head consoles
        vm_section hold 'ice-slots = 4' 'debug-exit = on' 'cmdline = ice=hold' "disk = $WORK/h0.img,queues=2" "disk = $WORK/h1.img,queues=2" "log = $WORK/hold.log"
        vm_section quiet "$IDLE"; } >"$CONF"
    up "$CONF"
    check "console: two VMs run" until_true 20 all_running 2
    until_true 20 grep -q '^# holding' "$WORK/hold.log"
    check "logs: what the guest said" eval 'quiet fleet logs hold && says "# holding: first="'
    quiet fleet logs quiet -n 1
    check "logs: a VM without a log file has them too, or says why not" explain [ -s "$WORK/said" ]
    timeout 30 "$PROGRAM" fleet logs hold -f >"$WORK/follow" 2>&1 &
    local follower=$!
    (printf 'x' && sleep 1) | timeout 4 "$PROGRAM" fleet console hold >"$WORK/console" 2>&1
    check "console: a byte for the guest, and its answer" until_true 10 grep -q '^ok 1 - guest: hold' "$WORK/hold.log"
    check "console: the answer came to the console" grep -q 'ok 1 - guest: hold' "$WORK/console"
    check "logs -f: and to who follows" until_true 10 grep -q 'ok 1 - guest: hold' "$WORK/follow"
    kill "$follower" 2>/dev/null
    check "console: the other VM is untouched" state_is quiet running
    check "console: down" down
    check "console: nothing is left" gone 1
}

one_of() { case " ${*:2} " in *" $1 "*) return 0 ;; *) return 1 ;; esac; } # VALUE ALLOWED...

# SIGTERM at some moments of a start of 20 VMs.
part_starts_cut() {
    local wait status
    { fleet_head cut && printf '[vm v%%i]\ncount = 20\n%s\n\n' "$IDLE"; } >"$CONF"
    for wait in 0 0.02 0.05 0.1 0.2 0.4; do
        up "$CONF"
        sleep "$wait"
        kill "$supervisor"
        wait "$supervisor"
        status=$?
        # Before its handler stands, the signal itself ends it.
        check "SIGTERM ${wait}s into the start: ends ($status)" one_of "$status" 0 143
        check "SIGTERM ${wait}s into the start: nothing is left" gone 1
    done
}
