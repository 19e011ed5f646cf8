/* SPDX-License-Identifier: Apache-2.0 */
/* The keyslots of one VM: ownership, programming with drain, and the lock-free binding that requests make. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "key.h"
#include "minivmm/event.h"
#include "minivmm/ice.h"
#include "spec.h"

/*
 * A slot's state is one word, so that binding is one atomic add: the low bits count requests that hold the
 * key, LOADED says that there is one, DRAINING turns new requests away. The key pointer changes only while
 * DRAINING is set and the count is zero, which is what makes it safe to read without a lock.
 */
#define STATE_DRAINING 0x80000000u
#define STATE_LOADED   0x40000000u
#define STATE_USERS    0x3fffffffu

struct ice_slot {
    _Atomic uint32_t state;
    struct ice_key *key;
    int owner; /* constant once the VM runs */
    bool guest;
    int drained_fd; /* the engine's; signalled when the last user leaves a draining slot */
    struct ice_slot_counters counters;
};

struct ice {
    struct ice_config config;
    struct ice_ciphers ciphers;
    pthread_mutex_t lock; /* one programming call at a time */
    int drained_fd;
    struct ice_slot slot[ICE_SLOTS_MAX];
};

int ice_create(const struct ice_config *config, struct ice **out, struct err *err)
{
    const struct libcrypto *lib;
    int r = libcrypto_load(&lib, err);
    if (r < 0)
        return r;
    struct ice *ice = calloc(1, sizeof(*ice));
    if (!ice)
        return err_set(err, -ENOMEM, "no memory for the crypto engine");
    ice->config = *config;
    pthread_mutex_init(&ice->lock, NULL);
    ice->drained_fd = event_open();
    r = ice->drained_fd < 0
            ? err_set(err, ice->drained_fd, "no event for the crypto engine: %s", strerror(-ice->drained_fd))
            : ice_ciphers_fetch(&ice->ciphers, lib, err);
    for (unsigned i = 0; i < ICE_SLOTS_MAX; i++) {
        ice->slot[i].owner = ICE_OWNER_NONE;
        ice->slot[i].drained_fd = ice->drained_fd;
    }
    if (r < 0) {
        ice_destroy(ice);
        return r;
    }
    *out = ice;
    return 0;
}

void ice_destroy(struct ice *ice)
{
    if (!ice)
        return;
    for (unsigned i = 0; i < ICE_SLOTS_MAX; i++)
        ice_key_free(ice->slot[i].key);
    if (ice->ciphers.lib)
        ice_ciphers_free(&ice->ciphers);
    if (ice->drained_fd >= 0)
        close(ice->drained_fd);
    pthread_mutex_destroy(&ice->lock);
    free(ice);
}

int ice_assign(struct ice *ice, unsigned first, unsigned count, int disk, bool guest, struct err *err)
{
    if (count == 0 || first >= ICE_SLOTS_MAX || count > ICE_SLOTS_MAX - first)
        return err_set(err, -EINVAL, "keyslots %u to %u are not within 0 to %u", first, first + count - 1,
                       ICE_SLOTS_MAX - 1);
    for (unsigned i = first; i < first + count; i++)
        if (ice->slot[i].owner != ICE_OWNER_NONE)
            return err_set(err, -EEXIST, "keyslot %u already belongs to disk%d", i, ice->slot[i].owner);
    for (unsigned i = first; i < first + count; i++) {
        ice->slot[i].owner = disk;
        ice->slot[i].guest = guest;
    }
    return 0;
}

int ice_slot_owner(const struct ice *ice, unsigned slot, bool *guest)
{
    if (slot >= ICE_SLOTS_MAX)
        return ICE_OWNER_NONE;
    *guest = ice->slot[slot].guest;
    return ice->slot[slot].owner;
}

struct ice_slot_counters *ice_slot_counters(struct ice *ice, unsigned slot)
{
    return &ice->slot[slot].counters;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Turns new requests away and waits for those in flight. On -EBUSY the slot is as it was. */
static int drain(struct ice *ice, struct ice_slot *slot, unsigned drain_ms)
{
    event_clear(ice->drained_fd);
    atomic_fetch_or_explicit(&slot->state, STATE_DRAINING, memory_order_acq_rel);
    int64_t deadline = now_ms() + drain_ms;
    while (atomic_load_explicit(&slot->state, memory_order_acquire) & STATE_USERS) {
        int64_t left = deadline - now_ms();
        if (left <= 0) {
            atomic_fetch_and_explicit(&slot->state, ~STATE_DRAINING, memory_order_acq_rel);
            return -EBUSY;
        }
        struct pollfd p = {.fd = ice->drained_fd, .events = POLLIN};
        poll(&p, 1, (int)left);
        event_clear(ice->drained_fd);
    }
    return 0;
}

/* With the slot drained: puts key (or nothing) in and lets requests come again. */
static void swap_key(struct ice_slot *slot, struct ice_key *key)
{
    ice_key_free(slot->key);
    slot->key = key;
    if (key)
        atomic_fetch_or_explicit(&slot->state, STATE_LOADED, memory_order_acq_rel);
    else
        atomic_fetch_and_explicit(&slot->state, ~STATE_LOADED, memory_order_acq_rel);
    atomic_fetch_and_explicit(&slot->state, ~STATE_DRAINING, memory_order_acq_rel);
}

static int replace(struct ice *ice, unsigned n, struct ice_key *key, unsigned drain_ms, struct err *err)
{
    struct ice_slot *slot = &ice->slot[n];
    pthread_mutex_lock(&ice->lock);
    int r = drain(ice, slot, drain_ms);
    if (r == 0)
        swap_key(slot, key);
    pthread_mutex_unlock(&ice->lock);
    if (r < 0)
        return err_set(err, r, "keyslot %u still has requests in flight after %u ms; nothing was changed", n,
                       drain_ms);
    return 0;
}

int ice_slot_set(struct ice *ice, unsigned slot, const struct ice_spec *spec, const uint8_t *raw,
                 size_t raw_len, unsigned drain_ms, struct err *err)
{
    if (slot >= ICE_SLOTS_MAX)
        return err_set(err, -EINVAL, "there is no keyslot %u: the last is %u", slot, ICE_SLOTS_MAX - 1);
    int r = ice_spec_check(ice, spec, err);
    if (r < 0)
        return r;
    struct ice_key *key;
    r = ice_key_create(&ice->ciphers, spec, raw, raw_len, &key, err);
    if (r < 0)
        return r;
    r = replace(ice, slot, key, drain_ms, err);
    if (r < 0)
        ice_key_free(key);
    return r;
}

int ice_slot_evict(struct ice *ice, unsigned slot, unsigned drain_ms, struct err *err)
{
    if (slot >= ICE_SLOTS_MAX)
        return err_set(err, -EINVAL, "there is no keyslot %u: the last is %u", slot, ICE_SLOTS_MAX - 1);
    return replace(ice, slot, NULL, drain_ms, err);
}

bool ice_slot_programmed(struct ice *ice, unsigned slot, struct ice_spec *spec)
{
    if (slot >= ICE_SLOTS_MAX)
        return false;
    pthread_mutex_lock(&ice->lock);
    const struct ice_key *key = ice->slot[slot].key;
    if (key)
        *spec = *ice_key_spec(key);
    pthread_mutex_unlock(&ice->lock);
    return key != NULL;
}

int ice_evict_guest_keys(struct ice *ice, unsigned drain_ms)
{
    int result = 0;
    for (unsigned i = 0; i < ICE_SLOTS_MAX; i++)
        if (ice->slot[i].guest && ice_slot_evict(ice, i, drain_ms, NULL) < 0)
            result = -EBUSY;
    return result;
}

static void release_slot(struct ice_slot *slot)
{
    uint32_t old = atomic_fetch_sub_explicit(&slot->state, 1, memory_order_acq_rel);
    if ((old & STATE_DRAINING) && (old & STATE_USERS) == 1)
        event_signal(slot->drained_fd);
}

bool ice_slot_allowed(struct ice *ice, int disk, unsigned n, bool operator_slot)
{
    if (n >= ICE_SLOTS_MAX)
        return false;
    struct ice_slot *slot = &ice->slot[n];
    if (slot->owner == disk && slot->guest != operator_slot)
        return true;
    atomic_fetch_add_explicit(&slot->counters.denied, 1, memory_order_relaxed);
    return false;
}

int ice_bind(struct ice *ice, int disk, unsigned n, bool operator_slot, struct ice_binding *binding)
{
    binding->slot = NULL;
    if (!ice_slot_allowed(ice, disk, n, operator_slot))
        return -EPERM;
    struct ice_slot *slot = &ice->slot[n];
    uint32_t old = atomic_fetch_add_explicit(&slot->state, 1, memory_order_acq_rel);
    if ((old & STATE_DRAINING) || !(old & STATE_LOADED)) {
        release_slot(slot);
        if (old & STATE_LOADED)
            return -EBUSY;
        atomic_fetch_add_explicit(&slot->counters.empty, 1, memory_order_relaxed);
        return -ENOKEY;
    }
    atomic_fetch_add_explicit(&slot->counters.requests, 1, memory_order_relaxed);
    binding->slot = slot;
    binding->unit = ice_unit_size(ice_key_spec(slot->key));
    return 0;
}

void ice_release(struct ice_binding *binding)
{
    if (binding->slot)
        release_slot(binding->slot);
    binding->slot = NULL;
}

int ice_crypt(const struct ice_binding *binding, unsigned queue, bool encrypt, uint64_t first_iv,
              uint64_t stride, const struct iovec *src, unsigned src_count, const struct iovec *dst,
              unsigned dst_count, uint64_t len)
{
    struct ice_slot *slot = binding->slot;
    int r = ice_key_crypt(slot->key, queue, encrypt, first_iv, stride, src, src_count, dst, dst_count, len);
    if (r < 0) {
        atomic_fetch_add_explicit(&slot->counters.errors, 1, memory_order_relaxed);
        return r;
    }
    atomic_fetch_add_explicit(&slot->counters.bytes, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&slot->counters.units, len / binding->unit, memory_order_relaxed);
    return 0;
}

bool ice_allows_ecb(const struct ice *ice)
{
    return ice->config.allow_ecb;
}
