/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices by which a guest ends its run or is asked to: ACPI sleep and reset registers, keyboard-controller
 * reset, pvpanic, the debug exit port of tests, and the Generic Event Device with the power button.
 */
#ifndef MINIVMM_POWER_H
#define MINIVMM_POWER_H

#include <stdint.h>

#include "minivmm/bus.h"

enum vm_end {
    VM_END_NONE,
    VM_END_POWEROFF,     /* ACPI S5 */
    VM_END_RESET,        /* ACPI reset register or port 0x64 <- 0xFE */
    VM_END_PANIC,        /* pvpanic: panicked */
    VM_END_DEBUG_EXIT,   /* debug exit port; code = the byte written */
    VM_END_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
    VM_END_INTERNAL,     /* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY, unhandled exit */
    VM_END_TIMEOUT,      /* --timeout passed */
    VM_END_STOPPED,      /* asked by the user: control socket, ctrl-a x, SIGTERM */
};

/* Where devices say that the run ends. request() may be called on any thread, returns at once; the first
 * wins. */
struct power_sink {
    void (*request)(void *ctx, enum vm_end how, unsigned code);
    void (*panicked)(void *ctx,
                     unsigned flags); /* pvpanic event; flags: bit 0 panicked, bit 1 crash loaded */
    void *ctx;
};

/* Byte ports. The dev argument of each is a struct power_sink. */
extern const struct bus_ops power_sleep_ops;    /* 2 bytes: SLEEP_CONTROL, SLEEP_STATUS (ACPI 4.8.3.7) */
extern const struct bus_ops power_reset_ops;    /* 1 byte: write of POWER_RESET_VALUE resets */
extern const struct bus_ops power_keyboard_ops; /* port 0x64: write of 0xFE resets; reads 0 */
extern const struct bus_ops
    power_pvpanic_ops; /* port 0x505: read gives supported events (3), write reports */
extern const struct bus_ops power_debug_exit_ops; /* 1 byte: VM_END_DEBUG_EXIT with the value */

#define POWER_SLEEP_TYPE_S5 5u /* SLP_TYP that \_S5 names */
#define POWER_RESET_VALUE   0x42u

/*
 * The Generic Event Device's register (ACPI 5.6.9): a 4-byte MMIO selector; a read gives pending events (bit
 * 0: power button) and clears them.
 */
struct power_ged;
int power_ged_create(int irq_fd, struct power_ged **out); /* irq_fd not owned; -ENOMEM */
void power_ged_press_button(struct power_ged *ged);       /* any thread */
void power_ged_destroy(struct power_ged *ged);
extern const struct bus_ops power_ged_ops; /* dev: the struct power_ged; 4 bytes */

#endif
