/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM of a fleet does (ice=fleet vm=N): it programs one slot of its window with a key made from N,
 * writes 1 MiB through it, reads all of it back, and tries what it may not. One line tells the result. Then,
 * by then=...: exit     ends by the debug port (also without "then") button   waits for the power button, and
 * powers off ignore   halts for good, whatever comes ice=idle does no work before; ice=panic reports a panic
 * as its first act.
 */
#include "ice.h"

#define PORT_SLEEP   0x600u /* SLEEP_CONTROL: SLP_TYP 5 in bits 4:2, SLP_EN in bit 5 */
#define SLEEP_OFF    (5u << 2 | 1u << 5)
#define PORT_PVPANIC 0x505u
#define PANICKED     1u
#define BUTTON       1u

#define CHUNK       ALL_DATA
#define CHUNKS      16u /* 1 MiB */
#define UNIT_EXP    3u  /* 4096 bytes: a data unit a block of data[] */
#define WORDS       (SLOT_BYTES / 8)
#define STAMP_LAST  (WORDS - 1)
#define SLOTS_TOTAL 256u

static uint64_t back[SLOTS][WORDS] __attribute__((aligned(4096)));

static struct {
    uint64_t base;
    volatile uint32_t pressed;
} event_device;

/* rep movsq and repe cmpsq cost a fraction of a loop where every instruction is emulated. */
static void copy_words(uint64_t *to, const uint64_t *from, uint64_t n)
{
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

static bool same_words(const void *a, const void *b, uint64_t n)
{
    bool same;

    __asm__ volatile("repe cmpsq" : "+D"(a), "+S"(b), "+c"(n), "=@ccz"(same)::"memory");
    return same;
}

static uint64_t *words(unsigned block)
{
    return (uint64_t *)(void *)data[block];
}

/* Makes each block of data[] this VM's and this place's own, at both ends. */
static void stamp(uint64_t vm, unsigned chunk)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        words(i)[0] = (vm << 32 | chunk << 16 | i) * PATTERN_FACTOR;
        words(i)[STAMP_LAST] = ~words(i)[0];
    }
}

/* One request for a whole chunk, or (blocks < SLOTS) for its first blocks. */
static uint8_t transfer(const struct use *use, uint32_t type, void *at, unsigned chunk, unsigned blocks)
{
    struct device *dev = &ice_disks[use->disk].dev;
    const struct seg seg[] = {
        {&slots[0].header, sizeof(struct blk_header) + sizeof(struct ice_payload), false},
        {at, blocks * SLOT_BYTES, type == BLK_IN},
        {&slots[0].status, 1, true},
    };

    slots[0].header = (struct blk_header){.type = type, .sector = chunk * (CHUNK / SECTOR)};
    slots[0].ice = (struct ice_payload){.slot = use->slot, .activate = use->activate, .dun = use->dun};
    slots[0].status = BLK_PENDING;
    queue_chain(&dev->queue[0], 0, seg, ARRAY_SIZE(seg));
    queue_offer(&dev->queue[0], 0);
    queue_kick(dev, 0);
    queue_wait(dev, 0, dev->queue[0].avail.idx);
    return slots[0].status;
}

/* A slot of another VM, or of none: no key goes in, no data through. */
static void try_foreign(unsigned slot, const struct test_key *key)
{
    struct use use = {.slot = (uint8_t)slot, .activate = 1};

    CHECK(key_set(slot, key) == ICE_RESULT_DENIED);
    CHECK(key_evict(slot) == ICE_RESULT_DENIED);
    CHECK(transfer(&use, BLK_IN, back, 0, 1) == BLK_IOERR);
    CHECK(transfer(&use, BLK_OUT, back, 0, 1) == BLK_IOERR);
}

static void work(uint64_t vm, unsigned slot)
{
    const struct test_key key = {XTS, UNIT_EXP, KEY_256, (uint8_t)vm};
    struct use use = {.slot = (uint8_t)slot, .activate = 1};
    unsigned end = vm_window.first + vm_window.count, equal = 0;

    CHECK(key_set(slot, &key) == ICE_RESULT_OK);
    pattern_fill(data[0], SLOT_BYTES, vm);
    for (unsigned i = 1; i < SLOTS; i++)
        copy_words(words(i), words(0), WORDS);
    for (unsigned chunk = 0; chunk < CHUNKS; chunk++) {
        stamp(vm, chunk);
        use.dun = chunk * SLOTS;
        CHECK(transfer(&use, BLK_OUT, data, chunk, SLOTS) == BLK_OK);
    }
    for (unsigned chunk = 0; chunk < CHUNKS; chunk++) {
        stamp(vm, chunk);
        use.dun = chunk * SLOTS;
        CHECK(transfer(&use, BLK_IN, back, chunk, SLOTS) == BLK_OK);
        CHECK(same_words(data, back, CHUNK / 8));
    }
    if (vm_window.first > 0)
        try_foreign(vm_window.first - 1, &key);
    if (end < SLOTS_TOTAL)
        try_foreign(end, &key);
    /* The last chunk without the key: not one word as it was written. */
    use.activate = 0;
    CHECK(transfer(&use, BLK_IN, back, CHUNKS - 1, 1) == BLK_OK);
    for (unsigned i = 0; i < WORDS; i++)
        equal += back[0][i] == words(0)[i];
    CHECK(equal == 0);
}

static void tell(const char *name, uint64_t value)
{
    print(name);
    print_number(value);
}

void run_fleet(void)
{
    uint64_t vm = cmdline_number("vm", 0);
    const struct window *window = &ice_disks[0].window;
    unsigned slot;

    CHECK(keys_find());
    CHECK(ice_start_disk(0, BLK_F_ICE | BLK_F_FLUSH));
    CHECK(window->count > 0);
    slot = window->first + (unsigned)(vm % window->count);
    work(vm, slot);
    tell("# fleet: vm=", vm);
    tell(" first=", vm_window.first);
    tell(" slots=", vm_window.count);
    tell(" slot=", slot);
    tell(" bytes=", CHUNKS * CHUNK);
    print("\n");
}

static void on_event(void *arg)
{
    (void)arg;
    if (mmio_read32(event_device.base) & BUTTON)
        WRITE_ONCE(event_device.pressed, 1);
}

/*
 * The event device is the window that answers and is neither a virtio device nor the key service. Its line is
 * connected before it is read for good: a press that came before that is found by reading.
 */
static bool event_device_start(void)
{
    for (unsigned n = 0; n < MMIO_WINDOWS; n++) {
        uint64_t base = MMIO_BASE + n * MMIO_STRIDE;
        uint32_t word = mmio_read32(base);

        if (word == VIRTIO_MAGIC || word == ICE_KEYS_MAGIC_VALUE || word == UINT32_MAX)
            continue;
        event_device.base = base;
        event_device.pressed = word & BUTTON;
        irq_connect(MMIO_GSI + n, on_event, NULL);
        on_event(NULL);
        return true;
    }
    return false;
}

static void wait_for_button(void)
{
    CHECK(event_device_start());
    print("# fleet: waits for the power button\n");
    ticks_stop();
    __asm__ volatile("cli" ::: "memory");
    while (!event_device.pressed)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    print("# fleet: powers off\n");
    outb(PORT_SLEEP, SLEEP_OFF);
}

void fleet_then(void)
{
    const char *then = cmdline_value("then");

    if (!then || text_equal(then, "exit"))
        return;
    if (text_equal(then, "button"))
        wait_for_button();
    print("# fleet: ignores the power button\n");
    ticks_stop();
    for (;;)
        __asm__ volatile("sti; hlt" ::: "memory");
}

void run_panic(void)
{
    print("# fleet: panics\n");
    outb(PORT_PVPANIC, PANICKED);
}
