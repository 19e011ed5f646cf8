/* SPDX-License-Identifier: Apache-2.0 */
/* The engine where io_uring is forbidden: every step is a plain system call, made inside disk_queue_run(). */
#include <errno.h>
#include <poll.h>

#include "devices/disk/internal.h"

static int sync_open(struct disk_queue *q, struct err *err)
{
    (void)q;
    (void)err;
    return 0;
}

static int sync_attach(struct disk_queue *q)
{
    (void)q;
    return 0;
}

static void sync_close(struct disk_queue *q)
{
    (void)q;
}

static void carry_out(struct disk_queue *q, struct disk_io *io)
{
    struct disk_step step;

    while (disk_step_next(q, io, &step))
        disk_step_result(q, io, disk_step_execute(q->disk, &step));
    disk_queue_finish(q, io);
}

static int sync_run(struct disk_queue *q, bool wait)
{
    struct pollfd fds[DISK_WATCHES_MAX];
    /* What done() submits waits for the next turn, so that watches are looked at in between. */
    unsigned turn = q->inflight;
    bool idle = !turn;

    while (turn--)
        carry_out(q, disk_list_take(&q->waiting));
    for (unsigned i = 0; i < q->watches; i++)
        fds[i] = (struct pollfd){.fd = q->watch[i].fd, .events = POLLIN};
    int rc = poll(fds, q->watches, idle && wait ? -1 : 0);
    if (rc < 0)
        return errno == EINTR ? 0 : -errno;
    for (unsigned i = 0; rc && i < q->watches; i++)
        if (fds[i].revents)
            disk_queue_woken(q, i);
    return 0;
}

const struct disk_engine_ops disk_engine_sync = {
    .open = sync_open, .attach = sync_attach, .run = sync_run, .close = sync_close};
