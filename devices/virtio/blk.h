/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the block device. A request goes through three stages, all on its queue's thread:
 * parse (chain -> checked private copy), submit (to the disk engine), complete (status byte, used ring).
 * blk.c has the device, blk_queue.c the thread's loop and the slab, blk_request.c the stages; blk_ice.c
 * has what the crypto engine adds to each stage, blk_bounce.c the private memory that it works in.
 */
#ifndef MINIVMM_VIRTIO_BLK_H
#define MINIVMM_VIRTIO_BLK_H

#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/virtio/worker.h"
#include "minivmm/block.h"
#include "minivmm/disk.h"
#include "minivmm/log.h"
#include "minivmm/virtio.h"

/* VIRTIO 1.3 knows a 72-byte struct up to secure erase, zoned in 72 .. 95 and ICE in 96 .. 99 (ice-spec 3).
 */
#define BLK_CONFIG_SIZE     100u
#define BLK_HEADER_SIZE     16u
#define BLK_HEADER_SIZE_MAX 32u /* with F_ICE negotiated */
#define BLK_SLOT_INFO       96u
#define BLK_CAPABILITY_NUM  98u
#define BLK_CAP_SIZE        4u

/* ice-spec 9. */
#define BLK_TRANSPARENT_UNIT_MAX 4096u
#define BLK_T_GET_LIFETIME       10u /* younger than the kernel header of Linux 6.1 */

/* Ranges that one DISCARD, WRITE_ZEROES or SECURE_ERASE may name, and the sectors of one range (2 GiB). */
#define BLK_RANGES_MAX        32u
#define BLK_RANGE_SECTORS_MAX (4u << 20)

/*
 * The longest data segment we ask for. With the largest queue, seg_max segments of it stay below the 2^32
 * bytes that used.len can tell; a multiple of 64 KiB, so that encrypted data units are never split.
 */
#define BLK_SEGMENT_SIZE_MAX (4u << 20)

/* Segment lists up to this length lie in the request itself, longer ones in its part of the queue's area. */
#define BLK_FEW 8u

/*
 * Bounce buffers of a queue, in two sizes. Enough to keep a disk busy; what is beyond that waits its turn.
 * The larger size holds the largest data unit, and together with its ciphertext stays in a core's own cache.
 */
#define BLK_POOLS        2u
#define BLK_BOUNCE_SMALL 4096u
#define BLK_BOUNCE_LARGE 65536u
#define BLK_SMALL_COUNT  64u
#define BLK_LARGE_COUNT  16u
#define BLK_BOUNCE_MAX   BLK_SMALL_COUNT

/* One range of DISCARD, WRITE_ZEROES or SECURE_ERASE, in sectors. As large as an iovec: they share storage.
 */
struct blk_range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

/* A request's header, copied out; the ICE part (ice-spec 4) is zero where F_ICE was not negotiated. */
struct blk_header {
    uint32_t type;
    uint64_t sector;
    uint8_t slot, activate;
    uint64_t data_unit_num;
};

struct blk_queue;
struct blk_request;

/* Bounce buffers of one size. The last one given back is taken first, since it is still in the cache. */
struct blk_pool {
    uint8_t *memory;
    uint32_t size; /* bytes of one buffer, a power of two */
    unsigned free_count;
    uint8_t free[BLK_BOUNCE_MAX];
    struct blk_request *first, **last; /* requests that wait for a buffer, in their order */
};

struct blk_request {
    struct disk_io io;
    enum disk_op op; /* what the driver asked for; what io does for it may differ */
    struct blk_queue *queue;
    struct blk_request *next; /* in the free list, or waiting for a bounce buffer */
    uint8_t *status;          /* guest memory; written last */
    uint64_t written;         /* bytes in front of the status byte that hold an answer */
    uint64_t offset, length;  /* bytes of the whole request, or range, as the guest counts */
    uint16_t head;
    /*
     * The guest's buffers, kept apart from the copy that the engine consumes: of a READ, and of a WRITE that
     * is encrypted, where the engine never sees them.
     */
    struct iovec *buffers;
    unsigned buffer_count;
    /* The crypto engine's part. */
    struct ice_binding key; /* held from parse to answer; no slot: plaintext was asked for */
    uint64_t iv, stride;    /* IV of the next data unit, and the step to the one after it */
    struct blk_pool *pool;  /* where the data goes through bounce buffers, a chunk at a time */
    uint8_t *bounce;
    struct iovec chunk;
    uint64_t left;      /* bytes behind the chunks that were carried out */
    unsigned at_buffer; /* where in buffers the next chunk begins */
    size_t at_byte;
    /* DISCARD, WRITE_ZEROES, SECURE_ERASE: checked ranges, carried out one after the other. */
    struct blk_range *ranges;
    unsigned range_count, range_next;
    union {
        struct iovec iov[BLK_FEW];
        struct blk_range range[BLK_FEW];
    } few;
};

struct block;

struct blk_queue {
    struct block *block;
    struct virtio_queue *vq;
    struct disk_queue *disk_queue;
    struct worker worker;
    unsigned index;
    bool broken;        /* the driver broke the ring: no more requests until reset */
    bool dead;          /* the disk engine failed for good, with requests of ours in it */
    bool answered;      /* used entries wait for virtqueue_publish() */
    unsigned transfers; /* READs and WRITEs in flight or waiting for a bounce buffer */
    /* One mapping: requests, the segments of the chain being parsed, and a long list for each request. */
    void *slab;
    size_t slab_size, list_size;
    struct blk_request *requests, *free;
    unsigned touched; /* requests that were ever used */
    struct iovec *scratch;
    uint8_t *lists;
    /* One mapping for both pools; NULL where the disk has no crypto engine. */
    uint8_t *bounce;
    struct blk_pool pool[BLK_POOLS]; /* by size, rising */
};

struct block {
    struct virtio_device dev;
    struct disk *disk;
    const struct disk_geometry *geometry;
    unsigned index;
    uint64_t data_offset, capacity; /* bytes; what of the image the guest sees */
    struct ice *ice;                /* NULL: no F_ICE, not transparent */
    bool ice_required;
    struct block_transparent transparent; /* unit 0: it is not */
    uint8_t caps[ICE_CAPS_MAX * BLK_CAP_SIZE];
    unsigned caps_size; /* bytes */
    struct log_limit denials;
    char name[16];
    char serial[VIRTIO_BLK_ID_BYTES];
    uint8_t config[BLK_CONFIG_SIZE]; /* constant but for the writeback byte, which lies in writeback */
    bool writeback_initial;
    _Atomic bool writeback;
    struct block_counters counters;
    struct log_limit failures;
    unsigned queues, opened; /* asked for; in existence, which differ only while creation fails */
    struct virtio_queue *vqs;
    struct blk_queue *queue;
};

/* blk_queue.c */
/* The queue's slab, engine and thread "blkD-qQ", parked. */
int blk_queue_open(struct blk_queue *q, struct block *block, unsigned index, unsigned disk, struct err *err);
void blk_queue_run(struct blk_queue *q);
/* Returns when nothing is in flight and the thread has let go of guest memory. */
void blk_queue_park(struct blk_queue *q);
void blk_queue_close(struct blk_queue *q);
void blk_request_free(struct blk_request *r);
/* Storage for bytes of segments or ranges: in the request where they fit, else in its long list. */
void *blk_request_storage(struct blk_request *r, size_t bytes);

/* blk_request.c */
enum blk_verdict {
    BLK_STARTED, /* an answer will come, or is in the used ring already */
    BLK_BROKEN,  /* the chain has no place for a status: the device needs a reset */
};
enum blk_verdict blk_request_start(struct blk_request *r, const struct virtqueue_chain *chain);
/* The end of a transfer, or of one range: starts the next range, or answers. */
void blk_request_done(struct blk_request *r, int result);

/* blk_ice.c */
static inline bool blk_is_transparent(const struct block *block)
{
    return block->transparent.unit != 0;
}

/* Whether the configuration's slots are there and the disk's; before any queue exists. */
int blk_ice_check(const struct block_config *config, struct err *err);
/* Takes the configuration over and fills the ICE part of config space. */
void blk_ice_init(struct block *block, const struct block_config *config);
/*
 * Stage 1 of what moves data: binds the key that the request, or transparent mode, asks for, if any. False:
 * it must fail (counted and logged). The key is let go with the answer.
 */
bool blk_ice_bind(struct blk_request *r, const struct blk_header *h);
/* FLUSH: the window is checked, no key is needed. */
bool blk_ice_allows_flush(struct blk_request *r, const struct blk_header *h);
/* Whether r->offset and r->length suit the key: whole data units, with IVs left for all of them. */
bool blk_ice_fits(struct blk_request *r, const struct blk_header *h);
/* Whether the data goes through bounce buffers: all but plaintext and reads with a guest's key. */
bool blk_ice_bounces(const struct blk_request *r);
/* Stage 2 for those; ends in blk_request_done(). */
void blk_ice_submit(struct blk_request *r);
/* Starts what waited for bounce buffers, as far as there are free ones. */
void blk_ice_resume(struct blk_queue *q);
/* Stage 3 of a read with a guest's key: decrypts where the data is. 0 or -EIO. */
int blk_ice_decrypt(struct blk_request *r);
/* The queue's end: lets go of every key without an answer. */
void blk_ice_abandon(struct blk_queue *q);

/* blk_bounce.c */
int blk_bounce_open(struct blk_queue *q, struct err *err);
void blk_bounce_close(struct blk_queue *q);
/* Gives r a buffer fit for r->length, or puts it in the line for one: false. */
bool blk_bounce_take(struct blk_request *r);
void blk_bounce_give(struct blk_request *r);
/* The first waiting request for which there is a buffer, with it; NULL when there is none. */
struct blk_request *blk_bounce_next(struct blk_queue *q);

static inline void blk_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif
