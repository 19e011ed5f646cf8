/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's way from descriptor chain to used ring (VIRTIO 1.3, 5.2.6). Headers and ranges are copied out
 * of guest memory once and checked in the copy; only data moves straight between guest memory and disk.
 *
 * used.len follows 2.7.8.2 to the letter: it counts bytes written without a gap from the start of the
 * writable part. So a refused request whose buffer stays untouched has 0, though its status byte is written;
 * a chain whose writable part is the status alone has 1.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/blk.h"
#include "minivmm/bytes.h"

/* What is left of one direction of a chain while it is parsed. */
struct segments {
    struct iovec *iov;
    unsigned count;
    uint64_t bytes;
};

struct header {
    uint32_t type;
    uint64_t sector;
};

/* Copies the first len bytes out; the caller has checked that there are as many. */
static void take_front(struct segments *s, void *to, size_t len)
{
    uint8_t *at = to;

    s->bytes -= len;
    while (len) {
        size_t n = s->iov->iov_len < len ? s->iov->iov_len : len;
        memcpy(at, s->iov->iov_base, n);
        at += n;
        len -= n;
        s->iov->iov_base = (uint8_t *)s->iov->iov_base + n;
        s->iov->iov_len -= n;
        if (!s->iov->iov_len) {
            s->iov++;
            s->count--;
        }
    }
}

/* Cuts the last byte off and returns where it is; the caller has checked that there is one. */
static uint8_t *take_last(struct segments *s)
{
    struct iovec *last = &s->iov[s->count - 1];
    uint8_t *byte = (uint8_t *)last->iov_base + --last->iov_len;

    s->bytes--;
    if (!last->iov_len)
        s->count--;
    return byte;
}

static void put_front(const struct segments *s, const void *from, size_t len)
{
    const uint8_t *at = from;

    for (unsigned i = 0; len; i++) {
        size_t n = s->iov[i].iov_len < len ? s->iov[i].iov_len : len;
        memcpy(s->iov[i].iov_base, at, n);
        at += n;
        len -= n;
    }
}

static bool negotiated(const struct blk_request *r, unsigned feature)
{
    return r->queue->block->dev.features & VIRTIO_BIT(feature);
}

/* The end of every request: status byte after data, used entry after status, storage back to the slab. */
static void answer(struct blk_request *r, uint8_t status)
{
    struct blk_queue *q = r->queue;
    struct block_counters *c = &q->block->counters;
    bool whole = r->written == r->room;

    if (status == VIRTIO_BLK_S_IOERR)
        blk_count(&c->errors, 1);
    else if (status == VIRTIO_BLK_S_UNSUPP)
        blk_count(&c->unsupported, 1);
    *r->status = status;
    virtqueue_push(&q->vq->vq, r->head, (uint32_t)(r->written + (whole ? 1 : 0)));
    q->answered = true;
    blk_request_free(r);
}

static const char *op_name(enum disk_op op)
{
    static const char *const names[] = {[DISK_READ] = "read",
                                        [DISK_WRITE] = "write",
                                        [DISK_FLUSH] = "flush",
                                        [DISK_DISCARD] = "discard",
                                        [DISK_WRITE_ZEROES] = "write-zeroes",
                                        [DISK_SECURE_ERASE] = "secure-erase"};
    return names[op];
}

static void count_success(const struct blk_request *r)
{
    struct block_counters *c = &r->queue->block->counters;

    switch (r->io.op) {
    case DISK_READ:
        blk_count(&c->read_bytes, r->io.length);
        break;
    case DISK_WRITE:
        blk_count(&c->written_bytes, r->io.length);
        break;
    case DISK_FLUSH:
        blk_count(&c->flushes, 1);
        break;
    case DISK_DISCARD:
    case DISK_SECURE_ERASE:
        blk_count(&c->discards, 1);
        break;
    case DISK_WRITE_ZEROES:
        blk_count(&c->write_zeroes, 1);
        break;
    }
}

/* Stage 3. A read that failed half-way gives zeroes, not the part that came. */
static void complete(struct blk_request *r, int result)
{
    struct block *block = r->queue->block;

    if (r->io.op == DISK_READ) {
        for (unsigned i = 0; result && i < r->buffer_count; i++)
            memset(r->buffers[i].iov_base, 0, r->buffers[i].iov_len);
        r->written = r->io.length;
    }
    if (!result) {
        count_success(r);
        answer(r, VIRTIO_BLK_S_OK);
        return;
    }
    log_warn_limited(&block->failures, "%s: %s of %llu bytes at sector %llu failed: %s", block->name,
                     op_name(r->io.op), (unsigned long long)r->io.length,
                     (unsigned long long)(r->io.offset / DISK_SECTOR), strerrordesc_np(-result));
    answer(r, VIRTIO_BLK_S_IOERR);
}

/* Stage 2 for requests that are a row of ranges. False when no range is left. */
static bool submit_next_range(struct blk_request *r)
{
    while (r->range_next < r->range_count) {
        const struct blk_range *range = &r->ranges[r->range_next++];
        if (!range->sectors)
            continue;
        r->io.offset = range->sector * DISK_SECTOR;
        r->io.length = (uint64_t)range->sectors * DISK_SECTOR;
        if (r->io.op == DISK_WRITE_ZEROES)
            r->io.flags = (r->io.flags & ~DISK_UNMAP) | range->flags;
        disk_queue_submit(r->queue->disk_queue, &r->io);
        return true;
    }
    return false;
}

static bool is_transfer(const struct disk_io *io)
{
    return io->op == DISK_READ || io->op == DISK_WRITE;
}

static void io_done(struct disk_io *io, int result)
{
    struct blk_request *r = container_of(io, struct blk_request, io);

    if (is_transfer(io))
        r->queue->transfers--;
    if (!result && submit_next_range(r))
        return;
    complete(r, result);
}

/* Stage 2. */
static enum blk_verdict submit(struct blk_request *r)
{
    r->io.done = io_done;
    if (r->range_count) {
        if (submit_next_range(r))
            return BLK_SUBMITTED;
        complete(r, 0);
        return BLK_ANSWERED;
    }
    if (is_transfer(&r->io))
        r->queue->transfers++;
    disk_queue_submit(r->queue->disk_queue, &r->io);
    return BLK_SUBMITTED;
}

static enum blk_verdict answer_now(struct blk_request *r, uint8_t status)
{
    answer(r, status);
    return BLK_ANSWERED;
}

/*
 * What a write needs to be stable once it is completed (5.2.6.2): everything is write-through for a driver
 * that can't flush, or while the cache is switched off. Read anew for each request: the switch is a register.
 */
static unsigned durability(const struct blk_request *r)
{
    bool cached = negotiated(r, VIRTIO_BLK_F_FLUSH) &&
                  atomic_load_explicit(&r->queue->block->writeback, memory_order_acquire);
    return cached ? 0 : DISK_FUA;
}

/* Where sectors [sector, sector + bytes / 512) lie in the image, if they lie in it. */
static bool locate(const struct blk_request *r, uint64_t sector, uint64_t bytes, uint64_t *offset)
{
    return !__builtin_mul_overflow(sector, (uint64_t)DISK_SECTOR, offset) &&
           disk_range_ok(r->queue->block->disk, *offset, bytes);
}

/*
 * IN and OUT. A transfer of no bytes inside the capacity succeeds: nothing was asked for that could fail. One
 * that used.len could not count (2^32 bytes and more) is refused in either direction.
 */
static enum blk_verdict parse_transfer(struct blk_request *r, const struct header *h,
                                       const struct segments *data, enum disk_op op)
{
    if (data->bytes % DISK_SECTOR || data->bytes >= UINT32_MAX ||
        !locate(r, h->sector, data->bytes, &r->io.offset))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    if (!data->bytes)
        return answer_now(r, VIRTIO_BLK_S_OK);
    size_t size = data->count * sizeof(struct iovec);
    struct iovec *copy = blk_request_storage(r, op == DISK_READ ? 2 * size : size);
    memcpy(copy, data->iov, size);
    r->io.op = op;
    r->io.length = data->bytes;
    r->io.iov = copy;
    r->io.iovcnt = data->count;
    if (op == DISK_READ) {
        r->buffers = memcpy(copy + data->count, data->iov, size);
        r->buffer_count = data->count;
    } else {
        r->io.flags = durability(r);
    }
    return submit(r);
}

/* Copies one range in and checks it: a status, VIRTIO_BLK_S_OK when it can be carried out. */
static uint8_t take_range(struct blk_request *r, struct segments *data, struct blk_range *range)
{
    uint8_t raw[sizeof(struct virtio_blk_discard_write_zeroes)];
    uint64_t offset;

    take_front(data, raw, sizeof(raw));
    range->sector = load_le64(raw);
    range->sectors = load_le32(raw + 8);
    uint32_t flags = load_le32(raw + 12);
    bool unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (unmap && r->io.op != DISK_WRITE_ZEROES))
        return VIRTIO_BLK_S_UNSUPP;
    if (range->sectors > BLK_RANGE_SECTORS_MAX ||
        !locate(r, range->sector, (uint64_t)range->sectors * DISK_SECTOR, &offset))
        return VIRTIO_BLK_S_IOERR;
    range->flags = unmap && r->queue->block->geometry->can_write_zeroes_unmap ? DISK_UNMAP : 0;
    return VIRTIO_BLK_S_OK;
}

/* All ranges are checked before the first is touched. */
static enum blk_verdict parse_ranges(struct blk_request *r, struct segments *data, enum disk_op op)
{
    uint64_t count = data->bytes / sizeof(struct blk_range);

    if (!count || count > BLK_RANGES_MAX || data->bytes % sizeof(struct blk_range))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    r->io.op = op;
    r->io.flags = op == DISK_SECURE_ERASE ? 0 : durability(r);
    r->ranges = blk_request_storage(r, count * sizeof(struct blk_range));
    r->range_count = (unsigned)count;
    for (unsigned i = 0; i < r->range_count; i++) {
        uint8_t status = take_range(r, data, &r->ranges[i]);
        if (status != VIRTIO_BLK_S_OK)
            return answer_now(r, status);
    }
    return submit(r);
}

static enum blk_verdict parse_flush(struct blk_request *r)
{
    r->io.op = DISK_FLUSH;
    return submit(r);
}

static enum blk_verdict parse_get_id(struct blk_request *r, const struct segments *buffer)
{
    const char *serial = r->queue->block->serial;

    if (buffer->bytes < VIRTIO_BLK_ID_BYTES)
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    put_front(buffer, serial, VIRTIO_BLK_ID_BYTES);
    r->written = VIRTIO_BLK_ID_BYTES;
    return answer_now(r, VIRTIO_BLK_S_OK);
}

static bool changes_disk(uint32_t type)
{
    return type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES ||
           type == VIRTIO_BLK_T_SECURE_ERASE;
}

/* What a driver may only ask for after it negotiated the feature. */
static bool permitted(const struct blk_request *r, uint32_t type)
{
    switch (type) {
    case VIRTIO_BLK_T_FLUSH:
        return negotiated(r, VIRTIO_BLK_F_FLUSH);
    case VIRTIO_BLK_T_DISCARD:
        return negotiated(r, VIRTIO_BLK_F_DISCARD);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return negotiated(r, VIRTIO_BLK_F_WRITE_ZEROES);
    case VIRTIO_BLK_T_SECURE_ERASE:
        return negotiated(r, VIRTIO_BLK_F_SECURE_ERASE);
    default:
        return true;
    }
}

/* Stage 1, behind the header. */
static enum blk_verdict parse(struct blk_request *r, const struct header *h, struct segments *in,
                              struct segments *out)
{
    if (changes_disk(h->type) && r->queue->block->geometry->readonly)
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    if (!permitted(r, h->type))
        return answer_now(r, VIRTIO_BLK_S_UNSUPP);
    switch (h->type) {
    case VIRTIO_BLK_T_IN:
        return parse_transfer(r, h, out, DISK_READ);
    case VIRTIO_BLK_T_OUT:
        return parse_transfer(r, h, in, DISK_WRITE);
    case VIRTIO_BLK_T_FLUSH:
        return parse_flush(r);
    case VIRTIO_BLK_T_GET_ID:
        return parse_get_id(r, out);
    case VIRTIO_BLK_T_DISCARD:
        return parse_ranges(r, in, DISK_DISCARD);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return parse_ranges(r, in, DISK_WRITE_ZEROES);
    case VIRTIO_BLK_T_SECURE_ERASE:
        return parse_ranges(r, in, DISK_SECURE_ERASE);
    default: /* GET_LIFETIME too: no host tells us the wear of an image, so the feature is never offered */
        return answer_now(r, VIRTIO_BLK_S_UNSUPP);
    }
}

enum blk_verdict blk_request_start(struct blk_request *r, const struct virtqueue_chain *chain)
{
    struct segments in = {chain->iov, chain->readable, chain->readable_bytes};
    struct segments out = {chain->iov + chain->readable, chain->writable, chain->writable_bytes};
    uint8_t raw[BLK_HEADER_SIZE];

    if (!out.bytes)
        return BLK_BROKEN;
    r->head = chain->head;
    r->status = take_last(&out);
    r->room = out.bytes;
    r->written = 0;
    r->io.flags = 0;
    r->io.offset = r->io.length = 0;
    r->io.iovcnt = 0;
    r->range_count = r->range_next = 0;
    blk_count(&r->queue->block->counters.requests, 1);
    if (in.bytes < sizeof(raw))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    take_front(&in, raw, sizeof(raw));
    struct header h = {.type = load_le32(raw), .sector = load_le64(raw + 8)};
    return parse(r, &h, &in, &out);
}
