/* SPDX-License-Identifier: Apache-2.0 */
/* A disk with one queue over a scratch image, for tests of both engines. */
#ifndef TESTS_DISK_RIG_H
#define TESTS_DISK_RIG_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include "minivmm/disk.h"

struct disk_rig {
    char path[128]; /* of the image, unlinked by disk_rig_close() */
    struct disk *disk;
    struct disk_queue *queue;
};

/* Where scratch images go; changed by tests that need a file system of their own. */
extern const char *disk_rig_dir;

/* Makes an empty image; the disk is not opened yet. */
void disk_rig_image(struct disk_rig *rig, uint64_t size);
/* Opens it with one queue of depth, attached. */
void disk_rig_open(struct disk_rig *rig, enum disk_engine engine, unsigned depth, bool direct, bool readonly);
void disk_rig_close(struct disk_rig *rig);

/* One operation, waited for; its result. buf may be NULL for those without data. */
int disk_rig_do(struct disk_rig *rig, enum disk_op op, unsigned flags, uint64_t offset, uint64_t length,
                void *buf);
/* Fills with a pattern that differs at every 8 bytes, by seed. */
void disk_rig_pattern(void *buf, uint64_t length, uint64_t seed);
/* What the image holds, seen by another descriptor. */
void disk_rig_peek(const struct disk_rig *rig, void *buf, uint64_t offset, uint64_t length);

#endif
