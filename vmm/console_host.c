/* SPDX-License-Identifier: Apache-2.0 */
/* The console's descriptors: terminal, pipe, file or pty. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/log.h"
#include "vmm/cell.h"
#include "vmm/config_internal.h"
#include "vmm/console.h"
#include "vmm/console_internal.h"

/* A shell's job in the background may neither read the terminal nor change it: it would be stopped. */
static bool in_background(int fd)
{
    pid_t front = tcgetpgrp(fd);
    return front >= 0 && front != getpgrp();
}

static bool is_users_terminal(const struct config *config)
{
    return config->console == CONSOLE_STDIO && isatty(STDIN_FILENO) && !in_background(STDIN_FILENO);
}

/*
 * A descriptor of our own for what fd refers to, so that O_NONBLOCK does not leak to the other programs that
 * share it. Plain files have no need of it, and would get a second file offset. *own: close it.
 */
static int reopen(int fd, int mode, bool *own)
{
    struct stat st;
    *own = false;
    if (fstat(fd, &st) < 0)
        return -1;
    if (!S_ISFIFO(st.st_mode) && !isatty(fd))
        return fd;
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    *own = again >= 0;
    return *own ? again : fd;
}

/* What a terminal or pipe that polls as writable has room for. */
#define SHARED_CHUNK 256u

ssize_t console_host_write(const struct console_host *host, const void *bytes, size_t len)
{
    if (host->out_socket)
        return send(host->out_fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (host->out_shared) {
        struct pollfd ready = {.fd = host->out_fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) != 1) {
            errno = EAGAIN;
            return -1;
        }
        len = len < SHARED_CHUNK ? len : SHARED_CHUNK;
    }
    return write(host->out_fd, bytes, len);
}

static void open_output(struct console_host *host, int fd)
{
    struct stat st;
    host->out_fd = reopen(fd, O_WRONLY, &host->out_own);
    if (host->out_fd < 0 || fstat(host->out_fd, &st) < 0)
        return;
    host->out_socket = S_ISSOCK(st.st_mode);
    host->out_shared = !host->out_own && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode));
}

static int make_raw(int fd, struct termios *saved)
{
    if (tcgetattr(fd, saved) < 0)
        return -errno;
    struct termios raw = *saved;
    cfmakeraw(&raw);
    /* Our own messages share the screen, and end their lines with a newline alone. */
    raw.c_oflag = saved->c_oflag;
    return tcsetattr(fd, TCSANOW, &raw) < 0 ? -errno : 0;
}

static int open_stdio(const struct config *config, struct console_host *host, struct err *err)
{
    open_output(host, STDOUT_FILENO);
    if (isatty(STDIN_FILENO) && in_background(STDIN_FILENO)) {
        log_info("the console takes no input: this is a background job of the terminal");
        return 0;
    }
    host->in_fd = reopen(STDIN_FILENO, O_RDONLY, &host->in_own);
    host->keys = is_users_terminal(config);
    if (!host->keys)
        return 0;
    int code = make_raw(STDIN_FILENO, &host->saved);
    if (code < 0)
        return err_set(err, code, "--console: the terminal could not be set to raw mode: %s",
                       strerror(-code));
    host->raw = true;
    return 0;
}

static int open_file(const char *path, struct console_host *host, struct err *err)
{
    int fd;
    /* As the descriptor itself, since a small host's /dev need not have that folder. */
    if (config_names_descriptor(path, &fd)) {
        open_output(host, fd);
        return host->out_fd < 0 ? err_set(err, -EBADF, "--console: descriptor %d is not open", fd) : 0;
    }
    /* O_APPEND: whoever rotates the file by truncating it finds no hole in it afterwards. */
    host->out_fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    if (host->out_fd >= 0) {
        host->out_own = true;
        return 0;
    }
    int code = -errno;
    if (code == -ENXIO)
        return err_set(err, code,
                       "--console: nobody reads %s: a FIFO's reader must be there first, and a socket can't "
                       "be a console",
                       path);
    return err_set(err, code, "--console: %s could not be opened for writing: %s", path, strerror(-code));
}

static int open_pty(struct console_host *host, struct err *err)
{
    char path[64];
    struct termios saved;
    host->in_fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (host->in_fd < 0)
        return err_set(err, -errno, "--console: pty: no pseudo-terminal is to be had: %s", strerror(errno));
    host->in_own = true;
    /* A second descriptor, since the loop watches each for one thing. */
    host->out_fd = fcntl(host->in_fd, F_DUPFD_CLOEXEC, 0);
    host->out_own = host->out_fd >= 0;
    int code = 0;
    if (!host->out_own || grantpt(host->in_fd) < 0 || unlockpt(host->in_fd) < 0)
        code = -errno;
    if (code == 0)
        code = -ptsname_r(host->in_fd, path, sizeof(path));
    if (code == 0) {
        host->slave_fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        code = host->slave_fd < 0 ? -errno : make_raw(host->slave_fd, &saved);
    }
    if (code < 0)
        return err_set(err, code, "--console: pty: the pseudo-terminal could not be set up: %s",
                       strerror(-code));
    dprintf(STDERR_FILENO, "console: %s\n", path);
    return 0;
}

int console_host_open(const struct config *config, struct console_host *host, struct err *err)
{
    *host = (struct console_host){.in_fd = -1, .out_fd = -1, .slave_fd = -1};
    switch (config->console) {
    case CONSOLE_STDIO:
        return open_stdio(config, host, err);
    case CONSOLE_FILE:
        return open_file(config->console_path, host, err);
    case CONSOLE_PTY:
        return open_pty(host, err);
    case CONSOLE_NONE:
        break;
    }
    return 0;
}

void console_host_close(struct console_host *host)
{
    if (host->raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &host->saved);
    if (host->in_own)
        close(host->in_fd);
    if (host->out_own)
        close(host->out_fd);
    if (host->slave_fd >= 0)
        close(host->slave_fd);
}

/* One that is closed would become a disk image's or /dev/kvm's descriptor next, and be written log lines. */
void console_hold_standard(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

bool console_save_terminal(const struct config *config, struct termios *saved)
{
    return is_users_terminal(config) && tcgetattr(STDIN_FILENO, saved) == 0;
}

void console_restore_terminal(const struct termios *saved)
{
    (void)tcsetattr(STDIN_FILENO, TCSANOW, saved);
}

int console_guard_terminal(const struct config *config, struct err *err)
{
    struct termios saved;
    if (!console_save_terminal(config, &saved))
        return 0;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    /* Ignored by whoever started us, it would let the kernel reap the child and keep its exit code. */
    (void)signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t guardian = getpid();
    pid_t child = fork();
    if (child < 0) {
        int code = -errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
        return err_set(err, code, "the VM's process could not be forked: %s", strerror(-code));
    }
    if (child == 0) {
        /* A VM that nobody guards would leave the terminal raw: it ends with its guardian. */
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != guardian)
            _exit(1);
        sigprocmask(SIG_SETMASK, &before, NULL);
        return 0;
    }
    int status = cell_keep(child, false);
    console_restore_terminal(&saved);
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}
