/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of one VM as its configuration wants it: keyslots claimed from the host's map, windows of the
 * disks, the operator's keys, and the key service. A VM without slots and keys has none of it.
 */
#ifndef MINIVMM_VMM_CRYPT_H
#define MINIVMM_VMM_CRYPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "minivmm/block.h"
#include "minivmm/config.h"
#include "minivmm/errors.h"
#include "minivmm/ice.h"
#include "minivmm/keyservice.h"
#include "minivmm/slotmap.h"

#define CRYPT_DRAIN_MS 2000u /* how long a slot that changes waits for its requests */

struct crypt_disk {
    unsigned first, count; /* the guest's window of this disk; 0 slots: none */
    bool required;
    struct block_transparent transparent; /* unit 0: none */
};

struct crypt {
    struct ice *ice;
    struct slotmap *window, *claim[CONFIG_DISKS_MAX]; /* claim: of operator's slots, a disk each */
    unsigned first, slots;                            /* the VM's window */
    uint8_t uuid[16];
    struct crypt_disk disk[CONFIG_DISKS_MAX];
    unsigned disks;
    struct keyservice *keys;
};

/* True when the VM needs the engine at all. */
bool crypt_wanted(const struct config *config);

/* Keeps key bytes out of core files and other processes' reach: before the first key is read. */
void crypt_harden(void);

/*
 * Splits slots among disks: wanted[i] slots, or (0) an equal part of what the others leave, the first disks
 * getting one more where it does not divide. count[i] is at least 1 and they sum to slots. -EINVAL with a
 * sentence when that can't be.
 */
int crypt_split(unsigned slots, const unsigned *wanted, unsigned disks, unsigned *count, struct err *err);

/*
 * Claims, loads and programs all; the images must be open and locked already, and the process have one
 * thread. Sentences name the flag. *crypt must be zero before; crypt_destroy() after failure too.
 */
int crypt_create(struct crypt *crypt, const struct config *config, struct err *err);

/* Sets the part of a block device's configuration that is the engine's. */
void crypt_fill(const struct crypt *crypt, unsigned disk, struct block_config *block);

/* Starts the key service on an interrupt line; only with a window. */
int crypt_create_keys(struct crypt *crypt, const struct config *config, const struct guest_memory *mem,
                      int irq_fd, struct err *err);

/* Wipes all keys and gives the slots back; the block devices must be gone. */
void crypt_destroy(struct crypt *crypt);

/*
 * Answers "set SLOT ALG", "evict SLOT" or "list" of the control socket. Only slots of the operator's are
 * changed, and a slot keeps its disk and unit. key_fd: a file with a key, the caller's, or -1. The answer
 * holds no key byte.
 */
int crypt_control_key(struct crypt *crypt, const char *request, int key_fd, FILE *out, struct err *err);

/* Counters of slots, disks and key service, as key=value lines. block: one a disk. */
void crypt_describe(const struct crypt *crypt, struct block *const *block, FILE *out);

#endif
