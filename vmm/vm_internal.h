/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's insides, for the vmm/vm*.c files alone. */
#ifndef MINIVMM_VMM_VM_INTERNAL_H
#define MINIVMM_VMM_VM_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "minivmm/log.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/machine.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

struct vm {
    const struct config *config; /* the caller's; outlives the VM */
    _Atomic int state;           /* enum vm_state */
    struct machine machine;
    struct vcpus vcpus;
    struct loop *loop;
    struct console *console;
    struct control *control;
    int kvm_fd, vm_fd;
    int end_fd;          /* eventfd: result is set */
    int signal_fd;       /* SIGTERM and the like */
    int timer_fd;        /* --timeout, or -1 */
    int force_fd;        /* timerfd: the deadline of a stop request, or -1 */
    int statm_fd;        /* /proc/self/statm, or -1 */
    pid_t pid, cell_pid; /* to be signalled; the VM's own process. As the host sees them */
    sigset_t mask_before;
    bool mask_changed;
    struct timespec started;
    struct log_limit crashes; /* told of by the guest */
    pthread_mutex_t end_lock;
    struct vm_result result; /* under end_lock until the vCPUs are joined; the first end wins */
};

/* What the control socket is asked, as control_fn; ctx: the struct vm. */
int vm_control_request(void *ctx, const char *request, FILE *out, struct err *err);

/* Ends the run with VM_END_STOPPED if the guest has not done so itself in the given seconds, 1 or more. */
int vm_force_after(struct vm *vm, unsigned seconds);

#endif
