/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm/sandbox.h"

/* vCPU threads call no deep code; the default of 8 MiB each would only be address space to account for. */
#ifdef MINIVMM_SANITIZED
#define STACK_BYTES (2048U << 10)
#else
#define STACK_BYTES (128U << 10)
#endif

#define KICK_SIGNAL SIGRTMIN

/* The signal only has to interrupt KVM_RUN: what is wanted stands in struct vcpus. */
static void kicked(int signal)
{
    (void)signal;
}

void vcpus_init(struct vcpus *vcpus)
{
    pthread_mutex_init(&vcpus->lock, NULL);
    pthread_cond_init(&vcpus->changed, NULL);
    vcpus->wish = VCPUS_HOLD;
}

static int open_vcpu(struct vcpu *cpu, int vm_fd, size_t run_size, struct err *err)
{
    cpu->fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)cpu->id);
    if (cpu->fd < 0)
        return err_set(err, -errno, "KVM could not create vCPU %u: %s", cpu->id, strerror(errno));
    void *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (run == MAP_FAILED)
        return err_set(err, -errno, "the state of vCPU %u could not be mapped: %s", cpu->id, strerror(errno));
    cpu->run = run;
    return 0;
}

int vcpus_create(struct vcpus *vcpus, int kvm_fd, int vm_fd, unsigned count, const char *cpu_model,
                 const struct arch_entry *entry, const struct vcpu_env *env, struct err *err)
{
    vcpus->env = *env;
    int run_size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(struct kvm_run))
        return err_set(err, -ENOTSUP, "KVM gives %d bytes of vCPU state, at least %zu are needed", run_size,
                       sizeof(struct kvm_run));
    vcpus->run_size = (size_t)run_size;
    struct arch_cpu_model *model = NULL;
    int code = arch_cpu_model_create(kvm_fd, cpu_model, &model, err);
    for (unsigned i = 0; code == 0 && i < count; i++) {
        struct vcpu *cpu = &vcpus->cpu[i];
        *cpu = (struct vcpu){.all = vcpus, .id = i, .fd = -1};
        vcpus->count = i + 1;
        code = open_vcpu(cpu, vm_fd, vcpus->run_size, err);
        if (code == 0)
            code = arch_vcpu_init(kvm_fd, cpu->fd, i, count, model, entry, err);
    }
    arch_cpu_model_free(model);
    return code;
}

/* The gate: waits while the wish is HOLD (*held: it did wait). False when the thread must end. */
static bool pass_gate(struct vcpu *cpu, bool *held)
{
    struct vcpus *all = cpu->all;
    *held = false;
    pthread_mutex_lock(&all->lock);
    all->in_guest--;
    pthread_cond_broadcast(&all->changed);
    while (all->wish == VCPUS_HOLD) {
        *held = true;
        pthread_cond_wait(&all->changed, &all->lock);
    }
    bool go = all->wish == VCPUS_RUN;
    if (go) {
        all->in_guest++;
        /* Under the lock, so that it can't wipe out a newer wish, which sets it again under the lock. */
        __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&all->lock);
    return go;
}

/* After a hold, or else a guest with a soft-lockup watchdog takes the pause for a hang of its own. */
static void tell_of_pause(const struct vcpu *cpu)
{
    /* EINVAL where the guest uses no kvmclock: then there is nobody to tell. */
    (void)ioctl(cpu->fd, KVM_KVMCLOCK_CTRL, 0);
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *cpu = arg;
    bool held;
    char name[16];
    /* By the thread itself: one system call, where another thread would have to go through /proc. */
    snprintf(name, sizeof(name), "vcpu%u", cpu->id);
    pthread_setname_np(pthread_self(), name);
    struct err err = {{0}};
    if (sandbox_thread(SANDBOX_VCPU, &err) < 0)
        cpu->all->env.ended(cpu->all->env.ctx, VM_END_INTERNAL, err.text);
    while (pass_gate(cpu, &held)) {
        if (held)
            tell_of_pause(cpu);
        vcpu_run_guest(cpu);
    }
    return NULL;
}

static int start_thread(struct vcpu *cpu, const pthread_attr_t *attr)
{
    struct vcpus *all = cpu->all;
    /* Counted before it runs, so that vcpus_wait_idle() also waits for threads on their way to the gate. */
    pthread_mutex_lock(&all->lock);
    all->in_guest++;
    pthread_mutex_unlock(&all->lock);
    int code = pthread_create(&cpu->thread, attr, vcpu_thread, cpu);
    if (code != 0) {
        pthread_mutex_lock(&all->lock);
        all->in_guest--;
        pthread_mutex_unlock(&all->lock);
        return -code;
    }
    cpu->started = true;
    return 0;
}

int vcpus_start(struct vcpus *vcpus, struct err *err)
{
    struct sigaction action = {.sa_handler = kicked};
    sigemptyset(&action.sa_mask);
    sigaction(KICK_SIGNAL, &action, NULL);

    /* Threads inherit the mask: a vCPU takes the kick and leaves all else to the main thread. */
    sigset_t mask, before;
    sigfillset(&mask);
    sigdelset(&mask, KICK_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &mask, &before);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int code = 0;
    for (unsigned i = 0; code == 0 && i < vcpus->count; i++)
        code = start_thread(&vcpus->cpu[i], &attr);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code < 0)
        return err_set(err, code, "the vCPU threads could not be started: %s", strerror(-code));
    return 0;
}

void vcpus_wish(struct vcpus *vcpus, enum vcpu_wish wish)
{
    pthread_mutex_lock(&vcpus->lock);
    if (vcpus->wish != VCPUS_STOP) {
        vcpus->wish = wish;
        for (unsigned i = 0; wish != VCPUS_RUN && i < vcpus->count; i++) {
            struct vcpu *cpu = &vcpus->cpu[i];
            if (!cpu->started)
                continue;
            __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
            pthread_kill(cpu->thread, KICK_SIGNAL);
        }
        pthread_cond_broadcast(&vcpus->changed);
    }
    pthread_mutex_unlock(&vcpus->lock);
}

uint64_t vcpus_time_ms(const struct vcpus *vcpus)
{
    uint64_t ms = 0;
    for (unsigned i = 0; i < vcpus->count; i++) {
        struct timespec used;
        clockid_t clock;
        if (!vcpus->cpu[i].started || pthread_getcpuclockid(vcpus->cpu[i].thread, &clock) != 0 ||
            clock_gettime(clock, &used) < 0)
            continue;
        ms += (uint64_t)used.tv_sec * 1000 + (uint64_t)used.tv_nsec / 1000000;
    }
    return ms;
}

void vcpus_wait_idle(struct vcpus *vcpus)
{
    pthread_mutex_lock(&vcpus->lock);
    while (vcpus->in_guest > 0)
        pthread_cond_wait(&vcpus->changed, &vcpus->lock);
    pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_join(struct vcpus *vcpus)
{
    vcpus_wish(vcpus, VCPUS_STOP);
    for (unsigned i = 0; i < vcpus->count; i++) {
        if (!vcpus->cpu[i].started)
            continue;
        pthread_join(vcpus->cpu[i].thread, NULL);
        vcpus->cpu[i].started = false;
    }
}

void vcpus_destroy(struct vcpus *vcpus)
{
    vcpus_join(vcpus);
    for (unsigned i = 0; i < vcpus->count; i++) {
        struct vcpu *cpu = &vcpus->cpu[i];
        if (cpu->run)
            munmap(cpu->run, vcpus->run_size);
        if (cpu->fd >= 0)
            close(cpu->fd);
    }
    vcpus->count = 0;
    pthread_cond_destroy(&vcpus->changed);
    pthread_mutex_destroy(&vcpus->lock);
}
