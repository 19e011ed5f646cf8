/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console on a user's terminal, played by a pty: keys, ctrl-a, and that the terminal is as it was before
 * whatever became of the VM's process.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "vmm/console.h"

#define LEFT_BY_KEY    7 /* exit codes of the VM's process in these tests */
#define LEFT_BY_SIGNAL 8
#define BROKEN         99

enum guest { LISTENS, IS_DEAF };

struct processes {
    pid_t vm, parent; /* the parent is the guard, or the shell where there is none */
};

static int master, slave, report[2];
static pid_t shell; /* what the user's shell would have started */
static struct termios before;

static void on_quit(void *ctx)
{
    *(bool *)ctx = true;
}

static volatile sig_atomic_t terminated;

static void on_term(int signal)
{
    (void)signal;
    terminated = 1;
}

/* Tells the test what the guest reads. */
static void guest_reads(struct serial *serial)
{
    for (;;) {
        uint8_t status;
        uint8_t byte;
        serial_bus_ops.read(serial, 5, &status, 1);
        if (!(status & 1))
            return;
        serial_bus_ops.read(serial, 0, &byte, 1);
        if (write(report[1], &byte, 1) != 1)
            _exit(BROKEN);
    }
}

/* A VM's process, in small. When the terminal is the guest's, it tells its number and its guard's. */
static int run_vm(enum guest guest, const struct config *config)
{
    bool quit = false;
    struct err err;
    struct loop *loop;
    struct console *console;
    struct serial *serial;
    const struct console_hooks hooks = {.quit = on_quit, .ctx = &quit};
    const struct sigaction term = {.sa_handler = on_term};
    sigaction(SIGTERM, &term, NULL);
    if (loop_create(&loop, &err) < 0 || console_open(config, &hooks, &console, &err) < 0)
        return BROKEN;
    const struct serial_config wiring = {
        .irq_fd = event_open(), .output = console_output, .input_ready = console_input_ready, .ctx = console};
    if (serial_create(&wiring, &serial, &err) < 0 || console_attach(console, serial, loop, &err) < 0)
        return BROKEN;
    const struct processes here = {.vm = getpid(), .parent = getppid()};
    if (write(report[1], &here, sizeof(here)) != (ssize_t)sizeof(here))
        return BROKEN;
    while (!quit && !terminated) {
        if (guest == LISTENS)
            guest_reads(serial);
        (void)loop_run_once(loop, 5);
    }
    console_close(console);
    serial_destroy(serial);
    loop_destroy(loop);
    close(wiring.irq_fd);
    return quit ? LEFT_BY_KEY : LEFT_BY_SIGNAL;
}

static int run_guarded(enum guest guest)
{
    const struct config config = {.console = CONSOLE_STDIO};
    struct err err;
    return console_guard_terminal(&config, &err) < 0 ? BROKEN : run_vm(guest, &config);
}

/* Makes the pty the controlling terminal of a session of its own, as a login does. */
static void become_session(void)
{
    close(master);
    close(report[0]);
    if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
        _exit(BROKEN);
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    close(slave);
}

/* A process that is stopped counts as broken: nothing here may be, foreground or background. */
static int code_of(int status)
{
    if (WIFSTOPPED(status))
        return BROKEN;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * The user's shell: starts one job and exits with its code, when all processes of the job are gone. The
 * terminal is hung up with it.
 */
static int run_shell(enum guest guest, bool background)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t job = fork();
    if (job == 0) {
        if (background)
            setpgid(0, 0);
        _exit(run_guarded(guest));
    }
    close(report[1]);
    int code = BROKEN;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WUNTRACED)) > 0;) {
        if (pid == job)
            code = code_of(status);
        if (WIFSTOPPED(status))
            kill(pid, SIGKILL);
    }
    return code;
}

static void start(enum guest guest, bool background)
{
    shell = fork();
    ck_assert_int_ge(shell, 0);
    if (shell == 0) {
        become_session();
        _exit(run_shell(guest, background));
    }
    close(report[1]);
}

static void setup(void)
{
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ck_assert_int_ge(slave, 0);
    ck_assert_int_eq(tcgetattr(slave, &before), 0);
    ck_assert_int_eq(pipe2(report, O_CLOEXEC), 0);
}

static void teardown(void)
{
    close(master);
    close(slave);
    close(report[0]);
}

static struct processes running(void)
{
    struct processes there;
    ck_assert_int_eq(read(report[0], &there, sizeof(there)), sizeof(there));
    return there;
}

static bool is_raw(void)
{
    struct termios now;
    ck_assert_int_eq(tcgetattr(slave, &now), 0);
    return !(now.c_lflag & (ICANON | ECHO | ISIG)) && !(now.c_iflag & (ICRNL | IXON));
}

static void check_restored(void)
{
    struct termios now;
    ck_assert_int_eq(tcgetattr(slave, &now), 0);
    ck_assert_uint_eq(now.c_lflag, before.c_lflag);
    ck_assert_uint_eq(now.c_iflag, before.c_iflag);
    ck_assert_uint_eq(now.c_oflag, before.c_oflag);
    ck_assert_uint_eq(now.c_cflag, before.c_cflag);
    ck_assert_mem_eq(now.c_cc, before.c_cc, sizeof(now.c_cc));
}

static int exit_code(void)
{
    int status;
    ck_assert_int_eq(waitpid(shell, &status, 0), shell);
    return code_of(status);
}

static void type(const char *keys, size_t len)
{
    ck_assert_int_eq(write(master, keys, len), (ssize_t)len);
}

static void expect_guest_got(const char *keys, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char key;
        ck_assert_int_eq(read(report[0], &key, 1), 1);
        ck_assert_int_eq(key, keys[i]);
    }
}

START_TEST(a_killed_vm_leaves_the_terminal_as_it_was)
{
    start(LISTENS, false);
    struct processes there = running();
    ck_assert_int_ne(there.parent, shell);
    ck_assert(is_raw());
    ck_assert_int_eq(kill(there.vm, SIGKILL), 0);
    ck_assert_int_eq(exit_code(), 128 + SIGKILL);
    check_restored();
}
END_TEST

START_TEST(ctrl_a_x_leaves_and_the_exit_code_comes_through)
{
    start(LISTENS, false);
    (void)running();
    type("\x01x", 2);
    ck_assert_int_eq(exit_code(), LEFT_BY_KEY);
    check_restored();
}
END_TEST

START_TEST(all_other_keys_are_the_guests)
{
    static const char typed[] = "a\x03\x1a\x1c\r\x01\x61z"; /* ctrl-c, ctrl-z, ctrl-\, ctrl-a a */
    static const char wanted[] = "a\x03\x1a\x1c\r\x01z";
    start(LISTENS, false);
    (void)running();
    type(typed, sizeof(typed) - 1);
    expect_guest_got(wanted, sizeof(wanted) - 1);
    type("\x01q\x01hz", 5); /* no command, and help: neither is for the guest */
    expect_guest_got("z", 1);
    type("\x01x", 2);
    ck_assert_int_eq(exit_code(), LEFT_BY_KEY);
}
END_TEST

START_TEST(ctrl_a_x_leaves_a_guest_that_reads_nothing)
{
    char keys[500];
    memset(keys, 'k', sizeof(keys));
    start(IS_DEAF, false);
    (void)running();
    for (unsigned i = 0; i < 10; i++)
        type(keys, sizeof(keys));
    type("\x01x", 2);
    ck_assert_int_eq(exit_code(), LEFT_BY_KEY);
    check_restored();
}
END_TEST

/* Scripts know the process that they started: what they send it is meant for the VM. */
START_TEST(signals_are_passed_on)
{
    start(LISTENS, false);
    ck_assert_int_eq(kill(running().parent, SIGTERM), 0);
    ck_assert_int_eq(exit_code(), LEFT_BY_SIGNAL);
    check_restored();
}
END_TEST

START_TEST(a_vm_without_its_guard_ends_and_restores_the_terminal)
{
    start(LISTENS, false);
    ck_assert_int_eq(kill(running().parent, SIGKILL), 0);
    ck_assert_int_eq(exit_code(), 128 + SIGKILL);
    check_restored();
}
END_TEST

/* The kernel would stop it if it read or changed the terminal. */
START_TEST(a_background_job_leaves_the_terminal_alone)
{
    start(LISTENS, true);
    struct processes there = running();
    ck_assert_int_eq(there.parent, shell);
    check_restored();
    type("\x01x", 2); /* not for it */
    ck_assert_int_eq(kill(there.vm, SIGTERM), 0);
    ck_assert_int_eq(exit_code(), LEFT_BY_SIGNAL);
    check_restored();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console_terminal");
    TCase *tc = tcase_create("terminal");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_killed_vm_leaves_the_terminal_as_it_was);
    tcase_add_test(tc, ctrl_a_x_leaves_and_the_exit_code_comes_through);
    tcase_add_test(tc, all_other_keys_are_the_guests);
    tcase_add_test(tc, ctrl_a_x_leaves_a_guest_that_reads_nothing);
    tcase_add_test(tc, signals_are_passed_on);
    tcase_add_test(tc, a_vm_without_its_guard_ends_and_restores_the_terminal);
    tcase_add_test(tc, a_background_job_leaves_the_terminal_alone);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
