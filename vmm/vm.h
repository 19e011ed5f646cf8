/* SPDX-License-Identifier: Apache-2.0 */
/* One virtual machine: wires guest memory, architecture, devices and vCPU threads together from a config. */
#ifndef MINIVMM_VMM_VM_H
#define MINIVMM_VMM_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"
#include "minivmm/power.h"
#include "vmm/loop.h"

struct vm;
struct cell;

enum vm_state { VM_STARTING, VM_RUNNING, VM_PAUSED, VM_ENDING };

struct vm_result {
    enum vm_end how;
    unsigned code;   /* VM_END_DEBUG_EXIT: the value */
    char text[4096]; /* for VM_END_TRIPLE_FAULT and VM_END_INTERNAL: the sentence and the registers */
};

/*
 * A VM is made in steps, since its process closes its cell between them (vmm/cell.h). Sentences name the
 * flag. -EINVAL and the like for what the user can mend in the configuration or its files; *usage tells
 * whether it is the user's input (exit code 2) or the host's failure (exit code 1). vm_destroy() after a
 * failure, too.
 *
 * vm_open() opens all that has a path: KVM, kernel, disks, key files, keyslots, console, control socket.
 * vm_load() loads the libraries that the VM needs.
 * vm_build() makes the rest without a path: memory, devices, KVM's VM, and all threads, parked.
 */
int vm_open(const struct config *config, struct vm **out, bool *usage, struct err *err);
int vm_load(struct vm *vm, struct err *err);
int vm_build(struct vm *vm, bool *usage, struct err *err);

/* All of it in one, without a cell. *out is NULL after a failure. */
int vm_create(const struct config *config, struct vm **out, bool *usage, struct err *err);

/* After vm_open() and a fork: which of its parts each side gives up. */
void vm_enter_cell(struct vm *vm, const struct cell *cell);
void vm_become_keeper(struct vm *vm);

/* Runs to the end on the calling (main) thread: vCPU threads go, the loop serves console, control and timers.
 */
int vm_run(struct vm *vm, struct vm_result *result, struct err *err);

/* Stops what still runs and frees all. NULL is fine. */
void vm_destroy(struct vm *vm);

/* The calls of the control socket and the console; main thread, inside vm_run(). */
void vm_end(struct vm *vm, enum vm_end how, unsigned code); /* any thread */
int vm_pause(struct vm *vm);  /* returns when no vCPU is in the guest; -EALREADY when paused */
int vm_resume(struct vm *vm); /* -EALREADY when not paused */
void vm_power_button(struct vm *vm);
enum vm_state vm_state(const struct vm *vm);

/* A line of key=value facts a line ("state=running", "cpus=2", "disk0.requests=17", ...), for status. */
void vm_describe(struct vm *vm, FILE *out);

#endif
