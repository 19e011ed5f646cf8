/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control group of its own for a VM that has limits. Each of the two controllers is taken from where this
 * host has it: the unified hierarchy (v2) or one of the old ones (v1), in the group that this process is in.
 */
#ifndef MINIVMM_VMM_CGROUP_H
#define MINIVMM_VMM_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "minivmm/errors.h"

enum cgroup_controller { CGROUP_CPU, CGROUP_MEMORY, CGROUP_CONTROLLERS };

#define CGROUP_PATH_MAX 1024u

/* Where the groups of VMs are made for one controller. */
struct cgroup_place {
    unsigned version;           /* of the hierarchy: 1 or 2 */
    char dir[CGROUP_PATH_MAX];  /* absolute: a VM's group is made in it */
    char self[CGROUP_PATH_MAX]; /* absolute: the group that this process is in */
};

struct cgroup;

/*
 * Finds the place of a controller, and whether this process may make groups there; changes nothing. 0, or
 * -ENOTSUP with a sentence (no hierarchy has the controller, or none is this user's to write). root: put in
 * front of every path that is read, /proc and the mount points alike; "" but in tests.
 */
int cgroup_find(const char *root, enum cgroup_controller which, struct cgroup_place *place, struct err *err);

/*
 * Makes the group minivmm-NAME with the limits that are asked for; memory also keeps the VM out of swap.
 * cpu_percent: 100 is one processor; memory: bytes; 0: that limit is not asked for. *out: to be given to
 * cgroup_remove(); NULL when no limit is asked for. On v2, this process moves into the group "supervisor"
 * beside the VM's first, as cgroup_make_room() does. A group that a dead VM left behind is taken over.
 * -ENOTSUP: the limit cannot be set here; -EBUSY: processes are in the group of that name; each with a
 * sentence.
 */
int cgroup_create(const char *vm, unsigned cpu_percent, uint64_t memory, struct cgroup **out,
                  struct err *err);

/* cgroup_create() below another root: see cgroup_find(). */
int cgroup_create_at(const char *root, const char *vm, unsigned cpu_percent, uint64_t memory,
                     struct cgroup **out, struct err *err);

/* Moves a process into the group; what it has forked before stays where it is. 0 or -errno with a sentence.
 */
int cgroup_add(const struct cgroup *group, pid_t pid, struct err *err);

/* Removes the group, waiting for up to a second until the dead have left it, and frees it. NULL is fine. */
void cgroup_remove(struct cgroup *group);

/*
 * For who will make groups beside its own: on v2, a group with processes can have no children with limits, so
 * this process moves itself into a leaf, "supervisor", and switches the controllers on above it. 0 also where
 * there is nothing to be done or nothing that this user may do (cgroup_create() says so where it matters);
 * -EBUSY with a sentence when other processes are in the group.
 */
int cgroup_make_room(struct err *err);

#endif
