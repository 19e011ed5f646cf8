/* SPDX-License-Identifier: Apache-2.0 */
/* The data path of disk images, each test with both engines. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_rig.h"

#define MIB (1u << 20)

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};

/* Each engine with an image on disk, then in memory, which takes a way of its own. */
static enum disk_engine engine_of(int i)
{
    disk_rig_dir = i & 2 ? "/dev/shm" : "/tmp";
    return engines[i & 1];
}

static void *buffer(uint64_t length, uint64_t seed)
{
    void *p = aligned_alloc(4096, (length + 4095) & ~4095ULL);
    ck_assert_ptr_nonnull(p);
    disk_rig_pattern(p, length, seed);
    return p;
}

static bool all_zero(const unsigned char *p, size_t n)
{
    while (n--)
        if (*p++)
            return false;
    return true;
}

START_TEST(test_write_then_read)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    static const uint64_t at[] = {0, 512, 4096 * 3 + 512, MIB - 65536};
    unsigned char *in = buffer(65536, 0), *out = buffer(65536, 99);

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    ck_assert_str_eq(disk_engine_name(rig.disk), _i & 1 ? "sync" : "io_uring");
    for (unsigned i = 0; i < 4; i++) {
        disk_rig_pattern(in, 65536, i);
        ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, i & 1 ? DISK_FUA : 0, at[i], 65536, in), 0);
        ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, at[i], 65536, out), 0);
        ck_assert_mem_eq(in, out, 65536);
        disk_rig_peek(&rig, out, at[i], 65536);
        ck_assert_mem_eq(in, out, 65536);
    }
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), 0);
    disk_rig_close(&rig);
    free(in);
    free(out);
}
END_TEST

struct job {
    struct disk_io io;
    struct disk_rig *rig;
    unsigned *left, again;
    int result;
    unsigned char *buf;
    struct iovec iov;
    bool in_submit;
};

static void job_done(struct disk_io *io, int result)
{
    struct job *j = (struct job *)io;

    ck_assert(!j->in_submit);
    j->result = result;
    (*j->left)--;
}

/* 3000 pieces of odd lengths, more than IOV_MAX, that add up to whole sectors. */
START_TEST(test_many_iovecs)
{
    enum { N = 3000, LENGTH = 3000 * 171 - 3000 * 171 % 512 };
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *in = buffer(LENGTH, 7), *out = buffer(LENGTH, 8);
    struct iovec *v = calloc(N, sizeof(*v));
    unsigned left = 2;

    ck_assert_ptr_nonnull(v);
    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    for (unsigned pass = 0; pass < 2; pass++) {
        unsigned char *p = pass ? out : in;
        unsigned n = 0;
        for (unsigned at = 0, len; at < LENGTH; at += len, n++) {
            len = 169 + at % 5;
            len = LENGTH - at < len ? LENGTH - at : len;
            v[n] = (struct iovec){.iov_base = p + at, .iov_len = len};
        }
        ck_assert_uint_gt(n, 2048);
        struct job j = {.io = {.op = pass ? DISK_READ : DISK_WRITE,
                               .flags = pass ? 0 : DISK_FUA,
                               .offset = 512,
                               .length = LENGTH,
                               .iov = v,
                               .iovcnt = n,
                               .done = job_done},
                        .left = &left};
        disk_queue_submit(rig.queue, &j.io);
        while (left > 1 - pass)
            ck_assert_int_eq(disk_queue_run(rig.queue, true), 0);
        ck_assert_int_eq(j.result, 0);
    }
    ck_assert_mem_eq(in, out, LENGTH);
    disk_rig_close(&rig);
    free(in);
    free(out);
    free(v);
}
END_TEST

/* Writes, then from inside done reads back, until again runs out. */
static void chain_done(struct disk_io *io, int result)
{
    struct job *j = (struct job *)io;

    ck_assert(!j->in_submit);
    ck_assert_int_eq(result, 0);
    if (!j->again--) {
        (*j->left)--;
        return;
    }
    j->iov = (struct iovec){.iov_base = j->buf, .iov_len = 4096};
    io->op = io->op == DISK_WRITE ? DISK_READ : DISK_WRITE;
    j->in_submit = true;
    disk_queue_submit(j->rig->queue, io);
    j->in_submit = false;
}

START_TEST(test_depth)
{
    static const unsigned depths[] = {1, 3, 32, 1024};
    for (unsigned d = 0; d < 4; d++) {
        unsigned depth = depths[d], left = depth;
        const enum disk_engine engine = engine_of(_i);
        struct disk_rig rig;
        struct job *jobs = calloc(depth, sizeof(*jobs));
        unsigned char *data = buffer(4096ULL * depth, d), *seen = buffer(4096ULL * depth, 50);

        ck_assert_ptr_nonnull(jobs);
        disk_rig_image(&rig, 4096ULL * depth);
        disk_rig_open(&rig, engine, depth, false, false);
        for (unsigned i = 0; i < depth; i++) {
            struct job *j = &jobs[i];
            j->rig = &rig;
            j->left = &left;
            j->again = 3;
            j->buf = data + 4096ULL * i;
            j->iov = (struct iovec){.iov_base = j->buf, .iov_len = 4096};
            j->io = (struct disk_io){.op = DISK_WRITE,
                                     .offset = 4096ULL * (depth - 1 - i),
                                     .length = 4096,
                                     .iov = &j->iov,
                                     .iovcnt = 1,
                                     .done = chain_done};
            j->in_submit = true;
            disk_queue_submit(rig.queue, &j->io);
            j->in_submit = false;
        }
        ck_assert_uint_eq(disk_queue_inflight(rig.queue), depth);
        while (left)
            ck_assert_int_eq(disk_queue_run(rig.queue, true), 0);
        disk_rig_peek(&rig, seen, 0, 4096ULL * depth);
        for (unsigned i = 0; i < depth; i++)
            ck_assert_mem_eq(seen + 4096ULL * i, data + 4096ULL * (depth - 1 - i), 4096);
        disk_rig_close(&rig);
        free(jobs);
        free(data);
        free(seen);
    }
}
END_TEST

static blkcnt_t blocks_of(const struct disk_rig *rig)
{
    struct stat st;
    ck_assert_int_eq(stat(rig->path, &st), 0);
    return st.st_blocks;
}

START_TEST(test_deallocation)
{
    static const struct {
        enum disk_op op;
        unsigned flags;
        bool frees;
    } ways[] = {{DISK_DISCARD, 0, true},
                {DISK_DISCARD, DISK_FUA, true},
                {DISK_WRITE_ZEROES, 0, false},
                {DISK_WRITE_ZEROES, DISK_FUA, false},
                {DISK_WRITE_ZEROES, DISK_UNMAP, true},
                {DISK_WRITE_ZEROES, DISK_UNMAP | DISK_FUA, true}};
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *in = buffer(MIB, 1), *out = buffer(MIB, 2);

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, DISK_FUA, 0, MIB, in), 0);
        blkcnt_t before = blocks_of(&rig);
        ck_assert_int_eq(disk_rig_do(&rig, ways[i].op, ways[i].flags, 65536, MIB / 2, NULL), 0);
        if (ways[i].frees)
            ck_assert_int_lt(blocks_of(&rig), before);
        else
            ck_assert_int_ge(blocks_of(&rig), before);
        ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, MIB, out), 0);
        ck_assert_mem_eq(out, in, 65536);
        ck_assert(all_zero(out + 65536, MIB / 2));
        ck_assert_mem_eq(out + 65536 + MIB / 2, in + 65536 + MIB / 2, MIB / 2 - 65536);
    }
    ck_assert_int_eq(disk_rig_do(&rig, DISK_SECURE_ERASE, 0, 0, 4096, NULL), -EOPNOTSUPP);
    disk_rig_close(&rig);
    free(in);
    free(out);
}
END_TEST

START_TEST(test_truncated)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *buf = buffer(8192, 3);
    struct stat st;

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    ck_assert_int_eq(truncate(rig.path, 4096), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 65536, 4096, buf), -EIO);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, 8192, buf), -EIO); /* half of it is there */
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, 4096, buf), 0);
    /* No operation makes the image larger than it was at open. */
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, 0, MIB - 4096, 8192, buf), -EIO);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, 0, UINT64_MAX - 511, 512, buf), -EIO);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE_ZEROES, 0, MIB, 512, NULL), -EIO);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_DISCARD, 0, MIB, 512, NULL), -EIO);
    ck_assert_int_eq(stat(rig.path, &st), 0);
    ck_assert_int_eq(st.st_size, 4096);
    disk_rig_close(&rig);
    free(buf);
}
END_TEST

START_TEST(test_readonly)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *buf = buffer(4096, 3);

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, true);
    ck_assert(disk_geometry(rig.disk)->readonly);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, 4096, buf), 0);
    ck_assert(all_zero(buf, 4096));
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, 0, 0, 4096, buf), -EROFS);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_DISCARD, 0, 0, 4096, NULL), -EROFS);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE_ZEROES, 0, 0, 4096, NULL), -EROFS);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), 0);
    disk_rig_close(&rig);
    free(buf);
}
END_TEST

/* A write that crosses RLIMIT_FSIZE moves short, then fails; the part below the limit is on disk. */
START_TEST(test_short_write)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *in = buffer(65536, 5), *out = buffer(65536, 6);
    struct rlimit old, low = {.rlim_cur = 32768, .rlim_max = RLIM_INFINITY};

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
    int result = disk_rig_do(&rig, DISK_WRITE, 0, 0, 65536, in);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(result, -EFBIG);
    disk_rig_peek(&rig, out, 0, 65536);
    ck_assert_mem_eq(in, out, 32768);
    ck_assert(all_zero(out + 32768, 32768));
    disk_rig_close(&rig);
    free(in);
    free(out);
}
END_TEST

START_TEST(test_no_space)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *buf = buffer(MIB, 5);

    disk_rig_dir = "/tmp/minivmm-small";
    (void)mkdir(disk_rig_dir, 0700);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("small", disk_rig_dir, "tmpfs", 0, "size=256k")) {
        printf("# SKIP test_no_space: no mount namespace here (%s); needs root\n", strerror(errno));
        return;
    }
    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, 0, 0, MIB, buf), -ENOSPC);
    /* ZERO_RANGE is unknown to tmpfs: zeroes are written, and run out of space too. */
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE_ZEROES, 0, 0, MIB, NULL), -ENOSPC);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_DISCARD, 0, 0, MIB, NULL), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, DISK_FUA, MIB / 2, 131072, buf), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE_ZEROES, DISK_FUA, MIB / 2 + 512, 130048, NULL), 0);
    disk_rig_peek(&rig, buf + 131072, MIB / 2, 131072);
    ck_assert_mem_eq(buf, buf + 131072, 512);
    ck_assert(all_zero(buf + 131072 + 512, 130048));
    disk_rig_close(&rig);
    (void)umount(disk_rig_dir);
    disk_rig_dir = "/tmp";
    free(buf);
}
END_TEST

/* Buffers, lengths and offsets that direct I/O doesn't take, mixed with some that it does. */
START_TEST(test_direct)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *in = buffer(MIB + 4096, 5), *out = buffer(MIB + 4096, 6);

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, true, false);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, DISK_FUA, 0, MIB, in), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, MIB, out + 3), 0);
    ck_assert_mem_eq(in, out + 3, MIB);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, 0, 512, 65536, in + 1), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, MIB, out), 0);
    ck_assert_mem_eq(out, in, 512);
    ck_assert_mem_eq(out + 512, in + 1, 65536);
    ck_assert_mem_eq(out + 512 + 65536, in + 512 + 65536, MIB - 512 - 65536);
    disk_rig_close(&rig);
    free(in);
    free(out);
}
END_TEST

static void woken(void *arg)
{
    ++*(unsigned *)arg;
}

START_TEST(test_watches)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    struct err err;
    unsigned woke[4] = {0};
    int fd[4];

    disk_rig_image(&rig, MIB);
    struct disk_config config = {.path = rig.path, .fd = -1, .lock = true, .engine = engine};
    ck_assert_int_eq(disk_open(&config, &rig.disk, &err), 0);
    ck_assert_int_eq(disk_queue_open(rig.disk, 2, &rig.queue, &err), 0);
    for (unsigned i = 0; i < 4; i++) {
        fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        ck_assert_int_eq(disk_queue_watch(rig.queue, fd[i], woken, &woke[i]), 0);
    }
    ck_assert_int_eq(disk_queue_watch(rig.queue, fd[0], woken, NULL), -ENOSPC);
    ck_assert_int_eq(eventfd_write(fd[3], 5), 0); /* before attach: not lost */
    ck_assert_int_eq(disk_queue_attach(rig.queue), 0);
    ck_assert_int_eq(disk_queue_run(rig.queue, true), 0);
    ck_assert_uint_eq(woke[3], 1);
    for (unsigned round = 1; round <= 100; round++) {
        ck_assert_int_eq(eventfd_write(fd[round % 3], 1), 0);
        ck_assert_int_eq(disk_queue_run(rig.queue, true), 0);
        ck_assert_uint_eq(woke[0] + woke[1] + woke[2], round);
        eventfd_t count;
        ck_assert_int_eq(eventfd_read(fd[round % 3], &count), -1); /* it was cleared */
    }
    ck_assert_int_eq(disk_queue_run(rig.queue, false), 0); /* returns with nothing to do */
    ck_assert_uint_eq(woke[3], 1);
    for (unsigned i = 0; i < 4; i++)
        (void)close(fd[i]);
    disk_rig_close(&rig);
}
END_TEST

static unsigned zeroes_over;

static void zeroes_done(struct disk_io *io, int result)
{
    (void)io;
    ck_assert_int_eq(result, -ECANCELED);
    zeroes_over++;
}

/* Zeroes that tmpfs can only write: what waits and what has begun ends, and what is short goes on. */
START_TEST(test_cancel_long)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    unsigned char *data = buffer(4096, 5);
    static const enum disk_op ops[] = {DISK_WRITE_ZEROES, DISK_DISCARD};

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    disk_queue_cancel_long(rig.queue, true);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(disk_rig_do(&rig, ops[i], 0, 0, MIB, NULL), -ECANCELED);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, DISK_FUA, 0, 4096, data), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 0, 4096, data), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), 0);
    disk_queue_cancel_long(rig.queue, false);
    /* Begun before it was called off. */
    zeroes_over = 0;
    struct disk_io io = {.op = DISK_WRITE_ZEROES, .length = MIB, .done = zeroes_done};
    disk_queue_submit(rig.queue, &io);
    disk_queue_cancel_long(rig.queue, true);
    while (!zeroes_over)
        ck_assert_int_eq(disk_queue_run(rig.queue, true), 0);
    disk_queue_cancel_long(rig.queue, false);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE_ZEROES, 0, 0, MIB, NULL), 0);
    disk_rig_close(&rig);
    free(data);
}
END_TEST

static int sync_result; /* what fdatasync() says: 0, or an errno */
static unsigned syncs;

/* In front of libc's: a host whose storage fails can't be had otherwise. */
int fdatasync(int fd)
{
    syncs++;
    errno = sync_result;
    return sync_result ? -1 : fsync(fd);
}

/* The kernel reports lost writes once; whoever asks later, on whatever queue, must hear of them as well. */
START_TEST(test_failed_sync_stays_failed)
{
    const enum disk_engine engine = engine_of(_i);
    struct disk_rig rig;
    struct err err;
    unsigned char *data = buffer(4096, 5), *back = buffer(4096, 6);

    disk_rig_image(&rig, MIB);
    disk_rig_open(&rig, engine, 4, false, false);
    struct disk_rig other = {.disk = rig.disk};
    ck_assert_int_eq(disk_queue_open(rig.disk, 2, &other.queue, &err), 0);
    ck_assert_int_eq(disk_queue_attach(other.queue), 0);
    syncs = 0;
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), 0);
    ck_assert_uint_eq(syncs, 1);
    sync_result = EIO;
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), -EIO);
    sync_result = 0;
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), -EIO);
    ck_assert_int_eq(disk_rig_do(&other, DISK_FLUSH, 0, 0, 0, NULL), -EIO);
    ck_assert_int_eq(disk_rig_do(&other, DISK_WRITE, DISK_FUA, 0, 4096, data), -EIO);
    ck_assert_int_eq(disk_rig_do(&other, DISK_WRITE_ZEROES, DISK_FUA, 0, 4096, NULL), -EIO);
    /* Nothing stable is asked of these. */
    ck_assert_int_eq(disk_rig_do(&other, DISK_WRITE, 0, 4096, 4096, data), 0);
    ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, DISK_FUA, 4096, 4096, back), 0);
    ck_assert_mem_eq(data, back, 4096);
    disk_queue_close(other.queue);
    disk_rig_close(&rig);
    free(data);
    free(back);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_write_then_read, test_many_iovecs, test_depth,       test_deallocation,
                                  test_truncated,       test_readonly,    test_short_write, test_no_space,
                                  test_direct,          test_watches};
    Suite *s = suite_create("disk");
    TCase *t = tcase_create("both engines");

    tcase_set_timeout(t, 60);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_loop_test(t, tests[i], 0, tests[i] == test_no_space || tests[i] == test_direct ? 2 : 4);
    /* The second not with io_uring on disk: there the kernel syncs by itself. */
    tcase_add_loop_test(t, test_cancel_long, 2, 4);
    tcase_add_loop_test(t, test_failed_sync_stays_failed, 1, 4);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
