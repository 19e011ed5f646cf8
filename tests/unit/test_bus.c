/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bus.h"

struct probe {
    unsigned calls;
    uint64_t offset;
    uint32_t len, value;
};

static void probe_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct probe *p = dev;
    p->calls++;
    p->offset = offset;
    p->len = len;
    memset(data, 0x11, len);
}

static void probe_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    struct probe *p = dev;
    p->calls++;
    p->offset = offset;
    p->len = len;
    memcpy(&p->value, data, len < 4 ? len : 4);
}

static const struct bus_ops ops = {probe_read, probe_write};

START_TEST(test_decodes)
{
    struct bus bus = {.count = 0};
    struct probe a = {0}, b = {0}, c = {0};
    uint32_t v = 0x12345678;
    ck_assert_int_eq(bus_add(&bus, 0x3000, 0x1000, &ops, &c, "c", NULL), 0);
    ck_assert_int_eq(bus_add(&bus, 0x1000, 0x1000, &ops, &a, "a", NULL), 0);
    ck_assert_int_eq(bus_add(&bus, 0x2000, 0x1000, &ops, &b, "b", NULL), 0);
    ck_assert(bus_write(&bus, 0x2ffc, &v, 4));
    ck_assert_uint_eq(b.offset, 0xffc);
    ck_assert_uint_eq(b.len, 4);
    ck_assert_uint_eq(b.value, 0x12345678);
    ck_assert(bus_read(&bus, 0x3000, &v, 4));
    ck_assert_uint_eq(v, 0x11111111);
    ck_assert_uint_eq(c.calls, 1);
    ck_assert_uint_eq(a.calls, 0);
}
END_TEST

START_TEST(test_misses_read_ones)
{
    struct bus bus = {.count = 0};
    struct probe p = {0};
    ck_assert_int_eq(bus_add(&bus, 0x1000, 0x10, &ops, &p, "p", NULL), 0);
    static const uint64_t bad[] = {0xfff, 0x1010, 0x100d, 0, UINT64_MAX - 1, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint32_t v = 0;
        ck_assert(!bus_read(&bus, bad[i], &v, 4));
        ck_assert_uint_eq(v, UINT32_MAX);
        ck_assert(!bus_write(&bus, bad[i], &v, 4));
    }
    ck_assert_uint_eq(p.calls, 0);
}
END_TEST

START_TEST(test_refuses_overlap)
{
    struct bus bus = {.count = 0};
    struct err err;
    ck_assert_int_eq(bus_add(&bus, 0x1000, 0x1000, &ops, NULL, "first", &err), 0);
    static const uint64_t bad[][2] = {{0x1000, 1}, {0x1fff, 1}, {0xfff, 2}, {0, 0x8000}, {0x1800, 0x8000}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(bus_add(&bus, bad[i][0], bad[i][1], &ops, NULL, "second", &err), -EEXIST);
        ck_assert_ptr_nonnull(strstr(err.text, "first"));
        ck_assert_ptr_nonnull(strstr(err.text, "second"));
    }
    ck_assert_int_eq(bus_add(&bus, 0x5000, 0, &ops, NULL, "empty", &err), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, UINT64_MAX, 2, &ops, NULL, "wraps", &err), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, 0xfff, 1, &ops, NULL, "below", &err), 0);
    ck_assert_int_eq(bus_add(&bus, 0x2000, 1, &ops, NULL, "above", &err), 0);
    ck_assert_uint_eq(bus.count, 3);
}
END_TEST

START_TEST(test_top_and_full)
{
    struct bus bus = {.count = 0};
    struct probe p = {0};
    uint32_t v = 0;
    ck_assert_int_eq(bus_add(&bus, UINT64_MAX - 3, 4, &ops, &p, "top", NULL), 0);
    ck_assert(bus_read(&bus, UINT64_MAX - 3, &v, 4));
    for (unsigned i = 1; i < BUS_RANGES_MAX; i++)
        ck_assert_int_eq(bus_add(&bus, 16ull * i, 16, &ops, &p, "x", NULL), 0);
    ck_assert_int_eq(bus_add(&bus, 0x9000, 16, &ops, &p, "more", NULL), -ENOSPC);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bus");
    TCase *t = tcase_create("bus");
    tcase_add_test(t, test_decodes);
    tcase_add_test(t, test_misses_read_ones);
    tcase_add_test(t, test_refuses_overlap);
    tcase_add_test(t, test_top_and_full);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
