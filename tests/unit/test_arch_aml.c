/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AML writer byte by byte, where encodings change their form, and what it does when its buffer is too
 * small. Expected bytes are those of ACPI 6.4, chapters 6.4 and 20.2.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/aml.h"
#include "minivmm/bytes.h"

#define BIG        ((1u << 20) + 64)
#define LENGTH_MAX ((1u << 20) - 1) /* what a three-byte package length can say */

static uint8_t *room;

static void setup(void)
{
    room = malloc(BIG);
    ck_assert_ptr_nonnull(room);
}

static void teardown(void)
{
    free(room);
}

static void expect(const struct aml *aml, const char *bytes, size_t len)
{
    ck_assert(!aml->overflow);
    ck_assert_uint_eq(aml->used, len);
    ck_assert_mem_eq(aml->at, bytes, len);
}
#define EXPECT(aml, bytes) expect(aml, bytes, sizeof(bytes) - 1)

START_TEST(integers_take_the_shortest_form)
{
    static const struct {
        uint64_t value;
        const char *bytes;
        size_t len;
    } cases[] = {
        {0, "\x00", 1},
        {1, "\x01", 1},
        {2, "\x0a\x02", 2},
        {0xff, "\x0a\xff", 2},
        {0x100, "\x0b\x00\x01", 3},
        {0xffff, "\x0b\xff\xff", 3},
        {0x10000, "\x0c\x00\x00\x01\x00", 5},
        {0xffffffff, "\x0c\xff\xff\xff\xff", 5},
        {0x100000000, "\x0e\x00\x00\x00\x00\x01\x00\x00\x00", 9},
        {UINT64_MAX, "\x0e\xff\xff\xff\xff\xff\xff\xff\xff", 9},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct aml aml;
        aml_begin(&aml, room, BIG);
        aml_integer(&aml, cases[i].value);
        expect(&aml, cases[i].bytes, cases[i].len);
    }
}
END_TEST

/* Reads a package length as ACPI 20.2.4 writes it; *bytes: how many it takes. */
static uint32_t package_length(const uint8_t *p, unsigned *bytes)
{
    unsigned more = p[0] >> 6;
    uint32_t len = more ? p[0] & 0xf : p[0] & 0x3f;
    for (unsigned i = 0; i < more; i++)
        len |= (uint32_t)p[1 + i] << (4 + 8 * i);
    *bytes = 1 + more;
    return len;
}

/* A scope whose package length, itself and the name included, comes to total. */
static struct aml scope_of(uint32_t total)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    aml_scope(&aml, "_SB_");
    while (aml.used < 1 + total)
        aml_no_target(&aml);
    aml_close(&aml);
    return aml;
}

START_TEST(package_lengths_hold_at_every_boundary)
{
    static const uint32_t totals[] = {
        7, 15, 16, 63, 64, 255, 256, 4095, 4096, 0xffff, 0x10000, LENGTH_MAX - 1, LENGTH_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(totals); i++) {
        struct aml aml = scope_of(totals[i]);
        unsigned bytes;
        ck_assert_msg(!aml.overflow, "%u", totals[i]);
        ck_assert_uint_eq(aml.used, 1 + totals[i]);
        ck_assert_uint_eq(package_length(room + 1, &bytes), totals[i]);
        ck_assert_uint_eq(room[1] & 0x30, 0); /* reserved where more bytes follow */
        ck_assert_mem_eq(room + 1 + bytes, "_SB_", 4);
    }
    ck_assert(scope_of(LENGTH_MAX + 1).overflow);
}
END_TEST

START_TEST(nested_terms_count_only_themselves)
{
    struct aml aml;
    unsigned bytes;
    aml_begin(&aml, room, BIG);
    aml_device(&aml, "GED");
    aml_method(&aml, "_EVT", 1, true);
    aml_close(&aml);
    aml_package(&aml, 4);
    aml_close(&aml);
    aml_close(&aml);
    ck_assert_uint_eq(aml.depth, 0);
    ck_assert_mem_eq(room, "\x5b\x82", 2);
    ck_assert_uint_eq(package_length(room + 2, &bytes), aml.used - 2);
    ck_assert_mem_eq(room + 5, "GED_", 4); /* names are padded to four */
    ck_assert_uint_eq(room[9], 0x14);
    ck_assert_uint_eq(package_length(room + 10, &bytes), 8);
    ck_assert_uint_eq(room[17], 1 | 8); /* one argument, serialized */
    ck_assert_uint_eq(room[18], 0x12);
    ck_assert_uint_eq(package_length(room + 19, &bytes), 4);
}
END_TEST

START_TEST(names_strings_and_ids_are_spelled_as_specified)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    aml_path(&aml, "\\_SB.PWRB");
    EXPECT(&aml, "\\\x2e_SB_PWRB");
    aml_begin(&aml, room, BIG);
    aml_string(&aml, "LNRO0005");
    EXPECT(&aml, "\x0dLNRO0005\0");
    aml_begin(&aml, room, BIG);
    aml_eisa_id(&aml, "PNP0501");
    EXPECT(&aml, "\x0c\x41\xd0\x05\x01");
    aml_begin(&aml, room, BIG);
    aml_eisa_id(&aml, "PNP0C0C");
    EXPECT(&aml, "\x0c\x41\xd0\x0c\x0c");
}
END_TEST

START_TEST(resources_are_the_descriptors_of_chapter_6)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    aml_memory(&aml, 0xd0001000, 0x1000);
    aml_interrupt(&aml, 23);
    aml_port(&aml, 0x3f8, 8);
    EXPECT(&aml, "\x86\x09\x00\x01\x00\x10\x00\xd0\x00\x10\x00\x00"
                 "\x89\x06\x00\x03\x01\x17\x00\x00\x00"
                 "\x47\x01\xf8\x03\xf8\x03\x01\x08");
}
END_TEST

/* Memory32Fixed reaches up to the last byte below 4 GiB, and not over it. */
START_TEST(memory_past_4_gib_takes_the_64_bit_descriptor)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    aml_memory(&aml, 0xfffff000, 0x1000);
    EXPECT(&aml, "\x86\x09\x00\x01\x00\xf0\xff\xff\x00\x10\x00\x00");
    static const uint64_t bases[] = {0xfffff001, 0x100000000, 0x123456789000};
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        aml_begin(&aml, room, BIG);
        aml_memory(&aml, bases[i], 0x1000);
        ck_assert_uint_eq(aml.used, 46);
        ck_assert_mem_eq(room, "\x8a\x2b\x00\x00\x0d\x01", 6);
        ck_assert_uint_eq(load_le64(room + 6), 0);
        ck_assert_uint_eq(load_le64(room + 14), bases[i]);
        ck_assert_uint_eq(load_le64(room + 22), bases[i] + 0xfff);
        ck_assert_uint_eq(load_le64(room + 30), 0);
        ck_assert_uint_eq(load_le64(room + 38), 0x1000);
    }
}
END_TEST

/* Buffer(size): the size counts the descriptors and the end tag, not the operator. */
static struct aml template_of(unsigned ports)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    aml_resources(&aml);
    for (unsigned i = 0; i < ports; i++)
        aml_port(&aml, 0x3f8, 8);
    aml_resources_end(&aml);
    return aml;
}

START_TEST(templates_tell_their_size)
{
    static const unsigned ports[] = {0, 1, 31, 32, 8191};
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        struct aml aml = template_of(ports[i]);
        unsigned bytes;
        ck_assert(!aml.overflow);
        ck_assert_uint_eq(room[0], 0x11);
        ck_assert_uint_eq(package_length(room + 1, &bytes), aml.used - 1);
        ck_assert_uint_eq(room[1 + bytes], 0x0b);
        ck_assert_uint_eq(load_le16(room + 2 + bytes), ports[i] * 8 + 2);
        ck_assert_mem_eq(room + aml.used - 2, "\x79\x00", 2);
    }
    ck_assert(template_of(8192).overflow); /* 65538 bytes: more than the size can say */
}
END_TEST

START_TEST(terms_nest_so_deep_and_no_deeper)
{
    struct aml aml;
    aml_begin(&aml, room, BIG);
    for (unsigned i = 0; i < AML_DEPTH_MAX; i++)
        aml_scope(&aml, "_SB_");
    ck_assert(!aml.overflow);
    aml_scope(&aml, "_SB_");
    ck_assert(aml.overflow);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-aml");
    TCase *t = tcase_create("encodings");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, integers_take_the_shortest_form);
    tcase_add_test(t, package_lengths_hold_at_every_boundary);
    tcase_add_test(t, nested_terms_count_only_themselves);
    tcase_add_test(t, names_strings_and_ids_are_spelled_as_specified);
    tcase_add_test(t, resources_are_the_descriptors_of_chapter_6);
    tcase_add_test(t, memory_past_4_gib_takes_the_64_bit_descriptor);
    tcase_add_test(t, templates_tell_their_size);
    tcase_add_test(t, terms_nest_so_deep_and_no_deeper);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
