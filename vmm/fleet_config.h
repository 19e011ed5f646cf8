/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fleet's file (docs/fleet.md): [fleet], [defaults], [template NAME], [vm NAME], include directories. Every
 * setting of a VM is a flag of the single-VM command, without its dashes. Nothing is opened or locked here
 * but the files of the configuration.
 */
#ifndef MINIVMM_VMM_FLEET_CONFIG_H
#define MINIVMM_VMM_FLEET_CONFIG_H

#include <stdbool.h>
#include <stdio.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"

#define FLEET_VMS_MAX 4096u

enum fleet_restart { FLEET_RESTART_NEVER, FLEET_RESTART_ON_FAILURE, FLEET_RESTART_ALWAYS };

struct fleet_vm {
    struct config config; /* complete; config.ice.offset is the planned first slot of its window */
    enum fleet_restart restart;
    unsigned restart_delay_ms; /* first back-off; doubles with every quick end, up to fleet_restart_max_ms */
    int order;                 /* lower ones start first; equal ones together */
    unsigned delay_ms;         /* wait before its start, after its turn has come */
    unsigned stop_timeout_s;   /* from power button to SIGKILL */
    bool autostart;            /* default on; off: only by fleet start NAME */
    char *log;                 /* file that the console is appended to, or NULL */
    bool slots_fixed;          /* the file says N@FIRST */
    const char *file;          /* where the section stands; the fleet's */
    unsigned line;
};

struct fleet {
    char *name;          /* [fleet] name=, else the file's name without .conf */
    char *path;          /* absolute */
    unsigned total;      /* ice-total */
    char *map;           /* ice-map, or NULL: the default one */
    char *kek;           /* ice-kek, or NULL */
    struct fleet_vm *vm; /* in order of the file (then of includes) */
    unsigned vms;
    char **files; /* all that were read */
    unsigned file_count;
};

/* One thing wrong with a file, for people. */
struct fleet_problem {
    char *file;
    unsigned line; /* 0: the file as a whole */
    char *text;
    bool warning; /* worth a word, but no reason not to start */
};

struct fleet_problems {
    struct fleet_problem *list; /* in order of file and line */
    unsigned count, errors;     /* errors: those that are no warnings */
};

/*
 * Reads and checks a whole fleet; collects every problem, not just the first. 0 when problems->errors is 0;
 * -EINVAL otherwise; -ENOMEM. *fleet and *problems are valid and to be freed in any case.
 */
int fleet_load(const char *path, struct fleet *fleet, struct fleet_problems *problems);
void fleet_free(struct fleet *fleet);
void fleet_problems_free(struct fleet_problems *problems);

/* One line each, "FILE:LINE: error: TEXT". */
void fleet_problems_print(const struct fleet_problems *problems, FILE *out);

/* The VM of this name, or NULL. */
struct fleet_vm *fleet_find(const struct fleet *fleet, const char *name);

/* Whether a running VM must be restarted to become the other: all that fleet_vm holds but file and line. */
bool fleet_vm_same(const struct fleet_vm *a, const struct fleet_vm *b);

/* The windows on the host's slots as a picture of at most 80 columns, then a line a window. */
void fleet_print_slots(const struct fleet *fleet, FILE *out);

/*
 * Before a reload from old to next: VMs that stay keep their window where the file does not say N@FIRST, so
 * that a newcomer moves nobody. Where that leaves no room for all, next's own plan stands.
 */
void fleet_keep_windows(const struct fleet *old, struct fleet *next);

/* What fleet_changes() tells, one call a VM. */
enum fleet_change { FLEET_KEEP, FLEET_START, FLEET_STOP, FLEET_RESTART };
typedef void fleet_change_fn(void *ctx, enum fleet_change change, const char *vm);

/* What a reload from old (NULL: nothing runs) to next would do; order: stops, restarts, starts, kept ones. */
void fleet_changes(const struct fleet *old, const struct fleet *next, fleet_change_fn *fn, void *ctx);

#endif
