# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# VMs under strace, and whether what their threads did behind their filters is in the filters' tables. Needs lib.sh.
# A call outside of them kills the VM; this tells also what was seen, and what no traced run has needed so far.

# traced NAME: makes the program $TRACES/NAME, which runs minivmm with its system calls written to $TRACES/NAME.PID.
# strace stays the parent and passes the exit status on, so when the program has ended, the trace is whole.
traced() {
    cat >"$TRACES/$1" <<EOF
#!/bin/sh
exec strace -f -qq -s 0 -e signal=SIGSYS -o "$TRACES/$1.\$\$" "$MINIVMM" "\$@"
EOF
    chmod 755 "$TRACES/$1"
}

can_trace() { strace -f -qq -o /dev/null true 2>/dev/null; }

# What comes out: "seen ROLE CALL COUNT", "foreign ROLE CALL" for what is in no table, "threads ROLE N",
# "killed PID". A thread's role is told by the length of the program that it gives to seccomp(2). Lines of resumed
# calls tell nothing new.
read_traces() { # TRACE...
    awk '
        FILENAME ~ /seccomp_filters.h$/ {
            if (match($0, /seccomp_(main|vcpu|queue)\[/)) role = substr($0, RSTART + 8, RLENGTH - 9)
            else if ($0 ~ /^};/) role = ""
            else if (role && $1 ~ /^{0x/) size[role]++
            next
        }
        FILENAME ~ /security.md$/ {
            if (/^### The main thread/) table = "main"
            else if (/^### A vCPU/) table = "vcpu"
            else if (/^### A queue/) table = "queue"
            else if (/^#|^<!-- end/) table = ""
            else if (table && match($0, /^\| `[a-z0-9_]+`/)) allowed[table, substr($0, 4, RLENGTH - 4)] = 1
            next
        }
        FNR == 1 { delete of; for (r in size) by_size[size[r]] = r }
        $2 == "+++" && /killed by SIGSYS/ { print "killed", $1 }
        $2 !~ /^[a-z0-9_]+\(/ { next }
        { call = substr($2, 1, index($2, "(") - 1) }
        $1 in of {
            n[of[$1], call]++
            if (!((of[$1], call) in allowed) && !told[of[$1], call]++) print "foreign", of[$1], call
            next
        }
        call == "seccomp" && /SECCOMP_SET_MODE_FILTER/ && match($0, /len=[0-9]+/) {
            of[$1] = by_size[substr($0, RSTART + 4, RLENGTH - 4)]
            if (!of[$1]) print "foreign", "unknown", call
            threads[of[$1]]++
        }
        END {
            for (r in threads) print "threads", r, threads[r]
            for (rc in n) { split(rc, part, SUBSEP); print "seen", part[1], part[2], n[rc] }
            for (rc in allowed) if (!(rc in n)) { split(rc, part, SUBSEP); print "unused", part[1], part[2] }
        }' build/gcc/gen/seccomp_filters.h docs/security.md "$@" | sort
}

words() { # FILE FIRST ROLE: the third words, in one line
    awk -v first="$2" -v role="$3" '$1 == first && $2 == role { printf " %s", $3 }' "$1"
}

# filters_seen LABEL TRACE...: the results of all these runs together.
filters_seen() {
    local label=$1 role
    shift
    read_traces "$@" >"$TRACES/read"
    for role in main vcpu queue; do
        check "$label: threads of role $role were traced behind their filter ($(words "$TRACES/read" threads $role))" \
            grep -q "^threads $role" "$TRACES/read"
        check "$label: $role: every call is in its table$(words "$TRACES/read" foreign $role | sed 's/^/, but not:/')" \
            [ -z "$(words "$TRACES/read" foreign $role)" ]
        echo "# $role made:$(words "$TRACES/read" seen $role)"
        echo "# $role was allowed, but did not make:$(words "$TRACES/read" unused $role)"
    done
    check "$label: no filter was unknown" [ -z "$(words "$TRACES/read" foreign unknown)" ]
    check "$label: no filter killed" [ "$(grep -c ^killed "$TRACES/read")" -eq 0 ]
}
