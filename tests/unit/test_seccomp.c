/* SPDX-License-Identifier: Apache-2.0 */
/* The filters of a VM's threads: each policy row lets its call through, and all else ends the process. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "vmm/seccomp_policy.h"

#define CALLS_END  512 /* above every number that x86-64 has */
#define BAD_FD     (-1L)
/* uretprobe and uprobe, of the kernel's own probes: newer kernels let no filter see them, and answer whoever
 * was not sent there by a probe without doing anything. */
#define PROBES     335
#define PROBES_END 337

struct call {
    long nr, arg[6];
};

/* The child behind a role's filter makes the call; what waitpid() says of its end. */
static int end_of(enum seccomp_role role, const struct call *c)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct err err = {{0}};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (seccomp_enter(role, &err) < 0)
            _exit(99);
        long args[6];
        memcpy(args, c->arg, sizeof(args));
        syscall(c->nr, args[0], args[1], args[2], args[3], args[4], args[5]);
        syscall(SYS_exit_group, 0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

static bool is_killed(enum seccomp_role role, const struct call *c)
{
    int status = end_of(role, c);
    ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) != 99, "no filter was taken");
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

/* Arguments that fit the rule and do no harm: a descriptor that is none, where checks leave room for it. */
static struct call fitting(const struct seccomp_rule *rule)
{
    struct call c = {.nr = rule->call, .arg = {BAD_FD, 0, 0, 0, 0, 0}};
    for (unsigned i = 0; i < CHECKS_MAX && rule->check[i].text; i++)
        c.arg[rule->check[i].arg] = (long)rule->check[i].value;
    return c;
}

/* They would not come back, or take the stack away from under the test. */
static bool ends_or_waits(const struct seccomp_rule *rule)
{
    return rule->call == SYS_exit || rule->call == SYS_exit_group || rule->call == SYS_rt_sigreturn ||
           rule->call == SYS_tgkill;
}

static bool in_table(unsigned role, long nr)
{
    for (unsigned i = 0; i < SECCOMP_RULES; i++)
        if (seccomp_policy[i].call == nr && seccomp_policy[i].roles & 1U << role)
            return true;
    return false;
}

START_TEST(rows_let_their_calls_through)
{
    for (unsigned i = 0; i < SECCOMP_RULES; i++) {
        const struct seccomp_rule *rule = &seccomp_policy[i];
        const struct call c = fitting(rule);
        if (!(rule->roles & 1U << _i) || ends_or_waits(rule))
            continue;
        ck_assert_msg(!is_killed((enum seccomp_role)_i, &c), "row %u, %s", i, rule->name);
    }
}
END_TEST

/* Each check of a row, broken alone, in a bit that its mask looks at. */
START_TEST(other_arguments_kill)
{
    for (unsigned i = 0; i < SECCOMP_RULES; i++) {
        const struct seccomp_rule *rule = &seccomp_policy[i];
        if (!(rule->roles & 1U << _i))
            continue;
        for (unsigned n = 0; n < CHECKS_MAX && rule->check[n].text; n++) {
            struct call c = fitting(rule);
            c.arg[rule->check[n].arg] ^= 1L << 30;
            ck_assert_msg(is_killed((enum seccomp_role)_i, &c), "row %u, %s, check %u", i, rule->name, n);
        }
    }
}
END_TEST

START_TEST(calls_that_are_not_in_the_table_kill)
{
    for (long nr = 0; nr < CALLS_END; nr++) {
        const struct call c = {.nr = nr, .arg = {BAD_FD, 0, 0, 0, 0, 0}};
        if (!in_table((unsigned)_i, nr) && (nr < PROBES || nr >= PROBES_END))
            ck_assert_msg(is_killed((enum seccomp_role)_i, &c), "call %ld", nr);
    }
    const struct call x32 = {.nr = 0x40000000L | SYS_close, .arg = {BAD_FD}};
    ck_assert(is_killed((enum seccomp_role)_i, &x32));
}
END_TEST

START_TEST(an_intruders_calls_kill)
{
    const long rw = PROT_READ | PROT_WRITE, own = MAP_PRIVATE | MAP_ANONYMOUS;
    const struct call calls[] = {
        {SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_RDONLY}},
        {SYS_socket, {1, 1, 0}},
        {SYS_execve, {(long)"/bin/sh", 0, 0}},
        {SYS_io_uring_setup, {8, 0}},
        {SYS_io_uring_register, {BAD_FD, 0, 0, 0}},
        {SYS_io_uring_enter, {BAD_FD, 0, 0, IORING_ENTER_SQ_WAKEUP, 0, 0}},
        {SYS_mmap, {0, 4096, rw | PROT_EXEC, own, BAD_FD, 0}},
        {SYS_mmap, {0, 4096, rw, own | MAP_FIXED, BAD_FD, 0}},
        {SYS_mprotect, {0, 4096, PROT_READ | PROT_EXEC}},
        {SYS_ptrace, {16, 1, 0, 0}},
        {SYS_clone, {SIGCHLD, 0, 0, 0, 0}},
        {SYS_clone3, {0, 0}},
        {SYS_mount, {0, 0, 0, 0, 0}},
        {SYS_kill, {0, 0}},
        {SYS_tgkill, {getppid(), getppid(), KICK_SIGNAL}},
        {SYS_tgkill, {1, 1, SIGABRT}},
        {SYS_ioctl, {0, (long)TIOCSTI, 0}},
        {SYS_ioctl, {BAD_FD, (long)KVM_CREATE_VM, 0}},
        {SYS_ioctl, {BAD_FD, (long)KVM_SET_USER_MEMORY_REGION, 0}},
        {SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}},
        {SYS_seccomp, {1, 0, 0}},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
        ck_assert_msg(is_killed((enum seccomp_role)_i, &calls[i]), "attempt %u, call %ld", i, calls[i].nr);
}
END_TEST

START_TEST(roles_keep_apart)
{
    const struct call run = {SYS_ioctl, {BAD_FD, KVM_RUN, 0}};
    const struct call discard = {SYS_ioctl, {BAD_FD, BLKDISCARD, 0}};
    const struct call take = {SYS_accept4, {BAD_FD, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC}};
    ck_assert_int_eq(is_killed((enum seccomp_role)_i, &run), _i != SECCOMP_VCPU);
    ck_assert_int_eq(is_killed((enum seccomp_role)_i, &discard), _i != SECCOMP_QUEUE);
    ck_assert_int_eq(is_killed((enum seccomp_role)_i, &take), _i != SECCOMP_MAIN);
}
END_TEST

/* abort() tells of overwritten memory; it must not look like a break-in. */
START_TEST(abort_is_an_abort)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (seccomp_enter((enum seccomp_role)_i, NULL) < 0)
            _exit(99);
        abort();
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
END_TEST

START_TEST(the_kick_is_the_first_real_time_signal)
{
    ck_assert_int_eq(KICK_SIGNAL, SIGRTMIN);
}
END_TEST

static void add_filters(TCase *tests)
{
#ifdef MINIVMM_SANITIZED
    const bool possible = false;
    printf("# SKIPPED 18 sanitizers make system calls of their own, which the filters forbid\n");
#else
    const bool possible = true;
#endif
    const int roles = possible ? SECCOMP_ROLES : 0;
    tcase_add_loop_test(tests, rows_let_their_calls_through, 0, roles);
    tcase_add_loop_test(tests, other_arguments_kill, 0, roles);
    tcase_add_loop_test(tests, calls_that_are_not_in_the_table_kill, 0, roles);
    tcase_add_loop_test(tests, an_intruders_calls_kill, 0, roles);
    tcase_add_loop_test(tests, roles_keep_apart, 0, roles);
    tcase_add_loop_test(tests, abort_is_an_abort, 0, roles);
}

int main(void)
{
    Suite *suite = suite_create("seccomp");
    TCase *tests = tcase_create("filters");
    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 60);
    add_filters(tests);
    tcase_add_test(tests, the_kick_is_the_first_real_time_signal);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
