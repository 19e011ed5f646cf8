/* SPDX-License-Identifier: Apache-2.0 */
/* The device's side of a ring against the test library's driver, and against drivers that do it wrong. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "ringdrv.h"

#define SIZE     8
#define FEATURES (VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_INDIRECT_DESC)
#define FAR      0xdead00000000ull /* no memory there */

static struct guest g;
static struct ring ring;
static struct virtqueue vq;
static struct iovec iov[VIRTQUEUE_SIZE_MAX + 2];
static struct virtqueue_chain chain;
static struct err err;

static void start(uint16_t size, uint64_t features)
{
    guest_init(&g, 4 << 20);
    ring_init(&ring, &g, size, features & VIRTIO_F_BIT_EVENT_IDX);
    ck_assert_int_eq(virtqueue_start(&vq, &g.mem, &ring.layout, features, &err), 0);
    chain = (struct virtqueue_chain){.iov = iov, .iov_max = size + 2u};
}

static void setup(void)
{
    start(SIZE, FEATURES);
}

static void teardown(void)
{
    guest_free(&g);
}

static void offer_head(uint16_t head)
{
    ring_write_avail(&ring, ring.avail_idx & (ring.size - 1u), head);
    ring_write_avail_idx(&ring, (uint16_t)(ring.avail_idx + 1));
}

static void expect_broken(const char *why)
{
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), -EPROTO);
    ck_assert_msg(strstr(err.text, why), "said: %s", err.text);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), -EPROTO);
}

START_TEST(test_framing)
{
    uint64_t a = guest_alloc(&g, 64, 1), b = guest_alloc(&g, 64, 1);
    const struct ring_buffer buf[] = {{a, 10, false}, {FAR, 0, false},  {a + 10, 6, false},
                                      {b, 3, true},   {b + 3, 0, true}, {b + 3, 1, true}};
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 0);
    int head = ring_add(&ring, buf, 6, _i ? RING_INDIRECT : RING_DIRECT);
    ck_assert_int_ge(head, 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 0);
    ring_publish(&ring);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    ck_assert_uint_eq(chain.head, (unsigned)head);
    ck_assert_uint_eq(chain.readable, 2);
    ck_assert_uint_eq(chain.writable, 2);
    ck_assert_uint_eq(chain.readable_bytes, 16);
    ck_assert_uint_eq(chain.writable_bytes, 4);
    ck_assert_ptr_eq(iov[1].iov_base, guest_ptr(&g, a + 10));
    ck_assert_ptr_eq(iov[2].iov_base, guest_ptr(&g, b));
    ck_assert_uint_eq(iov[3].iov_len, 1);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 0);
    virtqueue_push(&vq, chain.head, 4);
    ck_assert(!ring_take(&ring, NULL, NULL));
    ck_assert(virtqueue_publish(&vq));
    ck_assert(!virtqueue_publish(&vq));
    uint32_t id, len;
    ck_assert(ring_take(&ring, &id, &len));
    ck_assert_uint_eq(id, (unsigned)head);
    ck_assert_uint_eq(len, 4);
}
END_TEST

START_TEST(test_chain_then_indirect)
{
    uint64_t a = guest_alloc(&g, 32, 16), table = guest_alloc(&g, 48, 16) + 8;
    store_le64(guest_ptr(&g, table), a + 16);
    store_le32((uint8_t *)guest_ptr(&g, table) + 8, 5);
    store_le16((uint8_t *)guest_ptr(&g, table) + 12, RING_DESC_WRITE);
    ring_write_desc(&ring, 3, a, 4, RING_DESC_NEXT, 1);
    /* The write flag of the descriptor that points to the table means nothing (2.7.5.3.2). */
    ring_write_desc(&ring, 1, table, 16, RING_DESC_INDIRECT | (_i ? RING_DESC_WRITE : 0), 0);
    offer_head(3);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    ck_assert_uint_eq(chain.readable_bytes, 4);
    ck_assert_uint_eq(chain.writable_bytes, 5);
    ck_assert_ptr_eq(iov[1].iov_base, guest_ptr(&g, a + 16));
}
END_TEST

static void break_head(void)
{
    offer_head(SIZE);
    expect_broken("descriptor 8");
}
static void break_next(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 1, RING_DESC_NEXT, 0xffff);
    offer_head(0);
    expect_broken("descriptor 65535");
}
static void break_self_loop(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 1, RING_DESC_NEXT, 0);
    offer_head(0);
    expect_broken("loops");
}
static void break_empty_loop(void)
{
    ring_write_desc(&ring, 2, GUEST_RAM_GPA, 0, RING_DESC_NEXT, 5);
    ring_write_desc(&ring, 5, GUEST_RAM_GPA, 0, RING_DESC_NEXT, 2);
    offer_head(2);
    expect_broken("loops");
}
static void break_outside(void)
{
    ring_write_desc(&ring, 0, FAR, 1, 0, 0);
    offer_head(0);
    expect_broken("outside");
}
static void break_over_end(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA + (4 << 20) - 8, 9, RING_DESC_WRITE, 0);
    offer_head(0);
    expect_broken("outside");
}
static void break_wrap(void)
{
    ring_write_desc(&ring, 0, UINT64_MAX - 3, 8, 0, 0);
    offer_head(0);
    expect_broken("outside");
}
static void break_rom_write(void)
{
    ring_write_desc(&ring, 0, GUEST_ROM_GPA, 1, RING_DESC_WRITE, 0);
    offer_head(0);
    expect_broken("outside writable");
}
static void break_order(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 1, RING_DESC_WRITE | RING_DESC_NEXT, 1);
    ring_write_desc(&ring, 1, GUEST_RAM_GPA, 1, 0, 0);
    offer_head(0);
    expect_broken("readable buffer after");
}
static void break_avail_jump(void)
{
    ring_write_avail_idx(&ring, SIZE + 1);
    expect_broken("ahead");
}
static void break_avail_back(void)
{
    ring_write_avail_idx(&ring, 0xffff);
    expect_broken("ahead");
}
static void break_nested(void)
{
    uint64_t t = guest_alloc(&g, 16, 16);
    store_le64(guest_ptr(&g, t), t);
    store_le32((uint8_t *)guest_ptr(&g, t) + 8, 16);
    store_le16((uint8_t *)guest_ptr(&g, t) + 12, RING_DESC_INDIRECT);
    ring_write_desc(&ring, 0, t, 16, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("inside an indirect");
}
static void break_indirect_next(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 16, RING_DESC_INDIRECT | RING_DESC_NEXT, 1);
    offer_head(0);
    expect_broken("has a next");
}
static void break_indirect_empty(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 0, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("table of 0 bytes");
}
static void break_indirect_length(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 24, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("table of 24 bytes");
}
static void break_indirect_outside(void)
{
    ring_write_desc(&ring, 0, GUEST_RAM_GPA + (4 << 20) - 16, 32, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("indirect table at");
}
static void break_indirect_loop(void)
{
    uint64_t t = guest_alloc(&g, 16, 16);
    store_le64(guest_ptr(&g, t), t);
    store_le32((uint8_t *)guest_ptr(&g, t) + 8, 1);
    store_le16((uint8_t *)guest_ptr(&g, t) + 12, RING_DESC_NEXT);
    ring_write_desc(&ring, 0, t, 16, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("loops");
}
/* A driver that made the queue smaller than offered, and its requests as large as the device takes them. */
START_TEST(test_indirect_longer_than_queue)
{
    struct ring_buffer buf[6];

    teardown();
    start(2, FEATURES);
    const uint64_t a = guest_alloc(&g, 64, 1);
    for (unsigned i = 0; i < 6; i++)
        buf[i] = (struct ring_buffer){a + i, 1, i > 3};
    chain.iov_max = 6;
    ck_assert_int_ge(ring_add(&ring, buf, 6, RING_INDIRECT), 0);
    ring_publish(&ring);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    ck_assert_uint_eq(chain.readable, 4);
    ck_assert_uint_eq(chain.writable, 2);
    chain.iov_max = 5;
    ck_assert_int_ge(ring_add(&ring, buf, 6, RING_INDIRECT), 0);
    ring_publish(&ring);
    expect_broken("longer than");
}
END_TEST

static void break_indirect_past_table(void)
{
    uint64_t t = guest_alloc(&g, 32, 16);
    store_le64(guest_ptr(&g, t), t);
    store_le16((uint8_t *)guest_ptr(&g, t) + 12, RING_DESC_NEXT);
    store_le16((uint8_t *)guest_ptr(&g, t) + 14, 1);
    ring_write_desc(&ring, 0, t, 16, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("descriptor 1 of a table of 1");
}

static void (*const bad_drivers[])(void) = {
    break_head,
    break_next,
    break_self_loop,
    break_empty_loop,
    break_outside,
    break_over_end,
    break_wrap,
    break_rom_write,
    break_order,
    break_avail_jump,
    break_avail_back,
    break_nested,
    break_indirect_next,
    break_indirect_empty,
    break_indirect_length,
    break_indirect_outside,
    break_indirect_loop,
    break_indirect_past_table,
};

START_TEST(test_bad_driver)
{
    bad_drivers[_i]();
}
END_TEST

START_TEST(test_indirect_not_negotiated)
{
    teardown();
    start(SIZE, VIRTIO_F_BIT_VERSION_1);
    ring_write_desc(&ring, 0, GUEST_RAM_GPA, 16, RING_DESC_INDIRECT, 0);
    offer_head(0);
    expect_broken("not negotiated");
}
END_TEST

/* Eight times 2^30 bytes from a region that has them: the sum must be refused, not overflow. */
START_TEST(test_too_many_bytes)
{
    struct guest_memory huge = g.mem;
    /* Never touched: only addresses are computed. */
    huge.region[2] = (struct guest_region){.gpa = 1ull << 40, .size = 1ull << 33, .hva = (uint8_t *)1};
    huge.count = 3;
    ck_assert_int_eq(virtqueue_start(&vq, &huge, &ring.layout, FEATURES, &err), 0);
    for (uint16_t i = 0; i < 4; i++)
        ring_write_desc(&ring, i, 1ull << 40, 1u << 30, i < 3 ? RING_DESC_NEXT : 0, (uint16_t)(i + 1));
    offer_head(0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    ck_assert_uint_eq(chain.readable_bytes, 1ull << 32);
    ring_write_desc(&ring, 3, 1ull << 40, 1u << 30, RING_DESC_NEXT, 4);
    ring_write_desc(&ring, 4, 1ull << 40, 1, 0, 0);
    offer_head(0);
    expect_broken("2^32");
}
END_TEST

START_TEST(test_overlapping_buffers)
{
    uint64_t a = guest_alloc(&g, 64, 16);
    const struct ring_buffer buf[] = {{a, 64, false}, {a + 32, 32, true}, {a, 64, true}};
    ck_assert_int_ge(ring_submit(&ring, buf, 3, RING_DIRECT), 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    ck_assert_uint_eq(chain.writable_bytes, 96);
}
END_TEST

START_TEST(test_spans_regions)
{
    uint8_t more[64];
    const uint64_t end = GUEST_RAM_GPA + (4 << 20);
    g.mem.region[2] = (struct guest_region){.gpa = end, .size = sizeof(more), .hva = more};
    g.mem.count = 3;
    ring_write_desc(&ring, 0, end - 8, 24, RING_DESC_WRITE, 0);
    offer_head(0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    g.mem.count = 2;
    ck_assert_uint_eq(chain.writable, 2);
    ck_assert_uint_eq(chain.writable_bytes, 24);
    ck_assert_uint_eq(iov[0].iov_len, 8);
    ck_assert_ptr_eq(iov[1].iov_base, more);
    ck_assert_uint_eq(iov[1].iov_len, 16);
}
END_TEST

START_TEST(test_bad_layouts)
{
    const struct virtqueue_layout good = ring.layout;
    const uint64_t end = GUEST_RAM_GPA + (4 << 20);
    struct virtqueue_layout bad[12];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = good;
    bad[0].size = 0;
    bad[1].size = 3;
    bad[2].size = 2048;
    bad[3].desc += 8;
    bad[4].driver += 1;
    bad[5].device += 2;
    bad[6].desc = end - 16 * SIZE + 16;
    bad[7].driver = end - 4;
    bad[8].device = GUEST_ROM_GPA;
    bad[9].desc = FAR;
    bad[10].device = UINT64_MAX - 3;
    bad[11].desc = UINT64_MAX - 15;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        err.text[0] = 0;
        ck_assert_int_eq(virtqueue_start(&vq, &g.mem, &bad[i], FEATURES, &err), -EINVAL);
        ck_assert_uint_gt(strlen(err.text), 0);
        ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), -EPROTO);
    }
    /* The rings that a device only reads may lie in ROM, and the last byte of memory is memory. */
    struct virtqueue_layout edge = good;
    edge.device = end - 4 - 8 * SIZE;
    ck_assert_int_eq(virtqueue_start(&vq, &g.mem, &edge, FEATURES, &err), 0);
    ck_assert_int_eq(virtqueue_start(&vq, &g.mem, &edge, FEATURES | VIRTIO_F_BIT_EVENT_IDX, &err), -EINVAL);
}
END_TEST

/* More than 65536 chains through rings of several sizes, so that every index wraps. */
START_TEST(test_wraps)
{
    static const uint16_t sizes[] = {1, 2, 256, 1024};
    teardown();
    start(sizes[_i], FEATURES | VIRTIO_F_BIT_EVENT_IDX);
    const struct ring_buffer buf = {guest_alloc(&g, 16, 1), 16, true};
    for (uint32_t i = 0; i < 70000; i++) {
        ring_want_interrupts(&ring, true);
        int head = ring_submit(&ring, &buf, 1, i & 1 ? RING_DIRECT : RING_INDIRECT);
        ck_assert_int_ge(head, 0);
        ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
        ck_assert_uint_eq(chain.head, (unsigned)head);
        virtqueue_push(&vq, chain.head, i);
        ck_assert(virtqueue_publish(&vq));
        uint32_t len;
        ck_assert(ring_take(&ring, NULL, &len));
        ck_assert_uint_eq(len, i);
    }
}
END_TEST

static bool complete_one(void)
{
    ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
    virtqueue_push(&vq, chain.head, 0);
    return virtqueue_publish(&vq);
}

START_TEST(test_interrupt_flag)
{
    const struct ring_buffer buf = {guest_alloc(&g, 16, 1), 16, true};
    for (unsigned i = 0; i < 4; i++)
        ring_submit(&ring, &buf, 1, RING_DIRECT);
    ck_assert(complete_one());
    ring_want_interrupts(&ring, false);
    ck_assert(!complete_one());
    ck_assert(!complete_one());
    ring_want_interrupts(&ring, true);
    ck_assert(complete_one());
}
END_TEST

START_TEST(test_interrupt_event)
{
    teardown();
    start(SIZE, FEATURES | VIRTIO_F_BIT_EVENT_IDX);
    const struct ring_buffer buf = {guest_alloc(&g, 16, 1), 16, true};
    for (unsigned i = 0; i < 6; i++)
        ring_submit(&ring, &buf, 1, RING_DIRECT);
    ck_assert(complete_one());  /* used_event 0: entry 0 */
    ck_assert(!complete_one()); /* still 0: passed already */
    store_le16(ring.avail + 4 + 2 * SIZE, 3);
    ck_assert(!complete_one());
    ck_assert(complete_one());
    /* A batch that passes the event asks once. */
    store_le16(ring.avail + 4 + 2 * SIZE, 4);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(virtqueue_pop(&vq, &chain, &err), 1);
        virtqueue_push(&vq, chain.head, 0);
    }
    ck_assert(virtqueue_publish(&vq));
    ck_assert(!virtqueue_publish(&vq));
}
END_TEST

START_TEST(test_kicks)
{
    const bool event_idx = _i;
    teardown();
    start(SIZE, FEATURES | (event_idx ? VIRTIO_F_BIT_EVENT_IDX : 0));
    const struct ring_buffer buf = {guest_alloc(&g, 16, 1), 16, true};
    ck_assert(!virtqueue_want_kicks(&vq));
    ring_add(&ring, &buf, 1, RING_DIRECT);
    ring_publish(&ring);
    ck_assert(ring_kick(&ring));
    virtqueue_refuse_kicks(&vq);
    complete_one();
    ring_add(&ring, &buf, 1, RING_DIRECT);
    ring_publish(&ring);
    ck_assert(!ring_kick(&ring));
    ck_assert(virtqueue_want_kicks(&vq)); /* that one arrived unannounced */
    virtqueue_refuse_kicks(&vq);
    complete_one();
    ck_assert(!virtqueue_want_kicks(&vq));
    ring_add(&ring, &buf, 1, RING_DIRECT);
    ring_publish(&ring);
    ck_assert(ring_kick(&ring));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("virtqueue");
    TCase *t = tcase_create("virtqueue");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, test_framing, 0, 2);
    tcase_add_loop_test(t, test_chain_then_indirect, 0, 2);
    tcase_add_test(t, test_indirect_longer_than_queue);
    tcase_add_loop_test(t, test_bad_driver, 0, (int)ARRAY_SIZE(bad_drivers));
    tcase_add_test(t, test_indirect_not_negotiated);
    tcase_add_test(t, test_too_many_bytes);
    tcase_add_test(t, test_overlapping_buffers);
    tcase_add_test(t, test_spans_regions);
    tcase_add_test(t, test_bad_layouts);
    tcase_add_loop_test(t, test_wraps, 0, 4);
    tcase_add_test(t, test_interrupt_flag);
    tcase_add_test(t, test_interrupt_event);
    tcase_add_loop_test(t, test_kicks, 0, 2);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
