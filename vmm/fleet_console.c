/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet logs and console: bytes of a VM's serial console. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/exit_codes.h"
#include "vmm/fleet_client.h"

#define CTRL_A 1

static const char keys_help[] = "\r\nctrl-a x leaves (the VM goes on), ctrl-a a sends ctrl-a\r\n";

enum { GO_ON = 1, LEAVE = 0 };

/* socket: that its peer is gone is an error there, and no signal. */
static int put_all(int fd, bool socket, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = socket ? send(fd, bytes, len, MSG_NOSIGNAL) : write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/* What came from the VM; LEAVE at the end of the connection. */
static int pass_output(int fd)
{
    char part[4096];
    ssize_t n = recv(fd, part, sizeof(part), 0);
    if (n < 0 && errno == EINTR)
        return GO_ON;
    /* A supervisor that ends closes the connection, or resets it while input is on its way. */
    if (n <= 0)
        return n < 0 && errno != ECONNRESET ? -errno : LEAVE;
    int code = put_all(STDOUT_FILENO, false, part, (size_t)n);
    return code < 0 ? code : GO_ON;
}

static int follow(int fd, struct err *err)
{
    int code;
    do
        code = pass_output(fd);
    while (code == GO_ON);
    return code < 0 ? err_set(err, code, "the stream broke off: %s", strerror(-code)) : 0;
}

int fleet_logs(const struct fleet_wish *wish)
{
    struct err err = {{0}};
    struct fleet_link link;
    char request[CONTROL_LINE_MAX];
    if (fleet_link_open(wish, &link, &err) < 0)
        return fleet_fail(wish, &err);
    snprintf(request, sizeof(request), "logs %s %u%s", wish->name[0], (unsigned)wish->lines,
             wish->follow ? " follow" : "");
    int fd = fleet_ask_stream(&link, request, &err);
    fleet_link_close(&link);
    int code = fd < 0 ? fd : follow(fd, &err);
    if (fd >= 0)
        close(fd);
    return code < 0 ? fleet_fail(wish, &err) : EXIT_CODE_OK;
}

/* What a person types, where ctrl-a is for us; a pipe's bytes all go to the VM. */
struct typing {
    bool keys;
    bool prefix; /* ctrl-a came last */
};

static int pass_keys(struct typing *typing, int fd, const char *bytes, size_t len)
{
    int code = 0;
    for (size_t i = 0; i < len && code == 0; i++) {
        char c = bytes[i];
        bool command = typing->prefix;
        typing->prefix = !command && c == CTRL_A;
        if (typing->prefix)
            continue;
        if (command && c == 'x')
            return LEAVE;
        if (command && c == 'h')
            code = put_all(STDOUT_FILENO, false, keys_help, sizeof(keys_help) - 1);
        else if (command && c == 'a')
            code = put_all(fd, true, "\1", 1);
        else
            code = put_all(fd, true, &c, 1);
    }
    return code < 0 ? code : GO_ON;
}

/* At the end of input the output goes on: *ended. */
static int pass_input(struct typing *typing, int fd, bool *ended)
{
    char part[4096];
    ssize_t n = read(STDIN_FILENO, part, sizeof(part));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return GO_ON;
    *ended = n <= 0;
    if (n <= 0)
        return GO_ON;
    if (typing->keys)
        return pass_keys(typing, fd, part, (size_t)n);
    int code = put_all(fd, true, part, (size_t)n);
    return code < 0 ? code : GO_ON;
}

/* leave_fd: readable when it is time to go, or -1. */
static int converse(int fd, bool keys, int leave_fd, struct err *err)
{
    struct typing typing = {.keys = keys};
    bool ended = false;
    int code = GO_ON;
    while (code == GO_ON) {
        struct pollfd ready[3] = {{.fd = fd, .events = POLLIN},
                                  {.fd = ended ? -1 : STDIN_FILENO, .events = POLLIN},
                                  {.fd = leave_fd, .events = POLLIN}};
        if (poll(ready, 3, -1) < 0)
            code = errno == EINTR ? GO_ON : -errno;
        if (code == GO_ON && ready[2].revents)
            code = LEAVE;
        if (code == GO_ON && ready[0].revents)
            code = pass_output(fd);
        if (code == GO_ON && ready[1].revents)
            code = pass_input(&typing, fd, &ended);
    }
    /* The VM's end closed while we wrote: no more than an end. */
    if (code == -EPIPE || code == -ECONNRESET)
        code = 0;
    return code < 0 ? err_set(err, code, "the connection broke off: %s", strerror(-code)) : 0;
}

static int talk(const struct fleet_wish *wish, bool keys, int leave_fd)
{
    struct err err = {{0}};
    struct fleet_link link;
    char request[CONTROL_LINE_MAX];
    if (fleet_link_open(wish, &link, &err) < 0)
        return fleet_fail(wish, &err);
    snprintf(request, sizeof(request), "console %s", wish->name[0]);
    int fd = fleet_ask_stream(&link, request, &err);
    fleet_link_close(&link);
    int code = fd < 0 ? fd : converse(fd, keys, leave_fd, &err);
    if (fd >= 0)
        close(fd);
    return code < 0 ? fleet_fail(wish, &err) : EXIT_CODE_OK;
}

static bool in_foreground(void)
{
    return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* Waits for the child, and ends it when a signal asks us to end. Returns the exit code. */
static int guard(pid_t child, const sigset_t *signals)
{
    for (;;) {
        int status;
        int signal = sigwaitinfo(signals, NULL);
        if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT) {
            (void)kill(child, SIGKILL);
            (void)waitpid(child, NULL, 0);
            return 128 + signal;
        }
        if (waitpid(child, &status, WNOHANG) == child)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

/* In the child, with all signals blocked: SIGTERM tells that the parent is gone. */
static int talk_raw(const struct fleet_wish *wish, pid_t parent, const struct termios *saved)
{
    struct termios raw = *saved;
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    int leave_fd = signalfd(-1, &term, SFD_CLOEXEC);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (leave_fd < 0 || getppid() != parent)
        return EXIT_CODE_FAILURE;
    cfmakeraw(&raw);
    /* Our own messages share the screen, and end their lines with a newline alone. */
    raw.c_oflag = saved->c_oflag;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    int code = talk(wish, true, leave_fd);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, saved);
    fputc('\n', stderr);
    return code;
}

/* In a child of ours: whichever of the two is killed, the other sets the terminal right. */
static int talk_guarded(const struct fleet_wish *wish, const struct termios *saved)
{
    sigset_t all;
    pid_t parent = getpid();
    sigfillset(&all);
    /* Ignored by whoever started us, it would let the kernel reap the child and keep its exit code. */
    (void)signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &all, NULL);
    pid_t child = fork();
    if (child == 0)
        exit(talk_raw(wish, parent, saved)); // NOLINT(concurrency-mt-unsafe): there are no threads
    if (child < 0) {
        fprintf(stderr, "minivmm: error: fleet console: no process could be forked: %s\n", strerror(errno));
        return EXIT_CODE_FAILURE;
    }
    int code = guard(child, &all);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, saved);
    return code;
}

int fleet_console(const struct fleet_wish *wish)
{
    struct termios saved;
    if (!isatty(STDIN_FILENO) || !in_foreground() || tcgetattr(STDIN_FILENO, &saved) < 0)
        return talk(wish, false, -1);
    return talk_guarded(wish, &saved);
}
