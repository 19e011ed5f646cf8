/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inline crypto engine as its driver sees it (docs/ice-spec.md): the first disk offers it, the second
 * demands it. What is written stays on the disks for the host to decrypt.
 */
#include "ice.h"

#define PLAIN_SECTOR 640u  /* plaintext and scratch: below */
#define KIND_SECTOR  1024u /* from here on a place for every kind and queue */
#define KIND_SECTORS 128u

#define FEATURES (BLK_F_ICE | BLK_F_MQ | BLK_F_FLUSH)

static const struct test_key kinds[] = {
    {XTS, 0, KEY_256, 3},         {XTS, 3, KEY_256, 19},    {XTS, 4, KEY_256, 35},
    {XTS, 7, KEY_256, 51},        {XTS, 0, KEY_128, 67},    {XTS, 3, KEY_128, 83},
    {ESSIV, 3, KEY_256, 99},      {ESSIV, 0, KEY_128, 115}, {BITLOCKER, 3, KEY_256, 131},
    {BITLOCKER, 0, KEY_128, 147},
};
static const struct test_key xts = {XTS, 0, KEY_256, 201};

static struct use first_slot(unsigned disk, unsigned queue, uint64_t dun)
{
    return (struct use){disk, queue, (uint8_t)ice_disks[disk].window.first, 1, dun};
}

static bool inside(const struct window *w, unsigned slot)
{
    return slot >= w->first && slot < w->first + w->count;
}

static void run_windows(void)
{
    const struct window *a = &ice_disks[0].window, *b = &ice_disks[1].window;

    print("# window: first=");
    print_number(vm_window.first);
    print(" slots=");
    print_number(vm_window.count);
    print("\n");
    CHECK(a->count > 0 && b->count > 0);
    CHECK(inside(&vm_window, a->first) && inside(&vm_window, a->first + a->count - 1));
    CHECK(inside(&vm_window, b->first) && inside(&vm_window, b->first + b->count - 1));
    CHECK(a->first + a->count <= b->first || b->first + b->count <= a->first);
    /* Read-only to the driver. */
    reg_write(&ice_disks[0].dev, CONFIG_SLOT, 0xFFFF);
    CHECK(reg_read(&ice_disks[0].dev, CONFIG_SLOT) ==
          (a->first | a->count << 8 | ice_disks[0].capabilities << 16));
}

static bool is_offered(const struct test_key *key)
{
    for (unsigned i = 0; i < ice_disks[0].capabilities; i++) {
        const uint8_t *cap = data[0] + 4 * (size_t)i;
        if (cap[0] == key->alg && cap[1] == key->unit_exp && cap[2] == key->key_size)
            return true;
    }
    return false;
}

static void run_capabilities(void)
{
    struct use use = first_slot(0, 0, 0);
    struct queue *q = ice_disks[0].dev.queue;
    uint32_t size = 4 * ice_disks[0].capabilities;

    CHECK(size > 0 && size < SLOT_BYTES);
    pattern_fill(data[0], SLOT_BYTES, 1);
    CHECK(ice_do(&use, 0, BLK_GET_CRYPTO, 0, size - 1) == BLK_IOERR);
    CHECK(pattern_is(data[0], SLOT_BYTES, 1));
    CHECK(ice_do(&use, 0, BLK_GET_CRYPTO, 0, size) == BLK_OK);
    CHECK(READ_ONCE(q->used.ring[1].len) == size + 1);
    for (unsigned i = 0; i < size; i += 4)
        CHECK(data[0][i] != ECB && data[0][i + 2] >= KEY_128 && data[0][i + 2] <= KEY_256 && !data[0][i + 3]);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        CHECK(is_offered(&kinds[i]));
    CHECK(ice_do(&use, 0, BLK_GET_CRYPTO, 0, SLOT_BYTES) == BLK_OK);
    CHECK(all_bytes_are(data[0] + size, SLOT_BYTES - size, 0));
}

/* Sets a key that must be refused, by the result's number; its bytes are wiped all the same. */
static bool set_gives(unsigned slot, const struct test_key *key, uint32_t result)
{
    return key_set(slot, key) == result && all_bytes_are(command.in, sizeof(command.in), 0);
}

static void run_set_key(void)
{
    unsigned slot = ice_disks[0].window.first;

    CHECK(set_gives(slot, &xts, ICE_RESULT_OK));
    CHECK(set_gives(slot, &(struct test_key){XTS, 0, KEY_512, 1}, ICE_RESULT_INVALID));
    CHECK(set_gives(slot, &(struct test_key){XTS, 8, KEY_256, 1}, ICE_RESULT_INVALID));
    CHECK(set_gives(slot, &(struct test_key){9, 0, KEY_256, 1}, ICE_RESULT_INVALID));
    CHECK(set_gives(slot, &(struct test_key){ECB, 0, KEY_256, 1}, ICE_RESULT_INVALID));
    /* A key too short, and one with equal halves. */
    command = (struct ice_command){.slot = slot, .alg = XTS, .key_size = KEY_256, .in_len = 63};
    CHECK(keys_call(ICE_CALL_SET_KEY) == ICE_RESULT_INVALID);
    command = (struct ice_command){.slot = slot, .alg = XTS, .key_size = KEY_256, .in_len = 64};
    CHECK(keys_call(ICE_CALL_SET_KEY) == ICE_RESULT_INVALID);
    CHECK(keys_call(77) == ICE_RESULT_INVALID);
    CHECK(keys_call_at(0x7FFFFFFFF000ULL) == ICE_RESULT_BAD_BLOCK);
    CHECK(keys_call_at(UINT64_MAX - 8) == ICE_RESULT_BAD_BLOCK);
}

static bool call_is_denied(unsigned slot)
{
    return set_gives(slot, &xts, ICE_RESULT_DENIED) && key_evict(slot) == ICE_RESULT_DENIED;
}

static void run_denied_calls(void)
{
    CHECK(call_is_denied(vm_window.first - 1));
    CHECK(call_is_denied(vm_window.first + vm_window.count));
    CHECK(call_is_denied(0) && call_is_denied(255) && call_is_denied(256 + vm_window.first));
    CHECK(call_is_denied(UINT32_MAX));
    CHECK(call_is_denied((unsigned)cmdline_number("operator", 255)));
}

/* Neither reads nor writes with the slot move a byte. Disk 0 must hold pattern 2 at PLAIN_SECTOR. */
static bool use_is_refused(unsigned disk, unsigned slot)
{
    struct use use = {disk, 0, (uint8_t)slot, 1, 0}, plain = {0, 0, 0, 0, 0};

    pattern_fill(data[0], SECTOR, 1);
    if (ice_do(&use, 0, BLK_IN, PLAIN_SECTOR, SECTOR) != BLK_IOERR || !pattern_is(data[0], SECTOR, 1) ||
        ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) != BLK_IOERR)
        return false;
    return ice_do(&plain, 1, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK && pattern_is(data[1], SECTOR, 2);
}

static void run_denied_slots(void)
{
    struct use plain = {0, 0, 0, 0, 0};
    const struct window *a = &ice_disks[0].window, *b = &ice_disks[1].window;

    pattern_fill(data[0], SECTOR, 2);
    CHECK(ice_do(&plain, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_OK);
    /* Slots with keys in them, each with the wrong disk. */
    CHECK(key_set(a->first, &xts) == ICE_RESULT_OK && key_set(b->first, &xts) == ICE_RESULT_OK);
    CHECK(key_set(b->first + b->count - 1, &xts) == ICE_RESULT_OK);
    CHECK(use_is_refused(0, b->first) && use_is_refused(0, b->first + b->count - 1));
    CHECK(use_is_refused(1, a->first));
    for (unsigned disk = 0; disk < ICE_DISKS; disk++) {
        const struct window *w = &ice_disks[disk].window;
        CHECK(use_is_refused(disk, w->first - 1) && use_is_refused(disk, w->first + w->count));
        CHECK(use_is_refused(disk, 0) && use_is_refused(disk, 255));
        CHECK(use_is_refused(disk, (unsigned)cmdline_number("operator", 255)));
    }
    /* An empty slot is no plaintext. */
    CHECK(key_evict(a->first) == ICE_RESULT_OK);
    CHECK(use_is_refused(0, a->first));
}

static uint32_t kind_bytes(const struct test_key *key)
{
    return key_unit(key) > SLOT_BYTES ? key_unit(key) : SLOT_BYTES;
}

/* Writes a kind's place by one queue and reads it by the other. */
static void write_kind(unsigned kind, unsigned disk, unsigned queue)
{
    struct test_key key = kinds[kind];
    uint32_t len = kind_bytes(&key);
    uint64_t sector = KIND_SECTOR + (2 * kind + queue) * KIND_SECTORS;
    uint64_t seed = 100 * (disk + 1) + 2 * kind + queue;
    struct use use = {.disk = disk, .queue = queue, .activate = 1};

    key.seed = (uint8_t)(key.seed + disk);
    use.slot = (uint8_t)(ice_disks[disk].window.first + kind % ice_disks[disk].window.count);
    use.dun = kind == 1 ? 0x3333333333ULL + seed : 7 * sector + disk;
    CHECK(key_set(use.slot, &key) == ICE_RESULT_OK);
    mark_fill(data[0], len, seed);
    CHECK(ice_do(&use, 0, BLK_OUT, sector, len) == BLK_OK);
    CHECK(mark_is(data[0], len, seed)); /* as it was: only the disk has ciphertext */
    tell_written(disk, sector, len, &key, use.dun, seed);
    use.queue = !queue;
    for (unsigned i = 0; i < len; i += SECTOR)
        data[0][i] = 0;
    CHECK(ice_do(&use, 0, BLK_IN, sector, len) == BLK_OK);
    CHECK(mark_is(data[0], len, seed));
    use.dun++;
    CHECK(ice_do(&use, 0, BLK_IN, sector, len) == BLK_OK);
    CHECK(!mark_is(data[0], len, seed));
}

static void run_write(void)
{
    for (unsigned kind = 0; kind < ARRAY_SIZE(kinds); kind++)
        for (unsigned n = 0; n < 4; n++)
            write_kind(kind, n / 2, n % 2);
}

/* One slot from two queues at once, many requests in flight. */
static void run_two_queues(void)
{
    struct use use = first_slot(0, 0, 0);
    struct queue *q = ice_disks[0].dev.queue;

    CHECK(key_set(use.slot, &xts) == ICE_RESULT_OK);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned s = 0; s < SLOTS; s++) {
            if (pass == 0)
                mark_fill(data[s], SECTOR, s);
            use.queue = (s + pass) % 2; /* what one queue wrote the other reads */
            use.dun = 50 + s;
            ice_offer(&use, s, pass ? BLK_IN : BLK_OUT, 700 + s, SECTOR);
        }
        queue_kick(&ice_disks[0].dev, 0);
        queue_kick(&ice_disks[0].dev, 1);
        CHECK(queue_wait(&ice_disks[0].dev, 0, q[0].avail.idx));
        CHECK(queue_wait(&ice_disks[0].dev, 1, q[1].avail.idx));
        for (unsigned s = 0; s < SLOTS; s++) {
            CHECK(slots[s].status == BLK_OK && mark_is(data[s], SECTOR, s));
            for (unsigned i = 0; pass == 0 && i < SECTOR; i++)
                data[s][i] = 0;
        }
    }
    for (unsigned s = 0; s < SLOTS; s++)
        tell_written(0, 700 + s, SECTOR, &xts, 50 + s, s);
}

static uint8_t do_split(const struct use *use, unsigned at, uint32_t readable, bool in)
{
    struct device *dev = &ice_disks[use->disk].dev;
    const uint8_t *header = (const uint8_t *)&slots[0].header;
    struct seg seg[] = {
        {header, at, false},
        {header + at, readable - at, false},
        {data[0], SECTOR, in},
        {&slots[0].status, 1, true},
    };

    slots[0].header = (struct blk_header){.type = in ? BLK_IN : BLK_OUT, .sector = PLAIN_SECTOR};
    slots[0].ice = (struct ice_payload){.slot = use->slot, .activate = 1, .dun = use->dun};
    slots[0].status = BLK_PENDING;
    queue_chain(&dev->queue[0], 0, seg, ARRAY_SIZE(seg));
    queue_offer(&dev->queue[0], 0);
    queue_kick(dev, 0);
    queue_wait(dev, 0, dev->queue[0].avail.idx);
    return slots[0].status;
}

static void run_header_split(void)
{
    struct use use = first_slot(0, 0, 9);

    CHECK(key_set(use.slot, &xts) == ICE_RESULT_OK);
    for (unsigned at = 1; at < 32; at++) {
        mark_fill(data[0], SECTOR, at);
        CHECK(do_split(&use, at, 32, false) == BLK_OK);
        pattern_fill(data[0], SECTOR, 0);
        CHECK(do_split(&use, 32 - at, 32, true) == BLK_OK);
        CHECK(mark_is(data[0], SECTOR, at));
    }
    CHECK(do_split(&use, 16, 31, true) == BLK_IOERR);
    CHECK(do_split(&use, 8, 16, true) == BLK_IOERR);
}

static void run_refusals(void)
{
    struct use use = first_slot(0, 0, 0), two = use;
    struct test_key wide = {XTS, 3, KEY_256, 202};

    CHECK(key_set(use.slot, &wide) == ICE_RESULT_OK);
    /* The length is made of units; the sector need not be. */
    pattern_fill(data[0], SECTOR, 1);
    CHECK(ice_do(&use, 0, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_IOERR && pattern_is(data[0], SECTOR, 1));
    CHECK(ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR, SLOT_BYTES - SECTOR) == BLK_IOERR);
    CHECK(ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR + 1, SLOT_BYTES) == BLK_OK);
    /* The last data unit number is exactly 2^64 - 1, or one more. */
    CHECK(key_set(use.slot, &xts) == ICE_RESULT_OK);
    use.dun = UINT64_MAX - 7;
    CHECK(ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR, SLOT_BYTES) == BLK_OK);
    CHECK(ice_do(&use, 0, BLK_IN, PLAIN_SECTOR, SLOT_BYTES) == BLK_OK);
    use.dun++;
    pattern_fill(data[0], SLOT_BYTES, 1);
    CHECK(ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR, SLOT_BYTES) == BLK_IOERR);
    CHECK(ice_do(&use, 0, BLK_IN, PLAIN_SECTOR, SLOT_BYTES) == BLK_IOERR);
    CHECK(pattern_is(data[0], SLOT_BYTES, 1));
    two.activate = 2;
    CHECK(ice_do(&two, 0, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_IOERR);
    CHECK(ice_do(&two, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_IOERR);
    CHECK(ice_do(&two, 0, BLK_FLUSH, 0, 0) == BLK_IOERR);
    CHECK(ice_do(&two, 0, BLK_GET_CRYPTO, 0, SLOT_BYTES) == BLK_OK); /* not honoured there */
    CHECK(ice_do(&two, 0, 77, 0, SECTOR) == BLK_UNSUPP);
}

/* FLUSH needs no key, but a slot of the window. */
static void run_flush(void)
{
    struct use use = first_slot(0, 0, 0), outside = {0, 0, (uint8_t)(vm_window.first - 1), 1, 0};

    CHECK(key_evict(use.slot) == ICE_RESULT_OK);
    CHECK(ice_do(&use, 0, BLK_FLUSH, 0, 0) == BLK_OK);
    CHECK(ice_do(&outside, 0, BLK_FLUSH, 0, 0) == BLK_IOERR);
    outside.activate = 0;
    CHECK(ice_do(&outside, 0, BLK_FLUSH, 0, 0) == BLK_OK);
}

static void run_evict(void)
{
    struct use use = first_slot(1, 0, 11);
    struct test_key other = xts;

    other.seed++;
    CHECK(key_set(use.slot, &xts) == ICE_RESULT_OK);
    mark_fill(data[0], SECTOR, 5);
    CHECK(ice_do(&use, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_OK);
    CHECK(key_evict(use.slot) == ICE_RESULT_OK);
    CHECK(ice_do(&use, 1, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_IOERR);
    CHECK(ice_do(&use, 1, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_IOERR);
    CHECK(key_set(use.slot, &other) == ICE_RESULT_OK);
    CHECK(ice_do(&use, 1, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK && !mark_is(data[1], SECTOR, 5));
    CHECK(key_set(use.slot, &xts) == ICE_RESULT_OK);
    CHECK(ice_do(&use, 1, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK && mark_is(data[1], SECTOR, 5));
    /* A reset of the disk keeps its keys. */
    CHECK(ice_start_disk(1, FEATURES));
    CHECK(ice_do(&use, 2, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK && mark_is(data[2], SECTOR, 5));
}

struct blob {
    uint32_t len;
    uint8_t bytes[ICE_COMMAND_DATA];
};

static uint32_t call_with(uint32_t call, const struct blob *in, struct blob *out)
{
    uint32_t result;

    for (unsigned i = 0; i < in->len; i++)
        command.in[i] = in->bytes[i];
    command.in_len = in->len;
    result = keys_call(call);
    if (out) {
        out->len = READ_ONCE(command.out_len);
        for (unsigned i = 0; i < out->len && i < ICE_COMMAND_DATA; i++)
            out->bytes[i] = command.out[i];
    }
    return result;
}

static uint32_t set_wrapped(unsigned slot, const struct blob *blob)
{
    command =
        (struct ice_command){.slot = slot, .alg = XTS, .key_size = KEY_256, .key_kind = ICE_KEY_KIND_WRAPPED};
    return call_with(ICE_CALL_SET_KEY, blob, NULL);
}

static void run_wrapped(void)
{
    static struct blob nothing, kept, now, secret, again;
    struct use use = first_slot(0, 0, 12);

    command = (struct ice_command){0};
    CHECK(call_with(ICE_CALL_GENERATE_KEY, &nothing, &kept) == ICE_RESULT_OK);
    CHECK(kept.len > ICE_BLOB_OVERHEAD && kept.len <= ICE_COMMAND_DATA);
    CHECK(call_with(ICE_CALL_PREPARE_KEY, &kept, &now) == ICE_RESULT_OK);
    CHECK(set_wrapped(use.slot, &kept) == ICE_RESULT_BAD_BLOB); /* long-term: not for slots */
    CHECK(set_wrapped(vm_window.first - 1, &now) == ICE_RESULT_DENIED);
    CHECK(set_wrapped(use.slot, &now) == ICE_RESULT_OK);
    mark_fill(data[0], SECTOR, 6);
    CHECK(ice_do(&use, 0, BLK_OUT, 660, SECTOR) == BLK_OK);
    /* In another slot, and prepared anew, it is the same key. */
    CHECK(call_with(ICE_CALL_PREPARE_KEY, &kept, &again) == ICE_RESULT_OK);
    use.slot++;
    CHECK(set_wrapped(use.slot, &again) == ICE_RESULT_OK);
    CHECK(ice_do(&use, 1, BLK_IN, 660, SECTOR) == BLK_OK && mark_is(data[1], SECTOR, 6));
    CHECK(call_with(ICE_CALL_DERIVE_SW_SECRET, &now, &secret) == ICE_RESULT_OK);
    CHECK(secret.len == ICE_SW_SECRET_SIZE && !all_bytes_are(secret.bytes, secret.len, 0));
    CHECK(call_with(ICE_CALL_DERIVE_SW_SECRET, &again, &nothing) == ICE_RESULT_OK);
    for (unsigned i = 0; i < secret.len; i++)
        CHECK(nothing.bytes[i] == secret.bytes[i]);
    now.bytes[now.len - 1] ^= 1;
    CHECK(set_wrapped(use.slot, &now) == ICE_RESULT_BAD_BLOB);
    CHECK(call_with(ICE_CALL_DERIVE_SW_SECRET, &kept, NULL) == ICE_RESULT_BAD_BLOB);
    CHECK(call_with(ICE_CALL_PREPARE_KEY, &again, NULL) == ICE_RESULT_BAD_BLOB);
    again.len--;
    CHECK(set_wrapped(use.slot, &again) == ICE_RESULT_BAD_BLOB);
}

static void run_import(void)
{
    static struct blob raw, kept, now;
    struct use use = first_slot(0, 0, 13);

    for (raw.len = 0; raw.len < KEY_MAX; raw.len++)
        raw.bytes[raw.len] = (uint8_t)(raw.len * 5 + 1);
    CHECK(call_with(ICE_CALL_IMPORT_KEY, &raw, &kept) == ICE_RESULT_OK);
    CHECK(all_bytes_are(command.in, sizeof(command.in), 0));
    CHECK(call_with(ICE_CALL_PREPARE_KEY, &kept, &now) == ICE_RESULT_OK);
    CHECK(set_wrapped(use.slot, &now) == ICE_RESULT_OK);
    mark_fill(data[0], SECTOR, 8);
    CHECK(ice_do(&use, 0, BLK_OUT, 661, SECTOR) == BLK_OK);
    CHECK(ice_do(&use, 1, BLK_IN, 661, SECTOR) == BLK_OK && mark_is(data[1], SECTOR, 8));
}

/* The first disk leaves the choice to the driver, request by request. */
static void run_plaintext(void)
{
    struct use plain = {0, 1, 0, 0, 0};

    pattern_fill(data[0], SECTOR, 9);
    CHECK(ice_do(&plain, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_OK);
    CHECK(ice_do(&plain, 1, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK && pattern_is(data[1], SECTOR, 9));
    /* And without the feature: the header of 16 bytes, and no capabilities. */
    CHECK(ice_start_disk(0, BLK_F_MQ));
    CHECK(blk_do(&ice_disks[0].dev, 0, 2, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_OK);
    CHECK(pattern_is(data[2], SECTOR, 9));
    CHECK(blk_do(&ice_disks[0].dev, 0, 2, BLK_GET_CRYPTO, 0, SECTOR) == BLK_UNSUPP);
}

static void run_required(void)
{
    struct use plain = {1, 0, 0, 0, 0};

    pattern_fill(data[0], SECTOR, 9);
    CHECK(ice_do(&plain, 0, BLK_OUT, PLAIN_SECTOR, SECTOR) == BLK_IOERR);
    CHECK(ice_do(&plain, 0, BLK_IN, PLAIN_SECTOR, SECTOR) == BLK_IOERR && pattern_is(data[0], SECTOR, 9));
    CHECK(ice_do(&plain, 0, BLK_FLUSH, 0, 0) == BLK_OK);
    CHECK(!ice_start_disk(1, BLK_F_MQ));
    CHECK(!(reg_read(&ice_disks[1].dev, REG_STATUS) & STATUS_FEATURES_OK));
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"ice-windows", run_windows},
    {"ice-capabilities", run_capabilities},
    {"ice-set-key", run_set_key},
    {"ice-denied-calls", run_denied_calls},
    {"ice-denied-slots", run_denied_slots},
    {"ice-write", run_write},
    {"ice-two-queues-one-slot", run_two_queues},
    {"ice-header-split", run_header_split},
    {"ice-refusals", run_refusals},
    {"ice-flush", run_flush},
    {"ice-evict", run_evict},
    {"ice-wrapped", run_wrapped},
    {"ice-import", run_import},
    {"ice-plaintext", run_plaintext},
    {"ice-required", run_required},
};

void test_ice(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        if (!test_begin(tests[i].name))
            continue;
        if (ice_start())
            tests[i].run();
        else
            fail(__FILE__, __LINE__, "the key service and two disks with the engine start");
        test_end();
    }
}
