/* SPDX-License-Identifier: Apache-2.0 */
/* The console's two ways: what the guest prints must arrive or be let go of, and never hold the VM; what is
 * typed or piped in must reach a guest that reads byte by byte. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "vmm/console.h"
#include "vmm/console_internal.h"

#define LSR_READY 0x01
#define MUCH      300000u

static struct config config;
static struct loop *loop;
static struct serial *serial;
static struct console *console;
static int irq_fd, std[3];
static char folder[] = "/tmp/minivmm-console-XXXXXX";
static unsigned quits;
static struct err err;

static void on_quit(void *ctx)
{
    ++*(unsigned *)ctx;
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* as a VM's process does */
    fflush(NULL);
    for (int fd = 0; fd < 3; fd++)
        std[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    strcpy(folder, "/tmp/minivmm-console-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    memset(&config, 0, sizeof(config));
    quits = 0;
    console = NULL;
    irq_fd = event_open();
    ck_assert_int_eq(loop_create(&loop, &err), 0);
}

static void restore(int fd)
{
    dup2(std[fd], fd);
}

static void teardown(void)
{
    if (console)
        console_close(console);
    serial_destroy(serial);
    serial = NULL;
    loop_destroy(loop);
    close(irq_fd);
    free(config.console_path);
    for (int fd = 0; fd < 3; fd++) {
        restore(fd);
        close(std[fd]);
    }
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static int open_console(void)
{
    const struct console_hooks hooks = {.quit = on_quit, .ctx = &quits};
    memset(&err, 0, sizeof(err));
    return console_open(&config, &hooks, &console, &err);
}

static void start(void)
{
    ck_assert_msg(open_console() == 0, "%s", err.text);
    const struct serial_config wiring = {
        .irq_fd = irq_fd, .output = console_output, .input_ready = console_input_ready, .ctx = console};
    ck_assert_int_eq(serial_create(&wiring, &serial, &err), 0);
    ck_assert_int_eq(console_attach(console, serial, loop, &err), 0);
}

static void finish(void)
{
    console_close(console);
    console = NULL;
}

static void use_file(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void use_file(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&config.console_path, fmt, ap), 0);
    va_end(ap);
    config.console = CONSOLE_FILE;
}

static void say(const char *text)
{
    console_output(console, (const uint8_t *)text, strlen(text));
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void turn(void)
{
    ck_assert_int_eq(loop_run_once(loop, 1), 0);
}

/* The byte at each place of a long text, so that a lost or repeated one is seen. */
static uint8_t byte_at(size_t i)
{
    return i % 61 == 60 ? '\n' : (uint8_t)('!' + i % 89);
}

static void *print_much(void *arg)
{
    for (size_t i = 0; i < MUCH; i++) {
        uint8_t byte = byte_at(i);
        console_output(console, &byte, 1);
    }
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

/* Takes all that is there now; checks that it goes on where it stopped. */
static void read_text(int fd, size_t *at)
{
    uint8_t bytes[4096];
    while (readable(fd)) {
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n <= 0)
            return;
        for (ssize_t i = 0; i < n; i++)
            ck_assert_msg(bytes[i] == byte_at(*at + (size_t)i), "byte %zu is wrong", *at + (size_t)i);
        *at += (size_t)n;
    }
}

static void slurp(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t n = read(fd, text, size - 1);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    close(fd);
}

START_TEST(a_file_is_emptied_and_gets_all_to_the_last_byte)
{
    char text[64];
    use_file("%s/log", folder);
    for (unsigned round = 0; round < 2; round++) {
        start();
        say(round ? "b\nrest" : "aaaaaaaaaaaa\n");
        finish();
        serial_destroy(serial);
        serial = NULL;
        slurp(config.console_path, text, sizeof(text));
        ck_assert_str_eq(text, round ? "b\nrest" : "aaaaaaaaaaaa\n");
    }
}
END_TEST

START_TEST(what_cannot_be_written_to_is_refused_with_its_name)
{
    char fifo[64];
    snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    const char *const paths[] = {folder, fifo, "/nonexistent/log"};
    const int codes[] = {-EISDIR, -ENXIO, -ENOENT};
    for (unsigned i = 0; i < 3; i++) {
        use_file("%s", paths[i]);
        ck_assert_int_eq(open_console(), codes[i]);
        ck_assert_ptr_nonnull(strstr(err.text, "--console"));
        ck_assert_ptr_nonnull(strstr(err.text, paths[i]));
        free(config.console_path);
        config.console_path = NULL;
    }
}
END_TEST

START_TEST(a_prompt_comes_without_a_newline)
{
    int pipes[2];
    char text[16] = "";
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    use_file("/dev/fd/%d", pipes[1]);
    start();
    say("login: ");
    while (!readable(pipes[0]))
        turn();
    ck_assert_int_eq(read(pipes[0], text, sizeof(text) - 1), 7);
    ck_assert_str_eq(text, "login: ");
    finish();
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

/* The ways out that may stop taking bytes: a pipe by name, standard output as a pipe, as a socket. */
enum { NAMED_PIPE, STDOUT_PIPE, STDOUT_SOCKET, WAYS };

static int open_way(int way)
{
    int pair[2];
    if (way == STDOUT_SOCKET)
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    else
        ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    if (way == NAMED_PIPE) {
        use_file("/dev/fd/%d", pair[1]);
    } else {
        config.console = CONSOLE_STDIO;
        dup2(pair[1], STDOUT_FILENO);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, STDIN_FILENO);
        close(null);
    }
    start();
    close(pair[1]);
    return pair[0];
}

/* Standard output is shared with whoever started us: how it behaves for them must not change. */
static void check_unchanged(void)
{
    ck_assert_int_eq(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0);
}

START_TEST(a_slow_reader_gets_everything)
{
    int fd = open_way(_i);
    atomic_bool done = false;
    size_t got = 0;
    pthread_t guest;
    ck_assert_int_eq(pthread_create(&guest, NULL, print_much, &done), 0);
    while (!atomic_load(&done) || readable(fd)) {
        turn();
        read_text(fd, &got);
    }
    pthread_join(guest, NULL);
    check_unchanged();
    finish();
    restore(STDOUT_FILENO);
    read_text(fd, &got);
    ck_assert_uint_eq(got, MUCH);
    close(fd);
}
END_TEST

START_TEST(a_stopped_reader_holds_neither_the_end_nor_what_it_took)
{
    int fd = open_way(_i);
    atomic_bool done = false;
    pthread_t guest;
    ck_assert_int_eq(pthread_create(&guest, NULL, print_much, &done), 0);
    for (unsigned i = 0; i < 50; i++)
        turn();
    ck_assert(!atomic_load(&done)); /* held back: there is far more than any buffer has */
    console_hurry(console, true);
    pthread_join(guest, NULL);
    ck_assert(atomic_load(&done));
    finish();
    restore(STDOUT_FILENO);
    size_t got = 0;
    read_text(fd, &got); /* the beginning is whole */
    ck_assert_uint_gt(got, 4096);
    ck_assert_uint_lt(got, MUCH);
    close(fd);
}
END_TEST

/* Where a pipe or terminal can't be opened anew, as after su, its blocking descriptor itself is written to.
 */
START_TEST(a_blocking_descriptor_is_never_waited_for)
{
    int pipes[2];
    static uint8_t bytes[8192];
    size_t sum = 0;
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    struct console_host host = {.out_fd = pipes[1], .out_shared = true};
    ssize_t n;
    while ((n = console_host_write(&host, bytes, sizeof(bytes))) > 0)
        sum += (size_t)n;
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_uint_ge(sum, 4096);
    ck_assert_int_eq(read(pipes[0], bytes, sizeof(bytes)), sizeof(bytes));
    ck_assert_int_gt(console_host_write(&host, bytes, sizeof(bytes)), 0);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(a_reader_that_goes_away_ends_the_output_alone)
{
    int fd = open_way(_i);
    atomic_bool done = false;
    pthread_t guest;
    close(fd);
    ck_assert_int_eq(pthread_create(&guest, NULL, print_much, &done), 0);
    while (!atomic_load(&done))
        turn();
    pthread_join(guest, NULL);
    finish();
    restore(STDOUT_FILENO);
}
END_TEST

START_TEST(none_takes_output_and_gives_no_input)
{
    config.console = CONSOLE_NONE;
    start();
    say("nobody hears\n");
    turn();
    finish();
}
END_TEST

START_TEST(closed_standard_descriptors_are_taken_by_nothing_else)
{
    config.console = CONSOLE_NONE;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    console_hold_standard();
    bool held = true;
    for (int fd = 0; fd < 3; fd++)
        held = held && fcntl(fd, F_GETFD) >= 0;
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        restore(fd);
    ck_assert(held);
    ck_assert_int_gt(next, 2);
    close(next);
}
END_TEST

/* Reads like a guest that polls, until len bytes are there. */
static void guest_reads(uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        uint8_t status;
        serial_bus_ops.read(serial, 5, &status, 1);
        if (status & LSR_READY)
            serial_bus_ops.read(serial, 0, &bytes[at++], 1);
        else
            turn();
    }
}

static void guest_uses_fifo(void)
{
    const uint8_t on = 0x07; /* enabled and emptied, as drivers do at their start */
    serial_bus_ops.write(serial, 2, &on, 1);
}

static void check_long_input(size_t len)
{
    uint8_t *bytes = malloc(len);
    guest_reads(bytes, len);
    for (size_t i = 0; i < len; i++)
        ck_assert_msg(bytes[i] == byte_at(i), "byte %zu of the input is wrong", i);
    free(bytes);
}

static void write_text(int fd, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = byte_at(i);
        ck_assert_int_eq(write(fd, &byte, 1), 1);
    }
}

START_TEST(piped_input_waits_for_the_guest_and_then_ends)
{
    int pipes[2];
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    dup2(pipes[0], STDIN_FILENO);
    close(pipes[0]);
    config.console = CONSOLE_STDIO;
    start();
    guest_uses_fifo();
    write_text(pipes[1], 9000);
    close(pipes[1]);
    for (unsigned i = 0; i < 20; i++)
        turn();
    check_long_input(9000);
    for (unsigned i = 0; i < 20; i++)
        turn(); /* the end was seen: no error, and nothing more */
    uint8_t status;
    serial_bus_ops.read(serial, 5, &status, 1);
    ck_assert_uint_eq(status & LSR_READY, 0);
}
END_TEST

START_TEST(a_plain_file_is_input_too)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/keys", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    write_text(fd, 5000);
    lseek(fd, 0, SEEK_SET);
    dup2(fd, STDIN_FILENO);
    close(fd);
    config.console = CONSOLE_STDIO;
    start();
    check_long_input(5000); /* no FIFO: a byte at a time */
}
END_TEST

START_TEST(input_goes_on_after_the_driver_empties_the_fifo)
{
    int pipes[2];
    uint8_t bytes[1];
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    dup2(pipes[0], STDIN_FILENO);
    close(pipes[0]);
    config.console = CONSOLE_STDIO;
    start();
    guest_uses_fifo();
    write_text(pipes[1], 100);
    for (unsigned i = 0; i < 20; i++)
        turn();
    guest_uses_fifo();
    guest_reads(bytes, 1);
    ck_assert_uint_eq(bytes[0], byte_at(16));
    close(pipes[1]);
}
END_TEST

START_TEST(no_input_at_all_is_fine)
{
    if (_i == 0) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        dup2(null, STDIN_FILENO);
        close(null);
    } else {
        close(STDIN_FILENO);
    }
    config.console = CONSOLE_STDIO;
    start();
    turn();
    finish();
    restore(STDIN_FILENO);
}
END_TEST

/* Opens a pty console and returns its other side. */
static int open_reader(char *path, size_t size)
{
    int pipes[2];
    char text[64];
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    config.console = CONSOLE_PTY;
    dup2(pipes[1], STDERR_FILENO);
    start();
    restore(STDERR_FILENO);
    close(pipes[1]);
    ssize_t n = read(pipes[0], text, sizeof(text) - 1);
    close(pipes[0]);
    ck_assert_int_gt(n, 10);
    text[n] = '\0';
    ck_assert_int_eq(strncmp(text, "console: /dev/pts/", 18), 0);
    ck_assert_int_eq(text[n - 1], '\n');
    text[n - 1] = '\0';
    ck_assert_uint_lt(strlen(text + 9), size);
    strcpy(path, text + 9);
    return open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

START_TEST(a_pty_carries_both_ways_without_echo_and_survives_its_readers)
{
    char path[64];
    char text[16];
    for (unsigned round = 0; round < 2; round++) {
        int fd =
            round ? open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : open_reader(path, sizeof(path));
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, "ls\r", 3), 3);
        guest_reads((uint8_t *)text, 3);
        ck_assert_mem_eq(text, "ls\r", 3);
        say("ok\n");
        while (!readable(fd))
            turn();
        ck_assert_int_eq(read(fd, text, sizeof(text)), 3); /* "ok" alone: what was typed did not echo */
        ck_assert_mem_eq(text, "ok\n", 3);
        close(fd);
        turn();
    }
}
END_TEST

START_TEST(a_pty_that_nobody_reads_keeps_the_newest)
{
    char path[64];
    static char text[256 << 10];
    int fd = open_reader(path, sizeof(path));
    atomic_bool done = false;
    print_much(&done); /* returns: nobody is waited for */
    say("the end\n");
    size_t got = 0;
    while (got < 8 || memcmp(text + got - 8, "the end\n", 8) != 0) {
        turn();
        ssize_t n = read(fd, text + got, sizeof(text) - got);
        got += n > 0 ? (size_t)n : 0;
        ck_assert_uint_lt(got, sizeof(text));
    }
    ck_assert_uint_gt(got, 16384);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console");
    TCase *tc = tcase_create("console");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_file_is_emptied_and_gets_all_to_the_last_byte);
    tcase_add_test(tc, what_cannot_be_written_to_is_refused_with_its_name);
    tcase_add_test(tc, a_prompt_comes_without_a_newline);
    tcase_add_loop_test(tc, a_slow_reader_gets_everything, 0, WAYS);
    tcase_add_loop_test(tc, a_stopped_reader_holds_neither_the_end_nor_what_it_took, 0, WAYS);
    tcase_add_test(tc, a_blocking_descriptor_is_never_waited_for);
    tcase_add_loop_test(tc, a_reader_that_goes_away_ends_the_output_alone, 0, WAYS);
    tcase_add_test(tc, none_takes_output_and_gives_no_input);
    tcase_add_test(tc, closed_standard_descriptors_are_taken_by_nothing_else);
    tcase_add_test(tc, piped_input_waits_for_the_guest_and_then_ends);
    tcase_add_test(tc, a_plain_file_is_input_too);
    tcase_add_test(tc, input_goes_on_after_the_driver_empties_the_fifo);
    tcase_add_loop_test(tc, no_input_at_all_is_fine, 0, 2);
    tcase_add_test(tc, a_pty_carries_both_ways_without_echo_and_survives_its_readers);
    tcase_add_test(tc, a_pty_that_nobody_reads_keeps_the_newest);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
