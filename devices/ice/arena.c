/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Pages are taken only when touched, so the size is a bound, not a cost: 255 slots with four queue threads'
 * cipher contexts each need about 2 MiB, libcrypto's own tables under 1 MiB.
 */
#define ARENA_BYTES  (6u << 20)
#define ORDER_MIN    5u  /* 32 bytes */
#define ORDER_MAX    22u /* 4 MiB */
#define ORDER_COUNT  (ORDER_MAX + 1)
#define HEADER_BYTES 16u /* keeps blocks aligned for any type */

struct block {
    size_t order;
    struct block *next; /* while free */
};

static struct {
    pthread_mutex_t lock;
    uint8_t *base;
    size_t used;
    struct block *free[ORDER_COUNT];
    const char *kind;
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *map_secret(void)
{
#ifdef SYS_memfd_secret
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *p = MAP_FAILED;
    if (ftruncate(fd, ARENA_BYTES) == 0)
        p = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
#else
    return NULL;
#endif
}

static void *map_locked(void)
{
    void *p =
        mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (mlock2(p, ARENA_BYTES, MLOCK_ONFAULT) < 0 || madvise(p, ARENA_BYTES, MADV_DONTDUMP) < 0) {
        munmap(p, ARENA_BYTES);
        return NULL;
    }
    return p;
}

int arena_open(struct err *err)
{
    if (arena.base)
        return 0;
    arena.base = map_secret();
    arena.kind = "memfd_secret";
    if (!arena.base) {
        arena.base = map_locked();
        arena.kind = "mlock";
    }
    if (!arena.base) {
        arena.kind = NULL;
        return err_set(err, -ENOMEM,
                       "memory for keys can't be locked: raise the limit to at least %u KiB (ulimit -l, or "
                       "LimitMEMLOCK= "
                       "in a unit file)",
                       ARENA_BYTES >> 10);
    }
    return 0;
}

const char *arena_kind(void)
{
    return arena.kind;
}

bool arena_holds(const void *p)
{
    const uint8_t *at = p;
    return arena.base && at >= arena.base && at < arena.base + ARENA_BYTES;
}

size_t arena_search(const void *bytes, size_t len)
{
    size_t found = 0;
    pthread_mutex_lock(&arena.lock);
    for (uint8_t *p = arena.base, *end = arena.base + arena.used;
         (p = memmem(p, (size_t)(end - p), bytes, len)); p++)
        found++;
    pthread_mutex_unlock(&arena.lock);
    return found;
}

static unsigned order_of(size_t bytes)
{
    unsigned order = ORDER_MIN;
    while (order <= ORDER_MAX && ((size_t)1 << order) < bytes)
        order++;
    return order;
}

void *arena_alloc(size_t size)
{
    if (size > ((size_t)1 << ORDER_MAX) - HEADER_BYTES)
        return NULL;
    unsigned order = order_of(size + HEADER_BYTES);
    size_t bytes = (size_t)1 << order;
    pthread_mutex_lock(&arena.lock);
    struct block *b = arena.free[order];
    if (b) {
        arena.free[order] = b->next;
    } else if (arena.base && ARENA_BYTES - arena.used >= bytes) {
        b = (struct block *)(arena.base + arena.used);
        arena.used += bytes;
    }
    pthread_mutex_unlock(&arena.lock);
    if (!b)
        return NULL;
    b->order = order;
    return (uint8_t *)b + HEADER_BYTES;
}

static struct block *block_of(void *p)
{
    return (struct block *)((uint8_t *)p - HEADER_BYTES);
}

void arena_free(void *p)
{
    if (!p)
        return;
    struct block *b = block_of(p);
    explicit_bzero(p, ((size_t)1 << b->order) - HEADER_BYTES);
    pthread_mutex_lock(&arena.lock);
    b->next = arena.free[b->order];
    arena.free[b->order] = b;
    pthread_mutex_unlock(&arena.lock);
}

void *arena_realloc(void *old, size_t size)
{
    if (!old)
        return arena_alloc(size);
    size_t room = ((size_t)1 << block_of(old)->order) - HEADER_BYTES;
    if (size <= room)
        return old;
    void *p = arena_alloc(size);
    if (!p)
        return NULL;
    memcpy(p, old, room);
    arena_free(old);
    return p;
}
