/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inline crypto engine of one VM: physical keyslots, the keys in them, and the cipher loop
 * (docs/ice-spec.md). Data-path calls (ice_bind, ice_crypt, ice_release) are made by queue threads and take
 * no lock; slot calls come from the key service and the control socket and may wait for a slot to drain.
 */
#ifndef MINIVMM_ICE_H
#define MINIVMM_ICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "minivmm/errors.h"

#define ICE_SLOTS_MAX   256u   /* physical slots are 8-bit numbers (ice-spec 3) */
#define ICE_WINDOW_MAX  255u   /* max_slots is an 8-bit field */
#define ICE_RAW_KEY_MAX 64u    /* AES-256-XTS: two keys */
#define ICE_UNIT_MIN    512u   /* bytes */
#define ICE_UNIT_MAX    65536u /* bytes */
#define ICE_QUEUES_MAX  32u
#define ICE_OWNER_NONE  (-1)
#define ICE_CAPS_MAX    64u

/* ice-spec 6; the numbers are wire values. */
enum ice_alg {
    ICE_ALG_AES_XTS,
    ICE_ALG_BITLOCKER_AES_CBC,
    ICE_ALG_AES_ECB,
    ICE_ALG_ESSIV_AES_CBC,
    ICE_ALG_COUNT
};
enum ice_key_size { ICE_KEY_INVALID, ICE_KEY_128, ICE_KEY_192, ICE_KEY_256, ICE_KEY_512 };

/* What a slot is programmed for; data unit size = 512 << unit_exp. Also one entry of the capabilities. */
struct ice_spec {
    uint8_t alg, unit_exp, key_size;
};

struct ice;
struct ice_slot;

struct ice_config {
    bool allow_ecb; /* ice-ecb=on */
};

/*
 * Loads libcrypto (its memory goes to a locked arena out of core dumps) and prepares 256 empty slots without
 * owner. Call single-threaded and at most once at a time in a process. -ENOSYS with a sentence where
 * libcrypto 3 is missing.
 */
int ice_create(const struct ice_config *config, struct ice **out, struct err *err);

/* Wipes and frees all keys; no request may be in flight. NULL is fine. */
void ice_destroy(struct ice *ice);

/* Bytes of one data unit; bytes of raw key (AES_XTS takes two AES keys). The spec must be a valid one. */
uint32_t ice_unit_size(const struct ice_spec *spec);
size_t ice_raw_key_size(const struct ice_spec *spec);

/* 0 when the combination is offered; -EINVAL with a sentence (key_size 4 and 2, ECB unless allowed, ...). */
int ice_spec_check(const struct ice *ice, const struct ice_spec *spec, struct err *err);

/* The capabilities in wire order; returns how many (at most ICE_CAPS_MAX). */
unsigned ice_capabilities(const struct ice *ice, struct ice_spec *caps);

/* "aes-xts", "bitlocker-aes-cbc", "aes-ecb", "essiv-aes-cbc"; NULL for other numbers. */
const char *ice_alg_name(unsigned alg);

/*
 * Gives slots [first, first + count) to a disk: guest = the guest may program them (its window), else they
 * are the operator's. Before the VM runs. -EINVAL outside 0 .. 255, -EEXIST when one of them has an owner.
 */
int ice_assign(struct ice *ice, unsigned first, unsigned count, int disk, bool guest, struct err *err);

/* The disk that a slot serves, ICE_OWNER_NONE for none; *guest: programmable by the guest. */
int ice_slot_owner(const struct ice *ice, unsigned slot, bool *guest);

/*
 * Puts a key into a slot / takes it out (the owner check is the caller's). raw is copied; the caller wipes
 * its own. New requests on the slot fail meanwhile; requests in flight are waited for, at most drain_ms
 * milliseconds: then -EBUSY and nothing has changed. -EINVAL: spec or length not offered, or XTS halves
 * equal; -ENOMEM. Evicting an empty slot is 0. One slot call at a time (callers' lock is inside); never on a
 * queue thread.
 */
int ice_slot_set(struct ice *ice, unsigned slot, const struct ice_spec *spec, const uint8_t *raw,
                 size_t raw_len, unsigned drain_ms, struct err *err);
int ice_slot_evict(struct ice *ice, unsigned slot, unsigned drain_ms, struct err *err);

/* True and *spec filled when the slot holds a key. Any thread. */
bool ice_slot_programmed(struct ice *ice, unsigned slot, struct ice_spec *spec);

/* Evicts every guest-programmed key (VM reset, ice-spec 7); slots that do not drain in time keep theirs:
 * -EBUSY. */
int ice_evict_guest_keys(struct ice *ice, unsigned drain_ms);

/* Per slot, relaxed atomics. */
struct ice_slot_counters {
    _Atomic uint64_t requests, units, bytes, denied, empty, errors;
};
struct ice_slot_counters *ice_slot_counters(struct ice *ice, unsigned slot);

/* One request's hold on a slot's key, from parse to completion. */
struct ice_binding {
    struct ice_slot *slot; /* NULL: nothing is bound */
    uint32_t unit;         /* bytes */
};

/*
 * Binds the key of slot n for one request of a disk. 0; -EPERM: the slot is not the disk's (outside its
 * window); -ENOKEY: empty; -EBUSY: being programmed or evicted. operator: the caller is the device itself in
 * transparent mode and may bind an operator's slot; a guest's request may not.
 */
int ice_bind(struct ice *ice, int disk, unsigned n, bool operator_slot, struct ice_binding *binding);
void ice_release(struct ice_binding *binding);

/* The first check of ice_bind() alone, for a request that needs no key: false where it would say -EPERM,
 * which is counted for the slot likewise. Any thread. */
bool ice_slot_allowed(struct ice *ice, int disk, unsigned slot, bool operator_slot);

/*
 * Encrypts or decrypts len bytes (a multiple of the unit; the last IV must not pass 2^64 - 1: ice_dun_ok())
 * from src to dst, which may be the same memory. Segments may split anywhere and have any alignment. Unit i
 * takes IV first_iv + i * stride. queue: 0 .. ICE_QUEUES_MAX - 1, the calling queue thread's number within
 * its disk. 0 or -EIO; after -EIO dst holds no promise.
 */
int ice_crypt(const struct ice_binding *binding, unsigned queue, bool encrypt, uint64_t first_iv,
              uint64_t stride, const struct iovec *src, unsigned src_count, const struct iovec *dst,
              unsigned dst_count, uint64_t len);

/* True when units data units from first_iv at this stride end at or below 2^64 - 1 (ice-spec 5). */
bool ice_dun_ok(uint64_t first_iv, uint64_t stride, uint64_t units);

#endif
