/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "minivmm/ice_abi.h"
#include "vmm/kvm.h"

#define DEFAULT_QUEUES_MAX 4u
#define DEFAULT_QUEUE_SIZE 256u
#define SERIAL_PORTS       8u
#define SLEEP_PORTS        2u
#define GED_BYTES          4u
#define LOCK_PATIENCE_MS   1000u
#define LOCK_STEP_MS       20u

void machine_init(struct machine *machine)
{
    machine->serial_irq_fd = machine->kernel_fd = machine->initrd_fd = -1;
}

int machine_check_memory(const struct config *config, struct err *err)
{
    if (config->memory < GUEST_MEMORY_MIN)
        return err_set(err, -EINVAL, "--memory: %llu bytes are too few, at least %lluM are needed",
                       (unsigned long long)config->memory, GUEST_MEMORY_MIN >> 20);
    struct sysinfo host;
    if (sysinfo(&host) == 0) {
        uint64_t has = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
        if (config->memory > has)
            return err_set(err, -EINVAL, "--memory: %lluM is more than this host has (%lluM with swap)",
                           (unsigned long long)(config->memory >> 20), (unsigned long long)(has >> 20));
    }
    return 0;
}

int machine_create_memory(struct machine *machine, const struct config *config, struct err *err)
{
    struct guest_region layout[GUEST_REGIONS_MAX];
    memset(layout, 0, sizeof(layout));
    unsigned count = arch_memory_layout(config->memory, layout);
    return guest_memory_alloc(&machine->mem, layout, count,
                              config->hugepages ? GUEST_HUGEPAGES_ON : GUEST_HUGEPAGES_OFF, err);
}

/* The next window and interrupt line; -ENOSPC when all lines are taken. */
static int claim(struct machine *machine, enum arch_device_kind kind, const char *name, unsigned *slot,
                 struct err *err)
{
    unsigned n = machine->devices;
    unsigned lines = ARCH_GSI_LAST - ARCH_GSI_FIRST + 1;
    if (n >= lines || n >= ARCH_DEVICES_MAX)
        return err_set(
            err, -ENOSPC,
            "--disk: no interrupt line is left for %s: there are %u lines, of which each disk takes one "
            "and the entropy device, the power button and the key service one each",
            name, lines);
    int irq_fd = event_open();
    if (irq_fd < 0)
        return err_set(err, irq_fd, "the interrupt line of %s could not be created: %s", name,
                       strerror(-irq_fd));
    machine->device[n] = (struct arch_device){
        .kind = kind,
        .base = ARCH_MMIO_BASE + n * ARCH_MMIO_STRIDE,
        .size = ARCH_MMIO_STRIDE,
        .gsi = ARCH_GSI_FIRST + n,
    };
    machine->slot[n] = (struct machine_slot){.irq_fd = irq_fd};
    machine->devices = n + 1;
    *slot = n;
    return 0;
}

static int add_virtio(struct machine *machine, struct virtio_device *dev, struct err *err)
{
    unsigned n = 0;
    int code = claim(machine, ARCH_DEVICE_VIRTIO_MMIO, dev->name, &n, err);
    if (code < 0)
        return code;
    struct machine_slot *slot = &machine->slot[n];
    code = virtio_mmio_create(dev, slot->irq_fd, &slot->transport, err);
    if (code < 0)
        return code;
    slot->dev = dev;
    return bus_add(&machine->mmio, machine->device[n].base, VIRTIO_MMIO_SIZE, &virtio_mmio_bus_ops,
                   slot->transport, dev->name, err);
}

/* The lock that keeps other programs off an image also meets a second --disk of the same file. */
static bool named_before(const struct config *config, unsigned i)
{
    struct stat mine;
    struct stat other;
    if (stat(config->disk[i].path, &mine) < 0)
        return false;
    for (unsigned j = 0; j < i; j++)
        if (stat(config->disk[j].path, &other) == 0 && mine.st_dev == other.st_dev &&
            mine.st_ino == other.st_ino)
            return true;
    return false;
}

static int duplicate(const struct config *config, unsigned i, struct err *err)
{
    return err_set(err, -EINVAL, "--disk: %s is named twice: each disk of a VM needs an image of its own",
                   config->disk[i].path);
}

static int open_disk(struct machine *machine, const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *from = &config->disk[i];
    struct disk_config open = {
        .path = from->path,
        .fd = -1,
        .readonly = from->readonly,
        .direct = from->direct,
        .lock = true,
        .engine = from->engine,
    };
    int code = disk_open(&open, &machine->disk[i], err);
    if (code == -EBUSY && named_before(config, i))
        return duplicate(config, i, err);
    /* A VM whose keeper was just killed takes a moment to die, and holds its images until then. */
    for (unsigned ms = 0; code == -EBUSY && ms < LOCK_PATIENCE_MS; ms += LOCK_STEP_MS) {
        (void)usleep(LOCK_STEP_MS * 1000);
        code = disk_open(&open, &machine->disk[i], err);
    }
    if (code < 0)
        return err_prefix(err, code, "--disk");
    machine->disks = i + 1;
    for (unsigned j = 0; j < i; j++)
        if (disk_same(machine->disk[j], machine->disk[i]))
            return duplicate(config, i, err);
    return 0;
}

static int add_disk(struct machine *machine, const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *from = &config->disk[i];
    unsigned queues = from->queues;
    if (queues == 0)
        queues = config->cpus < DEFAULT_QUEUES_MAX ? config->cpus : DEFAULT_QUEUES_MAX;
    struct block_config block = {
        .index = i,
        .disk = machine->disk[i],
        .queues = queues,
        .queue_size = (uint16_t)(from->queue_size ? from->queue_size : DEFAULT_QUEUE_SIZE),
        .writeback = from->writeback,
        .discard = from->discard,
        .write_zeroes = from->write_zeroes,
    };
    if (from->serial || from->id)
        snprintf(block.serial, sizeof(block.serial), "%s", from->serial ? from->serial : from->id);
    else
        snprintf(block.serial, sizeof(block.serial), "disk%u", i);
    crypt_fill(&machine->crypt, i, &block);
    int code = block_create(&block, &machine->mem, &machine->block[i], err);
    if (code < 0)
        return block.ice ? err_prefix(err, code, "--disk %s", from->path) : code;
    return add_virtio(machine, block_device(machine->block[i]), err);
}

static int add_rng(struct machine *machine, struct err *err)
{
    int code = virtio_rng_create(&machine->mem, &machine->rng, err);
    if (code < 0)
        return code;
    return add_virtio(machine, virtio_rng_device(machine->rng), err);
}

static int add_ged(struct machine *machine, struct err *err)
{
    unsigned n = 0;
    int code = claim(machine, ARCH_DEVICE_GED, "the power button", &n, err);
    if (code < 0)
        return code;
    code = power_ged_create(machine->slot[n].irq_fd, &machine->ged);
    if (code < 0)
        return err_set(err, code, "the power button could not be created: %s", strerror(-code));
    return bus_add(&machine->mmio, machine->device[n].base, GED_BYTES, &power_ged_ops, machine->ged, "ged",
                   err);
}

static int add_keys(struct machine *machine, const struct config *config, struct err *err)
{
    unsigned n = 0;
    int code = claim(machine, ARCH_DEVICE_KEY_SERVICE, "the key service", &n, err);
    if (code == 0)
        code = crypt_create_keys(&machine->crypt, config, &machine->mem, machine->slot[n].irq_fd, err);
    if (code < 0)
        return code;
    return bus_add(&machine->mmio, machine->device[n].base, ICE_KEYS_WINDOW_SIZE, &keyservice_bus_ops,
                   machine->crypt.keys, "ice-keys", err);
}

static int add_serial(struct machine *machine, const struct serial_config *console, struct err *err)
{
    machine->serial_irq_fd = event_open();
    if (machine->serial_irq_fd < 0)
        return err_set(err, machine->serial_irq_fd, "the interrupt line of COM1 could not be created: %s",
                       strerror(-machine->serial_irq_fd));
    struct serial_config config = *console;
    config.irq_fd = machine->serial_irq_fd;
    int code = serial_create(&config, &machine->serial, err);
    if (code < 0)
        return code;
    return bus_add(&machine->ports, ARCH_PORT_COM1, SERIAL_PORTS, &serial_bus_ops, machine->serial, "com1",
                   err);
}

static int add_power_ports(struct machine *machine, const struct config *config, struct err *err)
{
    const struct {
        uint64_t port, size;
        const struct bus_ops *ops;
        const char *name;
        bool there;
    } ports[] = {
        {ARCH_PORT_KEYBOARD, 1, &power_keyboard_ops, "keyboard", true},
        {ARCH_PORT_PVPANIC, 1, &power_pvpanic_ops, "pvpanic", true},
        {ARCH_PORT_SLEEP, SLEEP_PORTS, &power_sleep_ops, "sleep", true},
        {ARCH_PORT_RESET, 1, &power_reset_ops, "reset", true},
        {ARCH_PORT_DEBUG_EXIT, 1, &power_debug_exit_ops, "debug-exit", config->debug_exit},
    };
    int code = 0;
    for (unsigned i = 0; code == 0 && i < sizeof(ports) / sizeof(ports[0]); i++)
        if (ports[i].there)
            code = bus_add(&machine->ports, ports[i].port, ports[i].size, ports[i].ops, &machine->sink,
                           ports[i].name, err);
    return code;
}

int machine_open(struct machine *machine, const struct config *config, struct err *err)
{
    int code = machine_open_payload(machine, config, err);
    /* All images are locked before a LUKS header is read. */
    for (unsigned i = 0; code == 0 && i < config->disks; i++)
        code = open_disk(machine, config, i, err);
    if (code == 0 && crypt_wanted(config))
        code = crypt_open(&machine->crypt, config, err);
    return code;
}

int machine_create_devices(struct machine *machine, const struct config *config,
                           const struct serial_config *console, struct err *err)
{
    int code = 0;
    if (crypt_wanted(config))
        code = crypt_create(&machine->crypt, config, err);
    for (unsigned i = 0; code == 0 && i < config->disks; i++)
        code = add_disk(machine, config, i, err);
    if (code == 0 && config->rng)
        code = add_rng(machine, err);
    if (code == 0)
        code = add_ged(machine, err);
    if (code == 0 && machine->crypt.slots)
        code = add_keys(machine, config, err);
    if (code == 0)
        code = add_serial(machine, console, err);
    if (code == 0)
        code = add_power_ports(machine, config, err);
    return code;
}

int machine_connect(struct machine *machine, int vm_fd, struct err *err)
{
    int code = kvm_set_memory(vm_fd, &machine->mem, err);
    if (code == 0)
        code = kvm_connect_irq(vm_fd, ARCH_GSI_COM1, machine->serial_irq_fd, err);
    for (unsigned i = 0; code == 0 && i < machine->devices; i++) {
        const struct machine_slot *slot = &machine->slot[i];
        code = kvm_connect_irq(vm_fd, machine->device[i].gsi, slot->irq_fd, err);
        uint64_t notify = machine->device[i].base + VIRTIO_MMIO_QUEUE_NOTIFY;
        for (unsigned q = 0; code == 0 && slot->dev && q < slot->dev->queue_count; q++)
            code = kvm_connect_kick(vm_fd, notify, q, slot->dev->queue[q].kick_fd, err);
    }
    return code;
}

/* A drained device signals nothing any more: only then may its transport go, and only then the device. */
static void destroy_transports(struct machine *machine)
{
    for (unsigned i = 0; i < machine->devices; i++) {
        struct machine_slot *slot = &machine->slot[i];
        if (!slot->transport)
            continue;
        if (slot->dev)
            slot->dev->ops->reset(slot->dev);
        virtio_mmio_destroy(slot->transport);
    }
}

void machine_destroy(struct machine *machine)
{
    destroy_transports(machine);
    for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
        if (machine->block[i])
            block_destroy(machine->block[i]);
    crypt_destroy(&machine->crypt);
    if (machine->rng)
        virtio_rng_destroy(machine->rng);
    if (machine->ged)
        power_ged_destroy(machine->ged);
    if (machine->serial)
        serial_destroy(machine->serial);
    for (unsigned i = 0; i < machine->devices; i++)
        close(machine->slot[i].irq_fd);
    const int fds[] = {machine->serial_irq_fd, machine->kernel_fd, machine->initrd_fd};
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
        disk_close(machine->disk[i]);
    guest_memory_free(&machine->mem);
}
