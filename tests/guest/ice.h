/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's driver for the inline crypto engine: requests with the 32-byte header, and the key service. */
#ifndef GUEST_ICE_H
#define GUEST_ICE_H

#include "block.h"
#include "minivmm/ice_abi.h"

#define ICE_DISKS   2u
#define ALL_DATA    (SLOTS * SLOT_BYTES) /* data[] as one buffer */
#define KEY_MAX     64u
#define MARK        "minivmm: plaintext marker of ICE" /* tests/interop/ice_check.c looks for it */
#define CONFIG_SLOT (REG_CONFIG + 96)                  /* slot_info; capability_num behind it */

enum { XTS, BITLOCKER, ECB, ESSIV };
enum { KEY_128 = 1, KEY_192, KEY_256, KEY_512 };

struct window {
    unsigned first, count;
};

/* A key of the test's: byte i is seed + 3 * i, so that the host can make it too. */
struct test_key {
    uint8_t alg, unit_exp, key_size, seed;
};

struct ice_disk {
    struct device dev;
    struct window window;
    unsigned capabilities;
};

extern struct ice_disk ice_disks[ICE_DISKS];
extern struct window vm_window; /* what the key service says */
extern struct ice_command command;

/* Finds the key service and both disks and starts them with F_ICE and two queues. */
bool ice_start(void);
/* Two queues with F_MQ among the features, else one. */
bool ice_start_disk(unsigned disk, uint64_t features);
bool keys_find(void);
void window_read(struct window *window, uint32_t slot_info);

/* Runs command (in place) to its end by interrupt; the result, ICE_RESULT_* or UINT32_MAX when it never ends.
 */
uint32_t keys_call(uint32_t call);
uint32_t keys_call_at(uint64_t block); /* the same for a block anywhere */
uint32_t key_set(unsigned slot, const struct test_key *key);
uint32_t key_evict(unsigned slot);
uint32_t key_bytes(const struct test_key *key);
uint32_t key_unit(const struct test_key *key);

/* How a request uses the engine. */
struct use {
    unsigned disk, queue;
    uint8_t slot, activate;
    uint64_t dun;
};

/* One request with the 32-byte header by request slot s: len bytes of data[s] (and behind it). */
void ice_offer(const struct use *use, unsigned s, uint32_t type, uint64_t sector, uint32_t len);
uint8_t ice_do(const struct use *use, unsigned s, uint32_t type, uint64_t sector, uint32_t len);

/* The mark, then words by seed. */
void mark_fill(uint8_t *at, uint32_t len, uint64_t seed);
bool mark_is(const uint8_t *at, uint32_t len, uint64_t seed);

/* Tells the host what it will find on the disk: a line that tests/e2e/ice_kvm.sh reads. */
void tell_written(unsigned disk, uint64_t sector, uint32_t len, const struct test_key *key, uint64_t dun,
                  uint64_t seed);

#endif
