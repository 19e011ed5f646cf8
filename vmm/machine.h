/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that the guest can see but its vCPUs: memory, buses, devices and their interrupt lines. Made without
 * KVM, then connected to a VM.
 */
#ifndef MINIVMM_VMM_MACHINE_H
#define MINIVMM_VMM_MACHINE_H

#include <stdbool.h>

#include "minivmm/arch.h"
#include "minivmm/block.h"
#include "minivmm/bus.h"
#include "minivmm/config.h"
#include "minivmm/disk.h"
#include "minivmm/guest_memory.h"
#include "minivmm/power.h"
#include "minivmm/serial.h"
#include "minivmm/virtio.h"
#include "vmm/crypt.h"

/* One MMIO window with its interrupt line; dev and transport are NULL where the device is not virtio. */
struct machine_slot {
    int irq_fd;
    struct virtio_device *dev;
    struct virtio_mmio *transport;
};

struct machine {
    struct guest_memory mem;
    struct bus mmio, ports;
    struct arch_device device[ARCH_DEVICES_MAX]; /* as the guest is told; slot[i] is its other side */
    struct machine_slot slot[ARCH_DEVICES_MAX];
    unsigned devices;
    struct disk *disk[CONFIG_DISKS_MAX];
    struct block *block[CONFIG_DISKS_MAX];
    unsigned disks;
    struct virtio_rng *rng;
    struct power_ged *ged;
    struct crypt crypt; /* .ice NULL: the VM has no keyslots */
    struct serial *serial;
    int serial_irq_fd;
    int kernel_fd, initrd_fd; /* until they are loaded */
    struct power_sink sink;   /* what the power ports call; set before the first vCPU runs */
};

/* Empty, so that machine_destroy() may be called whatever became of the rest. */
void machine_init(struct machine *machine);

/*
 * Opens what has a path: kernel, initrd, disk images (which it locks), key files and keyslots. One thread.
 * Sentences name the flag.
 */
int machine_open(struct machine *machine, const struct config *config, struct err *err);

/* Refuses less guest memory than GUEST_MEMORY_MIN and more than the host has. */
int machine_check_memory(const struct config *config, struct err *err);

/* Guest memory of config->memory bytes. */
int machine_create_memory(struct machine *machine, const struct config *config, struct err *err);

/*
 * Disks first (disk i has window i and line ARCH_GSI_FIRST + i), then rng, the event device
 * and the key service; then the ports. output, input: the console's side of COM1, called with ctx.
 */
int machine_create_devices(struct machine *machine, const struct config *config,
                           const struct serial_config *console, struct err *err);

/* Loads kernel and initrd of config, with tables that describe the devices. */
int machine_load(struct machine *machine, const struct config *config, struct arch_entry *entry,
                 struct err *err);

/* Closes kernel and initrd, which are loaded or another process's to load. */
void machine_leave_payload(struct machine *machine);

/* Opens kernel and initrd; for machine_open(). */
int machine_open_payload(struct machine *machine, const struct config *config, struct err *err);

/* Memory slots, interrupt lines and queue notifications of the VM. */
int machine_connect(struct machine *machine, int vm_fd, struct err *err);

/* Ends the device threads and frees all; no vCPU may run. */
void machine_destroy(struct machine *machine);

#endif
