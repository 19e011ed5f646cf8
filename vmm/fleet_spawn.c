/* SPDX-License-Identifier: Apache-2.0 */
/* The process of a VM: made, watched, asked to stop, and reaped with all that it left behind. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/config_args.h"
#include "vmm/exit_codes.h"
#include "vmm/fleet.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* What the child needs to know, made before the fork. */
struct birth {
    char **argv;
    int console[2], ready[2]; /* ours, the child's */
    struct handover handover;
};

static void close_fd(struct unit *unit, int *fd)
{
    if (*fd < 0)
        return;
    loop_remove(unit->up->loop, *fd);
    close(*fd);
    *fd = -1;
}

/* In the child: only what was handed down stays open beyond the exec. */
static void keep_handed_down(const struct unit *unit, const struct birth *birth)
{
    (void)syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
    (void)fcntl(birth->ready[1], F_SETFD, 0);
    if (unit->window)
        (void)fcntl(slotmap_fd(unit->window), F_SETFD, 0);
    for (unsigned i = 0; i < birth->handover.fds; i++)
        (void)fcntl(birth->handover.fd[i], F_SETFD, 0);
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL); // NOLINT(cert-sig34-c,bugprone-signal-handler)
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void become(const struct unit *unit, const struct birth *birth, pid_t parent)
{
    reset_signals();
    /* A session of its own: the terminal's ctrl-c is the supervisor's, which stops VMs in good order. */
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    keep_handed_down(unit, birth);
    if (getppid() == parent && dup2(birth->console[1], STDIN_FILENO) >= 0 &&
        dup2(birth->console[1], STDOUT_FILENO) >= 0)
        execv(unit->up->program, birth->argv);
    dprintf(birth->ready[1], "error: its process could not be started: %s", strerror(errno));
    _exit(EXIT_CODE_FAILURE);
}

static int prepare(struct unit *unit, struct birth *birth, int *code, struct err *err)
{
    const struct supervisor *up = unit->up;
    struct config *config = &birth->handover.config;
    int r = handover_open(&birth->handover, &unit->vm->config, up->fleet.kek, err);
    if (r < 0) {
        *code = EXIT_CODE_USAGE;
        return r;
    }
    if (pipe2(birth->ready, O_CLOEXEC) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, birth->console) < 0)
        return err_set(err, -errno, "no descriptors for its process: %s", strerror(errno));
    (void)fcntl(birth->ready[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(birth->console[0], F_SETFL, O_NONBLOCK);
    config->ready_fd = birth->ready[1];
    if (unit->window)
        config->ice.window_fd = slotmap_fd(unit->window);
    r = config_args(config, "minivmm", &birth->argv);
    return r < 0 ? err_set(err, r, "no memory for its flags") : 0;
}

static void close_pair(int pair[2], unsigned from)
{
    for (unsigned i = from; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

/* The process is gone, and what it left: the group was killed, and only its dead are waited for. */
static void finish_reaping(struct unit *unit)
{
    pid_t stray;
    while ((stray = waitpid(-unit->pid, NULL, WNOHANG)) > 0) {
    }
    if (stray == 0)
        return;
    char why[sizeof(unit->why)];
    memcpy(why, unit->why, sizeof(why));
    unit->pid = 0;
    unit->reaping = false;
    unit_ended(unit, unit->exit_code, *why ? why : NULL);
}

static void read_ready(struct unit *unit)
{
    char text[sizeof(unit->why)];
    ssize_t n = read(unit->ready_fd, text, sizeof(text) - 1);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    close_fd(unit, &unit->ready_fd);
    text[n > 0 ? n : 0] = '\0';
    if (strncmp(text, "ready", 5) == 0)
        unit_became_ready(unit);
    else if (strncmp(text, "error: ", 7) == 0)
        memcpy(unit->why, text + 7, strlen(text + 7) + 1);
}

static void on_ready(void *arg, uint32_t events)
{
    (void)events;
    read_ready(arg);
}

static void on_death(void *arg, uint32_t events)
{
    struct unit *unit = arg;
    siginfo_t info = {0};
    (void)events;
    if (unit->ready_fd >= 0)
        read_ready(unit);
    /* Before it is reaped, as long as its number is certainly its own. Its VM's process, which dies with it,
     * is ours to reap then, and holds locks until it is gone. */
    (void)kill(-unit->pid, SIGKILL);
    while (waitid(P_PID, (id_t)unit->pid, &info, WEXITED) < 0 && errno == EINTR) {
    }
    unit->exit_code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    close_fd(unit, &unit->pid_fd);
    close_fd(unit, &unit->ready_fd);
    close_fd(unit, &unit->ask_fd);
    output_detach(unit);
    unit->reaping = true;
    finish_reaping(unit);
}

static struct unit *unit_of(const struct supervisor *up, pid_t pid)
{
    struct unit *unit = up->units;
    while (unit && (unit->pid != pid || unit->reaping))
        unit = unit->next;
    return unit;
}

void spawn_on_child(struct supervisor *up)
{
    for (struct unit *unit = up->units; unit; unit = unit->next)
        if (unit->reaping)
            finish_reaping(unit);
    /* Orphans that left their group. A VM's own process has a pidfd that tells of its end. */
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0 ||
            unit_of(up, info.si_pid))
            return;
        (void)waitpid(info.si_pid, NULL, WNOHANG);
    }
}

static int watch(struct unit *unit, struct birth *birth)
{
    struct loop *loop = unit->up->loop;
    unit->pid_fd = (int)syscall(SYS_pidfd_open, unit->pid, 0);
    if (unit->pid_fd < 0)
        return -errno;
    int code = loop_add(loop, unit->pid_fd, EPOLLIN, on_death, unit);
    if (code < 0)
        return code;
    unit->ready_fd = birth->ready[0];
    if (loop_add(loop, unit->ready_fd, EPOLLIN, on_ready, unit) < 0)
        close_fd(unit, &unit->ready_fd);
    output_attach(unit, birth->console[0]);
    birth->ready[0] = birth->console[0] = -1;
    return 0;
}

static int start(struct unit *unit, struct birth *birth, struct err *err)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(unit, birth, parent);
    if (pid < 0)
        return err_set(err, -errno, "its process could not be made: %s", strerror(errno));
    unit->pid = pid;
    int code = watch(unit, birth);
    if (code == 0)
        return 0;
    /* Unwatched, it must not be. */
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    close_fd(unit, &unit->pid_fd);
    unit->pid = 0;
    return err_set(err, code, "its process could not be watched: %s", strerror(-code));
}

int spawn_unit(struct unit *unit, int *code, struct err *err)
{
    struct birth *birth = calloc(1, sizeof(*birth));
    *code = EXIT_CODE_FAILURE;
    if (!birth)
        return err_set(err, -ENOMEM, "out of memory");
    birth->console[0] = birth->console[1] = birth->ready[0] = birth->ready[1] = -1;
    output_open_log(unit);
    int r = prepare(unit, birth, code, err);
    if (r == 0)
        r = start(unit, birth, err);
    close_pair(birth->console, 0);
    close_pair(birth->ready, 0);
    handover_close(&birth->handover);
    config_args_free(birth->argv);
    free(birth);
    return r;
}

static void ask_by_signal(struct unit *unit)
{
    close_fd(unit, &unit->ask_fd);
    (void)syscall(SYS_pidfd_send_signal, unit->pid_fd, SIGTERM, NULL, 0);
}

static void on_answer(void *arg, uint32_t events)
{
    struct unit *unit = arg;
    char text[64];
    (void)events;
    ssize_t n = read(unit->ask_fd, text, sizeof(text));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n >= 3 && memcmp(text, "ok\n", 3) == 0)
        close_fd(unit, &unit->ask_fd);
    else
        ask_by_signal(unit);
}

static int ask(struct unit *unit)
{
    char file[CONTROL_FILE_MAX];
    char request[32];
    unsigned seconds = unit->vm->stop_timeout_s;
    if (unit->ask_fd >= 0)
        return 0;
    /* While it starts, nobody answers on its socket. */
    if (unit->running_at == FLEET_NEVER || !unit->vm->config.control || seconds == 0 || unit->up->dir_fd < 0)
        return -ENOENT;
    snprintf(file, sizeof(file), "%s" CONTROL_SUFFIX, unit_name(unit));
    unit->ask_fd = control_connect(unit->up->dir_fd, file, SOCK_NONBLOCK);
    if (unit->ask_fd < 0)
        return unit->ask_fd;
    int len = snprintf(request, sizeof(request), "stop %u\n", seconds);
    if (send(unit->ask_fd, request, (size_t)len, MSG_NOSIGNAL) != len)
        return -EPIPE;
    return loop_add(unit->up->loop, unit->ask_fd, EPOLLIN, on_answer, unit);
}

void spawn_ask_to_stop(struct unit *unit)
{
    if (unit->pid_fd >= 0 && ask(unit) < 0)
        ask_by_signal(unit);
}
