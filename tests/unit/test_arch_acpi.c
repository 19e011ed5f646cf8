/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables that a guest finds: walked as an operating system walks them, and taken apart and put together
 * again by ACPICA's iasl, which knows the specification better than a test of ours could.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/layout.h"
#include "arch/x86_64/mptable.h"
#include "minivmm/bytes.h"
#include "minivmm/ice_abi.h"
#include "minivmm/power.h"

#define MEMORY      (16ULL << 20)
#define LINES       (ARCH_GSI_LAST - ARCH_GSI_FIRST + 1)
#define GED_SLOT    3u
#define KEYS_SLOT   4u
#define OUTPUT_MAX  (1u << 20)
#define COMMAND_MAX 8u

static struct guest_memory mem;
static struct {
    struct arch_device device[LINES];
} board;
static struct arch_machine machine;

static uint8_t *at(uint64_t gpa, uint64_t len)
{
    uint8_t *p = guest_memory_at(&mem, gpa, len, GUEST_READ);
    ck_assert_msg(p != NULL, "%#llx is outside memory", (unsigned long long)gpa);
    return p;
}

/* The largest machine: every interrupt line taken, every vCPU there. */
static void setup(void)
{
    struct guest_region layout[GUEST_REGIONS_MAX] = {{0}};
    struct err err;
    unsigned n = arch_memory_layout(MEMORY, layout);
    ck_assert_int_eq(guest_memory_alloc(&mem, layout, n, GUEST_HUGEPAGES_OFF, &err), 0);
    for (unsigned i = 0; i < LINES; i++)
        board.device[i] = (struct arch_device){
            .kind = i == GED_SLOT    ? ARCH_DEVICE_GED
                    : i == KEYS_SLOT ? ARCH_DEVICE_KEY_SERVICE
                                     : ARCH_DEVICE_VIRTIO_MMIO,
            .base = ARCH_MMIO_BASE + i * ARCH_MMIO_STRIDE,
            .size = ARCH_MMIO_STRIDE,
            .gsi = ARCH_GSI_FIRST + i,
        };
    machine = (struct arch_machine){
        .mem = &mem,
        .cpus = ARCH_VCPUS_MAX,
        .device = board.device,
        .device_count = LINES,
        .serial = true,
        .pvpanic = true,
        .acpi = true,
    };
}

static void teardown(void)
{
    guest_memory_free(&mem);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* As ACPI 5.2.5.1 has it: on a 16-byte boundary of the BIOS area, where no loader hands an address over. */
static uint64_t scan_for_rsdp(void)
{
    for (uint64_t gpa = 0xe0000; gpa < 0x100000; gpa += 16)
        if (memcmp(at(gpa, 8), "RSD PTR ", 8) == 0)
            return gpa;
    return 0;
}

static uint8_t *table_at(uint64_t gpa, const char *signature, uint32_t *len)
{
    uint8_t *t = at(gpa, 36);
    ck_assert_mem_eq(t, signature, 4);
    *len = load_le32(t + 4);
    ck_assert_uint_ge(gpa, LAYOUT_BIOS);
    ck_assert_uint_le(gpa + *len, LAYOUT_BIOS_END);
    ck_assert_msg(sum(t, *len) == 0, "%s: bad checksum", signature);
    return t;
}

struct tables {
    uint8_t *fadt, *madt, *dsdt;
    uint32_t fadt_len, madt_len, dsdt_len;
};

static struct tables build(void)
{
    struct tables t = {0};
    struct err err;
    uint64_t rsdp = 0;
    int r = acpi_build(&machine, &rsdp, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_eq(rsdp, scan_for_rsdp());
    const uint8_t *root = at(rsdp, 36);
    ck_assert_uint_eq(sum(root, 20), 0);
    ck_assert_uint_eq(sum(root, 36), 0);
    ck_assert_uint_eq(root[15], 2);
    uint32_t len;
    const uint8_t *xsdt = table_at(load_le64(root + 24), "XSDT", &len);
    ck_assert_uint_eq(len, 36 + 2 * 8);
    t.fadt = table_at(load_le64(xsdt + 36), "FACP", &t.fadt_len);
    t.madt = table_at(load_le64(xsdt + 44), "APIC", &t.madt_len);
    t.dsdt = table_at(load_le64(t.fadt + 140), "DSDT", &t.dsdt_len);
    return t;
}

/* What Linux asks for before it powers off and resets without a BIOS (docs/design.md, "How a VM runs"). */
START_TEST(fadt_lets_linux_power_off_and_reset)
{
    struct tables t = build();
    static const uint8_t io_byte[4] = {1, 8, 0, 1};
    ck_assert_uint_ge(t.fadt[8], 5);
    ck_assert_uint_eq(t.fadt_len, 276);
    uint32_t flags = load_le32(t.fadt + 112);
    ck_assert_uint_eq(flags >> 20 & 1, 1); /* hardware-reduced */
    ck_assert_uint_eq(flags >> 10 & 1, 1); /* the reset register is there */
    ck_assert_mem_eq(t.fadt + 116, io_byte, 4);
    ck_assert_uint_eq(load_le64(t.fadt + 120), ARCH_PORT_RESET);
    ck_assert_uint_eq(t.fadt[128], POWER_RESET_VALUE);
    ck_assert_mem_eq(t.fadt + 244, io_byte, 4);
    ck_assert_uint_eq(load_le64(t.fadt + 248), ARCH_PORT_SLEEP);
    ck_assert_mem_eq(t.fadt + 256, io_byte, 4);
    ck_assert_uint_eq(load_le64(t.fadt + 260), ARCH_PORT_SLEEP + 1);
    /* No CMOS clock, no VGA, no 8042: what is claimed to be there is probed for. */
    ck_assert_uint_eq(load_le16(t.fadt + 109), 1u << 5 | 1u << 2);
    ck_assert_uint_eq(load_le32(t.fadt + 40), load_le64(t.fadt + 140));
}
END_TEST

START_TEST(madt_lists_each_processor_once_and_the_ioapic)
{
    static const unsigned counts[] = {1, 2, ARCH_VCPUS_MAX};
    for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
        machine.cpus = counts[c];
        struct tables t = build();
        unsigned cpus = 0, ioapics = 0;
        ck_assert_uint_eq(load_le32(t.madt + 36), 0xfee00000);
        for (uint32_t i = 44; i < t.madt_len; i += t.madt[i + 1]) {
            ck_assert_uint_ge(t.madt[i + 1], 8);
            if (t.madt[i] == 0) {
                ck_assert_uint_eq(t.madt[i + 2], cpus);
                ck_assert_uint_eq(t.madt[i + 3], cpus);
                ck_assert_uint_eq(load_le32(t.madt + i + 4), 1);
                cpus++;
            } else {
                ck_assert_uint_eq(t.madt[i], 1);
                ck_assert_uint_eq(load_le32(t.madt + i + 4), 0xfec00000);
                ck_assert_uint_eq(load_le32(t.madt + i + 8), 0);
                ioapics++;
            }
        }
        ck_assert_uint_eq(cpus, counts[c]);
        ck_assert_uint_eq(ioapics, 1);
    }
}
END_TEST

/* ---- iasl ---- */

static char dir[64], output[OUTPUT_MAX];

static void path_of(char *path, size_t size, const char *name)
{
    ck_assert_int_lt(snprintf(path, size, "%s/%s", dir, name), (int)size);
}

static void read_output(const char *name)
{
    char path[128];
    path_of(path, sizeof(path), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
    ssize_t n, used = 0;
    while ((n = read(fd, output + used, sizeof(output) - 1 - (size_t)used)) > 0)
        used += n;
    close(fd);
    output[used] = '\0';
}

/* Runs a tool in dir and leaves what it said in output; its exit status, or -ENOENT when it is not there. */
static int run(const char *const *words)
{
    char *argv[COMMAND_MAX + 1] = {NULL}, log[128];
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status;
    unsigned count = 0;
    while (words[count])
        count++;
    ck_assert_uint_le(count, COMMAND_MAX);
    memcpy(argv, words, count * sizeof(*argv)); /* posix_spawn's argv is not const, for C's sake only */
    path_of(log, sizeof(log), "log");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    int r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r != 0)
        return -r;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    read_output("log");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

static void put_table(const char *name, const uint8_t *bytes, size_t len)
{
    char path[128];
    path_of(path, sizeof(path), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static void make_dir(void)
{
    snprintf(dir, sizeof(dir), "/tmp/minivmm-acpi-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
    static const char *const names[] = {"log",      "dsdt.dat", "dsdt.dsl", "dsdt.aml", "facp.dat",
                                        "facp.dsl", "facp.aml", "apic.dat", "apic.dsl", "apic.aml"};
    char path[128];
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        path_of(path, sizeof(path), names[i]);
        unlink(path);
    }
    ck_assert_int_eq(rmdir(dir), 0);
}

static bool tool_is_there(const char *tool)
{
    bool there = run((const char *const[]){tool, "-v", NULL}) != -ENOENT;
    if (!there)
        printf("# SKIP what %s says of the tables: it is not installed (apt install acpica-tools)\n", tool);
    return there;
}

/* Disassembles a table and compiles the result: neither may find anything to remark upon. */
static void through_iasl(const char *name, const uint8_t *bytes, uint32_t len)
{
    char dat[16], dsl[16];
    snprintf(dat, sizeof(dat), "%s.dat", name);
    snprintf(dsl, sizeof(dsl), "%s.dsl", name);
    put_table(dat, bytes, len);
    int r = run((const char *const[]){"iasl", "-d", dat, NULL});
    ck_assert_msg(r == 0 && !strstr(output, "Error") && !strstr(output, "Warning"), "%s", output);
    r = run((const char *const[]){"iasl", dsl, NULL});
    ck_assert_msg(r == 0 && strstr(output, "Compilation successful. 0 Errors, 0 Warnings"), "%s", output);
}

static void all_through_iasl(void)
{
    struct tables t = build();
    through_iasl("facp", t.fadt, t.fadt_len);
    through_iasl("apic", t.madt, t.madt_len);
    through_iasl("dsdt", t.dsdt, t.dsdt_len);
    read_output("dsdt.dsl");
}

static unsigned occurrences(const char *word)
{
    unsigned n = 0;
    for (const char *p = output; (p = strstr(p, word)); p += strlen(word))
        n++;
    return n;
}

START_TEST(iasl_finds_nothing_to_remark_upon)
{
    make_dir();
    if (tool_is_there("iasl")) {
        all_through_iasl();
        ck_assert_uint_eq(occurrences("\"LNRO0005\""), LINES - 2);
        ck_assert_uint_eq(occurrences("Memory32Fixed (ReadWrite"), LINES - 1);
        ck_assert_uint_eq(occurrences("\"" ICE_KEYS_ACPI_HID "\""), 1);
        /* Every device, the GED included, and COM1; no other trigger mode anywhere. */
        ck_assert_uint_eq(occurrences("Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"), LINES + 1);
        ck_assert_uint_eq(occurrences("Interrupt ("), LINES + 1);
        ck_assert_uint_eq(occurrences("EisaId (\"PNP0501\")"), 1);
        ck_assert_uint_eq(occurrences("EisaId (\"PNP0C0C\")"), 1);
        ck_assert_uint_eq(occurrences("\"QEMU0001\""), 1);
        ck_assert_uint_eq(occurrences("\"ACPI0013\""), 1);
        ck_assert_uint_eq(occurrences("OperationRegion (EREG, SystemMemory, 0xD0003000, 0x04)"), 1);
        ck_assert_uint_eq(occurrences("Notify (\\_SB.PWRB, 0x80)"), 1);
    }
    remove_dir();
}
END_TEST

START_TEST(iasl_accepts_the_smallest_machine)
{
    make_dir();
    machine.cpus = 1;
    machine.device_count = 0;
    machine.serial = machine.pvpanic = false;
    if (tool_is_there("iasl")) {
        all_through_iasl();
        ck_assert_uint_eq(occurrences("Interrupt ("), 0);
        ck_assert_uint_eq(occurrences("Device ("), 0);
        ck_assert_uint_eq(occurrences("Name (\\_S5"), 1);
    }
    remove_dir();
}
END_TEST

/* An AML interpreter that is not ours runs the parts that a guest runs. */
START_TEST(an_interpreter_reads_what_was_meant)
{
    char word[64];
    make_dir();
    if (tool_is_there("acpiexec")) {
        struct tables t = build();
        put_table("dsdt.dat", t.dsdt, t.dsdt_len);
        int r = run((const char *const[]){"acpiexec", "-b", "evaluate \\_S5_", "dsdt.dat", NULL});
        snprintf(word, sizeof(word), "[Integer] = %016X", POWER_SLEEP_TYPE_S5);
        ck_assert_msg(r == 0 && strstr(output, word), "%s", output);
        r = run((const char *const[]){"acpiexec", "-b", "resources \\_SB.V012", "dsdt.dat", NULL});
        snprintf(word, sizeof(word), "Address : %08X", (unsigned)(ARCH_MMIO_BASE + 0x12 * ARCH_MMIO_STRIDE));
        ck_assert_msg(r == 0 && strstr(output, word), "%s", output);
        r = run((const char *const[]){"acpiexec", "-b", "evaluate \\_SB.GED._EVT 8", "dsdt.dat", NULL});
        ck_assert_msg(r == 0 && !strstr(output, "AE_"), "%s", output);
    }
    remove_dir();
}
END_TEST

/* ---- MP table ---- */

START_TEST(mp_table_describes_the_same_machine)
{
    struct err err;
    unsigned seen[5] = {0}, pins = 0;
    ck_assert_int_eq(mptable_build(&machine, &err), 0);
    /* Where the MultiProcessor specification, 4, has it sought: the last KiB of base memory. */
    const uint8_t *floating = at(0x9fc00, 16);
    ck_assert_mem_eq(floating, "_MP_", 4);
    ck_assert_uint_eq(sum(floating, 16), 0);
    const uint8_t *t = at(load_le32(floating + 4), 44);
    uint16_t len = load_le16(t + 4);
    ck_assert_mem_eq(t, "PCMP", 4);
    ck_assert_uint_le(load_le32(floating + 4) + len, 0xa0000);
    ck_assert_uint_eq(sum(t, len), 0);
    unsigned entries = 0;
    for (unsigned i = 44; i < len; i += t[i] == 0 ? 20 : 8, entries++) {
        const uint8_t *e = t + i;
        ck_assert_uint_le(e[0], 4);
        if (e[0] == 0)
            ck_assert_uint_eq(e[1], seen[0]); /* APIC ids in order; the first one boots */
        if (e[0] == 0)
            ck_assert_uint_eq(e[3], seen[0] ? 1 : 3);
        if (e[0] == 3 && e[1] == 0) {
            ck_assert_uint_eq(load_le16(e + 2), 5); /* active-high, edge */
            ck_assert_uint_eq(e[7], e[5] ? e[5] : 2);
            pins |= 1u << e[7];
        }
        seen[e[0]]++;
    }
    ck_assert_uint_eq(entries, load_le16(t + 34));
    ck_assert_uint_eq(seen[0], ARCH_VCPUS_MAX);
    ck_assert_uint_eq(seen[1], 1);
    ck_assert_uint_eq(seen[2], 1);
    for (unsigned gsi = ARCH_GSI_COM1; gsi <= ARCH_GSI_LAST; gsi++)
        ck_assert_msg(pins >> gsi & 1, "GSI %u is not described", gsi);
}
END_TEST

START_TEST(memory_too_small_for_the_tables_is_a_sentence)
{
    struct err err;
    uint64_t rsdp;
    mem.region[0].size = 0x9f000;
    ck_assert_int_eq(acpi_build(&machine, &rsdp, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "--memory"));
    ck_assert_int_eq(mptable_build(&machine, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "--memory"));
    mem.region[0].size = MEMORY; /* what was mapped is what must be freed */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-acpi");
    TCase *t = tcase_create("tables");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, fadt_lets_linux_power_off_and_reset);
    tcase_add_test(t, madt_lists_each_processor_once_and_the_ioapic);
    tcase_add_test(t, iasl_finds_nothing_to_remark_upon);
    tcase_add_test(t, iasl_accepts_the_smallest_machine);
    tcase_add_test(t, an_interpreter_reads_what_was_meant);
    tcase_add_test(t, mp_table_describes_the_same_machine);
    tcase_add_test(t, memory_too_small_for_the_tables_is_a_sentence);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
