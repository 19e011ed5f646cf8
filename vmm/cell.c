/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the VM's process comes to be. The keeper forks a middle process, which leaves for new namespaces (it
 * can only leave alone: the keeper stays outside, to restore the terminal and to remove what the VM can't
 * reach), forks the VM's process into the new pid namespace, and ends.
 */
#include "vmm/cell.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/log.h"
#include "vmm/text_file.h"

/* A user id that no account has, of each keeper alone: above those of systemd's containers, and pids are
 * below 2^22. */
#define OWN_UID_BASE 0x70000000U

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

/* What the middle process tells: first of its namespaces, then of its child. */
struct news {
    enum cell_walls walls;
    int error; /* why a wall less than hoped for */
    pid_t vm;
};

/* The middle process: root's supplementary groups go here, since in the user namespace they can't be. */
static void leave(struct news *news, bool root)
{
    if (root)
        (void)setgroups(0, NULL);
    news->walls = CELL_WALLS_ALL;
    if (unshare(CLONE_NEWUSER | NAMESPACES) == 0)
        return;
    news->error = errno;
    news->walls = CELL_WALLS_NO_USER;
    if (unshare(NAMESPACES) == 0)
        return;
    news->walls = CELL_WALLS_NONE;
}

/* Returns in the VM's process alone. */
static void be_the_middle(struct cell *cell, int keeper_fd)
{
    struct news news = {0};
    char go;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != cell->keeper)
        _exit(1);
    leave(&news, cell->root);
    if (send(keeper_fd, &news, sizeof(news), MSG_NOSIGNAL) != (ssize_t)sizeof(news) ||
        recv(keeper_fd, &go, 1, 0) != 1)
        _exit(1);
    cell->walls = news.walls;
    news.vm = fork();
    if (news.vm == 0) {
        close(keeper_fd);
        return;
    }
    news.error = errno;
    (void)!send(keeper_fd, &news, sizeof(news), MSG_NOSIGNAL);
    _exit(0);
}

static int write_file(pid_t pid, const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return text_file_write(path, text);
}

/* Both ids are mapped to themselves. Root stays mapped, so that a control socket's peers are told apart. */
static int map_ids(struct cell *cell, pid_t middle)
{
    char text[64];
    if (cell->root) {
        uid_t own = OWN_UID_BASE + (uid_t)cell->keeper;
        snprintf(text, sizeof(text), "0 0 1\n%u %u 1\n", (unsigned)own, (unsigned)own);
        if (write_file(middle, "uid_map", text) == 0 && write_file(middle, "gid_map", text) == 0) {
            cell->uid = own;
            return 0;
        }
    }
    snprintf(text, sizeof(text), "%u %u 1\n", (unsigned)geteuid(), (unsigned)geteuid());
    int code = write_file(middle, "uid_map", text);
    if (code < 0)
        return code;
    (void)write_file(middle, "setgroups", "deny");
    snprintf(text, sizeof(text), "%u %u 1\n", (unsigned)getegid(), (unsigned)getegid());
    return write_file(middle, "gid_map", text);
}

static int hear(int fd, struct news *news, struct err *err)
{
    ssize_t n;
    do
        n = recv(fd, news, sizeof(*news), 0);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*news) ? 0 : err_set(err, -EIO, "the VM's process died before it began");
}

/* The keeper's part of the birth. */
static int attend(struct cell *cell, pid_t middle, int middle_fd, struct err *err)
{
    struct news news;
    int code = hear(middle_fd, &news, err);
    if (code < 0)
        return code;
    cell->walls = news.walls;
    if (news.walls == CELL_WALLS_NONE)
        log_warn(
            "the VM runs without namespaces of its own, which this host refuses (%s): minivmm doctor tells "
            "more",
            strerror(news.error));
    else if (news.walls == CELL_WALLS_NO_USER) {
        cell->uid = OWN_UID_BASE + (uid_t)cell->keeper;
        log_info(
            "the VM is to run as user %u without a user namespace of its own, which this host refuses (%s)",
            (unsigned)cell->uid, strerror(news.error));
    }
    if (news.walls == CELL_WALLS_ALL)
        code = map_ids(cell, middle);
    if (code < 0)
        return err_set(err, code,
                       "the VM's user namespace could not be set up: %s (--no-sandbox runs without)",
                       strerror(-code));
    if (send(middle_fd, "", 1, MSG_NOSIGNAL) != 1)
        return err_set(err, -EIO, "the VM's process died before it began");
    code = hear(middle_fd, &news, err);
    if (code == 0 && news.vm < 0)
        code = err_set(err, -news.error, "the VM's process could not be forked: %s", strerror(news.error));
    cell->vm = news.vm;
    return code;
}

/* What the VM's process waits for, once it is the keeper's own child. */
struct start {
    pid_t vm;
    uid_t uid;
};

static int wait_for_start(struct cell *cell)
{
    struct start start;
    ssize_t n;
    do
        n = read(cell->life_fd, &start, sizeof(start));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(start))
        _exit(1);
    cell->vm = start.vm;
    cell->uid = start.uid;
    return CELL_INSIDE;
}

static int be_the_keeper(struct cell *cell, pid_t middle, int middle_fd, cell_born_fn *born, void *ctx,
                         struct err *err)
{
    int code = middle < 0 ? err_set(err, -errno, "the VM's process could not be forked: %s", strerror(errno))
                          : attend(cell, middle, middle_fd, err);
    if (code < 0 && middle > 0)
        (void)kill(middle, SIGKILL);
    /* When the middle one is reaped, the VM's process is ours, and may ask to die with us. */
    while (middle > 0 && waitpid(middle, NULL, 0) < 0 && errno == EINTR)
        ;
    if (code == 0)
        code = born(ctx, cell->vm, err);
    const struct start start = {.vm = cell->vm, .uid = cell->uid};
    if (code == 0 && write(cell->life_fd, &start, sizeof(start)) != (ssize_t)sizeof(start))
        code = err_set(err, -EIO, "the VM's process died before it began");
    if (code < 0)
        close(cell->life_fd); /* which ends the VM's process, if there is one */
    return code < 0 ? code : CELL_KEEPER;
}

int cell_split(struct cell *cell, cell_born_fn *born, void *ctx, struct err *err)
{
    int talk[2], life[2];
    sigset_t all;
    *cell = (struct cell){.keeper = getpid(), .uid = geteuid(), .root = geteuid() == 0};
    sigfillset(&all);
    /* Ignored by whoever started us, it would let the kernel reap the VM and keep its exit code. */
    (void)signal(SIGCHLD, SIG_DFL);
    /* A VM's process that died before it began is an error to be told. */
    (void)signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk) < 0)
        return err_set(err, -errno, "the VM's process could not be prepared: %s", strerror(errno));
    if (pipe2(life, O_CLOEXEC) < 0) {
        int code = -errno;
        close(talk[0]);
        close(talk[1]);
        return err_set(err, code, "the VM's process could not be prepared: %s", strerror(-code));
    }
    sigprocmask(SIG_SETMASK, &all, &cell->before);
    pid_t middle = fork();
    if (middle == 0) {
        close(talk[0]);
        close(life[1]);
        cell->life_fd = life[0];
        be_the_middle(cell, talk[1]);
        sigprocmask(SIG_SETMASK, &cell->before, NULL);
        return wait_for_start(cell);
    }
    close(talk[1]);
    close(life[0]);
    cell->life_fd = life[1];
    int side = be_the_keeper(cell, middle, talk[0], born, ctx, err);
    close(talk[0]);
    if (side < 0)
        sigprocmask(SIG_SETMASK, &cell->before, NULL);
    return side;
}

/* As its namespace's init, the VM's process gets only the signals that it asked for, and SIGKILL. */
static int signal_for_init(int signal)
{
    switch (signal) {
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
        return signal;
    case SIGPIPE: /* the keeper's own, from a log line that nobody reads */
    case SIGWINCH:
    case SIGURG:
    case SIGCONT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
        return 0;
    default: /* would have ended a process that had not asked for it */
        return SIGKILL;
    }
}

/* Whether the child is gone. Who helped it to its keys is reaped on the way. */
static bool reap(pid_t child, int *status)
{
    pid_t gone;
    while ((gone = waitpid(-1, status, WNOHANG)) > 0)
        if (gone == child)
            return true;
    return false;
}

int cell_keep(pid_t child, bool init)
{
    sigset_t all;
    int status;
    sigfillset(&all);
    while (!reap(child, &status)) {
        siginfo_t info;
        int signal = sigwaitinfo(&all, &info);
        /* What the kernel sends for the terminal went to the child's process group as well; but a namespace's
         * first process does not hear of ctrl-backslash. */
        if (signal > 0 && signal != SIGCHLD && (info.si_code <= 0 || (init && signal == SIGQUIT)))
            (void)kill(child, init ? signal_for_init(signal) : signal);
    }
    return status;
}
