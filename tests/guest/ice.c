/* SPDX-License-Identifier: Apache-2.0 */
#include "ice.h"

struct ice_disk ice_disks[ICE_DISKS];
struct window vm_window;
struct ice_command command __attribute__((aligned(64)));

static struct queue queues[ICE_DISKS][QUEUES_MAX];
static struct {
    uint64_t base;
    volatile uint32_t irqs;
} keys;

static void on_keys_irq(void *arg)
{
    (void)arg;
    mmio_write32(keys.base + ICE_KEYS_INTERRUPT_ACK, mmio_read32(keys.base + ICE_KEYS_INTERRUPT_STATUS));
    WRITE_ONCE(keys.irqs, keys.irqs + 1);
}

void window_read(struct window *window, uint32_t slot_info)
{
    window->first = slot_info & 0xFF;
    window->count = slot_info >> 8;
}

bool keys_find(void)
{
    for (unsigned n = 0; n < MMIO_WINDOWS; n++) {
        keys.base = MMIO_BASE + n * MMIO_STRIDE;
        if (mmio_read32(keys.base + ICE_KEYS_MAGIC) != ICE_KEYS_MAGIC_VALUE)
            continue;
        irq_connect(MMIO_GSI + n, on_keys_irq, NULL);
        window_read(&vm_window, mmio_read32(keys.base + ICE_KEYS_WINDOW));
        return mmio_read32(keys.base + ICE_KEYS_VERSION) == ICE_KEYS_VERSION_VALUE;
    }
    return false;
}

bool ice_start_disk(unsigned disk, uint64_t features)
{
    struct ice_disk *d = &ice_disks[disk];
    uint32_t config;

    d->dev = (struct device){0};
    if (!device_find(&d->dev, DEVICE_BLOCK, disk, queues[disk]))
        return false;
    config = reg_read(&d->dev, CONFIG_SLOT);
    window_read(&d->window, config & 0xFFFF);
    d->capabilities = config >> 16;
    return device_start(&d->dev, features, features & BLK_F_MQ ? QUEUES_MAX : 1) &&
           d->dev.features == (features | F_VERSION_1);
}

bool ice_start(void)
{
    if (!keys_find())
        return false;
    for (unsigned n = 0; n < ICE_DISKS; n++)
        if (!ice_start_disk(n, BLK_F_ICE | BLK_F_MQ | BLK_F_FLUSH))
            return false;
    return true;
}

uint32_t keys_call_at(uint64_t block)
{
    uint32_t seen = keys.irqs;

    mmio_write32(keys.base + ICE_KEYS_BLOCK_LOW, (uint32_t)block);
    mmio_write32(keys.base + ICE_KEYS_BLOCK_HIGH, (uint32_t)(block >> 32));
    full_barrier();
    mmio_write32(keys.base + ICE_KEYS_DOORBELL, 1);
    if (!wait_change32(&keys.irqs, seen))
        return UINT32_MAX;
    barrier();
    if (mmio_read32(keys.base + ICE_KEYS_STATUS) != ICE_KEYS_STATUS_DONE)
        return UINT32_MAX;
    return mmio_read32(keys.base + ICE_KEYS_RESULT);
}

uint32_t keys_call(uint32_t call)
{
    uint32_t result;

    command.call = call;
    command.result = UINT32_MAX;
    result = keys_call_at((uint64_t)&command);
    return READ_ONCE(command.result) == result ? result : UINT32_MAX;
}

uint32_t key_unit(const struct test_key *key)
{
    return SECTOR << key->unit_exp;
}

uint32_t key_bytes(const struct test_key *key)
{
    return (key->key_size == KEY_128 ? 16u : 32u) * (key->alg == XTS ? 2 : 1);
}

uint32_t key_set(unsigned slot, const struct test_key *key)
{
    command = (struct ice_command){
        .slot = slot,
        .alg = key->alg,
        .unit_exp = key->unit_exp,
        .key_size = key->key_size,
        .key_kind = ICE_KEY_KIND_RAW,
        .in_len = key_bytes(key),
    };
    for (unsigned i = 0; i < command.in_len; i++)
        command.in[i] = (uint8_t)(key->seed + 3 * i);
    return keys_call(ICE_CALL_SET_KEY);
}

uint32_t key_evict(unsigned slot)
{
    command = (struct ice_command){.slot = slot};
    return keys_call(ICE_CALL_INVALIDATE_KEY);
}

void ice_offer(const struct use *use, unsigned s, uint32_t type, uint64_t sector, uint32_t len)
{
    struct device *dev = &ice_disks[use->disk].dev;
    bool reads = type == BLK_IN || type == BLK_GET_CRYPTO;
    struct seg seg[3] = {{&slots[s].header, sizeof(struct blk_header) + sizeof(struct ice_payload), false}};
    unsigned n = 1;

    slots[s].header = (struct blk_header){.type = type, .sector = sector};
    slots[s].ice = (struct ice_payload){.slot = use->slot, .activate = use->activate, .dun = use->dun};
    slots[s].status = BLK_PENDING;
    if (len)
        seg[n++] = (struct seg){data[s], len, reads};
    seg[n++] = (struct seg){&slots[s].status, 1, true};
    queue_chain(&dev->queue[use->queue], (uint16_t)(s * SLOT_DESCS), seg, n);
    queue_offer(&dev->queue[use->queue], (uint16_t)(s * SLOT_DESCS));
}

uint8_t ice_do(const struct use *use, unsigned s, uint32_t type, uint64_t sector, uint32_t len)
{
    struct device *dev = &ice_disks[use->disk].dev;

    ice_offer(use, s, type, sector, len);
    queue_kick(dev, use->queue);
    queue_wait(dev, use->queue, dev->queue[use->queue].avail.idx);
    return slots[s].status;
}

void mark_fill(uint8_t *at, uint32_t len, uint64_t seed)
{
    const char *mark = MARK;

    pattern_fill(at, len, seed);
    for (unsigned i = 0; mark[i]; i++)
        at[i] = (uint8_t)mark[i];
}

bool mark_is(const uint8_t *at, uint32_t len, uint64_t seed)
{
    const uint32_t mark_len = sizeof(MARK) - 1;

    for (uint32_t i = 0; i < mark_len; i++)
        if (at[i] != (uint8_t)MARK[i])
            return false;
    for (uint32_t i = mark_len / 8; i < len / 8; i++)
        if (((const uint64_t *)(const void *)at)[i] != seed * PATTERN_FACTOR + i)
            return false;
    return true;
}

static void tell(const char *name, uint64_t value)
{
    print(name);
    print_number(value);
}

void tell_written(unsigned disk, uint64_t sector, uint32_t len, const struct test_key *key, uint64_t dun,
                  uint64_t seed)
{
    tell("# written: disk=", disk);
    tell(" offset=", sector * SECTOR);
    tell(" length=", len);
    tell(" alg=", key->alg);
    tell(" unit=", key_unit(key));
    tell(" key-seed=", key->seed);
    tell(" key-bytes=", key_bytes(key));
    tell(" dun=", dun);
    tell(" seed=", seed);
    print("\n");
}
