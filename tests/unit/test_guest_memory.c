/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/guest_memory.h"

#define PAGE 0x1000ull

/* [0x1000, 0x2000), [0x2000, 0x3000) adjacent; [0x8000, 0x9000) read-only; the last bytes below 2^64 - 1. */
static uint8_t page[4][PAGE];
static const struct guest_memory mem = {
    .region =
        {
            {0x1000, PAGE, page[0], false},
            {0x2000, PAGE, page[1], false},
            {0x8000, PAGE, page[2], true},
            {UINT64_MAX - PAGE, PAGE, page[3], false},
        },
    .count = 4,
};

START_TEST(test_at_edges)
{
    ck_assert_ptr_eq(guest_memory_at(&mem, 0x1000, PAGE, GUEST_WRITE), page[0]);
    ck_assert_ptr_eq(guest_memory_at(&mem, 0x1fff, 1, GUEST_WRITE), page[0] + PAGE - 1);
    ck_assert_ptr_eq(guest_memory_at(&mem, 0x2fff, 0, GUEST_READ), page[1] + PAGE - 1);
    ck_assert_ptr_null(guest_memory_at(&mem, 0xfff, 1, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0xfff, 2, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0x3000, 0, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0x2fff, 2, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0x1ff0, 0x20, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0x1000, UINT64_MAX, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, UINT64_MAX, 1, GUEST_READ));
    ck_assert_ptr_nonnull(guest_memory_at(&mem, UINT64_MAX - PAGE, PAGE, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, UINT64_MAX - 1, UINT64_MAX, GUEST_READ));
}
END_TEST

START_TEST(test_readonly)
{
    ck_assert_ptr_nonnull(guest_memory_at(&mem, 0x8000, PAGE, GUEST_READ));
    ck_assert_ptr_null(guest_memory_at(&mem, 0x8000, 1, GUEST_WRITE));
    ck_assert_int_eq(guest_memory_write(&mem, 0x8000, "x", 1), -EFAULT);
}
END_TEST

START_TEST(test_run_splits)
{
    uint64_t run = 0;
    ck_assert_ptr_eq(guest_memory_run(&mem, 0x1ff0, 0x20, GUEST_WRITE, &run), page[0] + 0xff0);
    ck_assert_uint_eq(run, 0x10);
    ck_assert_ptr_eq(guest_memory_run(&mem, 0x2000, 0x10, GUEST_WRITE, &run), page[1]);
    ck_assert_uint_eq(run, 0x10);
}
END_TEST

START_TEST(test_copies_all_or_nothing)
{
    uint8_t in[32], out[32] = {0};
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i + 1);
    ck_assert_int_eq(guest_memory_write(&mem, 0x1ff0, in, sizeof(in)), 0);
    ck_assert_int_eq(guest_memory_read(&mem, 0x1ff0, out, sizeof(out)), 0);
    ck_assert_mem_eq(in, out, sizeof(in));
    ck_assert_mem_eq(page[1], in + 16, 16);
    memset(page[1] + PAGE - 16, 0, 16);
    ck_assert_int_eq(guest_memory_write(&mem, 0x2ff0, in, sizeof(in)), -EFAULT);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(page[1][PAGE - 16 + i], 0);
    ck_assert_int_eq(guest_memory_read(&mem, 0x2ff0, out, 17), -EFAULT);
    ck_assert_uint_eq(out[0], 1);
}
END_TEST

START_TEST(test_alloc)
{
    static const struct guest_region layout[] = {{.gpa = 0, .size = 16 << 20},
                                                 {.gpa = 4ull << 30, .size = 1 << 20, .readonly = true}};
    struct guest_memory m;
    struct err err;
    ck_assert_int_eq(guest_memory_alloc(&m, layout, 2, GUEST_HUGEPAGES_OFF, &err), 0);
    ck_assert_uint_eq((uintptr_t)m.region[0].hva % (2u << 20), 0);
    uint8_t *last = guest_memory_at(&m, (16u << 20) - 1, 1, GUEST_WRITE);
    ck_assert_ptr_nonnull(last);
    *last = 7;
    ck_assert_ptr_null(guest_memory_at(&m, 4ull << 30, 1, GUEST_WRITE));
    guest_memory_free(&m);
    ck_assert_uint_eq(m.count, 0);
}
END_TEST

START_TEST(test_alloc_refuses)
{
    struct guest_memory m;
    struct err err;
    struct guest_region l[2] = {{.gpa = 0, .size = 1ull << 52}};
    ck_assert_int_eq(guest_memory_alloc(&m, l, 1, GUEST_HUGEPAGES_OFF, &err), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(err.text, "this host has only"));
    l[0] = (struct guest_region){.gpa = 0, .size = 0x2000};
    l[1] = (struct guest_region){.gpa = 0x1000, .size = 0x1000};
    ck_assert_int_eq(guest_memory_alloc(&m, l, 2, GUEST_HUGEPAGES_OFF, &err), -EINVAL);
    ck_assert_int_eq(guest_memory_alloc(&m, l, 1, GUEST_HUGEPAGES_ON, &err), -EINVAL);
    ck_assert_int_eq(guest_memory_alloc(&m, l, 0, GUEST_HUGEPAGES_OFF, &err), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("guest_memory");
    TCase *t = tcase_create("guest_memory");
    tcase_add_test(t, test_at_edges);
    tcase_add_test(t, test_readonly);
    tcase_add_test(t, test_run_splits);
    tcase_add_test(t, test_copies_all_or_nothing);
    tcase_add_test(t, test_alloc);
    tcase_add_test(t, test_alloc_refuses);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
