# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The testbed's scenario of hosts that refuse namespaces: what is left of the cell there; sourced by inside.sh.
JAIL=/tmp/jail

# A folder that is no mount, with minivmm and what it needs, for chroot.
make_jail() {
    local file
    mkdir -p "$JAIL"/{dev,run,tmp,proc}
    # libcrypto is loaded by name when a VM has keyslots.
    for file in $( (ldd "$MINIVMM" && ldconfig -p | grep 'libcrypto.so.3 ') | grep -o '/[^ ]*'); do
        mkdir -p "$JAIL$(dirname "$file")" && cp -L "$file" "$JAIL$file"
    done
    cp "$MINIVMM" "$JAIL/minivmm"
    cp build/guest/guest.elf "$JAIL/"
    mknod -m 666 "$JAIL/dev/kvm" c 10 232 && mknod -m 666 "$JAIL/dev/null" c 1 3
    mount -t proc proc "$JAIL/proc"
}

cell_holds() {
    for _ in $(seq 200); do
        grep -q '^# holding' "$OUT" 2>/dev/null && return 0
        sleep 0.1
    done
    return 1
}

own_namespaces() { # PID: those that are not ours
    local kind
    for kind in user mnt pid net ipc uts cgroup; do
        [ "$(readlink "/proc/$1/ns/$kind")" = "$(readlink "/proc/self/ns/$kind")" ] || printf '%s ' $kind
    done
}

proc_status() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | cut -f1; } # PID FIELD

# cell NAME NAMESPACES USER WORDS MINIVMM...: a VM whose guest holds a key, with the jail's files, which the program
# finds in $FILES. USER: "own", one that is the VM's alone, or a number; WORDS: what the log says, "" for nothing.
cell() {
    local name=$1 namespaces=$2 user=$3 words=$4 keeper inside
    shift 4
    rm -f "$JAIL"/{a,b}.img /tmp/in "$OUT"
    truncate -s 2M "$JAIL/a.img" "$JAIL/b.img" && chmod 666 "$JAIL"/*.img && mkfifo /tmp/in
    exec 8<>/tmp/in
    MINIVMM_RUN_DIR=/tmp/cell "$@" --kernel "$FILES/guest.elf" --debug-exit --timeout 60 --name cell --memory 16M \
        --cmdline ice=hold --ice-slots 4 --disk "$FILES/a.img,queues=2" --disk "$FILES/b.img,queues=2" <&8 >"$OUT" 2>"$OUT.err" &
    keeper=$!
    check "cell, $name: the guest runs" cell_holds
    inside=$(tr -d ' ' <"/proc/$keeper/task/$keeper/children")
    check "cell, $name: namespaces of its own: ${namespaces:-none}" [ "$(own_namespaces "$inside")" = "$namespaces" ]
    if [ -n "$namespaces" ]; then
        check "cell, $name: an empty root" [ -z "$(ls -A "/proc/$inside/root/")" ]
    fi
    [ "$user" != own ] || user=$((0x70000000 + keeper))
    check "cell, $name: user $user (it was $(proc_status "$inside" Uid))" [ "$(proc_status "$inside" Uid)" = "$user" ]
    check "cell, $name: no capability" [ "$(proc_status "$inside" CapPrm)" = 0000000000000000 ]
    check "cell, $name: no_new_privs" [ "$(proc_status "$inside" NoNewPrivs)" = 1 ]
    check "cell, $name: a system-call filter" [ "$(proc_status "$inside" Seccomp)" = 2 ]
    printf x >&8
    wait "$keeper"
    check "cell, $name: the guest finds its data again, and the VM ends with 0" [ $? -eq 0 ]
    exec 8>&-
    if [ -n "$words" ]; then
        check "cell, $name: the log says: $words" grep -qF "$words" "$OUT.err"
    else
        check "cell, $name: the log says nothing of it" [ "$(grep -c namespace "$OUT.err")" -eq 0 ]
    fi
    sed 's/^/# /' "$OUT.err"
}

scenario_cell() {
    local most
    make_jail
    mkdir -m 700 "$JAIL/tmp/cell" /tmp/cell
    most=$(cat /proc/sys/user/max_user_namespaces)
    FILES=$JAIL
    cell "in the root" "user mnt pid net ipc uts cgroup " own "" "$MINIVMM"
    echo 0 >/proc/sys/user/max_user_namespaces
    cell "user namespaces forbidden" "mnt pid net ipc uts cgroup " own \
        "without a user namespace of its own, which this host refuses (No space left on device)" "$MINIVMM"
    echo "$most" >/proc/sys/user/max_user_namespaces
    FILES=
    cell "in a chroot" "mnt pid net ipc uts cgroup " own \
        "without a user namespace of its own, which this host refuses (Operation not permitted)" \
        chroot "$JAIL" /minivmm
    rm -f "$JAIL"/tmp/cell/*
    chown 1000 "$JAIL/tmp/cell"
    cell "in a chroot, without root" "" 1000 \
        "without namespaces of its own, which this host refuses (Operation not permitted)" \
        chroot --userspec=1000:1000 "$JAIL" /minivmm
    umount "$JAIL/proc"
    rm -rf "$JAIL"
}
