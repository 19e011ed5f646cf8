/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory and the sockets in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vmm/config_internal.h"
#include "vmm/control_internal.h"

int control_dir_path(char *path, size_t size, struct err *err)
{
    const char *asked = getenv("MINIVMM_RUN_DIR");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;
    if (asked && *asked)
        n = snprintf(path, size, "%s", asked);
    else if (geteuid() == 0)
        n = snprintf(path, size, "/run/minivmm");
    else if (runtime && *runtime)
        n = snprintf(path, size, "%s/minivmm", runtime);
    else /* no session, as under cron */
        n = snprintf(path, size, "/tmp/minivmm-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= size)
        return err_set(err, -ENAMETOOLONG,
                       "the run directory's path is too long: MINIVMM_RUN_DIR can name another");
    return 0;
}

/* create: sockets are to be made there. Root may ask other users' VMs, but where somebody else can replace
 * its sockets, it has none. */
static int check(int fd, const char *path, bool create, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "the run directory %s could not be examined: %s", path, strerror(errno));
    if (st.st_uid != geteuid() && (create || geteuid() != 0))
        return err_set(
            err, -EPERM,
            "the run directory %s belongs to user %u, not to you: MINIVMM_RUN_DIR can name another", path,
            (unsigned)st.st_uid);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(err, -EPERM,
                       "the run directory %s may be written by other users: chmod 700 it, or name another "
                       "with MINIVMM_RUN_DIR",
                       path);
    return 0;
}

int control_dir_open(bool create, struct err *err)
{
    char path[4096];
    int code = control_dir_path(path, sizeof(path), err);
    if (code < 0)
        return code;
    if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno,
                       "the run directory %s could not be made: %s (MINIVMM_RUN_DIR can name another; "
                       "--no-control runs without)",
                       path, strerror(errno));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "the run directory %s could not be opened: %s", path, strerror(errno));
    code = check(fd, path, create, err);
    if (code < 0) {
        close(fd);
        return code;
    }
    return fd;
}

int control_file_name(const char *name, char file[CONTROL_FILE_MAX], struct err *err)
{
    char *copy = NULL;
    int code = config_value_name(name, &copy, err);
    free(copy);
    if (code < 0)
        return code;
    snprintf(file, CONTROL_FILE_MAX, "%s" CONTROL_SUFFIX, name);
    return 0;
}

static int open_socket(int dir_fd, const char *file, int flags, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", dir_fd, file);
    if (n < 0 || (size_t)n >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    return fd < 0 ? -errno : fd;
}

int control_bind(int dir_fd, const char *file, int flags)
{
    struct sockaddr_un address;
    int fd = open_socket(dir_fd, file, flags, &address);
    if (fd < 0)
        return fd;
    /* The mode of a socket decides who may connect; on the open descriptor, it becomes the file's mode. */
    (void)fchmod(fd, 0600);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

int control_connect(int dir_fd, const char *file, int flags)
{
    struct sockaddr_un address;
    int fd = open_socket(dir_fd, file, flags, &address);
    if (fd < 0)
        return fd;
    const struct timeval patience = {.tv_sec = CONTROL_PATIENCE};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

bool control_peer_allowed(int fd, const char *whose, struct log_limit *refused)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    log_warn_limited(refused, "the %s socket refused process %d of user %u", whose, (int)peer.pid,
                     (unsigned)peer.uid);
    return false;
}

int control_dir_lock(int dir_fd, unsigned patience)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct timespec start;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    /* Held for microseconds, unless its holder was stopped: who waited in flock() could not be ended. */
    while (flock(dir_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!patience || now.tv_sec - start.tv_sec > (time_t)patience)
            return -ETIMEDOUT;
        (void)nanosleep(&pause, NULL);
    }
    return 0;
}

void control_dir_unlock(int dir_fd)
{
    (void)flock(dir_fd, LOCK_UN);
}

int control_remove_dead(int dir_fd, const char *file)
{
    struct stat st;
    int fd = control_connect(dir_fd, file, SOCK_NONBLOCK);
    if (fd >= 0) {
        close(fd);
        return -EBUSY;
    }
    if (fd == -ENOENT)
        return 0;
    /* Too busy to take the connection, but there. */
    if (fd == -EAGAIN)
        return -EBUSY;
    if (fd != -ECONNREFUSED)
        return fd;
    /* What is no socket refuses connections too, and is not ours to remove. */
    if (fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    return unlinkat(dir_fd, file, 0) < 0 && errno != ENOENT ? -errno : 1;
}

bool control_strip_suffix(char *file)
{
    size_t len = strlen(file);
    size_t suffix = sizeof(CONTROL_SUFFIX) - 1;
    if (len <= suffix || strcmp(file + len - suffix, CONTROL_SUFFIX) != 0)
        return false;
    file[len - suffix] = '\0';
    return true;
}

/* Whether it is the socket of a VM called after its process (the default of --name), and that is no more. */
static bool is_numbered_and_gone(const char *file)
{
    char *end;
    if (strncmp(file, "vm-", 3) != 0 || file[3] < '1' || file[3] > '9')
        return false;
    long pid = strtol(file + 3, &end, 10);
    return strcmp(end, CONTROL_SUFFIX) == 0 && pid > 0 && pid == (pid_t)pid && kill((pid_t)pid, 0) < 0 &&
           errno == ESRCH;
}

/* Nobody starts a VM of that name again, which would replace its socket. */
void control_remove_numbered(int dir_fd)
{
    int again = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    const struct dirent *entry;
    if (!dir) {
        if (again >= 0)
            close(again);
        return;
    }
    while ((entry = readdir(dir))) // NOLINT(concurrency-mt-unsafe)
        if (is_numbered_and_gone(entry->d_name))
            (void)control_remove_dead(dir_fd, entry->d_name);
    closedir(dir);
}
