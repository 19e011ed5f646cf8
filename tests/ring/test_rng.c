/* SPDX-License-Identifier: Apache-2.0 */
/* The real entropy device with its thread, driven through registers and rings. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "ringdrv.h"

#define ALL (VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_INDIRECT_DESC | VIRTIO_F_BIT_EVENT_IDX)

static struct guest g;
static struct ring ring;
static struct virtio_rng *rng;
static struct virtio_device *dev;
static struct virtio_mmio *m;
static int irq;

static void setup(void)
{
    guest_init(&g, 1 << 20);
    irq = event_open();
    ck_assert_int_eq(virtio_rng_create(&g.mem, &rng, NULL), 0);
    dev = virtio_rng_device(rng);
    ck_assert_int_eq(virtio_mmio_create(dev, irq, &m, NULL), 0);
}

static void teardown(void)
{
    virtio_rng_destroy(rng);
    virtio_mmio_destroy(m);
    close(irq);
    guest_free(&g);
}

static void run_device(uint64_t features)
{
    ck_assert(mmio_negotiate(m, features));
    ck_assert(mmio_queue(m, 0, &ring));
    ring.kick_fd = dev->queue[0].kick_fd;
    mmio_driver_ok(m);
}

static unsigned zeros(uint64_t gpa, uint32_t len)
{
    const uint8_t *at = guest_ptr(&g, gpa);
    unsigned n = 0;
    for (uint32_t i = 0; i < len; i++)
        n += at[i] == 0;
    return n;
}

START_TEST(test_fills)
{
    const bool event_idx = _i & 1;
    ring_init(&ring, &g, 16, event_idx);
    run_device(event_idx ? ALL : ALL & ~VIRTIO_F_BIT_EVENT_IDX);
    uint64_t a = guest_alloc(&g, 4096, 1);
    const struct ring_buffer buf[] = {{a, 100, true}, {a + 2000, 1000, true}};
    uint32_t id, len;
    int head = ring_submit(&ring, buf, 2, _i & 2 ? RING_INDIRECT : RING_DIRECT);
    ck_assert_uint_ge(wait_event(irq), 1);
    ck_assert(ring_take(&ring, &id, &len));
    ck_assert_uint_eq(id, (unsigned)head);
    ck_assert_uint_eq(len, 1100);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 1);
    ck_assert_uint_lt(zeros(a, 100), 20);
    ck_assert_uint_lt(zeros(a + 2000, 1000), 100);
    ck_assert_uint_eq(zeros(a + 100, 1900), 1900);
}
END_TEST

START_TEST(test_odd_requests)
{
    ring_init(&ring, &g, 16, true);
    run_device(ALL);
    uint64_t a = guest_alloc(&g, 256 << 10, 1);
    uint32_t len;
    const struct ring_buffer mixed[] = {{a, 64, false}, {a + 64, 64, true}};
    ring_submit(&ring, mixed, 2, RING_DIRECT);
    ck_assert(ring_wait(&ring, NULL, &len));
    ck_assert_uint_eq(len, 64);
    ck_assert_uint_eq(zeros(a, 64), 64);
    ring_submit(&ring, mixed, 1, RING_DIRECT); /* nothing to write to */
    ck_assert(ring_wait(&ring, NULL, &len));
    ck_assert_uint_eq(len, 0);
    const struct ring_buffer large = {a, 256 << 10, true};
    ring_submit(&ring, &large, 1, RING_DIRECT);
    ck_assert(ring_wait(&ring, NULL, &len));
    ck_assert_uint_ge(len, 1);
    ck_assert_uint_eq(len, 64 << 10);
    ck_assert_uint_eq(zeros(a + (64 << 10), 192 << 10), 192 << 10);
}
END_TEST

START_TEST(test_many_and_resets)
{
    ring_init(&ring, &g, 64, true);
    uint64_t a = guest_alloc(&g, 64 * 32, 1);
    for (unsigned round = 0; round < 20; round++) {
        ring_restart(&ring);
        run_device(ALL);
        for (unsigned i = 0; i < 64; i++) {
            const struct ring_buffer buf = {a + 32 * i, 32, true};
            ck_assert_int_ge(ring_submit(&ring, &buf, 1, RING_DIRECT), 0);
        }
        /* Every other round is reset with requests in flight. */
        for (unsigned i = 0; i < (round & 1 ? 64u : 3u); i++)
            ck_assert(ring_wait(&ring, NULL, NULL));
        mmio_reset(m);
        ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0);
        ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 0);
        /* No thread touches memory any more, whatever it is told: the rings can go. A thread that still ran
         * would find its queue taken away and report it broken; it gets a moment to do so. */
        uint16_t used = ring_used_idx(&ring);
        memset(guest_ptr(&g, a), 0, 64 * 32);
        event_signal(dev->queue[0].kick_fd);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0);
        ck_assert_uint_eq(ring_used_idx(&ring), used);
        ck_assert_uint_eq(zeros(a, 64 * 32), 64 * 32);
    }
}
END_TEST

START_TEST(test_broken_ring_then_recovers)
{
    ring_init(&ring, &g, 8, true);
    run_device(ALL);
    ring_write_desc(&ring, 0, 0xdead00000000ull, 16, RING_DESC_WRITE, 0);
    ring_write_avail(&ring, 0, 0);
    ring_write_avail_idx(&ring, 1);
    event_signal(dev->queue[0].kick_fd);
    ck_assert(wait_status(m, VIRTIO_STATUS_NEEDS_RESET));
    ck_assert_uint_ge(wait_event(irq), 1);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 2);
    ck_assert_uint_eq(dev->counters.needs_reset, 1);
    ring_restart(&ring);
    run_device(ALL);
    const struct ring_buffer buf = {guest_alloc(&g, 64, 1), 64, true};
    ring_submit(&ring, &buf, 1, RING_DIRECT);
    ck_assert(ring_wait(&ring, NULL, NULL));
}
END_TEST

/* Destroyed in every state: never activated (the other way out of setup), running, and reset. */
START_TEST(test_destroy_states)
{
    ring_init(&ring, &g, 8, true);
    if (_i)
        run_device(ALL);
    if (_i == 2)
        mmio_reset(m);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), _i == 1 ? 0x0f : 0);
}
END_TEST

/* Chains that arrived before DRIVER_OK, without a kick afterwards, are served. */
START_TEST(test_early_chain)
{
    ring_init(&ring, &g, 8, true);
    const struct ring_buffer buf = {guest_alloc(&g, 64, 1), 64, true};
    ring_submit(&ring, &buf, 1, RING_DIRECT);
    run_device(ALL);
    uint32_t len;
    ck_assert(ring_wait(&ring, NULL, &len));
    ck_assert_uint_eq(len, 64);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rng");
    TCase *t = tcase_create("rng");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, test_fills, 0, 4);
    tcase_add_test(t, test_odd_requests);
    tcase_add_test(t, test_many_and_resets);
    tcase_add_test(t, test_broken_ring_then_recovers);
    tcase_add_loop_test(t, test_destroy_states, 0, 3);
    tcase_add_test(t, test_early_chain);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
