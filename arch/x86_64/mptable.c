/* SPDX-License-Identifier: Apache-2.0 */
#include "mptable.h"

#include <errno.h>
#include <string.h>

#include "layout.h"
#include "minivmm/bytes.h"

#define FLOATING_BYTES  16u
#define HEADER_BYTES    44u
#define PROCESSOR_BYTES 20u
#define ENTRY_BYTES     8u
#define TABLE_AT        (LAYOUT_EBDA + FLOATING_BYTES)

#define ENTRY_PROCESSOR 0u
#define ENTRY_BUS       1u
#define ENTRY_IOAPIC    2u
#define ENTRY_IO_IRQ    3u
#define ENTRY_LOCAL_IRQ 4u

#define IRQ_INT        0u
#define IRQ_NMI        1u
#define IRQ_EXT        3u
#define EDGE_HIGH      0x05u /* polarity active-high, trigger edge: as the ACPI tables say */
#define APIC_VERSION   0x14u
#define IOAPIC_VERSION 0x11u
#define CPU_ENABLED    1u
#define CPU_BOOT       2u
#define PIT_GSI        0u
#define PIT_PIN        2u /* where KVM's default routing connects the interval timer */
#define LAST_PIN       23u

struct table {
    uint8_t bytes[LAYOUT_EBDA_END - TABLE_AT];
    unsigned used, entries;
    bool overflow;
};

/* A table that overflowed is never handed out: its front takes what came too late. */
static uint8_t *add(struct table *t, unsigned len)
{
    if (len > sizeof(t->bytes) - t->used) {
        t->overflow = true;
        return t->bytes;
    }
    uint8_t *e = t->bytes + t->used;
    t->used += len;
    t->entries++;
    return e;
}

static void add_processors(struct table *t, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        uint8_t *e = add(t, PROCESSOR_BYTES);
        e[0] = ENTRY_PROCESSOR;
        e[1] = (uint8_t)i;
        e[2] = APIC_VERSION;
        e[3] = i ? CPU_ENABLED : CPU_ENABLED | CPU_BOOT;
        store_le32(e + 4, 0x600);
        store_le32(e + 8, 0x201); /* FPU, APIC */
    }
}

static void add_irq(struct table *t, uint8_t entry, uint8_t type, uint8_t from, uint8_t apic, uint8_t pin)
{
    uint8_t *e = add(t, ENTRY_BYTES);
    e[0] = entry;
    e[1] = type;
    store_le16(e + 2, type == IRQ_INT ? EDGE_HIGH : 0);
    e[4] = 0; /* bus */
    e[5] = from;
    e[6] = apic;
    e[7] = pin;
}

static void add_bus_and_ioapic(struct table *t, uint8_t ioapic)
{
    uint8_t *e = add(t, ENTRY_BYTES);
    e[0] = ENTRY_BUS;
    memcpy(e + 2, "ISA   ", 6);
    e = add(t, ENTRY_BYTES);
    e[0] = ENTRY_IOAPIC;
    e[1] = ioapic;
    e[2] = IOAPIC_VERSION;
    e[3] = 1; /* usable */
    store_le32(e + 4, (uint32_t)LAYOUT_IOAPIC);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    while (len--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

static void fill_table_header(struct table *t)
{
    uint8_t *h = t->bytes;
    memcpy(h, "PCMP", 4);
    store_le16(h + 4, (uint16_t)t->used);
    h[6] = 4; /* specification 1.4 */
    memcpy(h + 8, "MINIVMM MICROVM     ", 20);
    store_le16(h + 34, (uint16_t)t->entries);
    store_le32(h + 36, (uint32_t)LAYOUT_LAPIC);
    h[7] = checksum(h, t->used);
}

int mptable_build(const struct arch_machine *machine, struct err *err)
{
    struct table t = {.used = HEADER_BYTES};
    uint8_t ioapic = (uint8_t)machine->cpus, floating[FLOATING_BYTES] = {0};
    add_processors(&t, machine->cpus);
    add_bus_and_ioapic(&t, ioapic);
    for (uint8_t gsi = 0; gsi <= LAST_PIN; gsi++)
        if (gsi != PIT_PIN)
            add_irq(&t, ENTRY_IO_IRQ, IRQ_INT, gsi, ioapic, gsi == PIT_GSI ? PIT_PIN : gsi);
    add_irq(&t, ENTRY_LOCAL_IRQ, IRQ_EXT, 0, 0, 0);
    add_irq(&t, ENTRY_LOCAL_IRQ, IRQ_NMI, 0, 0xff, 1);
    if (t.overflow)
        return err_set(err, -ENOSPC, "the MP table for %u vCPUs does not fit", machine->cpus);
    fill_table_header(&t);
    memcpy(floating, "_MP_", 4);
    store_le32(floating + 4, (uint32_t)TABLE_AT);
    floating[8] = 1; /* in 16-byte units */
    floating[9] = 4;
    floating[10] = checksum(floating, sizeof(floating));
    if (guest_memory_write(machine->mem, LAYOUT_EBDA, floating, sizeof(floating)) < 0 ||
        guest_memory_write(machine->mem, TABLE_AT, t.bytes, t.used) < 0)
        return err_set(err, -EINVAL, "--memory is too small for the MP table");
    return 0;
}
