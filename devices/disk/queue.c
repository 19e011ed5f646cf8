/* SPDX-License-Identifier: Apache-2.0 */
/* A queue's life, its lists and its watches: what both engines share. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/disk/internal.h"
#include "minivmm/log.h"

void disk_list_init(struct disk_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

void disk_list_add(struct disk_list *list, struct disk_io *io)
{
    io->next = NULL;
    *list->tail = io;
    list->tail = &io->next;
}

struct disk_io *disk_list_take(struct disk_list *list)
{
    struct disk_io *io = list->head;
    if (io) {
        list->head = io->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return io;
}

static int engine_open(struct disk_queue *q, struct err *err)
{
    struct disk *disk = q->disk;

    if (disk->engine == DISK_ENGINE_IO_URING) {
        q->ops = &disk_engine_uring;
        int rc = q->ops->open(q, err);
        if (!rc || !disk->auto_engine)
            return rc;
        log_info("%s: io_uring can't be used here (%s); the sync engine takes over", disk->path,
                 err ? err->text : "no ring");
        disk->engine = DISK_ENGINE_SYNC;
    }
    q->ops = &disk_engine_sync;
    return q->ops->open(q, err);
}

int disk_queue_open(struct disk *disk, unsigned depth, struct disk_queue **out, struct err *err)
{
    if (!depth || depth > DISK_DEPTH_MAX)
        return err_set(err, -EINVAL, "%s: a queue depth of %u is not in 1 .. %u", disk->path, depth,
                       DISK_DEPTH_MAX);
    struct disk_queue *q = calloc(1, sizeof(*q));
    if (!q)
        return err_set(err, -ENOMEM, "%s: no memory for a disk queue", disk->path);
    q->disk = disk;
    q->depth = depth;
    disk_list_init(&q->waiting);
    /* Address space only: never written, its pages are all the kernel's one zero page. */
    q->zeroes = mmap(NULL, DISK_ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (q->zeroes == MAP_FAILED) {
        free(q);
        return err_set(err, -ENOMEM, "%s: no memory for a disk queue", disk->path);
    }
    int rc = engine_open(q, err);
    if (rc) {
        munmap(q->zeroes, DISK_ZEROES);
        free(q);
        return rc;
    }
    *out = q;
    return 0;
}

int disk_queue_attach(struct disk_queue *q)
{
    return q->ops->attach(q);
}

void disk_queue_close(struct disk_queue *q)
{
    if (!q)
        return;
    q->ops->close(q);
    munmap(q->zeroes, DISK_ZEROES);
    free(q);
}

int disk_queue_watch(struct disk_queue *q, int event_fd, void (*ready)(void *arg), void *arg)
{
    if (q->watches == DISK_WATCHES_MAX)
        return -ENOSPC;
    q->watch[q->watches++] = (struct disk_watch){.fd = event_fd, .ready = ready, .arg = arg};
    return 0;
}

void disk_queue_submit(struct disk_queue *q, struct disk_io *io)
{
    disk_step_begin(q, io);
    disk_list_add(&q->waiting, io);
    q->inflight++;
}

int disk_queue_run(struct disk_queue *q, bool wait)
{
    if (wait && !q->inflight && !q->watches)
        return -EDEADLK; /* nothing could ever end this wait */
    return q->ops->run(q, wait);
}

void disk_queue_cancel_long(struct disk_queue *q, bool on)
{
    atomic_store_explicit(&q->cancel_long, on, memory_order_release);
}

unsigned disk_queue_inflight(const struct disk_queue *q)
{
    return q->inflight;
}

void disk_queue_finish(struct disk_queue *q, struct disk_io *io)
{
    q->inflight--;
    io->done(io, io->error);
}

void disk_queue_woken(const struct disk_queue *q, unsigned watch)
{
    const struct disk_watch *w = &q->watch[watch];
    uint64_t count;

    /* An eventfd that somebody else emptied first is no failure: ready() finds nothing to do then. */
    while (read(w->fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
    w->ready(w->arg);
}
