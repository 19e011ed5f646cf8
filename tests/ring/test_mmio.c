/* SPDX-License-Identifier: Apache-2.0 */
/* The transport's registers, with a device that only records what it is asked. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "ringdrv.h"

#define TOY_BIT    VIRTIO_BIT(5)
#define TOY_SPOILT VIRTIO_BIT(6) /* offered, but accept_features says no */
#define OFFERED    (VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_EVENT_IDX | TOY_BIT | TOY_SPOILT)
#define CONFIG     20u

struct toy {
    struct virtio_device dev;
    struct virtio_queue queue[2];
    uint8_t config[CONFIG];
    unsigned activated, resets;
    bool notifies_in_reset;
};

static struct toy toy;
static struct guest g;
static struct ring ring;
static struct virtio_mmio *m;
static int irq;

static void toy_read(struct virtio_device *dev, uint32_t off, void *to, uint32_t len)
{
    memcpy(to, ((struct toy *)dev)->config + off, len);
}

static bool toy_write(struct virtio_device *dev, uint32_t off, const void *from, uint32_t len)
{
    if (off < 8)
        return false;
    memcpy(((struct toy *)dev)->config + off, from, len);
    return true;
}

static int toy_accept(struct virtio_device *dev, uint64_t features)
{
    (void)dev;
    return features & TOY_SPOILT ? -EINVAL : 0;
}

static void toy_activate(struct virtio_device *dev)
{
    ((struct toy *)dev)->activated++;
}

static void toy_reset(struct virtio_device *dev)
{
    struct toy *t = (struct toy *)dev;
    t->resets++;
    if (t->notifies_in_reset) {
        virtio_notify_used(dev);
        virtio_notify_config(dev);
        virtio_notify_broken(dev, "while it drains");
    }
}

static const struct virtio_device_ops toy_ops = {toy_read, toy_write, toy_accept, toy_activate, toy_reset};

static void setup(void)
{
    guest_init(&g, 1 << 20);
    ring_init(&ring, &g, 16, true);
    toy = (struct toy){.dev = {.ops = &toy_ops,
                               .name = "toy",
                               .device_id = 42,
                               .offered = OFFERED,
                               .config_size = CONFIG,
                               .queue_count = 2,
                               .queue = toy.queue,
                               .mem = &g.mem}};
    for (unsigned i = 0; i < 2; i++)
        toy.queue[i] = (struct virtio_queue){.size_max = 64, .kick_fd = event_open()};
    for (unsigned i = 0; i < CONFIG; i++)
        toy.config[i] = (uint8_t)(0xa0 + i);
    irq = event_open();
    ck_assert_int_eq(virtio_mmio_create(&toy.dev, irq, &m, NULL), 0);
}

static void teardown(void)
{
    virtio_mmio_destroy(m);
    close(irq);
    close(toy.queue[0].kick_fd);
    close(toy.queue[1].kick_fd);
    guest_free(&g);
}

static void run_device(void)
{
    ck_assert(mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_EVENT_IDX));
    ck_assert(mmio_queue(m, 0, &ring));
    mmio_driver_ok(m);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x0f);
}

START_TEST(test_identity)
{
    ck_assert_uint_eq(mmio_get(m, MMIO_MAGIC), 0x74726976);
    ck_assert_uint_eq(mmio_get(m, MMIO_VERSION), 2);
    ck_assert_uint_eq(mmio_get(m, MMIO_DEVICE_ID), 42);
    ck_assert_uint_ne(mmio_get(m, MMIO_VENDOR_ID), 0);
    ck_assert_uint_eq(mmio_offered(m), OFFERED);
    mmio_put(m, MMIO_FEATURES_SEL, 2);
    ck_assert_uint_eq(mmio_get(m, MMIO_DEVICE_FEATURES), 0);
    mmio_put(m, MMIO_SHM_SEL, 0);
    for (uint32_t off = MMIO_SHM_LEN; off < MMIO_SHM_LEN + 16; off += 4)
        ck_assert_uint_eq(mmio_get(m, off), UINT32_MAX);
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_RESET), 0);
    mmio_put(m, MMIO_QUEUE_SEL, 1);
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_NUM_MAX), 64);
    mmio_put(m, MMIO_QUEUE_SEL, 2);
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_NUM_MAX), 0);
    ck_assert_uint_eq(toy.dev.counters.bad_access, 0);
}
END_TEST

START_TEST(test_bad_access)
{
    uint64_t v = UINT64_MAX;
    static const uint32_t bad[][2] = {{0, 1}, {0, 2}, {0, 8}, {2, 4}, {0x2c, 4}, {0x14, 4}, {0xfff, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        v = UINT64_MAX;
        virtio_mmio_bus_ops.read(m, bad[i][0], &v, bad[i][1]);
        ck_assert_uint_eq(v & 0xff, 0);
        ck_assert_uint_eq(toy.dev.counters.bad_access, i + 1);
    }
    mmio_put(m, MMIO_MAGIC, 1);
    mmio_put(m, MMIO_INTERRUPT_STATUS, 1);
    mmio_put(m, MMIO_QUEUE_RESET, 1);
    v = 1;
    virtio_mmio_bus_ops.write(m, MMIO_STATUS, &v, 1);
    ck_assert_uint_eq(toy.dev.counters.bad_access, ARRAY_SIZE(bad) + 4);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0);
    ck_assert_uint_eq(mmio_get(m, MMIO_MAGIC), 0x74726976);
}
END_TEST

START_TEST(test_config_space)
{
    ck_assert_uint_eq(mmio_config_get(m, 3, 1), 0xa3);
    ck_assert_uint_eq(mmio_config_get(m, 2, 2), 0xa3a2);
    ck_assert_uint_eq(mmio_config_get(m, 16, 4), 0xb3b2b1b0);
    ck_assert_uint_eq(mmio_config_get(m, 8, 8), 0xafaeadacabaaa9a8);
    ck_assert_uint_eq(toy.dev.counters.bad_access, 0);
    ck_assert_uint_eq(mmio_config_get(m, 1, 2), 0);
    ck_assert_uint_eq(mmio_config_get(m, 16, 8), 0);
    ck_assert_uint_eq(mmio_config_get(m, 20, 1), 0);
    ck_assert_uint_eq(toy.dev.counters.bad_access, 3);
    mmio_config_put(m, 8, 1, 0x11);
    ck_assert_uint_eq(toy.config[8], 0x11);
    mmio_config_put(m, 0, 1, 0x11);  /* refused by the device */
    mmio_config_put(m, 18, 4, 0x11); /* not aligned */
    mmio_config_put(m, 20, 4, 0x11); /* outside */
    ck_assert_uint_eq(toy.config[0], 0xa0);
    ck_assert_uint_eq(toy.dev.counters.bad_access, 6);
}
END_TEST

START_TEST(test_features)
{
    ck_assert(!mmio_negotiate(m, TOY_BIT));
    ck_assert(!mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1 | VIRTIO_BIT(7)));
    ck_assert(!mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1 | TOY_SPOILT));
    ck_assert_uint_eq(toy.dev.features, 0);
    mmio_driver_ok(m);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 3);
    ck_assert_uint_eq(toy.activated, 0);
    ck_assert_uint_eq(toy.dev.counters.bad_order, 1);
    ck_assert(mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1 | TOY_BIT));
    ck_assert_uint_eq(toy.dev.features, VIRTIO_F_BIT_VERSION_1 | TOY_BIT);
    mmio_put(m, MMIO_DRIVER_FEATURES, 0); /* too late */
    ck_assert_uint_eq(toy.dev.features, VIRTIO_F_BIT_VERSION_1 | TOY_BIT);
    ck_assert_uint_eq(toy.dev.counters.bad_order, 2);
}
END_TEST

START_TEST(test_features_beyond)
{
    mmio_put(m, MMIO_STATUS, 3);
    mmio_put(m, MMIO_DRIVER_SEL, 1);
    mmio_put(m, MMIO_DRIVER_FEATURES, 1);
    mmio_put(m, MMIO_DRIVER_SEL, 2);
    mmio_put(m, MMIO_DRIVER_FEATURES, 1);
    mmio_put(m, MMIO_STATUS, 11);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 3);
    mmio_put(m, MMIO_DRIVER_FEATURES, 0);
    mmio_put(m, MMIO_STATUS, 11);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 11);
}
END_TEST

START_TEST(test_status_bits)
{
    mmio_put(m, MMIO_STATUS, VIRTIO_STATUS_FEATURES_OK); /* before DRIVER */
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0);
    ck_assert_uint_eq(toy.dev.counters.bad_order, 1);
    run_device();
    ck_assert_uint_eq(toy.activated, 1);
    mmio_put(m, MMIO_STATUS, 1);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x0f);
    ck_assert_uint_eq(toy.dev.counters.bad_order, 2);
    mmio_put(m, MMIO_STATUS, 0x0f);
    ck_assert_uint_eq(toy.activated, 1);
    mmio_put(m, MMIO_STATUS, 0x4f); /* NEEDS_RESET is not the driver's to set */
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x0f);
    mmio_put(m, MMIO_STATUS, 0x8f);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x8f);
}
END_TEST

START_TEST(test_queue_order)
{
    ck_assert(!mmio_queue(m, 0, &ring)); /* before FEATURES_OK */
    ck_assert_uint_gt(toy.dev.counters.bad_order, 0);
    ck_assert(mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1));
    ck_assert(!mmio_queue(m, 2, &ring)); /* absent */
    ck_assert(mmio_queue(m, 0, &ring));
    uint64_t before = toy.dev.counters.bad_order;
    mmio_put(m, MMIO_QUEUE_READY, 1); /* twice */
    mmio_put(m, MMIO_QUEUE_NUM, 8);
    mmio_put(m, MMIO_QUEUE_DESC, 0);
    ck_assert_uint_eq(toy.dev.counters.bad_order, before + 3);
    ck_assert_uint_eq(toy.queue[0].layout.size, 16);
    ck_assert_uint_eq(toy.queue[0].layout.desc, ring.layout.desc);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET, 0);
    mmio_put(m, MMIO_QUEUE_READY, 0);
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_READY), 0);
    ck_assert(mmio_queue(m, 0, &ring));
    mmio_driver_ok(m);
    before = toy.dev.counters.bad_order;
    mmio_put(m, MMIO_QUEUE_READY, 0); /* the queue is its thread's now */
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_READY), 1);
    ck_assert(!mmio_queue(m, 1, &ring));
    ck_assert_uint_gt(toy.dev.counters.bad_order, before);
}
END_TEST

START_TEST(test_bad_queue_needs_reset)
{
    ck_assert(mmio_negotiate(m, VIRTIO_F_BIT_VERSION_1));
    struct ring bad = ring;
    switch (_i) {
    case 0:
        bad.layout.desc = 0xdead0000;
        break;
    case 1:
        bad.layout.device = GUEST_ROM_GPA;
        break;
    case 2:
        bad.size = 128; /* more than QueueNumMax */
        break;
    case 3:
        bad.layout.driver |= 1;
        break;
    default:
        bad.size = 0;
        break;
    }
    ck_assert(!mmio_queue(m, 0, &bad));
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x4b);
    ck_assert_uint_eq(toy.dev.counters.needs_reset, 1);
    ck_assert_uint_eq(event_clear(irq), 0); /* no interrupts before DRIVER_OK */
    mmio_driver_ok(m);
    ck_assert_uint_eq(toy.activated, 0);
    mmio_reset(m);
    run_device();
    ck_assert_uint_eq(toy.activated, 1);
}
END_TEST

START_TEST(test_notify)
{
    mmio_put(m, MMIO_QUEUE_NOTIFY, 0);
    ck_assert_uint_eq(toy.dev.counters.bad_notify, 1);
    run_device();
    mmio_put(m, MMIO_QUEUE_NOTIFY, 0);
    ck_assert_uint_eq(event_clear(toy.queue[0].kick_fd), 1);
    mmio_put(m, MMIO_QUEUE_NOTIFY, 1); /* disabled */
    mmio_put(m, MMIO_QUEUE_NOTIFY, 2); /* absent */
    mmio_put(m, MMIO_QUEUE_NOTIFY, UINT32_MAX);
    ck_assert_uint_eq(toy.dev.counters.bad_notify, 4);
    ck_assert_uint_eq(event_clear(toy.queue[1].kick_fd), 0);
}
END_TEST

START_TEST(test_interrupts)
{
    virtio_notify_used(&toy.dev);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 0);
    run_device();
    virtio_notify_used(&toy.dev);
    virtio_notify_used(&toy.dev); /* an edge of its own, though the bit is set */
    ck_assert_uint_eq(event_clear(irq), 2);
    uint32_t generation = mmio_get(m, MMIO_CONFIG_GENERATION);
    virtio_notify_config(&toy.dev);
    ck_assert_uint_eq(event_clear(irq), 1);
    ck_assert_uint_ne(mmio_get(m, MMIO_CONFIG_GENERATION), generation);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 3);
    mmio_put(m, MMIO_INTERRUPT_ACK, 1);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 2);
    mmio_put(m, MMIO_INTERRUPT_ACK, UINT32_MAX);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 0);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x0f);
    virtio_notify_broken(&toy.dev, "it was asked to");
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0x4f);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 2);
    ck_assert_uint_eq(event_clear(irq), 1);
    ck_assert_uint_eq(toy.dev.counters.interrupts, 4);
}
END_TEST

START_TEST(test_reset_clears)
{
    run_device();
    virtio_notify_used(&toy.dev);
    toy.notifies_in_reset = true;
    unsigned before = toy.resets;
    mmio_reset(m);
    ck_assert_uint_eq(toy.resets, before + 1);
    ck_assert_uint_eq(mmio_get(m, MMIO_STATUS), 0);
    ck_assert_uint_eq(mmio_get(m, MMIO_INTERRUPT_STATUS), 0);
    ck_assert_uint_eq(mmio_get(m, MMIO_QUEUE_READY), 0);
    ck_assert_uint_eq(toy.dev.features, 0);
    ck_assert(!toy.queue[0].enabled);
    ck_assert_uint_eq(toy.queue[0].layout.desc, 0);
    mmio_put(m, MMIO_QUEUE_NOTIFY, 0);
    ck_assert_uint_eq(toy.dev.counters.bad_notify, 1);
    toy.notifies_in_reset = false;
    run_device();
    ck_assert_uint_eq(toy.activated, 2);
}
END_TEST

static void *notifier(void *stop)
{
    while (!atomic_load((atomic_bool *)stop)) {
        virtio_notify_used(&toy.dev);
        virtio_notify_config(&toy.dev);
    }
    return NULL;
}

/* Another thread notifies without pause: no reset may be left with an interrupt bit. */
START_TEST(test_reset_races)
{
    atomic_bool stop = false;
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, notifier, &stop), 0);
    unsigned left = 0;
    for (unsigned i = 0; i < 300; i++) {
        ring_restart(&ring);
        run_device();
        mmio_reset(m);
        left += mmio_get(m, MMIO_INTERRUPT_STATUS) != 0;
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(left, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mmio");
    TCase *t = tcase_create("mmio");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_identity);
    tcase_add_test(t, test_bad_access);
    tcase_add_test(t, test_config_space);
    tcase_add_test(t, test_features);
    tcase_add_test(t, test_features_beyond);
    tcase_add_test(t, test_status_bits);
    tcase_add_test(t, test_queue_order);
    tcase_add_loop_test(t, test_bad_queue_needs_reset, 0, 5);
    tcase_add_test(t, test_notify);
    tcase_add_test(t, test_interrupts);
    tcase_add_test(t, test_reset_clears);
    tcase_add_test(t, test_reset_races);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
