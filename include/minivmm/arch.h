/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CPU architecture does for the monitor: memory layout, VM and vCPU set-up over KVM, payload loading
 * and platform description. One folder under arch/ implements all of it; the monitor knows no register names.
 */
#ifndef MINIVMM_ARCH_H
#define MINIVMM_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/bus.h"
#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"

struct kvm_run;

#define ARCH_VCPUS_MAX   32u
#define ARCH_DEVICES_MAX 24u

/* Interrupt lines (GSIs) that the monitor may give to its MMIO devices: first .. last, one a device. */
#define ARCH_GSI_FIRST 5u
#define ARCH_GSI_LAST  23u
#define ARCH_GSI_COM1  4u

/* Where MMIO devices go: window n at base + n * ARCH_MMIO_STRIDE. */
#define ARCH_MMIO_BASE   0xD0000000ULL
#define ARCH_MMIO_STRIDE 0x1000ULL

/* x86 I/O ports of the platform devices. */
#define ARCH_PORT_COM1       0x3F8u
#define ARCH_PORT_KEYBOARD   0x64u
#define ARCH_PORT_PVPANIC    0x505u
#define ARCH_PORT_SLEEP      0x600u /* SLEEP_CONTROL, +1 SLEEP_STATUS */
#define ARCH_PORT_RESET      0x604u
#define ARCH_PORT_DEBUG_EXIT 0xF4u

enum arch_device_kind { ARCH_DEVICE_VIRTIO_MMIO, ARCH_DEVICE_GED, ARCH_DEVICE_KEY_SERVICE };

/* One MMIO device as the guest must be told of it. */
struct arch_device {
    enum arch_device_kind kind;
    uint64_t base, size;
    uint32_t gsi;
};

struct arch_machine {
    const struct guest_memory *mem;
    unsigned cpus; /* 1 .. ARCH_VCPUS_MAX */
    const struct arch_device *device;
    unsigned device_count;
    bool serial; /* a COM1 is there */
    bool pvpanic;
    bool debug_exit; /* port ARCH_PORT_DEBUG_EXIT is there (not described to the guest) */
    bool acpi; /* tables are given; without them (or with acpi=off in cmdline) discovery is by command line */
    const char *cmdline; /* the user's, or NULL for "console=ttyS0" */
};

/* What the guest starts from: open files, not owned. */
struct arch_payload {
    const char *kernel_path; /* for messages */
    int kernel_fd;
    const char *initrd_path; /* NULL: none */
    int initrd_fd;
};

enum arch_protocol { ARCH_BOOT_LINUX64, ARCH_BOOT_PVH, ARCH_BOOT_ELF64 };

/* Where vCPU 0 starts, filled by arch_load(). */
struct arch_entry {
    enum arch_protocol protocol;
    uint64_t ip;     /* guest physical address of the first instruction */
    uint64_t params; /* boot_params (RSI) or PVH start info (EBX) */
};

enum arch_cpu_policy { ARCH_CPU_HOST, ARCH_CPU_NAMED };

struct arch_cpu_model; /* opaque: CPUID table ready for KVM_SET_CPUID2 */

/* Splits size bytes of RAM around the hole below 4 GiB (ARCH-defined); fills up to GUEST_REGIONS_MAX. */
unsigned arch_memory_layout(uint64_t size, struct guest_region *layout);

/* Irqchip, PIT, TSS address, identity map: everything between KVM_CREATE_VM and the first vCPU. */
int arch_vm_init(int kvm_fd, int vm_fd, struct err *err);

/*
 * Maps or copies kernel and initrd into guest memory and writes boot parameters, ACPI and MP tables, command
 * line. Refuses, each with a sentence naming the file: not a kernel, truncated, too large for memory, command
 * line too long, initrd that doesn't fit. Payload bytes are mapped copy-on-write where alignment allows:
 * a file that shrinks while the VM runs takes pages away that the guest has not touched yet, and ends the run
 * with an error when it does.
 */
int arch_load(const struct arch_machine *machine, const struct arch_payload *payload,
              struct arch_entry *entry, struct err *err);

/* The names that --cpu takes, NULL-terminated, "host" first. */
const char *const *arch_cpu_names(void);

/* Reads KVM's supported CPUID and applies the policy called name; -EINVAL with the list of names. Caller
 * frees. */
int arch_cpu_model_create(int kvm_fd, const char *name, struct arch_cpu_model **out, struct err *err);
void arch_cpu_model_free(struct arch_cpu_model *model);

/* CPUID (APIC id patched), MSRs, LAPIC, and for id 0 the start registers. Call on any thread before KVM_RUN.
 */
int arch_vcpu_init(int kvm_fd, int vcpu_fd, unsigned id, unsigned cpus, const struct arch_cpu_model *model,
                   const struct arch_entry *entry, struct err *err);

/*
 * Handles exits that only the architecture knows (KVM_EXIT_IO on ports). True when it was handled. *unclaimed
 * is bumped for accesses that no device took (reads give all-ones).
 */
bool arch_vcpu_exit(struct kvm_run *run, const struct bus *ports, uint64_t *unclaimed);

/* Registers, and the bytes at the instruction pointer where they can be read, as text lines for a crash
 * report. */
void arch_vcpu_describe(int vcpu_fd, const struct guest_memory *mem, char *text, uint32_t size);

/*
 * Doctor's probe: runs a tiny guest (its own VM) that executes int3, SSE and cmpxchg16b in kernel mode. 0
 * when this KVM runs guest kernel code natively; 1 when it can't (why says what failed); -errno when the
 * probe itself could not run.
 */
int arch_probe_native(int kvm_fd, char *why, uint32_t why_size);

#endif
