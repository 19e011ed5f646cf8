/* SPDX-License-Identifier: Apache-2.0 */
#include "ringdrv.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"

#define PATIENCE_MS 10000

static void fatal(const char *what)
{
    fprintf(stderr, "ringdrv: %s\n", what);
    abort();
}

void guest_init(struct guest *g, uint64_t ram_size)
{
    uint8_t *ram = aligned_alloc(4096, ram_size), *rom = aligned_alloc(4096, GUEST_ROM_SIZE);
    if (!ram || !rom)
        fatal("no memory for the guest");
    memset(ram, 0, ram_size);
    memset(rom, 0x5a, GUEST_ROM_SIZE);
    *g = (struct guest){.next = GUEST_RAM_GPA};
    g->mem.count = 2;
    g->mem.region[0] = (struct guest_region){.gpa = GUEST_RAM_GPA, .size = ram_size, .hva = ram};
    g->mem.region[1] =
        (struct guest_region){.gpa = GUEST_ROM_GPA, .size = GUEST_ROM_SIZE, .hva = rom, .readonly = true};
}

void guest_free(struct guest *g)
{
    for (unsigned i = 0; i < g->mem.count; i++)
        free(g->mem.region[i].hva);
    g->mem.count = 0;
}

uint64_t guest_alloc(struct guest *g, uint64_t bytes, uint64_t align)
{
    uint64_t at = (g->next + align - 1) & ~(align - 1);
    if (!guest_memory_at(&g->mem, at, bytes, GUEST_WRITE))
        fatal("guest RAM is used up");
    g->next = at + bytes;
    return at;
}

void *guest_ptr(struct guest *g, uint64_t gpa)
{
    void *at = guest_memory_at(&g->mem, gpa, 1, GUEST_READ);
    if (!at)
        fatal("no such guest address");
    return at;
}

static _Atomic uint16_t *word(const uint8_t *at)
{
    return (_Atomic uint16_t *)(uintptr_t)at;
}

static uint16_t get16(const uint8_t *at, memory_order order)
{
    return le16toh(atomic_load_explicit(word(at), order));
}

static void put16(uint8_t *at, uint16_t v, memory_order order)
{
    atomic_store_explicit(word(at), htole16(v), order);
}

static uint8_t *used_event(const struct ring *r)
{
    return r->avail + 4 + 2u * r->size;
}

static uint8_t *avail_event(const struct ring *r)
{
    return r->used + 4 + 8u * r->size;
}

void ring_restart(struct ring *r)
{
    memset(r->desc, 0, 16u * r->size);
    memset(r->avail, 0, 6 + 2u * r->size);
    memset(r->used, 0, 6 + 8u * r->size);
    r->avail_idx = r->kicked = r->seen = 0;
    r->free_head = 0;
    r->free_count = r->size;
    memset(r->chain_length, 0, sizeof(r->chain_length));
    for (uint16_t i = 0; i < r->size; i++)
        ring_write_desc(r, i, 0, 0, 0, (uint16_t)(i + 1));
}

void ring_init(struct ring *r, struct guest *g, uint16_t size, bool event_idx)
{
    *r = (struct ring){.g = g, .size = size, .event_idx = event_idx, .kick_fd = -1};
    r->layout.size = size;
    r->layout.desc = guest_alloc(g, 16u * size, 16);
    r->layout.driver = guest_alloc(g, 6 + 2u * size, 2);
    r->layout.device = guest_alloc(g, 6 + 8u * size, 4);
    r->desc = guest_ptr(g, r->layout.desc);
    r->avail = guest_ptr(g, r->layout.driver);
    r->used = guest_ptr(g, r->layout.device);
    ring_restart(r);
}

static void write_desc(uint8_t *at, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    store_le64(at, gpa);
    store_le32(at + 8, len);
    store_le16(at + 12, flags);
    store_le16(at + 14, next);
}

void ring_write_desc(struct ring *r, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    write_desc(r->desc + 16u * i, gpa, len, flags, next);
}

void ring_write_avail(struct ring *r, uint16_t slot, uint16_t head)
{
    put16(r->avail + 4 + 2u * slot, head, memory_order_relaxed);
}

void ring_write_avail_idx(struct ring *r, uint16_t idx)
{
    r->avail_idx = idx;
    ring_publish(r);
}

uint16_t ring_used_idx(const struct ring *r)
{
    return get16(r->used + 2, memory_order_acquire);
}

static uint16_t buffer_flags(const struct ring_buffer *buf, bool last)
{
    return (uint16_t)((buf->device_writes ? RING_DESC_WRITE : 0) | (last ? 0 : RING_DESC_NEXT));
}

static void add_indirect(struct ring *r, uint16_t head, const struct ring_buffer *buf, unsigned count)
{
    if (r->table_room[head] < count) {
        r->table[head] = guest_alloc(r->g, 16u * count, 16);
        r->table_room[head] = count;
    }
    const uint64_t table = r->table[head];
    uint8_t *at = guest_ptr(r->g, table);
    for (unsigned i = 0; i < count; i++)
        write_desc(at + 16u * i, buf[i].gpa, buf[i].len, buffer_flags(&buf[i], i + 1 == count),
                   (uint16_t)(i + 1));
    ring_write_desc(r, head, table, 16u * count, RING_DESC_INDIRECT, 0);
}

int ring_add(struct ring *r, const struct ring_buffer *buf, unsigned count, enum ring_framing framing)
{
    unsigned need = framing == RING_INDIRECT ? 1 : count;
    if (!count || need > r->free_count)
        return -1;
    uint16_t head = r->free_head, i = head;
    uint16_t next = load_le16(r->desc + 16u * i + 14);
    if (framing == RING_INDIRECT) {
        add_indirect(r, head, buf, count);
    } else {
        for (unsigned k = 0; k < count; k++) {
            next = load_le16(r->desc + 16u * i + 14);
            ring_write_desc(r, i, buf[k].gpa, buf[k].len, buffer_flags(&buf[k], k + 1 == count), next);
            i = next;
        }
    }
    r->free_head = next;
    r->free_count = (uint16_t)(r->free_count - need);
    r->chain_length[head] = (uint16_t)need;
    ring_write_avail(r, r->avail_idx & (r->size - 1u), head);
    r->avail_idx++;
    return head;
}

void ring_publish(struct ring *r)
{
    put16(r->avail + 2, r->avail_idx, memory_order_seq_cst);
}

bool ring_kick(struct ring *r)
{
    uint16_t before = r->kicked, now = r->avail_idx;
    r->kicked = now;
    bool wanted;
    if (r->event_idx) {
        uint16_t event = get16(avail_event(r), memory_order_seq_cst);
        wanted = (uint16_t)(now - event - 1) < (uint16_t)(now - before);
    } else {
        wanted = !(get16(r->used, memory_order_seq_cst) & 1);
    }
    if (wanted && r->kick_fd >= 0)
        event_signal(r->kick_fd);
    return wanted;
}

int ring_submit(struct ring *r, const struct ring_buffer *buf, unsigned count, enum ring_framing framing)
{
    int head = ring_add(r, buf, count, framing);
    if (head >= 0) {
        ring_publish(r);
        ring_kick(r);
    }
    return head;
}

/* Gives a chain's descriptors back; those that a bad driver wrote by hand were never taken. */
static void free_chain(struct ring *r, uint32_t head)
{
    if (head >= r->size || !r->chain_length[head])
        return;
    uint16_t count = r->chain_length[head], last = (uint16_t)head;
    for (uint16_t i = 1; i < count; i++)
        last = load_le16(r->desc + 16u * last + 14);
    ring_write_desc(r, last, 0, 0, 0, r->free_head);
    r->free_head = (uint16_t)head;
    r->free_count = (uint16_t)(r->free_count + count);
    r->chain_length[head] = 0;
}

bool ring_take(struct ring *r, uint32_t *id, uint32_t *len)
{
    if (ring_used_idx(r) == r->seen)
        return false;
    const uint8_t *entry = r->used + 4 + 8u * (r->seen & (r->size - 1u));
    uint32_t head = load_le32(entry);
    if (id)
        *id = head;
    if (len)
        *len = load_le32(entry + 4);
    r->seen++;
    free_chain(r, head);
    return true;
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 50000};
    nanosleep(&t, NULL);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool ring_wait(struct ring *r, uint32_t *id, uint32_t *len)
{
    const int64_t end = now_ms() + PATIENCE_MS;
    while (!ring_take(r, id, len)) {
        if (now_ms() > end)
            return false;
        nap();
    }
    return true;
}

void ring_want_interrupts(struct ring *r, bool want)
{
    if (r->event_idx)
        put16(used_event(r), (uint16_t)(want ? r->seen : r->seen + 0x8000), memory_order_seq_cst);
    else
        put16(r->avail, want ? 0 : 1, memory_order_seq_cst);
}

uint64_t wait_event(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, PATIENCE_MS) == 1 ? event_clear(fd) : 0;
}

bool wait_status(const struct virtio_mmio *mmio, uint32_t bits)
{
    const int64_t end = now_ms() + PATIENCE_MS;
    while ((virtio_mmio_status(mmio) & bits) != bits) {
        if (now_ms() > end)
            return false;
        nap();
    }
    return true;
}
