/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPUs of a VM: a thread each, named "vcpuN", that all run, hold or have ended together. A change of
 * mind is never lost: the asker stores the wish and sets immediate_exit in the shared kvm_run, then signals;
 * KVM looks at immediate_exit on entry and at pending signals before each run of the guest.
 */
#ifndef MINIVMM_VMM_VCPU_H
#define MINIVMM_VMM_VCPU_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "minivmm/arch.h"
#include "minivmm/bus.h"
#include "minivmm/errors.h"
#include "minivmm/power.h"

/* What vCPU threads need of the machine and whom they tell. */
struct vcpu_env {
    const struct bus *mmio, *ports;
    const struct guest_memory *mem;
    /* The run must end; text: what happened, for a person (NULL for an end the guest asked for). Any thread.
     */
    void (*ended)(void *ctx, enum vm_end how, const char *text);
    void *ctx;
};

/* Exits to user space by kind; each written by its vCPU's thread alone, read by any. */
struct vcpu_counters {
    _Atomic uint64_t mmio, io, other, unclaimed;
};

enum vcpu_wish { VCPUS_HOLD, VCPUS_RUN, VCPUS_STOP };

struct vcpus;

struct vcpu {
    struct vcpus *all;
    unsigned id;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool started;
    struct vcpu_counters counters;
};

struct vcpus {
    struct vcpu_env env;
    size_t run_size;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum vcpu_wish wish; /* under lock */
    unsigned in_guest;   /* threads outside their gate; under lock */
    unsigned count;
    struct vcpu cpu[ARCH_VCPUS_MAX];
};

/* Creates count vCPUs with their registers set. vcpus_destroy() also after a failure. */
int vcpus_create(struct vcpus *vcpus, int kvm_fd, int vm_fd, unsigned count, const char *cpu_model,
                 const struct arch_entry *entry, const struct vcpu_env *env, struct err *err);

/* Starts the threads, holding. */
int vcpus_start(struct vcpus *vcpus, struct err *err);

/*
 * Any thread, a vCPU's too. RUN: enter the guest. HOLD: leave it and wait. STOP: leave it and end, for good:
 * later wishes are ignored. Returns at once.
 */
void vcpus_wish(struct vcpus *vcpus, enum vcpu_wish wish);

/*
 * Waits until no vCPU is in the guest or in a device, and each has closed its filter; after a wish for HOLD
 * or STOP. Not on a vCPU thread.
 */
void vcpus_wait_idle(struct vcpus *vcpus);

/* CPU time of all vCPU threads, in the guest and out of it, in milliseconds. */
uint64_t vcpus_time_ms(const struct vcpus *vcpus);

/* Stops, joins and frees; harmless when repeated, and on zeroed memory after vcpus_init(). */
void vcpus_join(struct vcpus *vcpus);
void vcpus_init(struct vcpus *vcpus);
void vcpus_destroy(struct vcpus *vcpus);

/* The thread's inner loop: runs the guest and serves its exits; returns when the thread must look at its
 * wish. */
void vcpu_run_guest(struct vcpu *cpu);

#endif
