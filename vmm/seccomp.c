/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "seccomp_filters.h"

static const struct {
    const struct sock_filter *code;
    unsigned short len;
} programs[SECCOMP_ROLES] = {
    [SECCOMP_MAIN] = {seccomp_main, ARRAY_SIZE(seccomp_main)},
    [SECCOMP_VCPU] = {seccomp_vcpu, ARRAY_SIZE(seccomp_vcpu)},
    [SECCOMP_QUEUE] = {seccomp_queue, ARRAY_SIZE(seccomp_queue)},
};

#define PROGRAM_MAX 512 /* instructions; a few bytes each of a stack that has 128 KiB */
_Static_assert(ARRAY_SIZE(seccomp_main) <= PROGRAM_MAX && ARRAY_SIZE(seccomp_vcpu) <= PROGRAM_MAX &&
                   ARRAY_SIZE(seccomp_queue) <= PROGRAM_MAX,
               "a filter does not fit its copy");

/* The program with our process's id in it, which the build could not know. */
static void copy(struct sock_filter *to, enum seccomp_role role)
{
    memcpy(to, programs[role].code, programs[role].len * sizeof(*to));
    for (unsigned i = 0; i < programs[role].len; i++)
        if (BPF_CLASS(to[i].code) == BPF_JMP && to[i].k == SECCOMP_OWN_PID)
            to[i].k = (uint32_t)getpid();
}

int seccomp_enter(enum seccomp_role role, struct err *err)
{
    struct sock_filter code[PROGRAM_MAX];
    const struct sock_fprog program = {.len = programs[role].len, .filter = code};
    copy(code, role);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
        return 0;
    return err_set(
        err, -errno,
        "this kernel did not take a system-call filter: %s (a kernel with CONFIG_SECCOMP_FILTER is "
        "needed; --no-sandbox runs without)",
        strerror(errno));
}
