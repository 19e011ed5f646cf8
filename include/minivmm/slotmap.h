/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The partitioner (docs/ice-spec.md, section 8): windows of physical keyslots, disjoint across processes. A
 * window is an open-file-description write lock on one byte per slot of the slot-map file, so the kernel
 * enforces that windows never overlap and frees one when its holder dies in any way. What the file says of
 * names and pids is a comment, valid only while that range is locked. The promise holds per file: VMs that
 * share an ICE share one.
 */
#ifndef MINIVMM_SLOTMAP_H
#define MINIVMM_SLOTMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "minivmm/errors.h"

#define SLOTMAP_SLOTS_MAX     256u
#define SLOTMAP_TOTAL_DEFAULT 64u
#define SLOTMAP_NAME_MAX      64u
#define SLOTMAP_ANYWHERE      (-1)

struct slotmap_request {
    const char *path; /* NULL: slotmap_default_path() */
    unsigned total;   /* slots of the host, 1 .. SLOTMAP_SLOTS_MAX */
    unsigned slots;   /* window size, 1 .. min(total, 255) */
    int offset;       /* first slot, or SLOTMAP_ANYWHERE for first fit */
    const char *name; /* the VM's, for people */
};

/* A held window; lives until slotmap_release() or the process's end. Must not be inherited by other
 * processes. */
struct slotmap;

/*
 * Takes a window. The map is created (mode 0600) where it is missing. -EINVAL: zero, too many, or past the
 * total; -EBUSY: the range is taken (the sentence names its holder) or no run of free slots is long enough;
 * -errno of open. *offset: first slot of the window.
 */
int slotmap_claim(const struct slotmap_request *request, struct slotmap **out, unsigned *offset,
                  struct err *err);
void slotmap_release(struct slotmap *map); /* NULL is fine */

/*
 * Takes over a window whose lock another process holds through fd, an inherited descriptor of the map, and
 * keeps on holding after slotmap_release(): who handed it down decides how long it is kept. request->offset
 * tells the first slot, path is not used. fd is the caller's no more. -EBUSY when a lock of others is there.
 */
int slotmap_adopt(const struct slotmap_request *request, int fd, struct slotmap **out, struct err *err);

/* The descriptor whose open file description holds the lock, to be handed down; the window's own. */
int slotmap_fd(const struct slotmap *map);

struct slotmap_entry {
    unsigned first, count;
    char name[SLOTMAP_NAME_MAX + 1]; /* "?" where the comment is unreadable */
    pid_t pid;                       /* 0 likewise */
};

/*
 * Lists the held windows in slot order; entries needs room for SLOTMAP_SLOTS_MAX. Returns how many (0 too
 * where there is no map), or -errno with a sentence. Takes no lock, changes nothing.
 */
int slotmap_list(const char *path, struct slotmap_entry *entries, struct err *err);

/* $MINIVMM_RUN_DIR, /run/minivmm (root) or $XDG_RUNTIME_DIR/minivmm, then "/ice.slots". */
int slotmap_default_path(char *path, size_t size, struct err *err);

#endif
