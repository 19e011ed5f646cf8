/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's thread: take what the driver made available, let the disk engine work, publish what is done, once
 * a turn and with one interrupt at most. Requests come from a slab of the queue's own, as many as the queue
 * has entries, so that the data path neither allocates nor locks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/virtio/blk.h"

/*
 * With so many transfers in flight a completion is never far off and wakes the thread anyway: until then new
 * requests may wait in the ring unannounced. With fewer, or behind slow flushes and discards, a kick is worth
 * its cost, since the disk has room for more work.
 */
#define BUSY_TRANSFERS 8u

/* Any legal chain: each descriptor once, and two more where a buffer spans guest regions. */
static unsigned chain_max(const struct blk_queue *q)
{
    return q->vq->size_max + 2u;
}

static size_t page_up(size_t n)
{
    return (n + 4095u) & ~(size_t)4095u;
}

/*
 * The mapping costs address space only: the free list is last-in first-out, so low depths touch few requests,
 * and a long list only where a request has many segments. A READ keeps its segments twice.
 */
static int slab_open(struct blk_queue *q, struct err *err)
{
    unsigned depth = q->vq->size_max;
    size_t segments = chain_max(q) * sizeof(struct iovec), ranges = BLK_RANGES_MAX * sizeof(struct blk_range);
    size_t requests = page_up(depth * sizeof(struct blk_request)), scratch = page_up(segments);

    q->list_size = 2 * segments > ranges ? 2 * segments : ranges;
    q->slab_size = requests + scratch + depth * q->list_size;
    void *slab =
        mmap(NULL, q->slab_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab == MAP_FAILED)
        return err_set(err, -ENOMEM, "%s: no memory for the %u requests of queue %u (%zu KiB)",
                       q->block->name, depth, q->index, q->slab_size / 1024);
    q->slab = slab;
    q->requests = slab;
    q->scratch = (struct iovec *)((uint8_t *)slab + requests);
    q->lists = (uint8_t *)slab + requests + scratch;
    return 0;
}

/* Requests never used before are taken in order, freed ones first. */
static struct blk_request *request_alloc(struct blk_queue *q)
{
    struct blk_request *r = q->free;

    if (r) {
        q->free = r->next;
        return r;
    }
    if (q->touched == q->vq->size_max)
        return NULL;
    r = &q->requests[q->touched++];
    r->queue = q;
    return r;
}

static bool requests_left(const struct blk_queue *q)
{
    return q->free || q->touched < q->vq->size_max;
}

void blk_request_free(struct blk_request *r)
{
    struct blk_queue *q = r->queue;

    r->next = q->free;
    q->free = r;
}

void *blk_request_storage(struct blk_request *r, size_t bytes)
{
    const struct blk_queue *q = r->queue;

    if (bytes <= sizeof(r->few))
        return &r->few;
    return q->lists + (size_t)(r - q->requests) * q->list_size;
}

static void give_up(struct blk_queue *q, const char *why)
{
    q->broken = true;
    virtio_notify_broken(&q->block->dev, why);
}

/*
 * Takes what is available and starts it. True when it stopped with perhaps more to come: one turn takes no
 * more than a queue full, so that a driver that never stops adding can't keep completions, or a reset,
 * waiting.
 */
static bool take(struct blk_queue *q)
{
    struct virtqueue_chain chain = {.iov = q->scratch, .iov_max = chain_max(q)};
    struct err err;

    for (unsigned n = 0; n < q->vq->size_max; n++) {
        if (!requests_left(q))
            return false;
        int rc = virtqueue_pop(&q->vq->vq, &chain, &err);
        if (rc < 0)
            give_up(q, err.text);
        if (rc <= 0)
            return false;
        struct blk_request *r = request_alloc(q);
        if (blk_request_start(r, &chain) == BLK_BROKEN) {
            blk_request_free(r);
            give_up(q, "a block request without a writable byte for its status");
            return false;
        }
    }
    return true;
}

/* No interrupt for a driver that is resetting the device: it has forgotten these requests. */
static void publish(struct blk_queue *q, bool interrupt)
{
    if (!q->answered)
        return;
    q->answered = false;
    if (virtqueue_publish(&q->vq->vq) && interrupt)
        virtio_notify_used(&q->block->dev);
}

/*
 * Whether the thread may sleep with the ring as it is. Where it sleeps with kicks refused, a request in
 * flight is sure to wake it, and then it looks at the ring again; everywhere else it asks for a kick first
 * and looks once more, so that nothing that the driver adds goes unnoticed.
 */
static bool may_sleep(struct blk_queue *q)
{
    if (q->transfers >= BUSY_TRANSFERS || !requests_left(q))
        return true;
    return !virtqueue_want_kicks(&q->vq->vq);
}

/* One turn; false when the queue's time is over and nothing of it is in flight. */
static bool turn(struct blk_queue *q)
{
    bool serving = !q->broken && !worker_stopping(&q->worker);
    bool more = false;

    if (serving) {
        virtqueue_refuse_kicks(&q->vq->vq);
        more = take(q);
    }
    blk_ice_resume(q);
    publish(q, !worker_stopping(&q->worker));
    if (!serving && !disk_queue_inflight(q->disk_queue))
        return false;
    bool sleep = !serving || (!q->broken && !more && may_sleep(q));
    int rc = disk_queue_run(q->disk_queue, sleep);
    if (!rc)
        return true;
    log_error("%s: queue %u: the disk engine failed for good: %s", q->block->name, q->index,
              strerrordesc_np(-rc));
    q->dead = true;
    blk_ice_abandon(q);
    return false;
}

static void serve(void *arg)
{
    struct blk_queue *q = arg;

    q->broken = false;
    while (!q->dead && turn(q)) {
    }
    if (q->dead)
        give_up(q, "the disk engine failed");
}

static void kicked(void *arg)
{
    struct blk_queue *q = arg;

    blk_count(&q->block->counters.kicks, 1);
}

/* Waking up is all: the next turn sees what the worker was asked to do. */
static void called(void *arg)
{
    (void)arg;
}

static int prepare(void *arg)
{
    struct blk_queue *q = arg;
    int rc = disk_queue_watch(q->disk_queue, q->vq->kick_fd, kicked, q);

    if (!rc)
        rc = disk_queue_watch(q->disk_queue, q->worker.control, called, q);
    return rc ? rc : disk_queue_attach(q->disk_queue);
}

static const struct worker_ops worker_ops = {.prepare = prepare, .body = serve};

int blk_queue_open(struct blk_queue *q, struct block *block, unsigned index, unsigned disk, struct err *err)
{
    char name[32];

    q->block = block;
    q->vq = &block->vqs[index];
    q->index = index;
    int rc = slab_open(q, err);
    if (rc)
        return rc;
    rc = block->ice ? blk_bounce_open(q, err) : 0;
    if (rc)
        goto no_bounce;
    rc = disk_queue_open(block->disk, q->vq->size_max, &q->disk_queue, err);
    if (rc)
        goto no_disk_queue;
    snprintf(name, sizeof(name), "blk%u-q%u", disk, index);
    rc = worker_create(&q->worker, name, &worker_ops, q, err);
    if (rc)
        goto no_worker;
    return 0;

no_worker:
    disk_queue_close(q->disk_queue);
no_disk_queue:
    blk_bounce_close(q);
no_bounce:
    munmap(q->slab, q->slab_size);
    return rc;
}

void blk_queue_run(struct blk_queue *q)
{
    worker_run(&q->worker);
}

void blk_queue_park(struct blk_queue *q)
{
    /* Terabytes may be waiting for their zeroes, and with us the driver that resets, or the VM's end. */
    disk_queue_cancel_long(q->disk_queue, true);
    worker_park(&q->worker);
    disk_queue_cancel_long(q->disk_queue, false);
}

void blk_queue_close(struct blk_queue *q)
{
    worker_destroy(&q->worker);
    disk_queue_close(q->disk_queue);
    blk_bounce_close(q);
    munmap(q->slab, q->slab_size);
}
