# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Parts of fleet.sh: what has to do with the host. A full disk, systemd's notifications, keys, an ordinary user.

part_full_disk() {
    local logs=$WORK/small
    mkdir -p "$logs"
    if ! mount -t tmpfs -o size=64k minivmm-test "$logs" 2>/dev/null; then
        skip "full disk: the VM goes on, and its log says so" "needs root, to mount a small tmpfs"
        return
    fi
    head -c 64K /dev/zero >"$logs/filler" 2>/dev/null
    blank "$WORK/full.img"
    { fleet_head full
        vm_section full 'ice-slots = 4' "disk = $WORK/full.img" 'cmdline = ice=fleet vm=7 then=button' "log = $logs/full.log"
        vm_section device "$IDLE" 'log = /dev/full'; } >"$CONF"
    up "$CONF"
    check "full disk: the VMs run" until_true 20 all_running 2
    check "full disk: the supervisor says so" until_true 10 says "No space left" "$WORK/up.log"
    check "full disk: and not again and again ($(grep -c 'No space left' "$WORK/up.log") times)" \
        [ "$(grep -c 'No space left' "$WORK/up.log")" -le 4 ]
    check "full disk: the guest works on" until_true 10 eval 'quiet fleet logs full && says "waits for the power button"'
    rm -f "$logs/filler"
    check "full disk: graceful stops" explain quiet fleet stop full device
    check "full disk: by the guests themselves" [ "$(fact full exit) $(fact device exit)" = "0 0" ]
    check "full disk: with space again the log goes on" grep -q 'powers off' "$logs/full.log"
    check "full disk: down" down
    check "full disk: nothing is left" gone 1
    umount "$logs"
}

# Takes datagrams on a socket as systemd does and writes one line each to a file.
notify_listener() { # SOCKET FILE
    python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace("@", "\0", 1))
out = open(sys.argv[2], "w", buffering=1)
out.write("listens\n")
while True:
    for line in s.recv(4096).decode().split("\n"): out.write(line + "\n")' "$1" "$2" &
    listener=$!
    until_true 10 grep -qs listens "$2"
}

part_notify() {
    local place
    for place in "$WORK/notify" "@minivmm-test-$$"; do
        rm -f "$WORK/notes"
        notify_listener "$place" "$WORK/notes"
        three three >"$CONF"
        blank "$WORK"/{a,b,c}.img
        NOTIFY_SOCKET=$place "$PROGRAM" fleet up "$CONF" </dev/null >"$WORK/up.log" 2>&1 &
        supervisor=$!
        check "notify ${place%%[!@]*}: READY=1 comes" until_true 20 grep -qx READY=1 "$WORK/notes"
        check "notify: when all run" all_running 3
        check "notify: once" [ "$(grep -cx READY=1 "$WORK/notes")" -eq 1 ]
        check "notify: with a status" grep -q '^STATUS=.*3' "$WORK/notes"
        kill -HUP "$supervisor"
        check "notify: SIGHUP reloads" until_true 10 grep -qx RELOADING=1 "$WORK/notes"
        check "notify: and is ready again" until_true 10 [ "$(grep -cx READY=1 "$WORK/notes")" -ge 1 ]
        check "notify: all still run" all_running 3
        kill "$supervisor"
        wait "$supervisor"
        check "notify: the supervisor ends with 0" [ $? -eq 0 ]
        check "notify: STOPPING=1 came" until_true 5 grep -qx STOPPING=1 "$WORK/notes"
        kill "$listener"
        wait "$listener" 2>/dev/null
    done
    check "notify: nothing is left" gone 1
    NOTIFY_SOCKET=$WORK/nowhere "$PROGRAM" fleet up "$CONF" </dev/null >"$WORK/up.log" 2>&1 &
    supervisor=$!
    check "notify: a socket that nobody listens on is no reason not to run" until_true 20 all_running 3
    check "notify: down" down
    detached
}

detached() {
    quiet timeout 30 "$PROGRAM" fleet up "$CONF" --detach
    check "--detach: comes back with 0" explain [ $? -eq 0 ]
    check "--detach: when all run" all_running 3
    check "--detach: down" explain quiet fleet down
    check "--detach: nothing is left" gone 2
}

# Where the text stands in a process's memory, as far as root can read it.
in_memory() { # PID TEXT
    python3 -c '
import sys
pid, text = sys.argv[1], sys.argv[2].encode()
hits = 0
with open(f"/proc/{pid}/mem", "rb", 0) as mem:
    for line in open(f"/proc/{pid}/maps"):
        if "r" not in line.split()[1] or "[v" in line: continue
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        for at in range(start, end, 1 << 24):
            try: mem.seek(at); hits += mem.read(min(end - at, (1 << 24) + 64)).count(text)
            except OSError: pass
print(hits)' "$1" "$2"
}
make_key() { (umask 077 && head -c 48 /dev/urandom | base64 -w0 >"$1"); } # FILE: 64 printable bytes

part_keys() {
    local key pid name
    for key in kek disk slot; do make_key "$WORK/$key.key"; done
    blank "$WORK"/{window,disk,slot}.img
    { fleet_head keys | sed "s|^ice-total.*|&\nice-kek = $WORK/kek.key|"
        vm_section window 'ice-slots = 4' "disk = $WORK/window.img" 'cmdline = ice=fleet vm=1 then=button' "log = $WORK/window.log"
        vm_section disk "disk = $WORK/disk.img,encrypt=$WORK/disk.key" "$IDLE" "log = $WORK/disk.log"
        vm_section slot "disk = $WORK/slot.img,id=x" "ice-key = slot=200,disk=x,alg=aes-xts,unit=4096,file=$WORK/slot.key" \
            "$IDLE" "log = $WORK/slot.log"; } >"$CONF"
    up "$CONF"
    check "keys: three VMs run" explain until_true 20 all_running 3
    check "keys: the guest with a window verifies" until_true 20 grep -q '^ok 1 - guest: fleet' "$WORK/window.log"
    check "keys: a VM's own key lies in its slot" eval 'quiet "$PROGRAM" key list --vm slot && says "slot=200 disk=0 by=operator alg=aes-xts"'
    check "keys: memory can be searched, also that of a VM in its cell" \
        [ "$(in_memory "$(inside_of window)" "ice=fleet vm=1")" -ge 1 ]
    for pid in $(ours); do
        name=$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-40)
        for key in kek disk slot; do
            check "keys: $key.key is not to be found in process $pid ($name)" \
                [ "$(in_memory "$pid" "$(head -c 32 "$WORK/$key.key")") $(in_memory "$pid" "$(tail -c 32 "$WORK/$key.key")")" = "0 0" ]
        done
    done >"$WORK/keys.tap"
    check "keys: none of the three is readable in any of $(ours | wc -l) processes" silent "not ok" "$WORK/keys.tap"
    grep '^not ok' "$WORK/keys.tap" | sed 's/^not ok/#/'
    ours | while read -r pid; do tr '\0' '\n' <"/proc/$pid/cmdline" && tr '\0' '\n' <"/proc/$pid/environ"; done >"$WORK/words" 2>/dev/null
    cat "$WORK/up.log" "$WORK"/{window,disk,slot}.log >>"$WORK/words"
    for key in kek disk slot; do
        check "keys: $key.key is in no argument, environment or log" silent "$(head -c 16 "$WORK/$key.key")" "$WORK/words"
    done
    chmod 644 "$WORK/slot.key"
    pid=$(fact slot pid)
    quiet fleet restart slot
    check "keys: a file that others can read is refused at the next start" explain says "chmod 600"
    check "keys: the other VMs go on" all_running 2
    chmod 600 "$WORK/slot.key"
    check "keys: mended, it starts" explain quiet fleet start slot
    check "keys: down" down
    check "keys: nothing is left" gone 1
}

# With a device node of the test's own, as a user in group kvm has it, and a run directory by XDG_RUNTIME_DIR.
part_user() {
    local home=$WORK/user as
    if ! mknod "$WORK/kvm" c 10 232 2>/dev/null || ! chown 65534:65534 "$WORK/kvm" || ! chmod 600 "$WORK/kvm"; then
        skip "user: a fleet without root" "needs root and mknod"
        return
    fi
    install -d -m 700 -o 65534 -g 65534 "$home" "$home/run"
    as="setpriv --reuid=65534 --regid=65534 --clear-groups env -u MINIVMM_RUN_DIR XDG_RUNTIME_DIR=$home/run HOME=$home"
    blank "$home"/{a,b}.img
    make_key "$home/disk.key"
    chown 65534:65534 "$home"/*
    if ! $as sh -c ": <>$WORK/kvm" 2>/dev/null; then
        skip "user: a fleet without root" "the work directory's file system has no devices"
        return
    fi
    { fleet_head user "kvm = $WORK/kvm" | sed '/^ice-map/d'
        vm_section a 'ice-slots = 4' "disk = $home/a.img" 'cmdline = ice=fleet vm=1 then=button' "log = $home/a.log"
        vm_section b "disk = $home/b.img,encrypt=$home/disk.key" "$IDLE" "log = $home/b.log"; } >"$CONF"
    chmod 644 "$CONF"
    $as "$PROGRAM" fleet up "$CONF" </dev/null >"$WORK/up.log" 2>&1 &
    supervisor=$!
    check "user: both VMs run without root" until_true 20 user_running "$as"
    [ "$failed" -eq 0 ] || sed 's/^/# /' "$WORK/up.log" | head -n 10
    check "user: no process is root's" [ -z "$(ours | while read -r pid; do stat -c %u "/proc/$pid"; done | grep -x 0)" ]
    check "user: the guest verifies" until_true 20 grep -q '^ok 1 - guest: fleet' "$home/a.log"
    check "user: root reads the fleet by its directory" explain eval "quiet env MINIVMM_RUN_DIR=$home/run/minivmm $PROGRAM fleet ps"
    quiet setpriv --reuid=65533 --regid=65533 --clear-groups env MINIVMM_RUN_DIR="$home/run/minivmm" "$PROGRAM" fleet ps
    check "user: another user may not ask" [ $? -ne 0 ]
    # shellcheck disable=SC2086 # a prefix of words
    check "user: down" explain quiet timeout 20 $as "$PROGRAM" fleet down
    wait "$supervisor"
    check "user: nothing is left" gone 1
}
user_running() { # AS
    # shellcheck disable=SC2086
    timeout 10 $1 "$PROGRAM" fleet ps --json 2>/dev/null | grep -o '"state": "running"' | wc -l | grep -qx 2
}
