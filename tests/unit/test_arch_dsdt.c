/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every make of machine through ACPICA's iasl, and tables that do not fit: refused with a sentence, and not a
 * byte written outside their area.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/dsdt.h"
#include "arch/x86_64/layout.h"
#include "arch/x86_64/mptable.h"
#include "minivmm/bytes.h"
#include "minivmm/ice_abi.h"

#define MEMORY        (16ULL << 20)
#define DISKS         14u
#define TOO_MANY      4000u
#define TOO_MANY_CPUS 255u
#define OUTPUT_MAX    (1u << 20)
#define GUARD         0xa5u

static struct guest_memory mem;
static struct arch_device device[TOO_MANY];
static struct arch_machine machine;
static char dir[64], output[OUTPUT_MAX];

static void add(enum arch_device_kind kind)
{
    unsigned n = machine.device_count++;
    device[n] = (struct arch_device){
        .kind = kind,
        .base = ARCH_MMIO_BASE + n * ARCH_MMIO_STRIDE,
        .size = ARCH_MMIO_STRIDE,
        .gsi = ARCH_GSI_FIRST + n,
    };
}

static void make_machine(unsigned disks, bool ged, bool keys)
{
    machine.device_count = 0;
    for (unsigned i = 0; i < disks; i++)
        add(ARCH_DEVICE_VIRTIO_MMIO);
    if (ged)
        add(ARCH_DEVICE_GED);
    if (keys)
        add(ARCH_DEVICE_KEY_SERVICE);
}

static void setup(void)
{
    struct guest_region layout[GUEST_REGIONS_MAX] = {{0}};
    struct err err;
    unsigned n = arch_memory_layout(MEMORY, layout);
    ck_assert_int_eq(guest_memory_alloc(&mem, layout, n, GUEST_HUGEPAGES_OFF, &err), 0);
    machine = (struct arch_machine){
        .mem = &mem, .cpus = 1, .device = device, .serial = true, .pvpanic = true, .acpi = true};
    make_machine(DISKS, true, true);
    snprintf(dir, sizeof(dir), "/tmp/minivmm-dsdt-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    static const char *const names[] = {"t.dat", "t.dsl", "t.aml", "log"};
    char path[128];
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    ck_assert_int_eq(rmdir(dir), 0);
    guest_memory_free(&mem);
}

static uint8_t *at(uint64_t gpa, uint64_t len)
{
    uint8_t *p = guest_memory_at(&mem, gpa, len, GUEST_WRITE);
    ck_assert_msg(p != NULL, "%#llx is outside memory", (unsigned long long)gpa);
    return p;
}

static uint64_t build(void)
{
    struct err err;
    uint64_t rsdp = 0;
    int r = acpi_build(&machine, &rsdp, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return rsdp;
}

static void read_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    output[fread(output, 1, sizeof(output) - 1, f)] = '\0';
    fclose(f);
}

/* Runs one shell command in dir and leaves what it said in output. */
static int shell(const char *command)
{
    char line[256];
    snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1 </dev/null", dir, command);
    int status = system(line); /* the command is a literal of this file */
    read_file("log");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool iasl_is_there(void)
{
    bool there = shell("command -v iasl") == 0;
    if (!there)
        printf("# SKIP what iasl says of each machine: it is not installed (apt install acpica-tools)\n");
    return there;
}

/* Takes a table apart, puts it together again, and leaves its source in output. */
static void through_iasl(const uint8_t *bytes, uint32_t len)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/t.dat", dir);
    FILE *f = fopen(path, "we");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
    int r = shell("iasl -d t.dat");
    ck_assert_msg(r == 0 && !strstr(output, "Error") && !strstr(output, "Warning"), "%s", output);
    r = shell("iasl t.dsl");
    ck_assert_msg(r == 0 && strstr(output, "Compilation successful. 0 Errors, 0 Warnings"), "%s", output);
    read_file("t.dsl");
}

static unsigned occurrences(const char *word)
{
    unsigned n = 0;
    for (const char *p = output; (p = strstr(p, word)); p += strlen(word))
        n++;
    return n;
}

static const uint8_t *xsdt_of(uint64_t rsdp)
{
    return at(load_le64(at(rsdp, 36) + 24), 36 + 2 * 8);
}

static const uint8_t *dsdt_of(uint64_t rsdp)
{
    return at(load_le64(at(load_le64(xsdt_of(rsdp) + 36), 276) + 140), 36);
}

/* Bits of a case number: each way to leave a device out. */
START_TEST(iasl_accepts_every_make_of_machine)
{
    bool many = _i & 1, serial = _i & 2, pvpanic = _i & 4, ged = _i & 8, keys = _i & 16;
    unsigned disks = many ? DISKS : 0;
    make_machine(disks, ged, keys);
    machine.serial = serial;
    machine.pvpanic = pvpanic;
    if (!iasl_is_there())
        return;
    const uint8_t *dsdt = dsdt_of(build());
    through_iasl(dsdt, load_le32(dsdt + 4));
    ck_assert_uint_eq(occurrences("\"LNRO0005\""), disks);
    ck_assert_uint_eq(occurrences("EisaId (\"PNP0501\")"), serial);
    ck_assert_uint_eq(occurrences("\"QEMU0001\""), pvpanic);
    ck_assert_uint_eq(occurrences("\"ACPI0013\""), ged);
    ck_assert_uint_eq(occurrences("EisaId (\"PNP0C0C\")"), ged);
    ck_assert_uint_eq(occurrences("\"" ICE_KEYS_ACPI_HID "\""), keys);
    ck_assert_uint_eq(occurrences("Name (\\_S5"), 1);
    /* The devices that have one interrupt each: no more, no less. */
    ck_assert_uint_eq(occurrences("Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"),
                      disks + serial + ged + keys);
}
END_TEST

/* No RSDP here: iasl 20200925 takes none apart, not even its own. FADTs are test_arch_acpi's. */
START_TEST(iasl_accepts_the_tables_around_it)
{
    static const unsigned cpus[] = {1, ARCH_VCPUS_MAX};
    if (!iasl_is_there())
        return;
    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        machine.cpus = cpus[i];
        uint64_t rsdp = build();
        const uint8_t *xsdt = xsdt_of(rsdp), *madt = at(load_le64(xsdt + 44), 44);
        through_iasl(madt, load_le32(madt + 4));
        ck_assert_uint_eq(occurrences("[Processor Local APIC]"), cpus[i]);
        through_iasl(xsdt, load_le32(xsdt + 4));
    }
}
END_TEST

START_TEST(windows_past_4_gib_are_told_whole)
{
    make_machine(1, true, false);
    device[0].base = 0x123456789000;
    device[1].base = 0x123456780000;
    if (!iasl_is_there())
        return;
    const uint8_t *dsdt = dsdt_of(build());
    through_iasl(dsdt, load_le32(dsdt + 4));
    ck_assert_uint_eq(occurrences("QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed"), 1);
    ck_assert_uint_eq(occurrences("0x0000123456789000, // Range Minimum"), 1);
    ck_assert_uint_eq(occurrences("0x0000123456789FFF, // Range Maximum"), 1);
    ck_assert_uint_eq(occurrences("OperationRegion (EREG, SystemMemory, 0x0000123456780000, 0x04)"), 1);
}
END_TEST

/* Each buffer is as large as it is said to be and no larger, for the sanitizer to see; and guarded. */
START_TEST(aml_never_leaves_its_buffer)
{
    uint8_t *whole = malloc(LAYOUT_RESET_VECTOR - LAYOUT_BIOS);
    ck_assert_ptr_nonnull(whole);
    size_t len = dsdt_write(&machine, whole, LAYOUT_RESET_VECTOR - LAYOUT_BIOS);
    ck_assert_uint_gt(len, 0);
    for (size_t size = 0; size < len; size++) {
        uint8_t *cut = malloc(size + 1);
        ck_assert_ptr_nonnull(cut);
        cut[size] = GUARD;
        ck_assert_msg(dsdt_write(&machine, cut, size) == 0, "%zu of %zu bytes were enough", size, len);
        ck_assert_uint_eq(cut[size], GUARD);
        free(cut);
    }
    uint8_t *exact = malloc(len);
    ck_assert_ptr_nonnull(exact);
    ck_assert_uint_eq(dsdt_write(&machine, exact, len), len);
    ck_assert_mem_eq(exact, whole, len);
    free(exact);
    free(whole);
}
END_TEST

START_TEST(too_many_devices_for_the_area_are_a_sentence)
{
    struct err err = {{0}};
    uint64_t rsdp;
    make_machine(TOO_MANY, false, false);
    memset(at(LAYOUT_BIOS - 4096, 4096), GUARD, 4096);
    memset(at(LAYOUT_RESET_VECTOR, 4096), GUARD, 4096);
    ck_assert_int_eq(acpi_build(&machine, &rsdp, &err), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(err.text, "4000 devices do not fit"));
    for (unsigned i = 0; i < 4096; i++) {
        ck_assert_uint_eq(at(LAYOUT_BIOS - 4096, 4096)[i], GUARD);
        ck_assert_uint_eq(at(LAYOUT_RESET_VECTOR, 4096)[i], GUARD);
    }
}
END_TEST

START_TEST(too_many_processors_for_the_mp_table_are_a_sentence)
{
    static const uint8_t nothing[LAYOUT_EBDA_END - LAYOUT_EBDA];
    struct err err = {{0}};
    machine.cpus = TOO_MANY_CPUS;
    ck_assert_int_eq(mptable_build(&machine, &err), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(err.text, "255 vCPUs"));
    ck_assert_mem_eq(at(LAYOUT_EBDA, sizeof(nothing)), nothing, sizeof(nothing));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-dsdt");
    TCase *t = tcase_create("machines");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, iasl_accepts_every_make_of_machine, 0, 32);
    tcase_add_test(t, iasl_accepts_the_tables_around_it);
    tcase_add_test(t, windows_past_4_gib_are_told_whole);
    tcase_add_test(t, aml_never_leaves_its_buffer);
    tcase_add_test(t, too_many_devices_for_the_area_are_a_sentence);
    tcase_add_test(t, too_many_processors_for_the_mp_table_are_a_sentence);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
