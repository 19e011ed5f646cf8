/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed ACPI tables (ACPI 6.4, chapter 5). Offsets are the specification's. */
#include "acpi.h"

#include <errno.h>
#include <string.h>

#include "dsdt.h"
#include "layout.h"
#include "minivmm/bytes.h"
#include "minivmm/power.h"

#define HEADER_BYTES 36u
#define RSDP_BYTES   36u
#define FADT_BYTES   276u
#define TABLE_ALIGN  64u

#define FADT_FLAGS_WBINVD     (1u << 0)
#define FADT_FLAGS_PWR_BUTTON (1u << 4) /* no fixed button: a control-method device, or none */
#define FADT_FLAGS_SLP_BUTTON (1u << 5)
#define FADT_FLAGS_RESET      (1u << 10)
#define FADT_FLAGS_HW_REDUCED (1u << 20)
#define BOOT_ARCH_NO_VGA      (1u << 2)
#define BOOT_ARCH_NO_CMOS_RTC (1u << 5)
#define PROFILE_ENTERPRISE    4u
#define SPACE_IO              1u
#define ACCESS_BYTE           1u

/* The area is filled from the front; end: its first free byte. */
struct area {
    uint8_t *at;
    size_t size, used;
};

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    while (len--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

static void fill_header(uint8_t *t, const char *signature, uint32_t len, uint8_t revision)
{
    memcpy(t, signature, 4);
    store_le32(t + 4, len);
    t[8] = revision;
    memcpy(t + 10, "MINVMM", 6);
    memcpy(t + 16, "MINIVMM ", 8);
    store_le32(t + 24, 1);
    memcpy(t + 28, "MVMM", 4);
    store_le32(t + 32, 1);
    t[9] = 0;
    t[9] = checksum(t, len);
}

/* Room for a table of len bytes, zeroed; NULL when the area is full. *gpa: where the guest sees it. */
static uint8_t *reserve(struct area *area, size_t len, uint64_t *gpa)
{
    size_t at = (area->used + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1);
    if (at > area->size || len > area->size - at)
        return NULL;
    area->used = at + len;
    *gpa = LAYOUT_BIOS + at;
    return memset(area->at + at, 0, len);
}

static void fill_io_register(uint8_t *gas, uint16_t port)
{
    gas[0] = SPACE_IO;
    gas[1] = 8; /* bits */
    gas[3] = ACCESS_BYTE;
    store_le64(gas + 4, port);
}

static bool build_fadt(struct area *area, uint64_t dsdt, uint64_t *gpa)
{
    uint8_t *t = reserve(area, FADT_BYTES, gpa);
    if (!t)
        return false;
    store_le32(t + 40, (uint32_t)dsdt);
    t[45] = PROFILE_ENTERPRISE;
    store_le16(t + 109, BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_CMOS_RTC);
    store_le32(t + 112, FADT_FLAGS_WBINVD | FADT_FLAGS_PWR_BUTTON | FADT_FLAGS_SLP_BUTTON | FADT_FLAGS_RESET |
                            FADT_FLAGS_HW_REDUCED);
    fill_io_register(t + 116, ARCH_PORT_RESET);
    t[128] = POWER_RESET_VALUE;
    t[131] = 4; /* minor version: 6.4 */
    store_le64(t + 140, dsdt);
    fill_io_register(t + 244, ARCH_PORT_SLEEP);
    fill_io_register(t + 256, ARCH_PORT_SLEEP + 1);
    memcpy(t + 268, "MINIVMM", 8);
    fill_header(t, "FACP", FADT_BYTES, 6);
    return true;
}

static bool build_madt(struct area *area, unsigned cpus, uint64_t *gpa)
{
    uint32_t len = HEADER_BYTES + 8 + cpus * 8 + 12;
    uint8_t *t = reserve(area, len, gpa);
    if (!t)
        return false;
    store_le32(t + 36, (uint32_t)LAYOUT_LAPIC);
    uint8_t *e = t + HEADER_BYTES + 8;
    for (unsigned i = 0; i < cpus; i++, e += 8) {
        e[0] = 0; /* processor local APIC */
        e[1] = 8;
        e[2] = (uint8_t)i; /* processor UID */
        e[3] = (uint8_t)i; /* APIC id */
        store_le32(e + 4, 1);
    }
    e[0] = 1; /* I/O APIC */
    e[1] = 12;
    e[2] = (uint8_t)cpus;
    store_le32(e + 4, (uint32_t)LAYOUT_IOAPIC);
    store_le32(e + 8, 0); /* first GSI */
    fill_header(t, "APIC", len, 5);
    return true;
}

/* The AML goes straight to its place; the rest of the area is its limit. */
static bool build_dsdt(struct area *area, const struct arch_machine *machine, uint64_t *gpa)
{
    uint8_t *t = reserve(area, HEADER_BYTES, gpa);
    if (!t)
        return false;
    size_t len = dsdt_write(machine, t + HEADER_BYTES, area->size - area->used);
    if (!len)
        return false;
    area->used += len;
    fill_header(t, "DSDT", (uint32_t)(HEADER_BYTES + len), 2);
    return true;
}

static bool build_xsdt(struct area *area, const uint64_t *tables, unsigned count, uint64_t *gpa)
{
    uint32_t len = HEADER_BYTES + count * 8;
    uint8_t *t = reserve(area, len, gpa);
    if (!t)
        return false;
    for (unsigned i = 0; i < count; i++)
        store_le64(t + HEADER_BYTES + (size_t)i * 8, tables[i]);
    fill_header(t, "XSDT", len, 1);
    return true;
}

static void fill_rsdp(uint8_t *t, uint64_t xsdt)
{
    memcpy(t, "RSD PTR ", 8);
    memcpy(t + 9, "MINVMM", 6);
    t[15] = 2;
    store_le32(t + 20, RSDP_BYTES);
    store_le64(t + 24, xsdt);
    t[8] = checksum(t, 20);
    t[32] = checksum(t, RSDP_BYTES);
}

int acpi_build(const struct arch_machine *machine, uint64_t *rsdp, struct err *err)
{
    struct area area = {.size = LAYOUT_RESET_VECTOR - LAYOUT_BIOS};
    uint64_t dsdt, xsdt, tables[2];
    area.at = guest_memory_at(machine->mem, LAYOUT_BIOS, area.size, GUEST_WRITE);
    if (!area.at)
        return err_set(err, -EINVAL, "--memory is too small for the ACPI tables");
    uint8_t *root = reserve(&area, RSDP_BYTES, rsdp);
    if (!root || !build_dsdt(&area, machine, &dsdt) || !build_fadt(&area, dsdt, &tables[0]) ||
        !build_madt(&area, machine->cpus, &tables[1]) ||
        !build_xsdt(&area, tables, ARRAY_SIZE(tables), &xsdt))
        return err_set(err, -ENOSPC, "the ACPI tables for %u devices do not fit into %zu bytes",
                       machine->device_count, area.size);
    fill_rsdp(root, xsdt);
    return 0;
}
