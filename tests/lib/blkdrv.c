/* SPDX-License-Identifier: Apache-2.0 */
#include "blkdrv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "blkdrv: %s\n", what);
    abort();
}

uint8_t rig_fill(uint64_t sector)
{
    return (uint8_t)(1 + sector % 251);
}

static int make_image(void)
{
    uint8_t sector[DISK_SECTOR];
    int fd = memfd_create("rig", MFD_CLOEXEC);

    must(fd >= 0, "no memory for an image");
    for (uint64_t i = 0; i < RIG_SECTORS; i++) {
        memset(sector, rig_fill(i), sizeof(sector));
        must(write(fd, sector, sizeof(sector)) == (ssize_t)sizeof(sector), "can't fill the image");
    }
    return fd;
}

static void open_device(struct rig *rig, const struct rig_options *o)
{
    struct err err = {""};
    struct disk_config disk = {
        .path = "rig", .fd = dup(rig->image), .readonly = o->readonly, .engine = o->engine};
    struct block_config config = {.index = o->index,
                                  .queues = rig->queues,
                                  .queue_size = rig->queue_size,
                                  .serial = RIG_SERIAL,
                                  .writeback = !o->writethrough,
                                  .discard = !o->no_discard,
                                  .write_zeroes = !o->no_write_zeroes,
                                  .ice = o->ice,
                                  .ice_first = o->ice_first,
                                  .ice_count = o->ice_count,
                                  .ice_required = o->ice_required,
                                  .transparent = o->transparent};

    must(!disk_open(&disk, &rig->disk, &err), err.text);
    config.disk = rig->disk;
    must(!block_create(&config, &rig->g->mem, &rig->block, &err), err.text);
    rig->line = event_open();
    must(rig->line >= 0, "no eventfd");
    must(!virtio_mmio_create(block_device(rig->block), rig->line, &rig->mmio, &err), err.text);
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
    memset(rig, 0, sizeof(*rig));
    rig->queues = options->queues ? options->queues : 1;
    rig->queue_size = options->queue_size ? options->queue_size : 64;
    rig->g = options->share;
    if (!rig->g) {
        guest_init(&rig->own, 16u << 20);
        rig->g = &rig->own;
    }
    rig->image = make_image();
    open_device(rig, options);
    for (unsigned i = 0; i < rig->queues; i++) {
        ring_init(&rig->ring[i], rig->g, rig->queue_size, true);
        rig->ring[i].kick_fd = block_device(rig->block)->queue[i].kick_fd;
    }
    rig->header = guest_alloc(rig->g, 64, 16);
    rig->status = guest_alloc(rig->g, 1, 1);
    rig->data = guest_alloc(rig->g, RIG_DATA_SIZE, 4096);
}

void rig_close(struct rig *rig)
{
    mmio_reset(rig->mmio); /* a queue thread may still be raising the interrupt that the test has seen */
    virtio_mmio_destroy(rig->mmio);
    block_destroy(rig->block);
    disk_close(rig->disk);
    close(rig->line);
    close(rig->image);
    if (rig->g == &rig->own)
        guest_free(&rig->own);
}

void rig_start(struct rig *rig, uint64_t drop)
{
    uint64_t features = mmio_offered(rig->mmio) & ~drop;

    must(mmio_negotiate(rig->mmio, features), "the device refused the features");
    for (unsigned i = 0; i < rig->queues; i++) {
        rig->ring[i].event_idx = features & VIRTIO_F_BIT_EVENT_IDX;
        ring_restart(&rig->ring[i]);
        must(mmio_queue(rig->mmio, i, &rig->ring[i]), "the device refused a queue");
    }
    mmio_driver_ok(rig->mmio);
}

uint8_t *rig_at(struct rig *rig, uint64_t gpa)
{
    return guest_ptr(rig->g, gpa);
}

void rig_header(struct rig *rig, uint64_t at, uint32_t type, uint64_t sector)
{
    store_le32(rig_at(rig, at), type);
    store_le32(rig_at(rig, at) + 4, 0);
    store_le64(rig_at(rig, at) + 8, sector);
}

int rig_chain(struct rig *rig, const struct ring_buffer *buf, unsigned count, enum ring_framing framing)
{
    *rig_at(rig, rig->status) = RIG_LATER;
    if (ring_submit(&rig->ring[0], buf, count, framing) < 0 || !ring_wait(&rig->ring[0], NULL, &rig->len))
        return -1;
    return *rig_at(rig, rig->status);
}

void rig_ice_header(struct rig *rig, uint64_t at, uint32_t type, uint64_t sector, struct rig_ice ice)
{
    uint8_t *header = rig_at(rig, at);

    rig_header(rig, at, type, sector);
    store_le32(header + 4, 0x11223344);
    header[16] = ice.slot;
    header[17] = ice.activate;
    store_le16(header + 18, 0x5566);
    store_le32(header + 20, 0x778899aa);
    store_le64(header + 24, ice.dun);
}

static int request(struct rig *rig, uint32_t header, uint32_t length, bool to_device)
{
    struct ring_buffer buf[] = {
        {rig->header, header, false}, {rig->data, length, !to_device}, {rig->status, 1, true}};

    if (!length)
        buf[1] = buf[2];
    return rig_chain(rig, buf, length ? 3 : 2, RING_DIRECT);
}

int rig_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t length, bool to_device)
{
    rig_header(rig, rig->header, type, sector);
    return request(rig, 16, length, to_device);
}

int rig_ice_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t length, bool to_device,
                    struct rig_ice ice)
{
    rig_ice_header(rig, rig->header, type, sector, ice);
    return request(rig, RIG_ICE_HEADER, length, to_device);
}

void rig_image_read(const struct rig *rig, uint64_t offset, void *to, size_t len)
{
    must(pread(rig->image, to, len, (off_t)offset) == (ssize_t)len, "can't read the image");
}

void rig_image_write(const struct rig *rig, uint64_t offset, const void *from, size_t len)
{
    must(pwrite(rig->image, from, len, (off_t)offset) == (ssize_t)len, "can't write the image");
}
