/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypted requests in numbers: more than there are bounce buffers, on two queues with one key, while the
 * key is taken away, while the disk stalls, while the driver resets the device.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "blkdrv.h"
#include "icedrv.h"
#include "minivmm/bytes.h"

enum { SLOT = 5, OPERATOR = 6, SEED = 3, JOBS_MAX = 160, SMALL = 4096, LARGE = 131072, DUN = 9000 };

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};
static const struct ice_spec xts4096 = {ICE_ALG_AES_XTS, 3, ICE_KEY_256};

static struct rig rig;
static struct ice *ice;
static bool transparent;

/* One request, with guest memory of its own. The byte at offset i of its data tells of job and i. */
struct job {
    uint64_t header, data, status, sector;
    uint32_t len;
    bool write;
};
static struct job jobs[JOBS_MAX];

/* Writes of the sync engine stop here while the gate is shut. */
static _Atomic bool shut;
static _Atomic unsigned stopped;
/* Transfers between the image and the guest's own memory, which the sync engine was asked for. */
static _Atomic unsigned direct;

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 100000};

    nanosleep(&t, NULL);
}

static void note(const struct iovec *iov, int count)
{
    const struct guest_region *ram = &rig.g->mem.region[0];

    for (int i = 0; i < count; i++) {
        const uint8_t *at = iov[i].iov_base;
        if (at + iov[i].iov_len > ram->hva && at < ram->hva + ram->size)
            atomic_fetch_add(&direct, 1);
    }
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    note(iov, count);
    return syscall(SYS_preadv2, fd, iov, count, (long)offset, 0l, flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    note(iov, count);
    if (atomic_load(&shut))
        atomic_fetch_add(&stopped, 1);
    while (atomic_load(&shut))
        nap();
    return syscall(SYS_pwritev2, fd, iov, count, (long)offset, 0l, flags);
}

static void shut_gate(void)
{
    atomic_store(&stopped, 0);
    atomic_store(&shut, true);
}

static void wait_at_gate(void)
{
    for (unsigned i = 0; !atomic_load(&stopped); i++) {
        ck_assert_uint_lt(i, 100000);
        nap();
    }
}

static void open_rig(enum disk_engine engine, bool is_transparent)
{
    struct err err = {""};
    struct rig_options o = {.engine = engine, .queues = 2, .queue_size = 512};

    transparent = is_transparent;
    ck_assert_msg(!ice_create(&(struct ice_config){.allow_ecb = false}, &ice, &err), "%s", err.text);
    ck_assert_int_eq(ice_assign(ice, SLOT, 1, 0, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, OPERATOR, 1, 0, false, &err), 0);
    ice_program(ice, SLOT, &xts4096, SEED);
    ice_program(ice, OPERATOR, &xts4096, SEED);
    o.ice = ice;
    if (transparent) {
        o.transparent =
            (struct block_transparent){.unit = 4096, .slot = OPERATOR, .iv_offset = DUN, .iv_large = true};
    } else {
        o.ice_first = SLOT;
        o.ice_count = 1;
    }
    rig_open(&rig, &o);
    rig_start(&rig, 0);
}

static void close_all(void)
{
    rig_close(&rig);
    ck_assert(ice_all_released(ice));
    ice_destroy(ice);
}

static uint8_t content(uint64_t sector, size_t i)
{
    return (uint8_t)(sector * 3 + i * 7 + (i >> 8));
}

static void job_init(struct job *j, uint64_t sector, uint32_t len)
{
    if (!j->header) {
        j->header = guest_alloc(rig.g, RIG_ICE_HEADER, 16);
        j->status = guest_alloc(rig.g, 1, 1);
        j->data = guest_alloc(rig.g, len, 512);
    }
    j->sector = sector;
    j->len = len;
}

/* Adds the job to a ring without telling the device. The same place always has the same data unit numbers. */
static void job_add(struct job *j, struct ring *ring, bool write)
{
    struct rig_ice with = {SLOT, 1, DUN + j->sector / 8};
    uint32_t header = transparent ? 16 : RIG_ICE_HEADER;
    struct ring_buffer buf[] = {{j->header, header, false}, {j->data, j->len, !write}, {j->status, 1, true}};
    uint8_t *data = rig_at(&rig, j->data);

    j->write = write;
    rig_ice_header(&rig, j->header, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, j->sector, with);
    for (size_t i = 0; i < j->len; i++)
        data[i] = write ? content(j->sector, i) : 0x3c;
    *rig_at(&rig, j->status) = RIG_LATER;
    ck_assert_int_ge(ring_add(ring, buf, 3, RING_INDIRECT), 0);
}

static void go(struct ring *ring)
{
    ring_publish(ring);
    ring_kick(ring);
}

/* The guest's buffer holds the plaintext, of a read because it came, of a write because it stayed. */
static void check_job(const struct job *j)
{
    const uint8_t *data = rig_at(&rig, j->data);
    bool right = true;

    ck_assert_uint_eq(*rig_at(&rig, j->status), VIRTIO_BLK_S_OK);
    for (size_t i = 0; i < j->len; i++)
        right &= data[i] == content(j->sector, i);
    ck_assert(right);
}

static void check_image(const struct job *j)
{
    static uint8_t plain[LARGE], cipher[LARGE], image[LARGE];
    uint8_t raw[ICE_RAW_KEY_MAX];

    for (size_t i = 0; i < j->len; i++)
        plain[i] = content(j->sector, i);
    ref_key(raw, SEED);
    ref_encrypt(&xts4096, raw, DUN + j->sector / 8, 1, plain, cipher, j->len);
    rig_image_read(&rig, j->sector * 512, image, j->len);
    ck_assert_mem_eq(image, cipher, j->len);
}

/* One request by itself on a queue; its status. */
static int probe(unsigned queue, struct job *j, bool write)
{
    job_add(j, &rig.ring[queue], write);
    go(&rig.ring[queue]);
    ck_assert(ring_wait(&rig.ring[queue], NULL, NULL));
    return *rig_at(&rig, j->status);
}

/* 120 small places, and 3 large ones that many jobs share. */
static unsigned init_crowd(void)
{
    unsigned n = 0;

    memset(jobs, 0, sizeof(jobs));
    for (; n < 120; n++)
        job_init(&jobs[n], 8ull * n, SMALL);
    for (; n < 145; n++)
        job_init(&jobs[n], 1024 + 256ull * (n % 3), LARGE);
    return n;
}

/* Loop index: bit 0 engine, bit 1 transparent. */
START_TEST(test_more_than_buffers)
{
    open_rig(engines[_i & 1], _i & 2);
    unsigned n = init_crowd();
    for (int write = 1; write >= 0; write--) {
        for (unsigned i = 0; i < n; i++)
            job_add(&jobs[i], &rig.ring[0], write);
        go(&rig.ring[0]);
        for (unsigned i = 0; i < n; i++)
            ck_assert(ring_wait(&rig.ring[0], NULL, NULL));
        for (unsigned i = 0; i < n; i++)
            check_job(&jobs[i]);
        for (unsigned i = 0; i < n; i++)
            check_image(&jobs[i]);
    }
    ck_assert_uint_eq(block_counters(rig.block)->ice_requests, 2 * n);
    ck_assert_uint_eq(block_counters(rig.block)->errors, 0);
    close_all();
}
END_TEST

struct eviction {
    unsigned drain_ms;
    int result;
};

static void *evict(void *arg)
{
    struct eviction *e = arg;

    e->result = ice_slot_evict(ice, SLOT, e->drain_ms, NULL);
    return NULL;
}

/* 32 requests hold the key, and the disk does not answer. */
START_TEST(test_evict_in_flight)
{
    struct eviction e = {.drain_ms = 60000};
    struct job other = {0};
    pthread_t thread;

    open_rig(DISK_ENGINE_SYNC, false);
    memset(jobs, 0, sizeof(jobs));
    shut_gate();
    for (unsigned i = 0; i < 32; i++) {
        job_init(&jobs[i], 8ull * i, SMALL);
        job_add(&jobs[i], &rig.ring[0], true);
    }
    job_init(&other, 1024, SMALL);
    go(&rig.ring[0]);
    wait_at_gate();
    ck_assert_uint_eq(ice_slot_counters(ice, SLOT)->requests, 32);
    /* One never completes: the slot is busy, and stays as it was. */
    ck_assert_int_eq(ice_slot_evict(ice, SLOT, 20, NULL), -EBUSY);
    ck_assert_int_eq(probe(1, &other, false), VIRTIO_BLK_S_OK);
    /* While it is drained, new requests fail; those that hold the key come to their end. */
    ck_assert_int_eq(pthread_create(&thread, NULL, evict, &e), 0);
    unsigned tries = 0;
    while (probe(1, &other, false) == VIRTIO_BLK_S_OK)
        ck_assert_uint_lt(tries++, 100000);
    ck_assert_uint_eq(block_counters(rig.block)->ice_errors, 1);
    atomic_store(&shut, false);
    for (unsigned i = 0; i < 32; i++)
        ck_assert(ring_wait(&rig.ring[0], NULL, NULL));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(e.result, 0);
    for (unsigned i = 0; i < 32; i++) {
        check_job(&jobs[i]);
        check_image(&jobs[i]);
    }
    ck_assert_int_eq(probe(1, &other, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(block_counters(rig.block)->ice_empty, 1);
    close_all();
}
END_TEST

/*
 * What the disk gets or gives never lies in guest memory where the guest must not see or change it: only a
 * read with the guest's own key goes there.
 */
START_TEST(test_private_memory)
{
    static const uint32_t sizes[] = {SMALL, LARGE};

    open_rig(DISK_ENGINE_SYNC, _i);
    memset(jobs, 0, sizeof(jobs));
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        job_init(&jobs[i], 64, sizes[i]);
        atomic_store(&direct, 0);
        ck_assert_int_eq(probe(0, &jobs[i], true), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(direct, 0);
        ck_assert_int_eq(probe(0, &jobs[i], false), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(direct, transparent ? 0 : 1);
        check_job(&jobs[i]);
    }
    close_all();
}
END_TEST

static void *reset_device(void *arg)
{
    mmio_reset(arg);
    return NULL;
}

/*
 * A reset with requests in the disk and others waiting for buffers: when it returns, nothing of them touches
 * the guest's memory, no key is held, and the device starts anew.
 */
START_TEST(test_reset_while_waiting)
{
    static uint8_t before[16u << 20];
    pthread_t thread;

    open_rig(DISK_ENGINE_SYNC, _i);
    unsigned n = init_crowd();
    for (unsigned round = 0; round < 3; round++) {
        shut_gate();
        for (unsigned i = 0; i < n; i++)
            job_add(&jobs[i], &rig.ring[0], true);
        go(&rig.ring[0]);
        wait_at_gate();
        ck_assert_int_eq(pthread_create(&thread, NULL, reset_device, rig.mmio), 0);
        while (virtio_mmio_status(rig.mmio) & VIRTIO_STATUS_DRIVER_OK)
            nap();
        atomic_store(&shut, false);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_int_eq(ice_slot_evict(ice, transparent ? OPERATOR : SLOT, 0, NULL), 0);
        memcpy(before, rig.g->mem.region[0].hva, sizeof(before));
        for (unsigned i = 0; i < 20; i++)
            nap();
        ck_assert(!memcmp(before, rig.g->mem.region[0].hva, sizeof(before)));
        ice_program(ice, transparent ? OPERATOR : SLOT, &xts4096, SEED);
        rig_start(&rig, 0);
        ck_assert_int_eq(probe(0, &jobs[7], true), VIRTIO_BLK_S_OK);
        ck_assert_int_eq(probe(0, &jobs[7], false), VIRTIO_BLK_S_OK);
        check_job(&jobs[7]);
        check_image(&jobs[7]);
    }
    close_all();
}
END_TEST

/*
 * The disk engine fails for good, with requests waiting for buffers: no key stays held, and nothing of them
 * is taken up again, be the device reset or not. poll() refuses more descriptors than a process may have.
 */
START_TEST(test_engine_fails)
{
    struct rlimit old, small;

    open_rig(DISK_ENGINE_SYNC, _i);
    unsigned n = init_crowd();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    small = old;
    small.rlim_cur = 1;
    shut_gate();
    for (unsigned i = 0; i < n; i++)
        job_add(&jobs[i], &rig.ring[0], true);
    go(&rig.ring[0]);
    wait_at_gate();
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &small), 0);
    atomic_store(&shut, false);
    bool broken = wait_status(rig.mmio, VIRTIO_STATUS_NEEDS_RESET);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert(broken);
    ck_assert_int_eq(ice_slot_evict(ice, transparent ? OPERATOR : SLOT, 0, NULL), 0);
    rig_start(&rig, 0);
    ck_assert(wait_status(rig.mmio, VIRTIO_STATUS_NEEDS_RESET));
    ck_assert_uint_eq(ring_used_idx(&rig.ring[0]), 0);
    close_all();
}
END_TEST

/* Two queue threads, one key. Loop index: bit 0 engine, bit 1 transparent. */
START_TEST(test_two_queues)
{
    enum { EACH = 12, ROUNDS = 40 };

    open_rig(engines[_i & 1], _i & 2);
    memset(jobs, 0, sizeof(jobs));
    for (unsigned i = 0; i < 2 * EACH; i++)
        job_init(&jobs[i], 64ull * i, i % 4 ? SMALL : 7 * SMALL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 2 * EACH; i++)
            job_add(&jobs[i], &rig.ring[i % 2], round % 2 == 0);
        go(&rig.ring[0]);
        go(&rig.ring[1]);
        for (unsigned i = 0; i < 2 * EACH; i++)
            ck_assert(ring_wait(&rig.ring[i % 2], NULL, NULL));
        for (unsigned i = 0; i < 2 * EACH; i++)
            check_job(&jobs[i]);
    }
    for (unsigned i = 0; i < 2 * EACH; i++)
        check_image(&jobs[i]);
    const struct ice_slot_counters *c = ice_slot_counters(ice, transparent ? OPERATOR : SLOT);
    ck_assert_uint_eq(c->requests, 2 * EACH * ROUNDS);
    ck_assert_uint_eq(c->bytes, 4096 * c->units);
    close_all();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk_ice_flight");
    TCase *tc = tcase_create("flight");

    tcase_add_loop_test(tc, test_more_than_buffers, 0, 4);
    tcase_add_test(tc, test_evict_in_flight);
    tcase_add_loop_test(tc, test_private_memory, 0, 2);
    tcase_add_loop_test(tc, test_reset_while_waiting, 0, 2);
    tcase_add_loop_test(tc, test_engine_fails, 0, 2);
    tcase_add_loop_test(tc, test_two_queues, 0, 4);
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 120);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
