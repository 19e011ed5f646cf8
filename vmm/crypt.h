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
#include "vmm/luks.h"

#define CRYPT_VM_KEY   32u   /* bytes */
#define CRYPT_DRAIN_MS 2000u /* how long a slot that changes waits for its requests */

struct crypt_disk {
    unsigned first, count; /* the guest's window of this disk; 0 slots: none */
    bool required;
    struct block_transparent transparent; /* unit 0: none */
    struct slotmap *claim;                /* of the operator's slot for this disk, or NULL */
    unsigned slot;                        /* that slot */
    int key_fd;                           /* its key's file; 0: none */
    struct luks_job luks;
};

struct crypt {
    struct ice *ice;
    struct slotmap *window;
    unsigned first, slots; /* the VM's window */
    int kek_fd;            /* the file of the key-encryption key or of the VM's own; 0: none */
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
 * What must be done outside of the cell: claims the keyslots, opens the files of keys, unread, and lets
 * children open LUKS volumes. The images must be open and locked already, and the process have one thread.
 * Sentences name the flag. *crypt must be zero before; crypt_destroy() after failure too.
 */
int crypt_open(struct crypt *crypt, const struct config *config, struct err *err);

/* Loads libcrypto, which the cell has no path to: after crypt_open(), before the cell closes. */
int crypt_load(struct crypt *crypt, const struct config *config, struct err *err);

/* Reads the keys and programs all. The process has one thread still. */
int crypt_create(struct crypt *crypt, const struct config *config, struct err *err);

/* In the keeper: closes the files of keys, which are the VM's alone. */
void crypt_leave_keys(struct crypt *crypt);

/* In the cell: lets go of the locks on keyslots, which its keeper holds for it. */
void crypt_leave_locks(struct crypt *crypt);

/* The VM's UUID: as configured, else made of its name (libcrypto gets loaded). */
int crypt_uuid(const struct config *config, uint8_t uuid[16], struct err *err);

/*
 * Derives a VM's own wrapping key from the key-encryption key that fd holds and that is wiped here again.
 * name: the key's, for sentences. libcrypto must be loaded. -EINVAL: no key of 16 to 64 bytes.
 */
int crypt_derive(int fd, const char *name, const uint8_t uuid[16], uint8_t vm_key[CRYPT_VM_KEY],
                 struct err *err);

/* Sets the part of a block device's configuration that is the engine's. */
void crypt_fill(const struct crypt *crypt, unsigned disk, struct block_config *block);

/* Starts the key service on an interrupt line; only with a window. The files of keys are closed then. */
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
