#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command line as a user meets it: bad input, hosts that lack something, running VMs, boot-test. Each refusal
# must come in time, with its exit code (2: the user's input, 1: the host) and with a sentence that names the
# flag or path and the mend. Prints TAP.
#
# usage: tests/e2e/cli.sh     (MINIVMM: the program, default ./minivmm)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.sh

WORK=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$WORK"' EXIT
chmod 755 "$WORK"
export MINIVMM_RUN_DIR=$WORK/run
NO_KVM=
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    NO_KVM="there is no /dev/kvm that this user can open"
fi
AS= # a prefix for the program, such as setpriv

# answers NAME STATUS PATTERN... -- ARG...: the program ends in 20 s with STATUS and says all the patterns (fixed
# strings) on its two outputs together, which are left in $WORK/said. Refusals are one line, unless LINES says.
answers() {
    local name=$1 wanted=$2 status pattern lacking=
    local -a patterns=()
    shift 2
    while [ "$1" != -- ]; do
        patterns+=("$1")
        shift
    done
    shift
    # shellcheck disable=SC2086 # a prefix of words
    timeout -k 5 20 $AS "$MINIVMM" "$@" </dev/null >"$WORK/said" 2>&1
    status=$?
    for pattern in "${patterns[@]}"; do
        grep -qF -e "$pattern" "$WORK/said" || lacking="$lacking '$pattern'"
    done
    if [ "$status" -eq "$wanted" ] && [ -z "$lacking" ]; then
        ok "$name"
    else
        not_ok "$name: exit status $status, wanted $wanted${lacking:+; not said:$lacking}"
        head -c 2000 "$WORK/said" | head -8 | sed 's/^/# /'
    fi
}

# The same for what is found only once KVM is open.
answers_kvm() { if [ -n "$NO_KVM" ]; then skip "$1" "$NO_KVM"; else answers "$@"; fi; }

# assemble FILE < source: an ELF kernel of a few instructions, entered in 64-bit mode
assemble() {
    as --64 -o "$WORK/asm.o" - && ld -N -e _start -Ttext=0x200000 -o "$1" "$WORK/asm.o"
}

K=$WORK/halts
printf '_start: cli\n1: hlt\n jmp 1b\n.globl _start\n' | assemble "$K" || exit 2
image() { # FILE: a disk image
    rm -f "$1"
    truncate -s 1M "$1"
}
image "$WORK/disk.img"
D=$WORK/disk.img

# ---- flags and values
answers "no arguments: the help" 0 "usage: minivmm" --
answers "--version" 0 "minivmm 0." -- --version
answers "--help beside an error" 0 "usage: minivmm" -- --bogus --help
answers "no kernel" 2 "--kernel is missing" "--kernel vmlinuz" -- --memory 64M
answers "an unknown flag, near a known one" 2 "unknown flag '--kernal'" "did you mean '--kernel'?" -- --kernal "$K"
answers "an unknown flag, near none" 2 "unknown flag '--qqqqqq'" "minivmm --help" -- --qqqqqq
answers "a word that is no flag" 2 "'vmlinuz' is neither a flag nor a command" "minivmm --help" -- vmlinuz
answers "a flag without its value" 2 "--memory needs a value" "--memory SIZE" -- --kernel "$K" --memory
answers "a flag given twice" 2 "--memory is given twice" -- --kernel "$K" --memory 64M --memory 64M
answers "an empty kernel's path" 2 "--kernel: is empty" "path of a file" -- --kernel ""
for bad in 0 15M 64X -1 1.5G 99999999999999999999 0x40M ""; do
    answers "--memory '$bad'" 2 "--memory: '$bad' is" -- --kernel "$K" --memory "$bad"
done
for bad in 0 33 two -1 ""; do
    answers "--cpus '$bad'" 2 "--cpus: '$bad' is not a whole number from 1 to 32" -- --kernel "$K" --cpus "$bad"
done
answers "--console with a near miss" 2 "--console: 'stdoi'" "did you mean 'stdio'?" -- --kernel "$K" --console stdoi
answers "--console file: without a path" 2 "--console: file" "path of a file" -- --kernel "$K" --console file:
answers "--name with a slash" 2 "--name: '../x' is not a name" "letters, digits" -- --kernel "$K" --name ../x
answers "--timeout that is no number" 2 "--timeout: 'soon'" "from 0 to" -- --kernel "$K" --timeout soon
answers "--verbose with --quiet" 2 "--verbose and --quiet exclude each other" -- --kernel "$K" --verbose --quiet
answers "--hugepages with an odd size" 2 "--memory" "multiple of 2M" -- --kernel "$K" --memory 65M --hugepages
answers "--cmdline too long" 2 "--cmdline: 3000 bytes are more than" -- \
    --kernel "$K" --cmdline "$(printf '%3000s' | tr ' ' x)"
answers "--cmdline of two lines" 2 "--cmdline: byte 2" "one line" -- --kernel "$K" --cmdline $'a\nb'
answers "--cpu that no table knows" 2 "--cpu: 'Pentium9' is not one of host, x86-64-v1" -- --kernel "$K" --cpu Pentium9 --console none

# ---- kernel, initrd and disk that can't be used
mkdir "$WORK/folder"
: >"$WORK/empty"
head -c 100000 /dev/urandom >"$WORK/garbage"
printf 'MZ' >"$WORK/tiny"
mkfifo "$WORK/fifo"
printf '\177ELF' >"$WORK/cut"
head -c 70 "$K" >"$WORK/cut-elf"
answers_kvm "a missing kernel" 2 "--kernel: $WORK/absent" "No such file" -- --kernel "$WORK/absent"
answers_kvm "a directory as kernel" 2 "--kernel: $WORK/folder is a directory" -- --kernel "$WORK/folder"
answers_kvm "an empty kernel" 2 "--kernel: $WORK/empty is empty" -- --kernel "$WORK/empty"
answers_kvm "a FIFO as kernel" 2 "--kernel: $WORK/fifo is not a regular file" -- --kernel "$WORK/fifo"
answers_kvm "garbage as kernel" 2 "--kernel: $WORK/garbage: is not a kernel" "bzImage" -- --kernel "$WORK/garbage"
answers_kvm "two bytes as kernel" 2 "$WORK/tiny" "is not a kernel" -- --kernel "$WORK/tiny"
answers_kvm "the first bytes of an ELF file as kernel" 2 "$WORK/cut" -- --kernel "$WORK/cut"
answers_kvm "an ELF kernel cut off in its headers" 2 "$WORK/cut-elf" -- --kernel "$WORK/cut-elf"
answers_kvm "the monitor itself as kernel" 2 "--kernel: $MINIVMM" -- --kernel "$MINIVMM"
if [ -e "$KERNEL" ]; then
    head -c 3000000 "$KERNEL" >"$WORK/cut-bzimage"
    answers_kvm "a bzImage cut off" 2 "$WORK/cut-bzimage: is truncated" "copy it anew" -- --kernel "$WORK/cut-bzimage"
    answers_kvm "a kernel too large for memory" 2 "--kernel: $KERNEL: needs" "raise --memory" -- --kernel "$KERNEL" --memory 16M
else
    skip "a bzImage cut off" "no kernel in .cache/kernels: sh tools/setup.sh check"
    skip "a kernel too large for memory" "no kernel in .cache/kernels: sh tools/setup.sh check"
fi
answers_kvm "a missing initrd" 2 "--initrd: $WORK/absent" "No such file" -- --kernel "$K" --initrd "$WORK/absent"
answers_kvm "a directory as initrd" 2 "--initrd: $WORK/folder is a directory" -- --kernel "$K" --initrd "$WORK/folder"
answers_kvm "an empty initrd" 2 "--initrd: $WORK/empty is empty" -- --kernel "$K" --initrd "$WORK/empty"
truncate -s 60M "$WORK/large"
answers_kvm "an initrd too large for memory" 2 "--initrd: $WORK/large" "raise --memory" -- \
    --kernel "$K" --initrd "$WORK/large" --memory 32M
answers_kvm "a missing disk" 2 "--disk: $WORK/absent" "No such file" -- --kernel "$K" --disk "$WORK/absent"
answers_kvm "a directory as disk" 2 "--disk: $WORK/folder" "regular file or a block device" -- --kernel "$K" --disk "$WORK/folder"
answers_kvm "an empty disk" 2 "--disk: $WORK/empty: is empty" "truncate -s" -- --kernel "$K" --disk "$WORK/empty"
answers_kvm "a FIFO as disk" 2 "--disk: $WORK/fifo" "regular file or a block device" -- --kernel "$K" --disk "$WORK/fifo"
answers_kvm "a disk of 100,000 bytes" 2 "--disk: $WORK/garbage" "not a multiple of 512" "truncate -s %512" -- \
    --kernel "$K" --disk "$WORK/garbage"

# ---- disks together
answers "the same disk twice" 2 "--disk: $D is named twice" "image of its own" -- --kernel "$K" --disk "$D" --disk "$D"
ln -s "$D" "$WORK/symlink.img"
ln "$D" "$WORK/hardlink.img"
answers "a disk and a symbolic link to it" 2 "$WORK/symlink.img are one file" "image of its own" -- \
    --kernel "$K" --disk "$D" --disk "$WORK/symlink.img"
answers "a disk and a hard link of it" 2 "$WORK/hardlink.img are one file" "image of its own" -- \
    --kernel "$K" --disk "$D" --disk "$WORK/hardlink.img"
rm "$WORK/hardlink.img" "$WORK/symlink.img"
many=()
for n in {1..15}; do
    image "$WORK/many$n.img"
    many+=(--disk "$WORK/many$n.img")
done
answers "15 disks" 2 "--disk: a VM takes at most 14 disks" "interrupt lines" -- --kernel "$K" "${many[@]}"
answers_kvm "14 disks: as many as there may be" 124 "--timeout" -- \
    --kernel "$K" --console none --timeout 1 --memory 32M "${many[@]:0:28}"
answers "a disk's unknown key" 2 "--disk: unknown key 'quues'" "did you mean 'queues'?" -- --kernel "$K" --disk "$D,quues=2"
answers "a disk's bad value" 2 "--disk: cache: 'writeback2'" "writeback, writethrough" -- --kernel "$K" --disk "$D,cache=writeback2"
answers "a disk's key twice" 2 "--disk: ro is given twice" -- --kernel "$K" --disk "$D,ro,ro"
answers "33 queues" 2 "--disk: queues: '33'" "from 1 to 32" -- --kernel "$K" --disk "$D,queues=33"
answers "a queue of 100 requests" 2 "--disk: queue-size: '100'" "power of two" -- --kernel "$K" --disk "$D,queue-size=100"
answers "two disks with one id" 2 "both have the id 'a'" "id=NAME" -- \
    --kernel "$K" --disk "$WORK/many1.img,id=a" --disk "$WORK/many2.img,id=a"
rm "$WORK"/many*.img

# ---- the host
answers "no KVM device" 1 "--kvm: there is no KVM device at /nonexistent" "kvm_intel or kvm_amd" -- --kernel "$K" --kvm /nonexistent
answers "a file that is no KVM device" 1 "--kvm: $D is not a KVM device" -- --kernel "$K" --kvm "$D"
answers_kvm "more memory than the host has" 2 "--memory: " "more than this host has" -- --kernel "$K" --memory 100000G
: >"$WORK/kvm0600"
chmod 600 "$WORK/kvm0600"
install -m 755 "$MINIVMM" "$WORK/minivmm"
if [ "$(id -u)" -eq 0 ]; then
    AS="setpriv --reuid=65534 --regid=65534 --clear-groups env MINIVMM_RUN_DIR=$WORK/nobody"
else
    chmod 0 "$WORK/kvm0600"
fi
program=$MINIVMM
MINIVMM=$WORK/minivmm
answers "no permission on the KVM device" 1 "--kvm: no permission to open $WORK/kvm0600" "usermod -aG kvm" -- \
    --kernel "$K" --kvm "$WORK/kvm0600"
answers "a config that may not be read" 2 "--config: $WORK/kvm0600 cannot be opened" "Permission denied" -- --config "$WORK/kvm0600"
# A device node of the test's own: what a user in group kvm has.
if [ -z "$NO_KVM" ] && mknod "$WORK/kvm" c 10 232 2>/dev/null && chmod 666 "$WORK/kvm" && : 2>/dev/null <"$WORK/kvm"; then
    answers "a kernel that may not be read" 2 "--kernel: $WORK/kvm0600 could not be opened: Permission denied" -- \
        --kernel "$WORK/kvm0600" --kvm "$WORK/kvm"
    answers "an initrd that may not be read" 2 "--initrd: $WORK/kvm0600 could not be opened: Permission denied" -- \
        --kernel "$K" --initrd "$WORK/kvm0600" --kvm "$WORK/kvm"
    image "$WORK/secret.img"
    chmod 600 "$WORK/secret.img"
    answers "a disk that may not be read" 2 "--disk: $WORK/secret.img" "Permission denied" -- \
        --kernel "$K" --disk "$WORK/secret.img" --kvm "$WORK/kvm"
    chmod 644 "$WORK/secret.img"
    answers "a disk that may not be written" 2 "--disk: $WORK/secret.img" "can't be written" "ro=on" -- \
        --kernel "$K" --disk "$WORK/secret.img" --kvm "$WORK/kvm"
    install -d -m 700 -o 65534 -g 65534 "$WORK/nobody"
    answers "the same read-only, as an ordinary user" 124 "--timeout" -- \
        --kernel "$K" --disk "$WORK/secret.img,ro" --kvm "$WORK/kvm" --console none --timeout 1 --memory 32M
else
    for what in kernel initrd disk; do
        skip "a $what that may not be read" "needs root, mknod and /dev/kvm"
    done
    skip "a disk that may not be written" "needs root, mknod and /dev/kvm"
    skip "the same read-only, as an ordinary user" "needs root, mknod and /dev/kvm"
fi
MINIVMM=$program
AS=

# ---- configuration files: the file, the line, what was expected
C=$WORK/vm.conf
conf() { # NAME TEXT PATTERN...: refused, with the place
    local name=$1
    printf '%b' "$2" >"$C"
    shift 2
    answers "config: $name" 2 "$@" -- --config "$C"
}
conf "an unknown key" 'kernel = k\nmemry = 64M\n' "$C:2: " "unknown key 'memry'" "did you mean 'memory'?"
conf "a bad value" '# c\n\n[vm]\nkernel = k\ncpus = 99\n' "$C:5: cpus: '99'" "from 1 to 32"
conf "no key = value" 'kernel = k\nwhat is this\n' "$C:2: expected key = value"
conf "an unknown section" 'kernel = k\n[network]\na = b\n' "$C:3: unknown section [network]" "[vm] or [disk ID]"
conf "a key twice" 'kernel = k\ncpus = 1\ncpus = 2\n' "$C:3: cpus is given twice"
conf "a disk without a path" 'kernel = k\n[disk a]\nro = on\n' "$C:3: [disk a] has no path" "path = FILE"
conf "a disk's unknown key" 'kernel = k\n[disk a]\npath = x\nquues = 2\n' "$C:4: unknown key 'quues'" "did you mean 'queues'?"
conf "an indented key" 'cmdline = a\ncpus = 1\n  memory = 64M\n' "$C:3: " "at the margin"
conf "a flag that no file may hold" 'kernel = k\nconfig = other\n' "$C:2: unknown key 'config'"
conf "binary" 'kernel = k\n\0001\0002\n' "$C:2: " "not a text file"
conf "empty" '' "--config: $C is empty"
answers "config: missing" 2 "--config: $WORK/absent cannot be opened" "No such file" -- --config "$WORK/absent"
answers "config: a directory" 2 "--config: $WORK/folder cannot be read" -- --config "$WORK/folder"
truncate -s 100M "$WORK/huge.conf"
answers "config: 100 MB" 2 "--config: $WORK/huge.conf is larger than 1 MiB" -- --config "$WORK/huge.conf"
printf 'kernel = %s\nmemory = 32M\nconsole = none\ntimeout = 1\ncpus = 99\n' "$K" | grep -v cpus >"$C"
answers_kvm "config: a whole VM" 124 "--timeout" -- --config "$C"
printf 'kernel = halts\nmemory = 32M\nconsole = none\ntimeout = 60\n' >"$C"
answers_kvm "config: relative to its folder, and a flag wins over it" 124 "after 1 s" -- --timeout 1 --config "$C"

. tests/e2e/cli_running.sh
. tests/e2e/cli_boot_test.sh
finish
