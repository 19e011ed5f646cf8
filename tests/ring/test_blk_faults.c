/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong: hosts that fail, write-through, drivers that break the rules, resets in the middle. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blkdrv.h"
#include "minivmm/bytes.h"

#define OUTSIDE 0x7000000000ull

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};

static struct rig rig, other;

/* The sync engine's writes come through here: how they were asked for, and a failure to order. */
static _Atomic int write_flags, write_errno;

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    int error = atomic_load(&write_errno);

    atomic_store(&write_flags, flags);
    if (error) {
        errno = error;
        return -1;
    }
    return syscall(SYS_pwritev2, fd, iov, count, (long)offset, 0l, flags);
}

static void open_and_start(int i)
{
    rig_open(&rig, &(struct rig_options){.engine = engines[i]});
    rig_start(&rig, 0);
}

static bool all_are(const uint8_t *at, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

static bool reads_well(struct rig *r, uint64_t sector)
{
    return rig_request(r, VIRTIO_BLK_T_IN, sector, 512, false) == VIRTIO_BLK_S_OK &&
           all_are(rig_at(r, r->data), rig_fill(sector), 512);
}

/* A request that fails half-way leaves zeroes, and only that request fails. */
START_TEST(test_truncated_image)
{
    open_and_start(_i);
    ck_assert_int_eq(ftruncate(rig.image, 101 * 512), 0);
    memset(rig_at(&rig, rig.data), 0x99, 2048);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 100, 1024, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.len, 1025);
    ck_assert(all_are(rig_at(&rig, rig.data), 0, 1024));
    ck_assert(all_are(rig_at(&rig, rig.data + 1024), 0x99, 1024));
    ck_assert(reads_well(&rig, 100));
    ck_assert_uint_eq(block_counters(rig.block)->errors, 1);
    rig_close(&rig);
}
END_TEST

/* The host refuses to write past a limit: both engines meet it as a real error of the kernel's. */
START_TEST(test_host_refuses_write)
{
    struct rlimit old, small;

    open_and_start(_i);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 200 * 512;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    int across = rig_request(&rig, VIRTIO_BLK_T_OUT, 199, 1024, true);
    int below = rig_request(&rig, VIRTIO_BLK_T_OUT, 10, 1024, true);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(across, VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(below, VIRTIO_BLK_S_OK);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 199, 1024, true), VIRTIO_BLK_S_OK);
    rig_close(&rig);
}
END_TEST

START_TEST(test_errors_become_ioerr)
{
    static const int errors[] = {ENOSPC, EIO, EDQUOT};

    open_and_start(1);
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        atomic_store(&write_errno, errors[i]);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 3, 512, true), VIRTIO_BLK_S_IOERR);
        atomic_store(&write_errno, 0);
        ck_assert(reads_well(&rig, 3));
    }
    ck_assert_uint_eq(block_counters(rig.block)->errors, ARRAY_SIZE(errors));
    rig_close(&rig);
}
END_TEST

static bool write_is_stable(void)
{
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 3, 512, true), VIRTIO_BLK_S_OK);
    return atomic_load(&write_flags) & RWF_DSYNC;
}

START_TEST(test_cache_mode)
{
    open_and_start(1);
    ck_assert(!write_is_stable());
    mmio_config_put(rig.mmio, 32, 1, 0);
    ck_assert(write_is_stable());
    mmio_config_put(rig.mmio, 32, 1, 1);
    ck_assert(!write_is_stable());
    rig_start(&rig, BIT(FLUSH) | BIT(CONFIG_WCE));
    ck_assert(write_is_stable());
    rig_start(&rig, BIT(FLUSH));
    ck_assert(write_is_stable());
    rig_start(&rig, BIT(CONFIG_WCE));
    ck_assert(!write_is_stable());
    rig_close(&rig);
    rig_open(&rig, &(struct rig_options){.engine = DISK_ENGINE_SYNC, .writethrough = true});
    rig_start(&rig, 0);
    ck_assert(write_is_stable());
    rig_close(&rig);
}
END_TEST

START_TEST(test_short_header)
{
    open_and_start(_i);
    for (uint32_t n = 1; n < 16; n++) {
        struct ring_buffer buf[] = {{rig.header, n, false}, {rig.status, 1, true}};
        ck_assert_int_eq(rig_chain(&rig, buf, 2, RING_DIRECT), VIRTIO_BLK_S_IOERR);
        ck_assert_uint_eq(rig.len, 1);
    }
    struct ring_buffer bare = {rig.status, 1, true};
    ck_assert_int_eq(rig_chain(&rig, &bare, 1, RING_DIRECT), VIRTIO_BLK_S_IOERR);
    ck_assert(reads_well(&rig, 1));
    rig_close(&rig);
}
END_TEST

/* Data over header, status over data, all in the same place: the status byte is written last and wins. */
START_TEST(test_overlapping_buffers)
{
    open_and_start(_i);
    rig_header(&rig, rig.data, VIRTIO_BLK_T_IN, 77);
    rig.status = rig.data + 100;
    struct ring_buffer buf[] = {{rig.data, 16, false}, {rig.data, 512, true}, {rig.status, 1, true}};
    ck_assert_int_eq(rig_chain(&rig, buf, 3, RING_DIRECT), VIRTIO_BLK_S_OK);
    ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(77), 100));
    ck_assert(all_are(rig_at(&rig, rig.data + 101), rig_fill(77), 411));
    /* Descriptors of length 0 in between carry nothing and change nothing. */
    rig_header(&rig, rig.header, VIRTIO_BLK_T_IN, 78);
    struct ring_buffer holes[] = {{rig.header, 16, false}, {rig.header, 0, false},    {rig.data, 0, true},
                                  {rig.data, 512, true},   {rig.status + 1, 0, true}, {rig.status, 1, true}};
    ck_assert_int_eq(rig_chain(&rig, holes, 6, RING_INDIRECT), VIRTIO_BLK_S_OK);
    ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(78), 100));
    rig_close(&rig);
}
END_TEST

/* Chains that leave no way to answer: this device wants a reset; its other queue and other devices go on. */
START_TEST(test_needs_reset)
{
    rig_open(&rig, &(struct rig_options){.engine = engines[_i], .queues = 2});
    rig_open(&other, &(struct rig_options){.engine = engines[_i], .share = rig.g});
    rig_start(&other, 0);
    struct ring_buffer bad[][3] = {
        {{rig.header, 16, false}, {rig.data, 512, false}, {rig.data, 1, false}}, /* no writable byte */
        {{rig.header, 16, false}, {rig.data, 512, true}, {GUEST_ROM_GPA, 1, true}},
        {{rig.header, 16, false}, {OUTSIDE, 512, true}, {rig.status, 1, true}},
        {{rig.header, 16, false}, {rig.data, 512, true}, {UINT64_MAX, 1, true}},
        {{OUTSIDE, 16, false}, {rig.data, 512, true}, {rig.status, 1, true}},
        {{rig.header, 16, false}, {rig.data, 512, true}, {rig.header, 16, false}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        rig_start(&rig, 0);
        rig_header(&rig, rig.header, VIRTIO_BLK_T_IN, 0);
        ring_submit(&rig.ring[1], bad[i], 3, RING_DIRECT);
        ck_assert(wait_status(rig.mmio, VIRTIO_STATUS_NEEDS_RESET));
        ck_assert_uint_eq(ring_used_idx(&rig.ring[1]), 0);
        ck_assert(reads_well(&rig, 11));
        ck_assert(reads_well(&other, 12));
        ck_assert_uint_eq(virtio_mmio_status(other.mmio) & VIRTIO_STATUS_NEEDS_RESET, 0);
    }
    ck_assert(all_are(guest_ptr(rig.g, GUEST_ROM_GPA), 0x5a, GUEST_ROM_SIZE));
    rig_start(&rig, 0);
    ck_assert(reads_well(&rig, 13));
    rig_close(&other);
    rig_close(&rig);
}
END_TEST

/* A driver that makes one chain available as often as the ring is long gets as many answers. */
START_TEST(test_same_chain_many_times)
{
    open_and_start(_i);
    rig_header(&rig, rig.header, VIRTIO_BLK_T_IN, 5);
    ring_write_desc(&rig.ring[0], 0, rig.header, 16, RING_DESC_NEXT, 1);
    ring_write_desc(&rig.ring[0], 1, rig.data, 512, RING_DESC_NEXT | RING_DESC_WRITE, 2);
    ring_write_desc(&rig.ring[0], 2, rig.status, 1, RING_DESC_WRITE, 0);
    for (uint16_t i = 0; i < 64; i++)
        ring_write_avail(&rig.ring[0], i, 0);
    ring_write_avail_idx(&rig.ring[0], 64);
    ring_kick(&rig.ring[0]);
    for (unsigned i = 0; i < 64; i++)
        ck_assert(ring_wait(&rig.ring[0], NULL, NULL));
    rig_close(&rig);
}
END_TEST

/* Resets with a full queue in flight: afterwards nothing is written to the guest's memory, and all begins
 * anew. */
START_TEST(test_reset_in_flight)
{
    enum { COUNT = 21, BYTES = 8192 };
    uint64_t headers, statuses;

    open_and_start(_i);
    headers = guest_alloc(rig.g, 16 * COUNT, 16);
    statuses = guest_alloc(rig.g, COUNT, 1);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            struct ring_buffer buf[] = {{headers + 16 * i, 16, false},
                                        {rig.data + (uint64_t)BYTES * i, BYTES, true},
                                        {statuses + i, 1, true}};
            rig_header(&rig, headers + 16 * i, VIRTIO_BLK_T_IN, 16 * i);
            ck_assert_int_ge(ring_submit(&rig.ring[0], buf, 3, RING_DIRECT), 0);
        }
        mmio_reset(rig.mmio);
        memset(rig_at(&rig, rig.data), 0xd1, BYTES * COUNT);
        memset(rig_at(&rig, statuses), 0xd2, COUNT);
        rig_start(&rig, 0);
        uint64_t data = rig.data;
        rig.data = data + (uint64_t)BYTES * COUNT;
        ck_assert(reads_well(&rig, 200 + round));
        rig.data = data;
        ck_assert(all_are(rig_at(&rig, rig.data), 0xd1, BYTES * COUNT));
        ck_assert(all_are(rig_at(&rig, statuses), 0xd2, COUNT));
    }
    rig_close(&rig);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk_faults");
    TCase *tc = tcase_create("faults");

    tcase_add_loop_test(tc, test_truncated_image, 0, 2);
    tcase_add_loop_test(tc, test_host_refuses_write, 0, 2);
    tcase_add_test(tc, test_errors_become_ioerr);
    tcase_add_test(tc, test_cache_mode);
    tcase_add_loop_test(tc, test_short_header, 0, 2);
    tcase_add_loop_test(tc, test_overlapping_buffers, 0, 2);
    tcase_add_loop_test(tc, test_needs_reset, 0, 2);
    tcase_add_loop_test(tc, test_same_chain_many_times, 0, 2);
    tcase_add_loop_test(tc, test_reset_in_flight, 0, 2);
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 60);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
