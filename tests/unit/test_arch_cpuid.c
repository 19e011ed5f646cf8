/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID as each vCPU sees it, and the named models. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"

static struct cpuid_table table;

static void add(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    table.entry[table.nent++] = (struct kvm_cpuid_entry2){
        .function = function, .index = index, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

/* A host with everything, seen from its CPU number 5. */
static void setup(void)
{
    memset(&table, 0, sizeof(table));
    add(0, 0, 0x1f, 0, 0, 0);
    add(1, 0, 0, 0x05080800, 0xffffffff, 0xffffffff);
    add(4, 0, 0x1c004121, 0, 0, 0);
    add(4, 3, 0x1c03c163, 0, 0, 0);
    add(7, 0, 0, 0xffffffff, 0xffffffff, 0xffffffff);
    add(0xb, 0, 1, 2, 0x100, 5);
    add(0xb, 1, 4, 16, 0x201, 5);
    add(0xd, 0, 0xe7, 0, 0, 0);
    add(0xd, 1, 0xf, 0, 0, 0);
    add(0xd, 2, 0x100, 0x240, 0, 0);
    add(0xd, 5, 0x40, 0x440, 0, 0);
    add(0x1f, 0, 1, 2, 0x100, 5);
    add(0x40000000, 0, 0x40000001, 0x4b4d564b, 0, 0);
    add(0x80000001, 0, 0, 0, 0xffffffff, 0xffffffff);
    add(0x80000008, 0, 0x3030, 0, 0x700f, 0);
    add(0x8000001e, 0, 5, 0x105, 0x100, 0);
}

START_TEST(each_vcpu_has_its_own_identity)
{
    static const unsigned counts[] = {1, 2, 3, 4, 5, 32};
    static const unsigned shifts[] = {0, 1, 2, 2, 3, 5};
    for (unsigned c = 0; c < 6; c++)
        for (unsigned id = 0; id < counts[c]; id++) {
            struct cpuid_table t = table;
            cpuid_for_vcpu(&t, id, counts[c]);
            ck_assert_uint_eq(cpuid_find(&t, 1, 0)->ebx >> 24, id);
            ck_assert_uint_eq(cpuid_find(&t, 1, 0)->ebx >> 16 & 0xff, counts[c]);
            ck_assert_uint_eq(cpuid_find(&t, 1, 0)->edx >> 28 & 1, counts[c] > 1);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 0)->edx, id);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 1)->edx, id);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 0)->ebx, 1);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 1)->ebx, counts[c]);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 1)->eax, shifts[c]);
            ck_assert_uint_eq(cpuid_find(&t, 0xb, 1)->ecx, 0x201);
            ck_assert_uint_eq(cpuid_find(&t, 0x8000001e, 0)->eax, id);
            ck_assert_uint_eq(cpuid_find(&t, 0x8000001e, 0)->ebx, id);
            ck_assert_uint_eq(cpuid_find(&t, 0x80000008, 0)->ecx, shifts[c] << 12 | (counts[c] - 1));
            ck_assert_uint_eq(cpuid_find(&t, 4, 0)->eax >> 14 & 0xfff, 0);
            ck_assert_uint_eq(cpuid_find(&t, 4, 3)->eax >> 14 & 0xfff, counts[c] - 1);
            ck_assert_ptr_null(cpuid_find(&t, 0x1f, 0));
            ck_assert_uint_eq(cpuid_find(&t, 0x40000000, 0)->ebx, 0x4b4d564b);
        }
}
END_TEST

START_TEST(named_models_show_their_level_and_no_more)
{
    static const struct {
        const char *name;
        bool sse42, avx2, avx512;
        uint32_t xsave;
    } want[] = {{"x86-64-v1", false, false, false, 0},
                {"x86-64-v2", true, false, false, 0},
                {"x86-64-v3", true, true, false, 7},
                {"x86-64-v4", true, true, true, 0xe7}};
    for (unsigned i = 0; i < 4; i++) {
        struct cpuid_table t = table;
        struct err err;
        ck_assert_int_eq(cpuid_restrict(&t, want[i].name, &err), 0);
        uint32_t ecx1 = cpuid_find(&t, 1, 0)->ecx, ebx7 = cpuid_find(&t, 7, 0)->ebx;
        ck_assert_uint_eq(ecx1 >> 20 & 1, want[i].sse42);
        ck_assert_uint_eq(ebx7 >> 5 & 1, want[i].avx2);
        ck_assert_uint_eq(ebx7 >> 16 & 1, want[i].avx512);
        ck_assert_uint_eq(cpuid_find(&t, 0xd, 0)->eax, i < 2 ? 0 : want[i].xsave);
        ck_assert_uint_eq(cpuid_find(&t, 0xd, 5)->eax != 0, want[i].avx512);
        ck_assert_uint_eq(ecx1 >> 26 & 1, i >= 2); /* xsave */
        ck_assert_uint_eq(ecx1 >> 5 & 1, 0);       /* vmx: never */
        ck_assert_uint_eq(ecx1 >> 31, 1);          /* hypervisor */
        ck_assert_uint_eq(cpuid_find(&t, 0x80000001, 0)->edx >> 29 & 1, 1);
        ck_assert_uint_eq(cpuid_find(&t, 7, 0)->edx >> 26 & 1, 1); /* spec-ctrl stays */
    }
}
END_TEST

START_TEST(a_model_above_the_host_names_what_it_lacks)
{
    struct err err;
    cpuid_find(&table, 7, 0)->ebx &= ~(1u << 5 | 1u << 8);
    ck_assert_int_eq(cpuid_restrict(&table, "x86-64-v3", &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "avx2") && strstr(err.text, "bmi2") && strstr(err.text, "--cpu"), "%s",
                  err.text);
    ck_assert_int_eq(cpuid_restrict(&table, "x86-64-v2", &err), 0);
    ck_assert_int_eq(cpuid_restrict(&table, "pentium", &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "pentium") && strstr(err.text, "x86-64-v3"), "%s", err.text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-cpuid");
    TCase *t = tcase_create("cpuid");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, each_vcpu_has_its_own_identity);
    tcase_add_test(t, named_models_show_their_level_and_no_more);
    tcase_add_test(t, a_model_above_the_host_names_what_it_lacks);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
