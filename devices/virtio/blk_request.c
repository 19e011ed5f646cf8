/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's way from descriptor chain to used ring (VIRTIO 1.3, 5.2.6). Headers and ranges are copied out
 * of guest memory once and checked in the copy; only data moves straight between guest memory and disk.
 *
 * used.len counts the bytes written to the data part and the status byte (ice-spec 6), so that it is never 0:
 * a refused request whose buffer stays untouched has 1.
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

    if (status == VIRTIO_BLK_S_IOERR)
        blk_count(&c->errors, 1);
    else if (status == VIRTIO_BLK_S_UNSUPP)
        blk_count(&c->unsupported, 1);
    ice_release(&r->key);
    *r->status = status;
    virtqueue_push(&q->vq->vq, r->head, (uint32_t)(r->written + 1));
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

    switch (r->op) {
    case DISK_READ:
        blk_count(&c->read_bytes, r->length);
        break;
    case DISK_WRITE:
        blk_count(&c->written_bytes, r->length);
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

/* Stage 3. A read that failed half-way gives zeroes, not the part that came, nor ciphertext. */
static void complete(struct blk_request *r, int result)
{
    struct block *block = r->queue->block;

    if (r->op == DISK_READ) {
        for (unsigned i = 0; result && i < r->buffer_count; i++)
            memset(r->buffers[i].iov_base, 0, r->buffers[i].iov_len);
        r->written = r->length;
    }
    if (!result) {
        count_success(r);
        answer(r, VIRTIO_BLK_S_OK);
        return;
    }
    if (result != -ECANCELED) /* by a reset: nobody's failure */
        log_warn_limited(&block->failures, "%s: %s of %llu bytes at sector %llu failed: %s", block->name,
                         op_name(r->op), (unsigned long long)r->length,
                         (unsigned long long)(r->offset / DISK_SECTOR), strerrordesc_np(-result));
    answer(r, VIRTIO_BLK_S_IOERR);
}

static void io_done(struct disk_io *io, int result)
{
    struct blk_request *r = container_of(io, struct blk_request, io);

    if (!result && r->op == DISK_READ && r->key.slot)
        result = blk_ice_decrypt(r);
    blk_request_done(r, result);
}

/* Stage 2 of what the disk carries out as it is. */
static void submit_whole(struct blk_request *r)
{
    r->io.op = r->op;
    r->io.offset = r->queue->block->data_offset + r->offset;
    r->io.length = r->length;
    r->io.done = io_done;
    disk_queue_submit(r->queue->disk_queue, &r->io);
}

/* Stage 2 for requests that are a row of ranges. False when no range is left. */
static bool submit_next_range(struct blk_request *r)
{
    while (r->range_next < r->range_count) {
        const struct blk_range *range = &r->ranges[r->range_next++];
        if (!range->sectors)
            continue;
        r->offset = range->sector * DISK_SECTOR;
        r->length = (uint64_t)range->sectors * DISK_SECTOR;
        if (r->op == DISK_WRITE_ZEROES)
            r->io.flags = (r->io.flags & ~DISK_UNMAP) | range->flags;
        if (blk_ice_bounces(r))
            blk_ice_submit(r);
        else
            submit_whole(r);
        return true;
    }
    return false;
}

static bool is_transfer(const struct blk_request *r)
{
    return r->op == DISK_READ || r->op == DISK_WRITE;
}

void blk_request_done(struct blk_request *r, int result)
{
    if (is_transfer(r))
        r->queue->transfers--;
    if (!result && submit_next_range(r))
        return;
    complete(r, result);
}

/* Stage 2. */
static enum blk_verdict submit(struct blk_request *r)
{
    if (r->range_count) {
        if (!submit_next_range(r))
            complete(r, 0);
        return BLK_STARTED;
    }
    if (is_transfer(r))
        r->queue->transfers++;
    if (blk_ice_bounces(r))
        blk_ice_submit(r);
    else
        submit_whole(r);
    return BLK_STARTED;
}

static enum blk_verdict answer_now(struct blk_request *r, uint8_t status)
{
    answer(r, status);
    return BLK_STARTED;
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

/* Where sectors [sector, sector + bytes / 512) lie on the guest's disk, if they lie on it. */
static bool locate(const struct blk_request *r, uint64_t sector, uint64_t bytes, uint64_t *offset)
{
    uint64_t capacity = r->queue->block->capacity;

    return !__builtin_mul_overflow(sector, (uint64_t)DISK_SECTOR, offset) && *offset <= capacity &&
           bytes <= capacity - *offset;
}

/* Keeps the segments where they are needed: for the engine to consume, for us to come back to, or both. */
static void keep_segments(struct blk_request *r, const struct segments *data)
{
    bool whole = !blk_ice_bounces(r), both = whole && r->op == DISK_READ;
    size_t size = data->count * sizeof(struct iovec);
    struct iovec *copy = blk_request_storage(r, both ? 2 * size : size);

    memcpy(copy, data->iov, size);
    if (whole) {
        r->io.iov = copy;
        r->io.iovcnt = data->count;
    }
    if (both)
        memcpy(copy + data->count, data->iov, size);
    r->buffers = both ? copy + data->count : copy;
    r->buffer_count = data->count;
}

/*
 * IN and OUT. A transfer of no bytes inside the capacity succeeds: nothing was asked for that could fail. One
 * that used.len could not count (2^32 bytes and more) is refused in either direction.
 */
static enum blk_verdict parse_transfer(struct blk_request *r, const struct blk_header *h,
                                       const struct segments *data, enum disk_op op)
{
    r->op = op;
    r->length = data->bytes;
    if (!blk_ice_bind(r, h) || data->bytes % DISK_SECTOR || data->bytes >= UINT32_MAX ||
        !locate(r, h->sector, data->bytes, &r->offset) || !blk_ice_fits(r, h))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    if (!data->bytes)
        return answer_now(r, VIRTIO_BLK_S_OK);
    if (op == DISK_WRITE)
        r->io.flags = durability(r);
    keep_segments(r, data);
    return submit(r);
}

/* Ranges of a transparent disk are made of whole data units, as all its requests are. */
static uint32_t range_unit(const struct block *block)
{
    return blk_is_transparent(block) ? block->transparent.unit : DISK_SECTOR;
}

/* Copies one range in and checks it: a status, VIRTIO_BLK_S_OK when it can be carried out. */
static uint8_t take_range(struct blk_request *r, struct segments *data, struct blk_range *range)
{
    const struct block *block = r->queue->block;
    uint8_t raw[sizeof(struct virtio_blk_discard_write_zeroes)];
    uint64_t offset;

    take_front(data, raw, sizeof(raw));
    range->sector = load_le64(raw);
    range->sectors = load_le32(raw + 8);
    uint32_t flags = load_le32(raw + 12);
    bool unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (unmap && r->op != DISK_WRITE_ZEROES))
        return VIRTIO_BLK_S_UNSUPP;
    uint64_t bytes = (uint64_t)range->sectors * DISK_SECTOR;
    if (range->sectors > BLK_RANGE_SECTORS_MAX || !locate(r, range->sector, bytes, &offset) ||
        (offset | bytes) % range_unit(block))
        return VIRTIO_BLK_S_IOERR;
    range->flags = unmap && !r->key.slot && block->geometry->can_write_zeroes_unmap ? DISK_UNMAP : 0;
    return VIRTIO_BLK_S_OK;
}

/* All ranges are checked before the first is touched. Only zeroes of a transparent disk need a key. */
static enum blk_verdict parse_ranges(struct blk_request *r, const struct blk_header *h, struct segments *data,
                                     enum disk_op op)
{
    uint64_t count = data->bytes / sizeof(struct blk_range);

    r->op = op;
    if (!count || count > BLK_RANGES_MAX || data->bytes % sizeof(struct blk_range))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    if (op == DISK_WRITE_ZEROES && blk_is_transparent(r->queue->block) && !blk_ice_bind(r, h))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
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

static enum blk_verdict parse_flush(struct blk_request *r, const struct blk_header *h)
{
    if (!blk_ice_allows_flush(r, h))
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    r->op = DISK_FLUSH;
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

/* ice-spec 6: all capabilities or none; what is left of a longer buffer is zeroed. */
static enum blk_verdict parse_get_capabilities(struct blk_request *r, const struct segments *buffer)
{
    const struct block *block = r->queue->block;

    if (buffer->bytes < block->caps_size || buffer->bytes >= UINT32_MAX)
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    for (unsigned i = 0; i < buffer->count; i++)
        memset(buffer->iov[i].iov_base, 0, buffer->iov[i].iov_len);
    put_front(buffer, block->caps, block->caps_size);
    r->written = buffer->bytes;
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
    case VIRTIO_BLK_T_GET_CRYPTO_CAPABILITIES:
        return negotiated(r, VIRTIO_BLK_F_ICE);
    default:
        return true;
    }
}

/* Stage 1, behind the header. */
static enum blk_verdict parse(struct blk_request *r, const struct blk_header *h, struct segments *in,
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
        return parse_flush(r, h);
    case VIRTIO_BLK_T_GET_ID:
        return parse_get_id(r, out);
    case VIRTIO_BLK_T_GET_CRYPTO_CAPABILITIES:
        return parse_get_capabilities(r, out);
    case VIRTIO_BLK_T_DISCARD:
        return parse_ranges(r, h, in, DISK_DISCARD);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return parse_ranges(r, h, in, DISK_WRITE_ZEROES);
    case VIRTIO_BLK_T_SECURE_ERASE:
        return parse_ranges(r, h, in, DISK_SECURE_ERASE);
    default: /* GET_LIFETIME too: no host tells us the wear of an image, so the feature is never offered */
        return answer_now(r, VIRTIO_BLK_S_UNSUPP);
    }
}

static struct blk_header decode(const uint8_t *raw, bool ice)
{
    struct blk_header h = {.type = load_le32(raw), .sector = load_le64(raw + 8)};

    if (ice) {
        h.slot = raw[16];
        h.activate = raw[17];
        h.data_unit_num = load_le64(raw + 24);
    }
    return h;
}

enum blk_verdict blk_request_start(struct blk_request *r, const struct virtqueue_chain *chain)
{
    struct segments in = {chain->iov, chain->readable, chain->readable_bytes};
    struct segments out = {chain->iov + chain->readable, chain->writable, chain->writable_bytes};
    uint8_t raw[BLK_HEADER_SIZE_MAX];
    bool ice = negotiated(r, VIRTIO_BLK_F_ICE);
    size_t header_size = ice ? BLK_HEADER_SIZE_MAX : BLK_HEADER_SIZE;

    if (!out.bytes)
        return BLK_BROKEN;
    r->head = chain->head;
    r->status = take_last(&out);
    r->written = 0;
    r->io.flags = 0;
    r->io.iovcnt = 0;
    r->offset = r->length = 0;
    r->range_count = r->range_next = 0;
    blk_count(&r->queue->block->counters.requests, 1);
    if (in.bytes < header_size)
        return answer_now(r, VIRTIO_BLK_S_IOERR);
    take_front(&in, raw, header_size);
    struct blk_header h = decode(raw, ice);
    return parse(r, &h, &in, &out);
}
