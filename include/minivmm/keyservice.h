/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ICE key service: the MMIO device by which a guest programs the keyslots of its window
 * (docs/ice-spec.md, section 7; guest interface in ice_abi.h). Calls run on a thread of the device's own; the
 * vCPU never waits.
 */
#ifndef MINIVMM_KEYSERVICE_H
#define MINIVMM_KEYSERVICE_H

#include <stdatomic.h>
#include <stdint.h>

#include "minivmm/bus.h"
#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"
#include "minivmm/ice.h"

struct keyservice_config {
    struct ice *ice;                /* not owned; outlives the service */
    const struct guest_memory *mem; /* not owned */
    int irq_fd;                     /* not owned */
    uint8_t first_slot, slots;      /* the VM's window */
    uint8_t uuid[16];               /* the VM's: wrapped keys are bound to it */
    const uint8_t *vm_key; /* 32 bytes from keyservice_derive_vm_key(), copied; NULL: random per boot */
    unsigned drain_ms;     /* bound for requests in flight on a slot that is programmed or evicted */
};

struct keyservice_counters {
    _Atomic uint64_t calls, denied, failed, busy_doorbells, bad_access;
};

struct keyservice;

/* Starts the thread. -ENOMEM, -errno with a sentence. */
int keyservice_create(const struct keyservice_config *config, struct keyservice **out, struct err *err);

/* Ends the thread after the call under way. No vCPU may be running. NULL is fine. */
void keyservice_destroy(struct keyservice *service);

const struct keyservice_counters *keyservice_counters(const struct keyservice *service);

extern const struct bus_ops keyservice_bus_ops; /* dev: the struct keyservice; ICE_KEYS_WINDOW_SIZE bytes */

/* What a VM gets in place of the host's key-encryption key (kek: 16 bytes or more). Needs ice_create() first.
 */
int keyservice_derive_vm_key(const uint8_t *kek, size_t kek_len, const uint8_t uuid[16], uint8_t vm_key[32],
                             struct err *err);

#endif
