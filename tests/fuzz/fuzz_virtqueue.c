/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue over memory that the input fills. Input: 8 bytes of settings (log2 size, features, offsets of the
 * parts in 16-byte steps), then the image of guest memory. Between pops the available index moves as the
 * image says, so that one input can offer several chains.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "minivmm/virtio.h"

#define RAM_GPA  0x10000u
#define RAM_SIZE 0x4000u
#define ROM_GPA  0x14000u /* next to RAM: buffers may span the two */
#define ROM_SIZE 0x100u
#define ROUNDS   64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each byte of each segment is touched, as a device would: a wrong address shows here. */
static void use(const struct virtqueue_chain *chain)
{
    uint64_t seen[2] = {0, 0};
    volatile uint8_t sum = 0;

    if (chain->readable + chain->writable > chain->iov_max)
        abort();
    for (unsigned i = 0; i < chain->readable + chain->writable; i++) {
        const struct iovec *seg = &chain->iov[i];
        const bool write = i >= chain->readable;
        if (!seg->iov_len)
            abort();
        for (size_t k = 0; k < seg->iov_len && k < 64; k++)
            sum ^= ((uint8_t *)seg->iov_base)[k];
        sum ^= ((uint8_t *)seg->iov_base)[seg->iov_len - 1];
        if (write)
            memset(seg->iov_base, sum, seg->iov_len < 4 ? seg->iov_len : 4);
        seen[write] += seg->iov_len;
    }
    if (seen[0] != chain->readable_bytes || seen[1] != chain->writable_bytes)
        abort();
}

static void run(struct virtqueue *vq, struct virtqueue_chain *chain)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct err err;
        int rc = virtqueue_pop(vq, chain, &err);
        if (rc < 0) {
            if (!vq->broken || !memchr(err.text, 0, sizeof(err.text)))
                abort();
            return;
        }
        if (!rc) {
            if (virtqueue_want_kicks(vq) || i + 1 == ROUNDS)
                return;
            continue;
        }
        virtqueue_refuse_kicks(vq);
        use(chain);
        virtqueue_push(vq, chain->head, (uint32_t)chain->writable_bytes);
        virtqueue_publish(vq);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    uint8_t *ram = calloc(1, RAM_SIZE), *rom = calloc(1, ROM_SIZE);
    const struct virtqueue_layout layout = {
        .size = (uint16_t)(1u << (data[0] & 15)),
        .desc = RAM_GPA + 16ull * load_le16(data + 2),
        .driver = RAM_GPA + 16ull * load_le16(data + 4),
        .device = RAM_GPA + 16ull * load_le16(data + 6),
    };
    const uint64_t features =
        (data[1] & 1 ? VIRTIO_F_BIT_EVENT_IDX : 0) | (data[1] & 2 ? VIRTIO_F_BIT_INDIRECT_DESC : 0);
    struct guest_memory mem = {.region = {{.gpa = RAM_GPA, .size = RAM_SIZE, .hva = ram},
                                          {.gpa = ROM_GPA, .size = ROM_SIZE, .hva = rom, .readonly = true}},
                               .count = 2};
    struct virtqueue vq;
    struct virtqueue_chain chain = {.iov_max = layout.size + 2u};

    chain.iov = calloc(chain.iov_max, sizeof(*chain.iov));
    if (!ram || !rom || !chain.iov)
        abort();
    memcpy(ram, data + 8, size - 8 < RAM_SIZE ? size - 8 : RAM_SIZE);
    if (!virtqueue_start(&vq, &mem, &layout, features, NULL))
        run(&vq, &chain);
    free(chain.iov);
    free(rom);
    free(ram);
    return 0;
}
