/* SPDX-License-Identifier: Apache-2.0 */
/* Registers and thread of the key service; the calls themselves are in keycalls.c. */
#include "minivmm/keyservice.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/virtio/worker.h"
#include "keycalls.h"
#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/ice_abi.h"
#include "minivmm/log.h"

_Static_assert(sizeof(struct ice_command) == ICE_COMMAND_BYTES, "the command block is an ABI");

struct keyservice {
    struct keyservice_config config;
    struct keycalls calls;
    struct keyservice_counters counters;
    struct log_limit denied_log;
    struct worker worker;
    int doorbell_fd;
    pthread_mutex_t lock; /* the registers below: vCPUs and the service's thread */
    uint64_t block;
    uint32_t status, interrupt, result;
};

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void finish(struct keyservice *s, uint32_t result)
{
    if (result != ICE_RESULT_OK)
        count(&s->counters.failed);
    pthread_mutex_lock(&s->lock);
    s->result = result;
    s->status = ICE_KEYS_STATUS_DONE;
    s->interrupt |= 1;
    pthread_mutex_unlock(&s->lock);
    event_signal(s->config.irq_fd);
}

/* Reads the whole block once, wipes its key bytes in guest memory, and answers into it. */
static uint32_t serve_block(struct keyservice *s, uint8_t *block)
{
    struct ice_command cmd;
    memcpy(&cmd, block, sizeof(cmd));
    explicit_bzero(block + offsetof(struct ice_command, in), ICE_COMMAND_DATA);
    memset(cmd.out, 0, sizeof(cmd.out));
    uint32_t out_len = 0;
    uint32_t result = keycalls_run(&s->calls, &cmd, &out_len);
    if (result == ICE_RESULT_DENIED) {
        count(&s->counters.denied);
        log_warn_limited(&s->denied_log,
                         "key service: the guest asked for keyslot %u, which is not in its window",
                         load_le32(&cmd.slot));
    }
    memcpy(block + offsetof(struct ice_command, out), cmd.out, sizeof(cmd.out));
    store_le32(block + offsetof(struct ice_command, out_len), out_len);
    store_le32(block + offsetof(struct ice_command, result), result);
    explicit_bzero(&cmd, sizeof(cmd));
    return result;
}

static void serve(struct keyservice *s)
{
    pthread_mutex_lock(&s->lock);
    bool busy = s->status == ICE_KEYS_STATUS_BUSY;
    uint64_t at = s->block;
    pthread_mutex_unlock(&s->lock);
    if (!busy)
        return;
    count(&s->counters.calls);
    uint8_t *block = guest_memory_at(s->config.mem, at, sizeof(struct ice_command), GUEST_WRITE);
    finish(s, block ? serve_block(s, block) : ICE_RESULT_BAD_BLOCK);
}

static void body(void *arg)
{
    struct keyservice *s = arg;
    struct pollfd fds[] = {{.fd = s->doorbell_fd, .events = POLLIN},
                           {.fd = s->worker.control, .events = POLLIN}};
    while (!worker_stopping(&s->worker)) {
        poll(fds, ARRAY_SIZE(fds), -1);
        if (event_clear(s->doorbell_fd))
            serve(s);
    }
}

static const struct worker_ops keyservice_worker_ops = {.body = body};

static uint32_t read_register(struct keyservice *s, uint64_t offset)
{
    switch (offset) {
    case ICE_KEYS_MAGIC:
        return ICE_KEYS_MAGIC_VALUE;
    case ICE_KEYS_VERSION:
        return ICE_KEYS_VERSION_VALUE;
    case ICE_KEYS_WINDOW:
        return (uint32_t)s->config.slots << 8 | s->config.first_slot;
    case ICE_KEYS_STATUS:
        return s->status;
    case ICE_KEYS_BLOCK_LOW:
        return (uint32_t)s->block;
    case ICE_KEYS_BLOCK_HIGH:
        return (uint32_t)(s->block >> 32);
    case ICE_KEYS_INTERRUPT_STATUS:
        return s->interrupt;
    case ICE_KEYS_RESULT:
        return s->result;
    default:
        count(&s->counters.bad_access);
        return 0;
    }
}

static void ring_doorbell(struct keyservice *s)
{
    if (s->status == ICE_KEYS_STATUS_BUSY) {
        count(&s->counters.busy_doorbells);
        return;
    }
    s->status = ICE_KEYS_STATUS_BUSY;
    event_signal(s->doorbell_fd);
}

static void write_register(struct keyservice *s, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case ICE_KEYS_BLOCK_LOW:
        s->block = (s->block & ~0xffffffffULL) | value;
        break;
    case ICE_KEYS_BLOCK_HIGH:
        s->block = (s->block & 0xffffffffULL) | (uint64_t)value << 32;
        break;
    case ICE_KEYS_DOORBELL:
        ring_doorbell(s);
        break;
    case ICE_KEYS_INTERRUPT_ACK:
        s->interrupt &= ~value;
        break;
    default:
        count(&s->counters.bad_access);
    }
}

static void keyservice_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct keyservice *s = dev;
    memset(data, 0, len);
    if (len != 4 || offset % 4) {
        count(&s->counters.bad_access);
        return;
    }
    pthread_mutex_lock(&s->lock);
    store_le32(data, read_register(s, offset));
    pthread_mutex_unlock(&s->lock);
}

static void keyservice_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    struct keyservice *s = dev;
    if (len != 4 || offset % 4) {
        count(&s->counters.bad_access);
        return;
    }
    pthread_mutex_lock(&s->lock);
    write_register(s, offset, load_le32(data));
    pthread_mutex_unlock(&s->lock);
}

const struct bus_ops keyservice_bus_ops = {.read = keyservice_read, .write = keyservice_write};

const struct keyservice_counters *keyservice_counters(const struct keyservice *s)
{
    return &s->counters;
}

int keyservice_create(const struct keyservice_config *config, struct keyservice **out, struct err *err)
{
    const struct libcrypto *lib;
    int r = libcrypto_load(&lib, err);
    if (r < 0)
        return r;
    struct keyservice *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for the key service");
    s->config = *config;
    s->config.vm_key = NULL; /* the caller's copy is not ours to keep */
    s->calls = (struct keycalls){.ice = config->ice,
                                 .first_slot = config->first_slot,
                                 .slots = config->slots,
                                 .drain_ms = config->drain_ms};
    pthread_mutex_init(&s->lock, NULL);
    s->doorbell_fd = event_open();
    r = s->doorbell_fd < 0
            ? err_set(err, s->doorbell_fd, "no event for the key service: %s", strerror(-s->doorbell_fd))
            : wrap_create(lib, config->vm_key, config->uuid, &s->calls.wrap, err);
    if (r == 0)
        r = worker_create(&s->worker, "ice-keys", &keyservice_worker_ops, s, err);
    if (r < 0) {
        wrap_destroy(s->calls.wrap);
        if (s->doorbell_fd >= 0)
            close(s->doorbell_fd);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return r;
    }
    worker_run(&s->worker);
    *out = s;
    return 0;
}

void keyservice_destroy(struct keyservice *s)
{
    if (!s)
        return;
    worker_destroy(&s->worker);
    wrap_destroy(s->calls.wrap);
    close(s->doorbell_fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int keyservice_derive_vm_key(const uint8_t *kek, size_t kek_len, const uint8_t uuid[16], uint8_t vm_key[32],
                             struct err *err)
{
    const struct libcrypto *lib;
    int r = libcrypto_load(&lib, err);
    if (r == 0 && wrap_derive_vm_key(lib, kek, kek_len, uuid, vm_key) < 0)
        r = err_set(err, -EIO, "libcrypto could not derive the VM's wrapping key");
    return r;
}
