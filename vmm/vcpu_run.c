/* SPDX-License-Identifier: Apache-2.0 */
/* One vCPU's inner loop: KVM_RUN and what each of its exits means. No exit ends in silence. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "minivmm/bytes.h"
#include "vmm/vcpu.h"

#define REPORT_BYTES   4096
#define SENTENCE_BYTES 1024 /* the most of it that the sentence takes */

/* Adds to a counter that only this thread writes: no locked instruction needed. */
static void count(_Atomic uint64_t *counter, uint64_t more)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + more, memory_order_relaxed);
}

/* Ends the run with a sentence and the registers. */
__attribute__((format(printf, 3, 4))) static void crash(struct vcpu *cpu, enum vm_end how, const char *fmt,
                                                        ...)
{
    const struct vcpu_env *env = &cpu->all->env;
    char text[REPORT_BYTES];
    int used = snprintf(text, sizeof(text), "vCPU %u: ", cpu->id);
    va_list ap;
    va_start(ap, fmt);
    used += vsnprintf(text + used, sizeof(text) - (size_t)used, fmt, ap);
    va_end(ap);
    /* What they would have printed is what they return: the registers matter more than a sentence's end. */
    if (used > SENTENCE_BYTES)
        used = SENTENCE_BYTES;
    text[used++] = '\n';
    arch_vcpu_describe(cpu->fd, env->mem, text + used, (uint32_t)(sizeof(text) - (size_t)used));
    env->ended(env->ctx, how, text);
}

static void serve_mmio(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->run;
    const struct bus *bus = cpu->all->env.mmio;
    count(&cpu->counters.mmio, 1);
    bool claimed = run->mmio.is_write ? bus_write(bus, run->mmio.phys_addr, run->mmio.data, run->mmio.len)
                                      : bus_read(bus, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    if (!claimed)
        count(&cpu->counters.unclaimed, 1);
}

static bool serve_io(struct vcpu *cpu)
{
    uint64_t unclaimed = 0;
    count(&cpu->counters.io, 1);
    bool served = arch_vcpu_exit(cpu->run, cpu->all->env.ports, &unclaimed);
    if (unclaimed)
        count(&cpu->counters.unclaimed, unclaimed);
    return served;
}

static void internal_error(struct vcpu *cpu)
{
    static const char *const why[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "it can't emulate the instruction that the guest is at",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "the guest raised exceptions that it can't deliver together",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "delivering an event to the guest faulted",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] =
            "the processor left the guest for a reason unknown to it",
    };
    uint32_t suberror = cpu->run->internal.suberror;
    const char *text = suberror < ARRAY_SIZE(why) ? why[suberror] : NULL;
    crash(cpu, VM_END_INTERNAL, "KVM can't go on with the guest: %s (internal error, suberror %u)",
          text ? text : "it does not say why", suberror);
}

static void system_event(struct vcpu *cpu)
{
    const struct vcpu_env *env = &cpu->all->env;
    switch (cpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        env->ended(env->ctx, VM_END_POWEROFF, NULL);
        break;
    case KVM_SYSTEM_EVENT_RESET:
        env->ended(env->ctx, VM_END_RESET, NULL);
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        env->ended(env->ctx, VM_END_PANIC, NULL);
        break;
    default:
        crash(cpu, VM_END_INTERNAL, "KVM reported a system event of the unknown type %u",
              cpu->run->system_event.type);
    }
}

/* Exits that end the run, or that an in-kernel irqchip must never give. */
static void serve_rare(struct vcpu *cpu)
{
    const struct kvm_run *run = cpu->run;
    count(&cpu->counters.other, 1);
    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        crash(cpu, VM_END_TRIPLE_FAULT,
              "triple fault: an exception came up while the guest could not handle one, twice over");
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        internal_error(cpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        crash(cpu, VM_END_INTERNAL,
              "the processor refused to enter the guest (hardware reason %#llx, CPU %u)",
              (unsigned long long)run->fail_entry.hardware_entry_failure_reason, run->fail_entry.cpu);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        system_event(cpu);
        break;
    default:
        crash(cpu, VM_END_INTERNAL, "KVM left the guest with exit reason %u, which minivmm does not know",
              run->exit_reason);
    }
}

static void serve(struct vcpu *cpu)
{
    switch (cpu->run->exit_reason) {
    case KVM_EXIT_MMIO:
        serve_mmio(cpu);
        break;
    case KVM_EXIT_IO:
        if (!serve_io(cpu))
            serve_rare(cpu);
        break;
    case KVM_EXIT_INTR:
        break;
    default:
        serve_rare(cpu);
    }
}

void vcpu_run_guest(struct vcpu *cpu)
{
    for (;;) {
        if (ioctl(cpu->fd, KVM_RUN, 0) == 0) {
            serve(cpu);
            continue;
        }
        int code = errno;
        /* EAGAIN: a vCPU that waited for its start-up IPI and got it; it runs from the next call on. By way
         * of the gate, so that a host that gives nothing else can't keep the thread from its end. */
        if (code == EINTR || code == EAGAIN)
            return;
        crash(cpu, VM_END_INTERNAL, "KVM failed to run the guest: %s", strerror(code));
        return;
    }
}
