/* SPDX-License-Identifier: Apache-2.0 */
/* The parent's side: a pipe, a child, and what came out of it. The child's work is in luks_child.c. */
#include "luks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "luks_child.h"

static int read_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (uint8_t *)to + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int collect(int fd, const char *path, struct luks_volume *volume, uint8_t *key, struct err *err)
{
    struct luks_answer answer;
    if (read_all(fd, &answer, sizeof(answer)) < 0)
        return err_set(err, -EIO, "%s: the helper that opens LUKS volumes died", path);
    if (answer.code < 0) {
        answer.text[sizeof(answer.text) - 1] = '\0';
        return err_set(err, answer.code, "%s: %s", path, answer.text);
    }
    *volume = answer.volume;
    if (volume->key_size > LUKS_KEY_MAX || read_all(fd, key, volume->key_size) < 0)
        return err_set(err, -EIO, "%s: the helper that opens LUKS volumes died", path);
    return 0;
}

int luks_start(const char *path, int passphrase_fd, const char *name, struct luks_job *job, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(err, -errno, "%s: no pipe to the helper that opens LUKS volumes: %s", path,
                       strerror(errno));
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        close(fds[0]);
        luks_child_run(path, passphrase_fd, name, parent, fds[1]);
        _exit(0);
    }
    int code = child < 0 ? -errno : 0;
    close(fds[1]);
    if (code < 0) {
        close(fds[0]);
        return err_set(err, code, "%s: can't start the helper that opens LUKS volumes: %s", path,
                       strerror(-code));
    }
    *job = (struct luks_job){.answer_fd = fds[0], .child = child};
    return 0;
}

int luks_finish(struct luks_job *job, const char *path, struct luks_volume *volume, uint8_t *key,
                struct err *err)
{
    int code = collect(job->answer_fd, path, volume, key, err);
    close(job->answer_fd);
    job->answer_fd = 0;
    /* In a fork of the process that started it, this finds no child: it is reaped there. */
    while (waitpid(job->child, NULL, 0) < 0 && errno == EINTR)
        ;
    return code;
}

void luks_drop(struct luks_job *job)
{
    if (!job->answer_fd)
        return;
    close(job->answer_fd);
    job->answer_fd = 0;
}
