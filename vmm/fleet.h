/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor of a fleet, for the vmm/fleet_*.c files of `minivmm fleet up` alone: one thread, one event
 * loop. Callbacks only note what happened; units_advance() and server_advance() act on it once a turn of the
 * loop. All times are of CLOCK_MONOTONIC, so that a clock that jumps changes nothing.
 */
#ifndef MINIVMM_VMM_FLEET_H
#define MINIVMM_VMM_FLEET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "minivmm/log.h"
#include "minivmm/slotmap.h"
#include "vmm/control_internal.h"
#include "vmm/fleet_config.h"
#include "vmm/loop.h"
#include "vmm/notify.h"

#define FLEET_RING           65536u /* console bytes that are kept of each VM */
#define FLEET_BACKOFF_MAX_MS 60000
#define FLEET_STEADY_MS      60000 /* who ran that long ended late: its back-off begins anew */
#define FLEET_STARTING_MAX   32u   /* processes that start at the same time */
#define FLEET_KILL_MS        2000  /* after the VM's own deadline, which syncs its disks */
#define FLEET_NEVER          (-1)

enum fleet_state {
    FLEET_WAITING, /* its turn has not come */
    FLEET_STARTING,
    FLEET_RUNNING,
    FLEET_STOPPING,
    FLEET_BACKOFF,
    FLEET_STOPPED, /* by order, or ended and not to be restarted */
    FLEET_FAILED,
};

/* The last FLEET_RING bytes of a stream of total bytes; allocated with the first one. */
struct fleet_ring {
    char *bytes;
    uint64_t total;
};

struct supervisor;

/* One VM of the fleet, running or not. */
struct unit {
    struct unit *next;
    struct supervisor *up;
    struct fleet_vm *vm;      /* in up->fleet, or up->old until its process is gone */
    struct fleet_vm *next_vm; /* what it becomes when its process is gone, or NULL */
    enum fleet_state state;
    int64_t since;      /* of the state */
    int64_t deadline;   /* when the state demands something, or FLEET_NEVER */
    int64_t running_at; /* of this process; FLEET_NEVER: not yet */
    pid_t pid;          /* 0: no process */
    int pid_fd, ready_fd, console_fd, log_fd, ask_fd;
    bool turn;    /* waiting: its turn has come, it starts at the deadline */
    bool again;   /* stopping: starts anew afterwards */
    bool leaving; /* is no longer in the file */
    bool reaping; /* its process is dead, others of its group not yet */
    struct slotmap *window;
    unsigned restarts, quick; /* quick: ends in a row of runs shorter than FLEET_STEADY_MS */
    int exit_code;            /* of the last process, 128 + N by signal N; -1: none ended yet */
    char why[160];            /* of the last failure */
    struct fleet_ring ring;
    bool log_failed;
    struct log_limit log_said;
};

struct fleet_server;

struct supervisor {
    struct fleet fleet;
    struct fleet old; /* what is left of the file before the reload under way */
    bool reloading;
    struct unit *units; /* in order of the file */
    struct loop *loop;
    struct fleet_server *server;
    const char *program; /* of a VM */
    int dir_fd;          /* the run directory */
    int lock_fd;         /* the file, locked */
    int signal_fd;
    bool ending; /* all are to stop */
    bool begun;  /* all first starts are done */
    struct notify notify;
};

int64_t fleet_now_ms(void);

/*
 * When a VM that ended is started again: in so many ms, or FLEET_NEVER. delay_ms: the first back-off; quick:
 * its quick ends in a row before this one; code: its exit code, 128 + N by signal N.
 */
int64_t fleet_restart_after(enum fleet_restart policy, unsigned delay_ms, unsigned quick, int code);

const char *fleet_state_name(enum fleet_state state);

/* ---- fleet_vm.c: a VM's life ---- */

/* At the list's end; stopped. -ENOMEM. */
int unit_create(struct supervisor *up, struct fleet_vm *vm, struct unit **out);
void unit_free(struct unit *unit);
struct unit *unit_find(const struct supervisor *up, const char *name);
const char *unit_name(const struct unit *unit);

void unit_queue(struct unit *unit); /* starts in its turn: by order and delay */
void unit_start(struct unit *unit); /* starts now; also one that is stopping, afterwards */
void unit_stop(struct unit *unit);
void unit_kill(struct unit *unit);
void unit_restart(struct unit *unit);
void unit_became_ready(struct unit *unit);

/* The process and all of its group are gone. code: as exit_code; why: a sentence, or NULL for the usual. */
void unit_ended(struct unit *unit, int code, const char *why);

/* Nothing is under way: it runs, or will not before somebody or a back-off starts it. */
bool unit_is_settled(const struct unit *unit);

/* Does what is due. */
void units_advance(struct supervisor *up);
int units_timeout(const struct supervisor *up); /* ms until something is due, -1: nothing */

/* Claims the windows that the fleet's VMs should hold and do not; says which can't be had. */
void units_claim_windows(struct supervisor *up);

/* ---- fleet_spawn.c: its process ---- */

/* Starts the process. -errno with a sentence; *code: the exit code that fits. */
int spawn_unit(struct unit *unit, int *code, struct err *err);
void spawn_on_child(struct supervisor *up); /* SIGCHLD came */

/* Presses the power button over the VM's own socket; where that can't be had, sends SIGTERM. */
void spawn_ask_to_stop(struct unit *unit);

/* ---- fleet_output.c: its console ---- */

void output_attach(struct unit *unit, int fd);
void output_detach(struct unit *unit); /* takes what is left, and closes it */
void output_open_log(struct unit *unit);
void output_close_log(struct unit *unit);
void ring_append(struct fleet_ring *ring, const char *bytes, size_t len);
/* The bytes from *at on that lie in one piece; moves *at past those that are lost and tells how many. */
size_t ring_piece(const struct fleet_ring *ring, uint64_t *at, const char **piece, uint64_t *lost);
/* Where the last lines begin. */
uint64_t ring_tail(const struct fleet_ring *ring, unsigned lines);

/* ---- fleet_keys.c: what a process gets in descriptors ---- */

#define HANDOVER_FDS (2 * CONFIG_DISKS_MAX + 1)

struct handover {
    struct config config; /* names descriptors in place of files; shares all other strings */
    int fd[HANDOVER_FDS];
    unsigned fds;
    char path[CONFIG_DISKS_MAX][24];
};

/* kek: the fleet's, or NULL. handover_close() in any case. -errno with a sentence that names the flag. */
int handover_open(struct handover *handover, const struct config *config, const char *kek, struct err *err);
void handover_close(struct handover *handover);

/* A memory object of size bytes for a secret, mapped at *map; memfd_secret(2) where secret and possible. */
int key_object(size_t size, bool secret, void **map);

/* ---- fleet_reload.c ---- */

/*
 * Reads the file anew. Problems go to out as "problem FILE:LINE: TEXT" lines, and nothing changes then.
 * told: once for each VM that changes, after its change has begun.
 */
typedef void reload_fn(void *ctx, struct unit *unit, enum fleet_change change);
int reload_fleet(struct supervisor *up, FILE *out, reload_fn *told, void *ctx, struct err *err);

/* What that would do: "start NAME", "stop NAME", "restart NAME" and "keep NAME" lines. */
int reload_plan(struct supervisor *up, FILE *out, struct err *err);

/* When all VMs of the old file are gone, lets go of it. */
void reload_advance(struct supervisor *up);

/* ---- fleet_server.c and fleet_requests.c: the socket ---- */

/* Takes the fleet's name. -EBUSY with the other's pid. */
int server_create(struct supervisor *up, struct err *err);
void server_destroy(struct fleet_server *server);
void server_advance(struct supervisor *up);

/* At the end: who waited for it hears so. */
void server_farewell(struct supervisor *up);

/* "WHAT NAME" or "WHAT NAME: why" for those who wait for this VM, and for the log. */
void server_tell(struct unit *unit, const char *what, const char *why);
void server_forget(struct unit *unit);
void server_new_output(struct unit *unit);
void server_console_writable(struct unit *unit); /* for those with input for it */

/* ---- fleet_up.c ---- */

int fleet_up_main(int argc, char **argv);                    /* minivmm fleet up: argv[0] is "up" */
void supervisor_end(struct supervisor *up);                  /* stops all; a second time: kills all */
int supervisor_lock(struct supervisor *up, struct err *err); /* the file, as it is now */

#endif
