/* SPDX-License-Identifier: Apache-2.0 */
/* Port exits as KVM reports them: single accesses, string instructions, and ports that nobody holds. */
#include <check.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/arch.h"

#define PORT        0x3f8u
#define DATA_OFFSET 4096u

struct device {
    uint8_t written[64], next;
    unsigned writes, reads;
};

static void device_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct device *d = dev;
    d->reads++;
    memset(data, (uint8_t)(d->next++ + offset), len);
}

static void device_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    struct device *d = dev;
    (void)offset;
    memcpy(d->written + (size_t)d->writes * len, data, len);
    d->writes++;
}

static const struct bus_ops ops = {device_read, device_write};
static _Alignas(4096) uint8_t page[2 * DATA_OFFSET];
static struct kvm_run *const run = (struct kvm_run *)(void *)page;
static struct bus bus;
static struct device device;
static uint64_t unclaimed;

static void setup(void)
{
    struct err err;
    memset(page, 0, sizeof(page));
    memset(&bus, 0, sizeof(bus));
    device = (struct device){.next = 1};
    unclaimed = 0;
    ck_assert_int_eq(bus_add(&bus, PORT, 8, &ops, &device, "test", &err), 0);
}

static uint8_t *exit_io(uint8_t direction, uint16_t port, uint8_t size, uint32_t count)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = direction;
    run->io.port = port;
    run->io.size = size;
    run->io.count = count;
    run->io.data_offset = DATA_OFFSET;
    return page + DATA_OFFSET;
}

START_TEST(string_output_reaches_the_port_item_by_item)
{
    memcpy(exit_io(KVM_EXIT_IO_OUT, PORT, 1, 5), "hello", 5);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_uint_eq(device.writes, 5);
    ck_assert_mem_eq(device.written, "hello", 5);
    device.writes = 0;
    memcpy(exit_io(KVM_EXIT_IO_OUT, PORT, 2, 3), "aabbcc", 6);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_uint_eq(device.writes, 3);
    ck_assert_mem_eq(device.written, "aabbcc", 6);
    ck_assert_uint_eq(unclaimed, 0);
}
END_TEST

START_TEST(string_input_fills_item_by_item)
{
    static const uint8_t want[] = {1, 1, 2, 2, 3, 3, 0};
    uint8_t *data = exit_io(KVM_EXIT_IO_IN, PORT, 2, 3);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_mem_eq(data, want, sizeof(want));
    ck_assert_uint_eq(device.reads, 3);
}
END_TEST

START_TEST(unclaimed_ports_read_as_ones_and_are_counted)
{
    static const uint8_t want[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    uint8_t *data = exit_io(KVM_EXIT_IO_IN, 0xcf8, 4, 2);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_mem_eq(data, want, sizeof(want));
    ck_assert_uint_eq(unclaimed, 2);
    exit_io(KVM_EXIT_IO_OUT, 0x80, 1, 1);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_uint_eq(unclaimed, 3);
    /* Half in, half out of the device's range: nobody's. */
    exit_io(KVM_EXIT_IO_IN, PORT + 7, 2, 1);
    ck_assert(arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_uint_eq(unclaimed, 4);
    ck_assert_uint_eq(device.reads + device.writes, 0);
}
END_TEST

START_TEST(other_exits_are_left_to_the_monitor)
{
    exit_io(KVM_EXIT_IO_OUT, PORT, 1, 1);
    run->exit_reason = KVM_EXIT_MMIO;
    ck_assert(!arch_vcpu_exit(run, &bus, &unclaimed));
    ck_assert_uint_eq(device.writes, 0);
    ck_assert_uint_eq(unclaimed, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-ports");
    TCase *t = tcase_create("ports");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, string_output_reaches_the_port_item_by_item);
    tcase_add_test(t, string_input_fills_item_by_item);
    tcase_add_test(t, unclaimed_ports_read_as_ones_and_are_counted);
    tcase_add_test(t, other_exits_are_left_to_the_monitor);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
