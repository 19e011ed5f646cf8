/* SPDX-License-Identifier: Apache-2.0 */
/* The devices as AML. Stock kernels find virtio-mmio only here (docs/design.md, "How a VM runs"). */
#include "dsdt.h"

#include <stdio.h>

#include "aml.h"
#include "minivmm/ice_abi.h"
#include "minivmm/power.h"

#define SERIAL_PORTS 8u
#define GED_BYTES    4u
#define STA_PRESENT  0xfu

static void add_uid(struct aml *aml, unsigned uid)
{
    aml_name(aml, "_UID");
    aml_integer(aml, uid);
}

static void add_hid(struct aml *aml, const char *hid)
{
    aml_name(aml, "_HID");
    aml_string(aml, hid);
}

static void add_eisa_hid(struct aml *aml, const char *hid)
{
    aml_name(aml, "_HID");
    aml_eisa_id(aml, hid);
}

static void add_mmio_device(struct aml *aml, const struct arch_device *d, char letter, unsigned i,
                            const char *hid)
{
    char name[8];
    snprintf(name, sizeof(name), "%c%03X", letter, i & 0xfffu);
    aml_device(aml, name);
    add_hid(aml, hid);
    add_uid(aml, i);
    aml_name(aml, "_CCA");
    aml_integer(aml, 1);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_memory(aml, d->base, (uint32_t)d->size);
    aml_interrupt(aml, d->gsi);
    aml_resources_end(aml);
    aml_close(aml);
}

static void add_serial(struct aml *aml)
{
    aml_device(aml, "COM1");
    add_eisa_hid(aml, "PNP0501");
    add_uid(aml, 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_port(aml, ARCH_PORT_COM1, SERIAL_PORTS);
    aml_interrupt(aml, ARCH_GSI_COM1);
    aml_resources_end(aml);
    aml_close(aml);
}

static void add_pvpanic(struct aml *aml)
{
    aml_device(aml, "PEVT");
    add_hid(aml, "QEMU0001");
    aml_name(aml, "_STA");
    aml_integer(aml, STA_PRESENT);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_port(aml, ARCH_PORT_PVPANIC, 1);
    aml_resources_end(aml);
    aml_close(aml);
}

/* The selector's bits say what happened; reading it clears them. */
static void add_event_method(struct aml *aml)
{
    aml_method(aml, "_EVT", 1, true);
    aml_store(aml);
    aml_path(aml, "ESEL");
    aml_local0(aml);
    aml_if(aml);
    aml_and(aml);
    aml_local0(aml);
    aml_integer(aml, 1);
    aml_no_target(aml);
    aml_notify(aml, "\\_SB_.PWRB", 0x80);
    aml_close(aml);
    aml_close(aml);
}

static void add_ged(struct aml *aml, const struct arch_device *d)
{
    aml_device(aml, "PWRB");
    add_eisa_hid(aml, "PNP0C0C");
    add_uid(aml, 0);
    aml_close(aml);

    aml_device(aml, "GED_");
    add_hid(aml, "ACPI0013");
    add_uid(aml, 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_interrupt(aml, d->gsi);
    aml_resources_end(aml);
    aml_memory_region(aml, "EREG", d->base, GED_BYTES);
    aml_field(aml, "EREG");
    aml_field_unit(aml, "ESEL", 32);
    aml_close(aml);
    add_event_method(aml);
    aml_close(aml);
}

static void add_device(struct aml *aml, const struct arch_device *d, unsigned i)
{
    switch (d->kind) {
    case ARCH_DEVICE_VIRTIO_MMIO:
        add_mmio_device(aml, d, 'V', i, "LNRO0005");
        break;
    case ARCH_DEVICE_KEY_SERVICE:
        add_mmio_device(aml, d, 'K', i, ICE_KEYS_ACPI_HID);
        break;
    case ARCH_DEVICE_GED:
        add_ged(aml, d);
        break;
    }
}

size_t dsdt_write(const struct arch_machine *machine, void *buffer, size_t size)
{
    struct aml aml;
    aml_begin(&aml, buffer, size);
    aml_name(&aml, "\\_S5_");
    aml_package(&aml, 4);
    aml_integer(&aml, POWER_SLEEP_TYPE_S5);
    for (unsigned i = 0; i < 3; i++)
        aml_integer(&aml, 0);
    aml_close(&aml);
    aml_scope(&aml, "\\_SB_");
    for (unsigned i = 0; i < machine->device_count; i++)
        add_device(&aml, &machine->device[i], i);
    if (machine->serial)
        add_serial(&aml);
    if (machine->pvpanic)
        add_pvpanic(&aml);
    aml_close(&aml);
    return aml.overflow ? 0 : aml.used;
}
