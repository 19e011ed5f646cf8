/* SPDX-License-Identifier: Apache-2.0 */
/* What a running VM answers on its control socket. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/vm_internal.h"

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static const char *state_name(enum vm_state state)
{
    switch (state) {
    case VM_STARTING:
        return "starting";
    case VM_RUNNING:
        return "running";
    case VM_PAUSED:
        return "paused";
    case VM_ENDING:
        return "ending";
    }
    return "unknown";
}

/* What the run costs the host; resident: guest RAM that was touched included. */
static void describe_use(const struct vm *vm, FILE *out)
{
    char text[64] = {0};
    char *second;
    fprintf(out, "vcpu.time_ms=%" PRIu64 "\n", vcpus_time_ms(&vm->vcpus));
    if (vm->statm_fd < 0 || pread(vm->statm_fd, text, sizeof(text) - 1, 0) <= 0 ||
        !(second = strchr(text, ' ')))
        return;
    unsigned long pages = strtoul(second, NULL, 10);
    fprintf(out, "memory.resident=%lu\n", pages * (unsigned long)sysconf(_SC_PAGESIZE));
}

static void describe_exits(const struct vm *vm, FILE *out)
{
    uint64_t mmio = 0;
    uint64_t io = 0;
    uint64_t other = 0;
    uint64_t unclaimed = 0;
    for (unsigned i = 0; i < vm->vcpus.count; i++) {
        const struct vcpu_counters *c = &vm->vcpus.cpu[i].counters;
        mmio += get(&c->mmio);
        io += get(&c->io);
        other += get(&c->other);
        unclaimed += get(&c->unclaimed);
    }
    fprintf(out, "exits.mmio=%" PRIu64 "\nexits.io=%" PRIu64 "\nexits.other=%" PRIu64 "\n", mmio, io, other);
    fprintf(out, "unclaimed=%" PRIu64 "\n", unclaimed);
}

static void describe_virtio(const struct virtio_device *dev, const struct virtio_mmio *transport, FILE *out)
{
    const struct virtio_counters *c = &dev->counters;
    fprintf(out, "%s.status=%#x\n", dev->name, virtio_mmio_status(transport));
    fprintf(out, "%s.interrupts=%" PRIu64 "\n", dev->name, get(&c->interrupts));
    fprintf(out, "%s.bad_access=%" PRIu64 "\n", dev->name, get(&c->bad_access));
    fprintf(out, "%s.bad_order=%" PRIu64 "\n", dev->name, get(&c->bad_order));
    fprintf(out, "%s.bad_notify=%" PRIu64 "\n", dev->name, get(&c->bad_notify));
    fprintf(out, "%s.needs_reset=%" PRIu64 "\n", dev->name, get(&c->needs_reset));
}

static void describe_disk(const struct vm *vm, unsigned i, FILE *out)
{
    const struct block_counters *c = block_counters(vm->machine.block[i]);
    const struct {
        const char *name;
        const _Atomic uint64_t *value;
    } lines[] = {
        {"requests", &c->requests}, {"read_bytes", &c->read_bytes},   {"written_bytes", &c->written_bytes},
        {"flushes", &c->flushes},   {"discards", &c->discards},       {"write_zeroes", &c->write_zeroes},
        {"errors", &c->errors},     {"unsupported", &c->unsupported}, {"kicks", &c->kicks},
    };
    fprintf(out, "disk%u.path=%s\n", i, vm->config->disk[i].path);
    fprintf(out, "disk%u.engine=%s\n", i, disk_engine_name(vm->machine.disk[i]));
    for (unsigned n = 0; n < sizeof(lines) / sizeof(lines[0]); n++)
        fprintf(out, "disk%u.%s=%" PRIu64 "\n", i, lines[n].name, get(lines[n].value));
}

void vm_describe(struct vm *vm, FILE *out)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms =
        (int64_t)(now.tv_sec - vm->started.tv_sec) * 1000 + (now.tv_nsec - vm->started.tv_nsec) / 1000000;
    fprintf(out, "state=%s\nname=%s\n", state_name(vm_state(vm)), vm->config->name);
    fprintf(out, "pid=%d\nvm_pid=%d\n", (int)vm->pid, (int)vm->cell_pid);
    fprintf(out, "cpus=%u\nmemory=%" PRIu64 "\n", vm->config->cpus, vm->config->memory);
    fprintf(out, "uptime=%" PRId64 ".%03" PRId64 "\n", ms / 1000, ms % 1000);
    describe_use(vm, out);
    describe_exits(vm, out);
    for (unsigned i = 0; i < vm->machine.disks; i++)
        describe_disk(vm, i, out);
    for (unsigned i = 0; i < vm->machine.devices; i++)
        if (vm->machine.slot[i].dev)
            describe_virtio(vm->machine.slot[i].dev, vm->machine.slot[i].transport, out);
}

/* "stop": asks the guest by its power button. "stop force": ends at once. "stop SECONDS": asks, then forces.
 */
static int stop(struct vm *vm, const char *how, struct err *err)
{
    if (strcmp(how, "force") == 0) {
        vm_end(vm, VM_END_STOPPED, 0);
        return 0;
    }
    unsigned long seconds = 0;
    if (*how) {
        char *end;
        seconds = strtoul(how, &end, 10);
        if (*end || *how < '1' || *how > '9' || seconds > 86400)
            return err_set(err, -EINVAL,
                           "stop: \"%s\" is neither \"force\" nor a number of seconds, 1 to 86400", how);
    } else if (vm_state(vm) == VM_PAUSED) {
        return err_set(
            err, -EBUSY,
            "the VM is paused and can't see its power button: resume it first, or stop it by force");
    }
    vm_power_button(vm);
    int code = seconds ? vm_force_after(vm, (unsigned)seconds) : 0;
    if (code < 0)
        return err_set(err, code, "stop: the deadline could not be set: %s", strerror(-code));
    return 0;
}

static int change_keys(struct vm *vm, const char *request, FILE *out, struct err *err)
{
    int fd = vm->control ? control_take_fd(vm->control) : -1;
    int code = crypt_control_key(&vm->machine.crypt, request, fd, out, err);
    if (fd >= 0)
        close(fd);
    return code;
}

int vm_control_request(void *ctx, const char *request, FILE *out, struct err *err)
{
    struct vm *vm = ctx;
    if (strcmp(request, "status") == 0) {
        vm_describe(vm, out);
        return 0;
    }
    if (strcmp(request, "pause") == 0) {
        int code = vm_pause(vm);
        return code < 0 ? err_set(err, code, "the VM is not running") : 0;
    }
    if (strcmp(request, "resume") == 0) {
        int code = vm_resume(vm);
        return code < 0 ? err_set(err, code, "the VM is not paused") : 0;
    }
    if (strcmp(request, "stats") == 0) {
        crypt_describe(&vm->machine.crypt, vm->machine.block, out);
        return 0;
    }
    if (strncmp(request, "key ", 4) == 0)
        return change_keys(vm, request + 4, out, err);
    if (strcmp(request, "stop") == 0)
        return stop(vm, "", err);
    if (strncmp(request, "stop ", 5) == 0)
        return stop(vm, request + 5, err);
    return err_set(err, -EINVAL,
                   "unknown request \"%s\": stop, pause, resume, status, stats and key are known", request);
}
