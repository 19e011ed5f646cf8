/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng: fills the driver's writable buffers from the host's generator, on a thread of its own. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "devices/virtio/worker.h"
#include "minivmm/event.h"
#include "minivmm/virtio.h"

#define DEVICE_ID_ENTROPY 4u
#define QUEUE_SIZE        64u
/* The most given to one request: a guest can't keep the host's generator busy with one descriptor. The
 * standard wants only at least one byte (5.4.6.2). */
#define REQUEST_MAX       (64u << 10)

struct virtio_rng {
    struct virtio_device dev;
    struct virtio_queue queue;
    struct worker worker;
    struct iovec iov[QUEUE_SIZE + 2];
};

/* Bytes written: 0 only when the host's generator fails. */
static uint32_t fill(const struct virtqueue_chain *chain)
{
    uint32_t done = 0;

    for (unsigned i = 0; i < chain->writable && done < REQUEST_MAX; i++) {
        const struct iovec *seg = &chain->iov[chain->readable + i];
        uint8_t *at = seg->iov_base;
        size_t left = seg->iov_len < REQUEST_MAX - done ? seg->iov_len : REQUEST_MAX - done;
        while (left) {
            ssize_t got = getrandom(at, left, 0);
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                return done;
            at += got;
            left -= (size_t)got;
            done += (uint32_t)got;
        }
    }
    return done;
}

/* Serves what is there. False when the driver broke the ring. */
static bool serve(struct virtio_rng *rng)
{
    struct virtqueue *vq = &rng->queue.vq;
    struct virtqueue_chain chain = {.iov = rng->iov, .iov_max = QUEUE_SIZE + 2};
    struct err err;
    int rc;

    do {
        virtqueue_refuse_kicks(vq);
        while (!worker_stopping(&rng->worker) && (rc = virtqueue_pop(vq, &chain, &err)) != 0) {
            if (rc < 0) {
                virtio_notify_broken(&rng->dev, err.text);
                return false;
            }
            virtqueue_push(vq, chain.head, fill(&chain));
            if (virtqueue_publish(vq))
                virtio_notify_used(&rng->dev);
        }
    } while (!worker_stopping(&rng->worker) && virtqueue_want_kicks(vq));
    return true;
}

static void body(void *arg)
{
    struct virtio_rng *rng = arg;
    struct pollfd fd[2] = {{.fd = rng->queue.kick_fd, .events = POLLIN},
                           {.fd = rng->worker.control, .events = POLLIN}};

    while (!worker_stopping(&rng->worker)) {
        if (!serve(rng))
            return;
        /* -1: for ever. A failure (EINTR) only leads around once more. */
        if (poll(fd, 2, -1) > 0 && fd[0].revents)
            event_clear(fd[0].fd);
    }
}

static void no_config_read(struct virtio_device *dev, uint32_t off, void *to, uint32_t len)
{
    (void)dev;
    (void)off;
    memset(to, 0, len);
}

static bool no_config_write(struct virtio_device *dev, uint32_t off, const void *from, uint32_t len)
{
    (void)dev;
    (void)off;
    (void)from;
    (void)len;
    return false;
}

static struct virtio_rng *rng_of(struct virtio_device *dev)
{
    return (struct virtio_rng *)dev;
}

static void activate(struct virtio_device *dev)
{
    if (rng_of(dev)->queue.enabled)
        worker_run(&rng_of(dev)->worker);
}

static void reset(struct virtio_device *dev)
{
    worker_park(&rng_of(dev)->worker);
    /* A kick from before the reset is not one for the next queue. */
    event_clear(rng_of(dev)->queue.kick_fd);
}

static const struct virtio_device_ops rng_ops = {
    .config_read = no_config_read,
    .config_write = no_config_write,
    .activate = activate,
    .reset = reset,
};

static const struct worker_ops rng_worker_ops = {.body = body};

int virtio_rng_create(const struct guest_memory *mem, struct virtio_rng **out, struct err *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return err_set(err, -ENOMEM, "rng: no memory for the device");
    rng->queue.size_max = QUEUE_SIZE;
    rng->queue.kick_fd = event_open();
    rng->dev = (struct virtio_device){
        .ops = &rng_ops,
        .name = "rng",
        .device_id = DEVICE_ID_ENTROPY,
        .offered = VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_INDIRECT_DESC | VIRTIO_F_BIT_EVENT_IDX,
        .queue_count = 1,
        .queue = &rng->queue,
        .mem = mem,
    };
    int rc = rng->queue.kick_fd < 0 ? err_set(err, rng->queue.kick_fd, "rng: can't create an eventfd: %s",
                                              strerror(-rng->queue.kick_fd))
                                    : worker_create(&rng->worker, "rng", &rng_worker_ops, rng, err);
    if (rc) {
        if (rng->queue.kick_fd >= 0)
            close(rng->queue.kick_fd);
        free(rng);
        return rc;
    }
    *out = rng;
    return 0;
}

struct virtio_device *virtio_rng_device(struct virtio_rng *rng)
{
    return &rng->dev;
}

void virtio_rng_destroy(struct virtio_rng *rng)
{
    if (!rng)
        return;
    worker_destroy(&rng->worker);
    close(rng->queue.kick_fd);
    free(rng);
}
