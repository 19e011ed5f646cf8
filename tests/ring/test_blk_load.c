/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once, over several queues, in every ring mode: each byte is checked, none may get stuck.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkdrv.h"
#include "minivmm/bytes.h"

#define DEPTH  40u
#define QUEUES 3u
#define SPAN   (RIG_SECTORS / QUEUES) /* sectors that belong to one queue */
#define SLOTS  (SPAN / 8)             /* pieces of 4 KiB in them, each with one request at a time */
#define OPS    600u
#define PIECE  4096u

static struct rig rig;

/* One request's place in guest memory, and what it is about. */
struct job {
    uint64_t header, data, status;
    unsigned slot;
    bool write, busy;
};

struct load {
    unsigned queue, done, sent, kicks, turns;
    struct job job[DEPTH];
    int by_head[64];
    uint8_t content[SLOTS]; /* what each piece holds; 0: as it was made */
    bool taken[SLOTS];
    uint32_t seed;
    enum ring_framing framing;
};

static struct load loads[QUEUES];

static uint32_t next_random(struct load *l)
{
    l->seed = l->seed * 1664525u + 1013904223u;
    return l->seed >> 8;
}

static uint64_t sector_of(const struct load *l, unsigned slot)
{
    return (uint64_t)l->queue * SPAN + 8ull * slot;
}

static void load_init(struct load *l, unsigned queue, enum ring_framing framing)
{
    *l = (struct load){.queue = queue, .seed = 7 + queue, .framing = framing};
    for (unsigned i = 0; i < DEPTH; i++) {
        l->job[i].header = guest_alloc(rig.g, 16, 16);
        l->job[i].data = guest_alloc(rig.g, PIECE, 512);
        l->job[i].status = guest_alloc(rig.g, 1, 1);
    }
}

static bool send_one(struct load *l, unsigned i)
{
    struct job *j = &l->job[i];
    unsigned slot = next_random(l) % SLOTS;

    if (j->busy || l->taken[slot] || l->sent == OPS)
        return false;
    bool write = next_random(l) & 1;
    struct ring_buffer buf[] = {{j->header, 16, false}, {j->data, PIECE, !write}, {j->status, 1, true}};
    uint8_t mark = (uint8_t)(1 + next_random(l) % 255);
    rig_header(&rig, j->header, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector_of(l, slot));
    memset(rig_at(&rig, j->data), write ? mark : 0, PIECE);
    *rig_at(&rig, j->status) = RIG_LATER;
    int head = ring_add(&rig.ring[l->queue], buf, 3, l->framing);
    if (head < 0)
        return false;
    l->by_head[head] = (int)i;
    l->taken[slot] = j->busy = true;
    j->slot = slot;
    j->write = write;
    if (write)
        l->content[slot] = mark;
    l->sent++;
    return true;
}

static void check_one(struct load *l, uint32_t head)
{
    ck_assert_uint_lt(head, 64);
    struct job *j = &l->job[l->by_head[head]];
    const uint8_t *data = rig_at(&rig, j->data);

    ck_assert(j->busy);
    ck_assert_uint_eq(*rig_at(&rig, j->status), VIRTIO_BLK_S_OK);
    bool right = true;
    for (unsigned i = 0; !j->write && i < PIECE; i++)
        right &= data[i] ==
                 (l->content[j->slot] ? l->content[j->slot] : rig_fill(sector_of(l, j->slot) + i / 512));
    ck_assert(right);
    j->busy = l->taken[j->slot] = false;
    l->done++;
}

/* Takes what is done (waits for one at least when anything is out), then fills up to depth and kicks once. */
static void load_turn(struct load *l, unsigned depth)
{
    struct ring *ring = &rig.ring[l->queue];
    uint32_t head;

    if (l->sent > l->done) {
        ck_assert_msg(ring_wait(ring, &head, NULL), "a request got stuck");
        check_one(l, head);
        while (ring_take(ring, &head, NULL))
            check_one(l, head);
    }
    bool any = false;
    for (unsigned i = 0; i < depth; i++)
        any |= send_one(l, i);
    ring_publish(ring);
    if (any && ring_kick(ring))
        l->kicks++;
    l->turns++;
}

/* Loop index: bit 0 engine, bit 1 EVENT_IDX, bit 2 indirect, bit 3 depth 1. */
START_TEST(test_random_load)
{
    unsigned depth = _i & 8 ? 1 : DEPTH;

    rig_open(&rig, &(struct rig_options){.engine = _i & 1 ? DISK_ENGINE_SYNC : DISK_ENGINE_IO_URING,
                                         .queues = QUEUES});
    rig_start(&rig, _i & 2 ? 0 : VIRTIO_F_BIT_EVENT_IDX);
    for (unsigned q = 0; q < QUEUES; q++)
        load_init(&loads[q], q, _i & 4 ? RING_INDIRECT : RING_DIRECT);
    for (bool more = true; more;) {
        more = false;
        for (unsigned q = 0; q < QUEUES; q++) {
            if (loads[q].done < OPS) {
                load_turn(&loads[q], depth);
                more = true;
            }
        }
    }
    const struct block_counters *c = block_counters(rig.block);
    ck_assert_uint_eq(c->requests, QUEUES * OPS);
    ck_assert_uint_eq(c->read_bytes + c->written_bytes, (uint64_t)QUEUES * OPS * PIECE);
    for (unsigned q = 0; q < QUEUES; q++)
        ck_assert_uint_le(loads[q].kicks, loads[q].turns);
    if (getenv("BLK_LOAD_VERBOSE"))
        printf("mode %d: %u requests, %u kicks, %llu woken\n", _i, QUEUES * OPS,
               loads[0].kicks + loads[1].kicks + loads[2].kicks, (unsigned long long)c->kicks);
    rig_close(&rig);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk_load");
    TCase *tc = tcase_create("load");

    tcase_add_loop_test(tc, test_random_load, 0, 16);
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 120);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
