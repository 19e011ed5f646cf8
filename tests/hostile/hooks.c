/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the hostile code gets in: the linker (--wrap) puts these functions before those of the same name, so
 * that the code that ships has no hook. Each thread role attacks when all walls stand: the main thread right
 * after its filter, which is the last one; a queue's thread when it sees that; a vCPU where it would first
 * run the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile.h"

struct vm;

int __real_seccomp_enter(enum seccomp_role role, struct err *err);
int __wrap_seccomp_enter(enum seccomp_role role, struct err *err);
int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __real_io_uring_enable_rings(struct io_uring *ring);
int __wrap_io_uring_enable_rings(struct io_uring *ring);
int __real_vm_load(struct vm *vm, struct err *err);
int __wrap_vm_load(struct vm *vm, struct err *err);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

struct hostile hostile;

static atomic_bool walls_stand;
static _Thread_local bool has_ring, queue_is_ready;

static void attack_as(enum seccomp_role role)
{
    if (hostile.armed && hostile.role == role)
        hostile_attack();
}

int __wrap_seccomp_enter(enum seccomp_role role, struct err *err)
{
    int code = hostile.filters ? __real_seccomp_enter(role, err) : 0;
    if (code < 0)
        return code;
    if (role == SECCOMP_QUEUE)
        queue_is_ready = has_ring;
    if (role == SECCOMP_MAIN) {
        atomic_store(&walls_stand, true);
        attack_as(SECCOMP_MAIN);
    }
    return 0;
}

/* After its filter, a queue's thread tells that it is ready and waits for the guest to use its device. */
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    if (queue_is_ready && hostile.armed && hostile.role == SECCOMP_QUEUE) {
        pthread_mutex_unlock(mutex);
        while (!atomic_load(&walls_stand))
            poll(NULL, 0, 1);
        attack_as(SECCOMP_QUEUE);
    }
    return __real_pthread_cond_wait(cond, mutex);
}

int __wrap_io_uring_enable_rings(struct io_uring *ring)
{
    hostile.ring = ring;
    has_ring = true;
    return __real_io_uring_enable_rings(ring);
}

/* The last thing before the cell closes. */
int __wrap_vm_load(struct vm *vm, struct err *err)
{
    hostile.maps_fd = -1;
    if (hostile.attempt && hostile.attempt->wants_maps)
        hostile.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    return __real_vm_load(vm, err);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    unsigned long arg = va_arg(ap, unsigned long);
    va_end(ap);
    if (request == KVM_RUN && atomic_load(&walls_stand))
        attack_as(SECCOMP_VCPU);
    return __real_ioctl(fd, request, arg);
}

long try_call(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}

static void tell(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

void hostile_attack(void)
{
    char line[160];
    tell("hostile: begins\n");
    long result = hostile.attempt ? hostile.attempt->fn() : try_call(hostile.number, 0, 0, 0, 0, 0, 0);
    if (result == KEPT_IN)
        snprintf(line, sizeof(line), "hostile: kept in\n");
    else if (result < 0)
        snprintf(line, sizeof(line), "hostile: refused %s\n", strerrorname_np((int)-result));
    else
        snprintf(line, sizeof(line), "hostile: OBTAINED %ld\n", result);
    tell(line);
    for (;;)
        syscall(SYS_exit_group, 0);
}
