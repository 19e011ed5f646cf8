/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/power.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"

/* SLEEP_CONTROL (ACPI 4.8.3.7): bits 4:2 SLP_TYP, bit 5 SLP_EN. */
#define SLEEP_TYPE(v)    (((v) >> 2) & 7u)
#define SLEEP_ENABLE     0x20u
#define KEYBOARD_RESET   0xFEu
#define PVPANIC_PANICKED 0x1u
#define PVPANIC_CRASH    0x2u
#define GED_POWER_BUTTON 1u

static void read_zero(void *dev, uint64_t offset, void *data, uint32_t len)
{
    (void)dev;
    (void)offset;
    memset(data, 0, len);
}

static void end(const struct power_sink *sink, enum vm_end how, unsigned code)
{
    sink->request(sink->ctx, how, code);
}

static void sleep_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    uint8_t value = *(const uint8_t *)data;
    (void)len;
    /* Offset 1 is SLEEP_STATUS, whose wake bit nothing ever sets. */
    if (offset == 0 && (value & SLEEP_ENABLE) && SLEEP_TYPE(value) == POWER_SLEEP_TYPE_S5)
        end(dev, VM_END_POWEROFF, 0);
}

static void reset_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    (void)offset;
    (void)len;
    if (*(const uint8_t *)data == POWER_RESET_VALUE)
        end(dev, VM_END_RESET, 0);
}

static void keyboard_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    (void)offset;
    (void)len;
    if (*(const uint8_t *)data == KEYBOARD_RESET)
        end(dev, VM_END_RESET, 0);
}

static void pvpanic_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    (void)dev;
    (void)offset;
    memset(data, 0, len);
    *(uint8_t *)data = PVPANIC_PANICKED | PVPANIC_CRASH;
}

/* A guest that loads a crash kernel lives on; a panicked one does not. */
static void pvpanic_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    const struct power_sink *sink = dev;
    unsigned flags = *(const uint8_t *)data & (PVPANIC_PANICKED | PVPANIC_CRASH);
    (void)offset;
    (void)len;
    if (!flags)
        return;
    sink->panicked(sink->ctx, flags);
    if (flags & PVPANIC_PANICKED)
        end(sink, VM_END_PANIC, flags);
}

static void debug_exit_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    (void)offset;
    (void)len;
    end(dev, VM_END_DEBUG_EXIT, *(const uint8_t *)data);
}

const struct bus_ops power_sleep_ops = {.read = read_zero, .write = sleep_write};
const struct bus_ops power_reset_ops = {.read = read_zero, .write = reset_write};
const struct bus_ops power_keyboard_ops = {.read = read_zero, .write = keyboard_write};
const struct bus_ops power_pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write};
const struct bus_ops power_debug_exit_ops = {.read = read_zero, .write = debug_exit_write};

struct power_ged {
    int irq_fd;
    _Atomic uint32_t pending;
};

int power_ged_create(int irq_fd, struct power_ged **out)
{
    struct power_ged *ged = calloc(1, sizeof(*ged));
    if (!ged)
        return -ENOMEM;
    ged->irq_fd = irq_fd;
    *out = ged;
    return 0;
}

void power_ged_destroy(struct power_ged *ged)
{
    free(ged);
}

void power_ged_press_button(struct power_ged *ged)
{
    /* The bit first: the line is an edge, and the guest reads the selector when it sees it. */
    atomic_fetch_or_explicit(&ged->pending, GED_POWER_BUTTON, memory_order_release);
    event_signal(ged->irq_fd);
}

static void ged_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct power_ged *ged = dev;
    memset(data, 0, len);
    if (offset == 0 && len == 4)
        store_le32(data, atomic_exchange_explicit(&ged->pending, 0, memory_order_acq_rel));
}

static void ged_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    (void)dev;
    (void)offset;
    (void)data;
    (void)len;
}

const struct bus_ops power_ged_ops = {.read = ged_read, .write = ged_write};
