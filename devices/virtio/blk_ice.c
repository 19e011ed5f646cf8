/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the crypto engine adds to a request (docs/ice-spec.md, 3 to 6 and 9). All checks come before any byte
 * moves. Guest memory never holds what the guest must not see: a write is encrypted into private memory, so
 * that the guest's buffer stays as it was, and a read in transparent mode is decrypted out of private memory.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/blk.h"
#include "minivmm/bytes.h"

static int check_window(const struct block_config *config, struct err *err)
{
    unsigned first = config->ice_first, count = config->ice_count;

    if (count > ICE_WINDOW_MAX || first >= ICE_SLOTS_MAX || count > ICE_SLOTS_MAX - first)
        return err_set(err, -EINVAL, "disk%u: a window of %u keyslots from %u on is not within 0 to %u",
                       config->index, count, first, ICE_SLOTS_MAX - 1);
    for (unsigned slot = first; slot < first + count; slot++) {
        bool guest = false;
        if (ice_slot_owner(config->ice, slot, &guest) != (int)config->index || !guest)
            return err_set(err, -EINVAL, "disk%u: keyslot %u of its window was not given to its guest",
                           config->index, slot);
    }
    return 0;
}

static int check_operator_key(const struct block_config *config, struct err *err)
{
    const struct block_transparent *t = &config->transparent;
    struct ice_spec spec;
    bool guest = true;

    if (ice_slot_owner(config->ice, t->slot, &guest) != (int)config->index || guest)
        return err_set(err, -EINVAL, "disk%u: keyslot %u is not an operator's slot of this disk",
                       config->index, t->slot);
    if (!ice_slot_programmed(config->ice, t->slot, &spec))
        return err_set(err, -EINVAL, "disk%u: keyslot %u, which encrypts it, holds no key", config->index,
                       t->slot);
    if (ice_unit_size(&spec) != t->unit)
        return err_set(err, -EINVAL,
                       "disk%u: the key in slot %u is for data units of %u bytes, the disk's have %u",
                       config->index, t->slot, ice_unit_size(&spec), t->unit);
    return 0;
}

static uint64_t data_size(const struct block_config *config)
{
    const struct block_transparent *t = &config->transparent;
    uint64_t image = disk_geometry(config->disk)->capacity;

    return t->unit && t->data_size ? t->data_size : image - t->data_offset;
}

static uint64_t iv_stride(const struct block_transparent *t)
{
    return t->iv_large ? 1 : t->unit / DISK_SECTOR;
}

static int check_segment(const struct block_config *config, struct err *err)
{
    const struct block_transparent *t = &config->transparent;
    uint64_t image = disk_geometry(config->disk)->capacity;

    if (t->unit < ICE_UNIT_MIN || t->unit > BLK_TRANSPARENT_UNIT_MAX || t->unit & (t->unit - 1))
        return err_set(err, -EINVAL, "disk%u: a data unit of %u bytes: 512, 1024, 2048 and 4096 are possible",
                       config->index, t->unit);
    if (t->data_offset % DISK_SECTOR || t->data_offset >= image)
        return err_set(err, -EINVAL,
                       "disk%u: its data begin at byte %llu: that must be a multiple of 512 inside the image "
                       "of %llu bytes",
                       config->index, (unsigned long long)t->data_offset, (unsigned long long)image);
    uint64_t size = data_size(config);
    if (size > image - t->data_offset)
        return err_set(err, -EINVAL,
                       "disk%u: %llu bytes of data from byte %llu on are more than the image has",
                       config->index, (unsigned long long)size, (unsigned long long)t->data_offset);
    if (size % t->unit)
        return err_set(err, -EINVAL, "disk%u: %llu bytes of data are not a multiple of the unit of %u bytes",
                       config->index, (unsigned long long)size, t->unit);
    if (!ice_dun_ok(t->iv_offset, iv_stride(t), size / t->unit))
        return err_set(err, -EINVAL, "disk%u: with an IV offset of %llu the disk's IVs pass 2^64 - 1",
                       config->index, (unsigned long long)t->iv_offset);
    return 0;
}

int blk_ice_check(const struct block_config *config, struct err *err)
{
    bool transparent = config->transparent.unit;

    if (config->ice_required && !config->ice_count)
        return err_set(err, -EINVAL, "disk%u: ice=required needs keyslots for the guest", config->index);
    if (!config->ice_count && !transparent)
        return 0;
    if (!config->ice)
        return err_set(err, -EINVAL, "disk%u: keyslots without a crypto engine", config->index);
    if (config->ice_count && transparent)
        return err_set(err, -EINVAL,
                       "disk%u: a disk that is encrypted for the guest can't give it keyslots as well",
                       config->index);
    if (!transparent)
        return check_window(config, err);
    int rc = check_segment(config, err);
    return rc ? rc : check_operator_key(config, err);
}

static void fill_capabilities(struct block *b)
{
    struct ice_spec caps[ICE_CAPS_MAX];
    unsigned count = ice_capabilities(b->ice, caps);

    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = b->caps + (size_t)i * BLK_CAP_SIZE;
        at[0] = caps[i].alg;
        at[1] = caps[i].unit_exp;
        at[2] = caps[i].key_size;
        at[3] = 0;
    }
    b->caps_size = count * BLK_CAP_SIZE;
}

void blk_ice_init(struct block *b, const struct block_config *config)
{
    b->transparent = config->transparent;
    b->data_offset = blk_is_transparent(b) ? config->transparent.data_offset : 0;
    b->capacity = data_size(config);
    b->ice_required = config->ice_required;
    if (config->ice_count || blk_is_transparent(b))
        b->ice = config->ice;
    if (!config->ice_count)
        return;
    fill_capabilities(b);
    store_le16(b->config + BLK_SLOT_INFO, (uint16_t)(config->ice_count << 8 | config->ice_first));
    store_le16(b->config + BLK_CAPABILITY_NUM, (uint16_t)(b->caps_size / BLK_CAP_SIZE));
}

/* Counts and logs a request that must not be carried out. */
static bool refuse(struct blk_request *r, _Atomic uint64_t *counter, unsigned slot, const char *why)
{
    struct block *b = r->queue->block;

    blk_count(counter, 1);
    log_warn_limited(&b->denials, "%s: request refused for keyslot %u: %s", b->name, slot, why);
    return false;
}

static bool bind(struct blk_request *r, unsigned slot, bool operator_slot)
{
    struct block *b = r->queue->block;
    struct block_counters *c = &b->counters;

    blk_count(&c->ice_requests, 1);
    switch (ice_bind(b->ice, (int)b->index, slot, operator_slot, &r->key)) {
    case 0:
        break;
    case -EPERM:
        return refuse(r, &c->ice_denied, slot, "it is not one of the disk's");
    case -ENOKEY:
        return refuse(r, &c->ice_empty, slot, "it holds no key");
    default:
        return refuse(r, &c->ice_errors, slot, "its key is being changed");
    }
    return !operator_slot || r->key.unit == b->transparent.unit ||
           refuse(r, &c->ice_errors, slot, "its new key is for another data unit size");
}

static bool activate_is_valid(struct blk_request *r, const struct blk_header *h)
{
    return h->activate <= 1 ||
           refuse(r, &r->queue->block->counters.ice_errors, h->slot, "activate is neither 0 nor 1");
}

bool blk_ice_bind(struct blk_request *r, const struct blk_header *h)
{
    struct block *b = r->queue->block;

    if (blk_is_transparent(b))
        return bind(r, b->transparent.slot, true);
    if (!activate_is_valid(r, h))
        return false;
    if (h->activate)
        return bind(r, h->slot, false);
    return !b->ice_required ||
           refuse(r, &b->counters.ice_denied, h->slot, "plaintext, where encryption is required");
}

bool blk_ice_allows_flush(struct blk_request *r, const struct blk_header *h)
{
    struct block *b = r->queue->block;

    if (!activate_is_valid(r, h))
        return false;
    if (!h->activate)
        return true;
    blk_count(&b->counters.ice_requests, 1);
    return ice_slot_allowed(b->ice, (int)b->index, h->slot, false) ||
           refuse(r, &b->counters.ice_denied, h->slot, "it is not one of the disk's");
}

bool blk_ice_fits(struct blk_request *r, const struct blk_header *h)
{
    const struct block *b = r->queue->block;
    _Atomic uint64_t *errors = &r->queue->block->counters.ice_errors;

    if (!r->key.slot)
        return true;
    if (blk_is_transparent(b))
        return (r->offset % r->key.unit == 0 && r->length % r->key.unit == 0) ||
               refuse(r, errors, b->transparent.slot, "not made of whole data units");
    if (r->length % r->key.unit)
        return refuse(r, errors, h->slot, "the length is not a multiple of the data unit size");
    r->iv = h->data_unit_num;
    r->stride = 1;
    return ice_dun_ok(r->iv, r->stride, r->length / r->key.unit) ||
           refuse(r, errors, h->slot, "the last data unit number would pass 2^64 - 1");
}

bool blk_ice_bounces(const struct blk_request *r)
{
    return r->key.slot && (r->op != DISK_READ || blk_is_transparent(r->queue->block));
}

static int crypt(struct blk_request *r, bool encrypt, const struct iovec *src, unsigned src_count,
                 const struct iovec *dst, unsigned dst_count)
{
    int rc = ice_crypt(&r->key, r->queue->index, encrypt, r->iv, r->stride, src, src_count, dst, dst_count,
                       r->io.length);
    if (rc)
        blk_count(&r->queue->block->counters.ice_errors, 1);
    return rc;
}

int blk_ice_decrypt(struct blk_request *r)
{
    return crypt(r, false, r->buffers, r->buffer_count, r->buffers, r->buffer_count);
}

/* The chunk's data through the cipher, between the guest's buffers and the bounce buffer. */
static int crypt_chunk(struct blk_request *r)
{
    struct iovec bounce = {r->bounce, r->io.length};

    if (r->op == DISK_WRITE_ZEROES) {
        memset(r->bounce, 0, r->io.length);
        return crypt(r, true, &bounce, 1, &bounce, 1);
    }
    struct iovec *first = &r->buffers[r->at_buffer], whole = *first;
    unsigned count = r->buffer_count - r->at_buffer;
    first->iov_base = (uint8_t *)whole.iov_base + r->at_byte;
    first->iov_len = whole.iov_len - r->at_byte;
    int rc = r->op == DISK_WRITE ? crypt(r, true, first, count, &bounce, 1)
                                 : crypt(r, false, &bounce, 1, first, count);
    *first = whole;
    return rc;
}

/* Moves on behind the chunk just carried out. */
static void advance(struct blk_request *r)
{
    size_t left = r->io.length;

    r->left -= left;
    r->io.offset += left;
    r->iv += left / r->key.unit * r->stride;
    while (left && r->at_buffer < r->buffer_count) {
        size_t part = r->buffers[r->at_buffer].iov_len - r->at_byte;
        if (part > left) {
            r->at_byte += left;
            return;
        }
        left -= part;
        r->at_buffer++;
        r->at_byte = 0;
    }
}

static void chunk_done(struct disk_io *io, int result);

static void end(struct blk_request *r, int result)
{
    blk_bounce_give(r);
    blk_request_done(r, result);
}

static void submit_chunk(struct blk_request *r)
{
    r->io.op = r->op == DISK_READ ? DISK_READ : DISK_WRITE;
    r->io.length = r->left < r->pool->size ? r->left : r->pool->size;
    int rc = r->op == DISK_READ ? 0 : crypt_chunk(r);
    if (rc) {
        end(r, rc);
        return;
    }
    r->chunk = (struct iovec){r->bounce, r->io.length};
    r->io.iov = &r->chunk;
    r->io.iovcnt = 1;
    r->io.done = chunk_done;
    disk_queue_submit(r->queue->disk_queue, &r->io);
}

/* A long request ends between chunks when the driver resets the device: nobody waits for its answer. */
static void chunk_done(struct disk_io *io, int result)
{
    struct blk_request *r = container_of(io, struct blk_request, io);

    if (!result && r->op == DISK_READ)
        result = crypt_chunk(r);
    if (!result)
        advance(r);
    if (!result && r->left && worker_stopping(&r->queue->worker))
        result = -ECANCELED;
    if (!result && r->left)
        submit_chunk(r);
    else
        end(r, result);
}

void blk_ice_submit(struct blk_request *r)
{
    const struct block *b = r->queue->block;

    if (blk_is_transparent(b)) {
        r->stride = iv_stride(&b->transparent);
        r->iv = b->transparent.iv_offset + r->offset / b->transparent.unit * r->stride;
    }
    r->left = r->length;
    r->at_buffer = 0;
    r->at_byte = 0;
    r->io.offset = b->data_offset + r->offset;
    if (blk_bounce_take(r))
        submit_chunk(r);
}

void blk_ice_resume(struct blk_queue *q)
{
    for (struct blk_request *r; (r = blk_bounce_next(q));)
        submit_chunk(r);
}

void blk_ice_abandon(struct blk_queue *q)
{
    for (unsigned i = 0; i < q->touched; i++)
        ice_release(&q->requests[i].key);
}
