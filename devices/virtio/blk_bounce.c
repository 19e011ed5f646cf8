/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private memory that data passes on its way through the cipher. It only ever holds ciphertext, and zeroes on
 * their way to it. Mapped with the queue, since nothing can be mapped once the VM's cell has closed, but a
 * buffer costs memory only once it was used.
 */
#include <errno.h>
#include <sys/mman.h>

#include "devices/virtio/blk.h"

#define SMALL_BYTES  ((size_t)BLK_BOUNCE_SMALL * BLK_SMALL_COUNT)
#define LARGE_BYTES  ((size_t)BLK_BOUNCE_LARGE * BLK_LARGE_COUNT)
#define BOUNCE_BYTES (SMALL_BYTES + LARGE_BYTES)

static void pool_init(struct blk_pool *pool, uint8_t *memory, uint32_t size, unsigned count)
{
    pool->memory = memory;
    pool->size = size;
    pool->free_count = count;
    for (unsigned i = 0; i < count; i++)
        pool->free[i] = (uint8_t)(count - 1 - i);
    pool->last = &pool->first;
}

int blk_bounce_open(struct blk_queue *q, struct err *err)
{
    void *memory =
        mmap(NULL, BOUNCE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return err_set(err, -ENOMEM, "%s: no memory for the bounce buffers of queue %u (%zu KiB)",
                       q->block->name, q->index, BOUNCE_BYTES / 1024);
    /* Neither is vital: huge pages would cost memory that few requests need, dumps have no use for this. */
    madvise(memory, BOUNCE_BYTES, MADV_DONTDUMP);
    madvise(memory, BOUNCE_BYTES, MADV_NOHUGEPAGE);
    q->bounce = memory;
    pool_init(&q->pool[0], q->bounce, BLK_BOUNCE_SMALL, BLK_SMALL_COUNT);
    pool_init(&q->pool[1], q->bounce + SMALL_BYTES, BLK_BOUNCE_LARGE, BLK_LARGE_COUNT);
    return 0;
}

void blk_bounce_close(struct blk_queue *q)
{
    if (q->bounce)
        munmap(q->bounce, BOUNCE_BYTES);
    q->bounce = NULL;
}

static void assign(struct blk_request *r)
{
    struct blk_pool *pool = r->pool;

    r->bounce = pool->memory + (size_t)pool->free[--pool->free_count] * pool->size;
}

/* Whoever comes while others wait gets in line behind them, so that none waits for ever. */
bool blk_bounce_take(struct blk_request *r)
{
    struct blk_pool *pool = &r->queue->pool[r->length > BLK_BOUNCE_SMALL];

    r->pool = pool;
    if (!pool->first && pool->free_count) {
        assign(r);
        return true;
    }
    r->next = NULL;
    *pool->last = r;
    pool->last = &r->next;
    return false;
}

void blk_bounce_give(struct blk_request *r)
{
    struct blk_pool *pool = r->pool;

    pool->free[pool->free_count++] = (uint8_t)((size_t)(r->bounce - pool->memory) / pool->size);
    r->bounce = NULL;
}

struct blk_request *blk_bounce_next(struct blk_queue *q)
{
    for (unsigned i = 0; i < BLK_POOLS; i++) {
        struct blk_pool *pool = &q->pool[i];
        struct blk_request *r = pool->first;
        if (!r || !pool->free_count)
            continue;
        pool->first = r->next;
        if (!pool->first)
            pool->last = &pool->first;
        assign(r);
        return r;
    }
    return NULL;
}
