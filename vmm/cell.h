/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cell around a VM (docs/security.md): the process that was started opens everything and stays outside as
 * the keeper; the VM's process is a grandchild of it in namespaces of its own, with an empty root, without
 * capabilities, and with a system-call filter for each thread.
 */
#ifndef MINIVMM_VMM_CELL_H
#define MINIVMM_VMM_CELL_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"

/* What namespaces the host gave. */
enum cell_walls {
    CELL_WALLS_NONE,
    CELL_WALLS_NO_USER, /* root's, where there are no user namespaces (in a chroot, for one) */
    CELL_WALLS_ALL
};

struct cell {
    pid_t keeper; /* as processes outside see it */
    pid_t vm;     /* likewise; known on both sides */
    int life_fd;  /* pipe: the keeper's end is written once; the VM's tells when the keeper is gone */
    enum cell_walls walls;
    uid_t uid;       /* the VM's, or the keeper's own where it has no other */
    bool root;       /* the keeper is root */
    sigset_t before; /* the signal mask to go on with */
};

enum cell_side { CELL_KEEPER, CELL_INSIDE };

/* Closes all descriptors above 2 that config does not name: what a shell left open is not the VM's. */
void cell_close_strays(const struct config *config);

/* Closes the descriptors above 2 that config names as paths (/dev/fd/N): all that is opened by path was
 * opened, and the host's key-encryption key must not stay within reach of the VM by the one that was handed
 * down. */
void cell_close_copied(const struct config *config);

/* In the keeper, when the VM's process is there but waits: may put it into a cgroup. */
typedef int cell_born_fn(void *ctx, pid_t vm, struct err *err);

/*
 * Makes the VM's process. Single-threaded. Returns twice: CELL_KEEPER in the caller, where all signals are
 * blocked from then on, and CELL_INSIDE in the VM's process; or -errno with a sentence. Where the host
 * refuses namespaces, the cell goes without (and the log warns).
 */
int cell_split(struct cell *cell, cell_born_fn *born, void *ctx, struct err *err);

/*
 * Inside: closes the cell around the process, for good. After this no path can be opened. -errno with a
 * sentence when one of the walls that the host does have could not be put up.
 */
int cell_close(const struct cell *cell, struct err *err);

/* Inside, when all threads and descriptors are there: no further ones than a VM at work needs. statm_fd: the
 * process's /proc/self/statm, or -1. */
void cell_limit(int statm_fd);

/*
 * The keeper's life: hands signals (all of which must be blocked) on to the child until it is gone. Returns
 * its wait status. init: the child is the first process of a pid namespace.
 */
int cell_keep(pid_t child, bool init);

#endif
