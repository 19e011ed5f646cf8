/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *disk_rig_dir = "/tmp";

void disk_rig_image(struct disk_rig *rig, uint64_t size)
{
    memset(rig, 0, sizeof(*rig));
    (void)snprintf(rig->path, sizeof(rig->path), "%s/minivmm-disk-XXXXXX", disk_rig_dir);
    int fd = mkstemp(rig->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    (void)close(fd);
}

void disk_rig_open(struct disk_rig *rig, enum disk_engine engine, unsigned depth, bool direct, bool readonly)
{
    struct err err = {.text = ""};
    struct disk_config config = {
        .path = rig->path, .fd = -1, .readonly = readonly, .direct = direct, .lock = true, .engine = engine};

    ck_assert_msg(!disk_open(&config, &rig->disk, &err), "%s", err.text);
    ck_assert_msg(!disk_queue_open(rig->disk, depth, &rig->queue, &err), "%s", err.text);
    ck_assert_int_eq(disk_queue_attach(rig->queue), 0);
}

void disk_rig_close(struct disk_rig *rig)
{
    disk_queue_close(rig->queue);
    disk_close(rig->disk);
    (void)unlink(rig->path);
}

struct waited {
    struct disk_io io;
    bool over;
    int result;
};

static void note(struct disk_io *io, int result)
{
    struct waited *w = (struct waited *)io;

    ck_assert(!w->over);
    w->over = true;
    w->result = result;
}

int disk_rig_do(struct disk_rig *rig, enum disk_op op, unsigned flags, uint64_t offset, uint64_t length,
                void *buf)
{
    struct iovec v = {.iov_base = buf, .iov_len = length};
    struct waited w = {.io = {.op = op,
                              .flags = flags,
                              .offset = offset,
                              .length = length,
                              .iov = buf ? &v : NULL,
                              .iovcnt = buf ? 1 : 0,
                              .done = note}};

    disk_queue_submit(rig->queue, &w.io);
    ck_assert(!w.over);
    while (!w.over)
        ck_assert_int_eq(disk_queue_run(rig->queue, true), 0);
    ck_assert_uint_eq(disk_queue_inflight(rig->queue), 0);
    return w.result;
}

void disk_rig_pattern(void *buf, uint64_t length, uint64_t seed)
{
    for (uint64_t i = 0; i + 8 <= length; i += 8) {
        uint64_t v = (seed + i) * 0x9E3779B97F4A7C15ULL;
        memcpy((char *)buf + i, &v, 8);
    }
}

void disk_rig_peek(const struct disk_rig *rig, void *buf, uint64_t offset, uint64_t length)
{
    int fd = open(rig->path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, buf, length, (off_t)offset), (ssize_t)length);
    (void)close(fd);
}
