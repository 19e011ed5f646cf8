/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ice=MODE on the command line asks for:
 *   check        test_ice.c; operator=N names a keyslot of the operator's
 *   hold         puts a key into the first slot, says so, waits for a byte on COM1, and finds its data again
 *   neighbour    tries every slot of the host that is not this VM's
 *   transparent  the first disk, encrypted unseen by us, in units of unit=N bytes
 *   fleet, idle, panic   fleet.c
 */
#include "ice.h"

#define HOLD_SECTOR  2048u
#define HOST_SECTOR  104u
#define HOST_MARK    "minivmm: written by the host"
#define SHORT_SECTOR 1024u
#define LONG_SECTOR  2048u

#define COM1_STATUS   (COM1 + 5)
#define COM1_HAS_BYTE 1u
#define HOLD_TICKS    (120u * TICKS_PER_S)

static const struct test_key key = {XTS, 3, KEY_256, 77};

/* A byte from the host; false when none came in time. */
static bool wait_for_host(void)
{
    uint64_t until = ticks() + HOLD_TICKS;

    while (!(inb(COM1_STATUS) & COM1_HAS_BYTE)) {
        if (ticks() > until)
            return false;
        __asm__ volatile("sti; hlt" ::: "memory");
    }
    (void)inb(COM1);
    return true;
}

static void run_hold(void)
{
    struct use use = {.activate = 1, .dun = 21};

    CHECK(ice_start());
    use.slot = (uint8_t)ice_disks[0].window.first;
    CHECK(key_set(use.slot, &key) == ICE_RESULT_OK);
    mark_fill(data[0], SLOT_BYTES, 31);
    CHECK(ice_do(&use, 0, BLK_OUT, HOLD_SECTOR, SLOT_BYTES) == BLK_OK);
    print("# holding: first=");
    print_number(vm_window.first);
    print(" slots=");
    print_number(vm_window.count);
    print("\n");
    CHECK(wait_for_host());
    /* Whoever tried meanwhile has neither changed the key nor taken it away. */
    CHECK(ice_do(&use, 1, BLK_IN, HOLD_SECTOR, SLOT_BYTES) == BLK_OK);
    CHECK(mark_is(data[1], SLOT_BYTES, 31));
}

/* The answers are the same for slots with keys, slots without, and slots that the host has not. */
static void run_neighbour(void)
{
    struct use use = {.activate = 1};

    CHECK(ice_start());
    for (unsigned slot = 0; slot < 256; slot++) {
        if (slot >= vm_window.first && slot < vm_window.first + vm_window.count)
            continue;
        use.slot = (uint8_t)slot;
        CHECK(key_set(slot, &key) == ICE_RESULT_DENIED && command.out_len == 0);
        CHECK(key_evict(slot) == ICE_RESULT_DENIED && command.out_len == 0);
        CHECK(all_bytes_are(command.out, sizeof(command.out), 0));
        CHECK(ice_do(&use, 0, BLK_IN, HOLD_SECTOR, SLOT_BYTES) == BLK_IOERR);
        CHECK(ice_do(&use, 0, BLK_OUT, HOLD_SECTOR, SLOT_BYTES) == BLK_IOERR);
    }
    print("# window: first=");
    print_number(vm_window.first);
    print(" slots=");
    print_number(vm_window.count);
    print("\n");
}

static void run_transparent(void)
{
    struct device *dev = &ice_disks[0].dev;
    uint32_t unit = (uint32_t)cmdline_number("unit", SECTOR);
    const char *mark = HOST_MARK;

    CHECK(!ice_start_disk(0, BLK_F_ICE | BLK_F_MQ)); /* not offered */
    CHECK(ice_start_disk(0, BLK_F_MQ | BLK_F_FLUSH));
    CHECK(reg_read(dev, REG_CONFIG + 20) == unit);
    CHECK(blk_do(dev, 0, 0, BLK_IN, HOST_SECTOR, unit) == BLK_OK);
    for (unsigned i = 0; mark[i]; i++)
        CHECK(data[0][i] == (uint8_t)mark[i]);
    mark_fill(data[0], SLOT_BYTES, 41);
    CHECK(blk_do(dev, 0, 0, BLK_OUT, SHORT_SECTOR, SLOT_BYTES) == BLK_OK);
    CHECK(mark_is(data[0], SLOT_BYTES, 41));
    CHECK(blk_do(dev, 1, 1, BLK_IN, SHORT_SECTOR, SLOT_BYTES) == BLK_OK);
    CHECK(mark_is(data[1], SLOT_BYTES, 41));
    mark_fill(data[0], ALL_DATA, 42);
    CHECK(blk_do(dev, 1, 0, BLK_OUT, LONG_SECTOR, ALL_DATA) == BLK_OK);
    CHECK(blk_do(dev, 0, 1, BLK_IN, LONG_SECTOR, SLOT_BYTES) == BLK_OK);
    CHECK(mark_is(data[1], SLOT_BYTES, 42));
    CHECK(blk_do(dev, 0, 0, BLK_FLUSH, 0, 0) == BLK_OK);
    if (unit > SECTOR) {
        CHECK(blk_do(dev, 0, 0, BLK_IN, HOST_SECTOR, SECTOR) == BLK_IOERR);
        CHECK(blk_do(dev, 0, 0, BLK_OUT, HOST_SECTOR + 1, unit) == BLK_IOERR);
    }
}

/* Nothing but what fleet_then() does. */
static void run_idle(void)
{
}

static const struct {
    const char *mode;
    void (*run)(void);
} modes[] = {{"hold", run_hold},   {"neighbour", run_neighbour}, {"transparent", run_transparent},
             {"fleet", run_fleet}, {"idle", run_idle},           {"panic", run_panic}};

bool ice_mode(void)
{
    const char *mode = cmdline_value("ice");

    if (!mode)
        return false;
    if (text_equal(mode, "check"))
        test_ice();
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
        if (text_equal(mode, modes[i].mode) && test_begin(modes[i].mode)) {
            modes[i].run();
            test_end();
            fleet_then();
        }
    return true;
}
