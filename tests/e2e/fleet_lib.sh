# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts about fleets share. Sourced behind lib.sh; makes $WORK. The programs run from copies of the
# test's own, by which its processes are known from all others.
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    skip "fleets over /dev/kvm" "there is no /dev/kvm that this user can open"
    finish
    exit
fi
make -s guest minivmm || exit 1
WORK=$(mktemp -d)
PROGRAM=$WORK/bin/minivmm
GUEST=$WORK/guest.elf
MAP=$WORK/ice.slots
export MINIVMM_RUN_DIR=$WORK/run
install -D -m 755 -t "$WORK/bin" "$MINIVMM" "$MINIVMM-fleet"
install -m 644 build/guest/guest.elf "$GUEST"
mkdir -m 700 "$MINIVMM_RUN_DIR"
chmod 755 "$WORK" "$WORK/bin"

# The pids of all processes of ours, of every user and namespace.
ours() { find /proc -maxdepth 2 -name exe -lname "$WORK/bin/*" 2>/dev/null | sed 's|/proc/\([0-9]*\)/exe|\1|'; }
kill_ours() {
    local pid
    for pid in $(ours); do kill -9 "$pid" 2>/dev/null; done
}
# A child that a signal meets between fork and exec runs its parent's trap.
clean_up() {
    [ "$BASHPID" = "$$" ] || return
    kill_ours
    rm -rf "$WORK"
}
trap clean_up EXIT

fleet() { timeout -k 5 60 "$PROGRAM" fleet "$@"; }
quiet() { "$@" >"$WORK/said" 2>&1; }         # its status; the words in $WORK/said
says() { grep -qF -- "$1" "${2:-$WORK/said}"; } # TEXT [FILE]
silent() { ! says "$@"; }

# until_true SECONDS CONDITION...: asks every 50 ms
until_true() {
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    while ! "$@"; do
        [ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# explain CONDITION...: as it is; on failure the last words are shown.
explain() {
    "$@" || { sed 's/^/# /' "$WORK/said" | head -n 20 && false; }
}

# The VMs of a running fleet that are in a state.
count_state() { # STATE
    fleet ps --json 2>/dev/null | python3 -c 'import json, sys
try: print(sum(vm["state"] == sys.argv[1] for vm in json.load(sys.stdin)))
except ValueError: print(0)' "$1"
}
all_running() { [ "$(count_state running)" -eq "$1" ]; } # HOW-MANY
state_is() { [ "$(fact "$1" state)" = "$2" ]; }          # VM STATE
fact() { # VM FACT: one word of a VM's line
    fleet ps --json 2>/dev/null | python3 -c 'import json, sys
try: print(next(vm.get(sys.argv[2], "") for vm in json.load(sys.stdin) if vm["name"] == sys.argv[1]))
except (ValueError, StopIteration): pass' "$1" "$2"
}

no_process() { [ -z "$(ours)" ]; }
no_socket() { [ -z "$(find "$MINIVMM_RUN_DIR" -type s)" ]; }
no_slot() { ! "$PROGRAM" slots --ice-map "$MAP" --ice-total 256 2>/dev/null | awk 'NR > 1 && $3 != "-"' | grep -q .; }
# No lock on any file of the work directory. Its inodes are asked by number: /proc/locks knows no names.
no_lock() {
    local inodes
    inodes=$(find "$WORK" -type f -printf '%i\n' | paste -sd '|')
    ! grep -Eq ":($inodes) " /proc/locks
}

# gone SECONDS: nothing that could hold anything is left within that time
gone() {
    if until_true "$1" no_process && no_slot && no_lock; then return 0; fi
    ours | while read -r pid; do echo "# process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"; done
    no_slot || "$PROGRAM" slots --ice-map "$MAP" | sed 's/^/# /'
    no_lock || sed 's/^/# lock /' /proc/locks
    return 1
}

# up FILE [FLAG...]: the supervisor in the background, its pid in $supervisor, what it says in $WORK/up.log
up() {
    "$PROGRAM" fleet up "$@" </dev/null >"$WORK/up.log" 2>&1 &
    supervisor=$!
}

# Ends the fleet and waits for its supervisor; the status is the supervisor's.
down() {
    quiet fleet down || { sed 's/^/# down: /' "$WORK/said" && return 1; }
    wait "$supervisor" 2>/dev/null
}

blank() { # IMAGE...: disks of 2 MiB
    local image
    for image in "$@"; do
        rm -f "$image" && truncate -s 2M "$image"
    done
}

# fleet_head NAME [LINE...]: the beginning of a file whose VMs are test guests, with further lines for [defaults];
# RESTART: the policy of all, never by default.
fleet_head() {
    local line
    printf '[fleet]\nname = %s\nice-total = 256\nice-map = %s\n\n' "$1" "$MAP"
    printf '[defaults]\nkernel = %s\nmemory = 16M\nrestart = %s\n' "$GUEST" "${RESTART:-never}"
    shift
    for line in "$@"; do echo "$line"; done
    echo
}
# vm_section NAME LINE...
vm_section() {
    printf '[vm %s]\n' "$1"
    shift
    printf '%s\n' "$@" ''
}
