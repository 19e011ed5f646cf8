/* SPDX-License-Identifier: Apache-2.0 */
/* The loaders against well-made, cut-off and nonsensical kernels. */
#include <asm/bootparam.h>
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86_64/layout.h"
#include "minivmm/arch.h"
#include "minivmm/bytes.h"

#define MIB (1ULL << 20)

static struct guest_memory mem;
static char kernel_path[64], initrd_path[64];

static void open_memory(uint64_t bytes)
{
    struct guest_region layout[GUEST_REGIONS_MAX];
    struct err err;
    memset(layout, 0, sizeof(layout));
    unsigned n = arch_memory_layout(bytes, layout);
    ck_assert_int_eq(guest_memory_alloc(&mem, layout, n, GUEST_HUGEPAGES_OFF, &err), 0);
}

static void setup(void)
{
    snprintf(kernel_path, sizeof(kernel_path), "/tmp/minivmm-kernel-XXXXXX");
    snprintf(initrd_path, sizeof(initrd_path), "/tmp/minivmm-initrd-XXXXXX");
    close(mkstemp(kernel_path));
    close(mkstemp(initrd_path));
    open_memory(128 * MIB);
}

static void teardown(void)
{
    guest_memory_free(&mem);
    unlink(kernel_path);
    unlink(initrd_path);
}

static void put_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static int load_with(const char *cmdline, bool initrd, bool acpi, struct arch_entry *entry, struct err *err)
{
    static const struct arch_device devices[] = {{ARCH_DEVICE_VIRTIO_MMIO, 0xd0000000, 0x1000, 5},
                                                 {ARCH_DEVICE_VIRTIO_MMIO, 0xd0001000, 0x1000, 6},
                                                 {ARCH_DEVICE_GED, 0xd0002000, 0x1000, 7},
                                                 {ARCH_DEVICE_KEY_SERVICE, 0xd0003000, 0x1000, 8}};
    struct arch_machine machine = {.mem = &mem,
                                   .cpus = 2,
                                   .device = devices,
                                   .device_count = 4,
                                   .serial = true,
                                   .acpi = acpi,
                                   .cmdline = cmdline};
    struct arch_payload payload = {.kernel_path = kernel_path,
                                   .kernel_fd = open(kernel_path, O_RDONLY),
                                   .initrd_path = initrd ? initrd_path : NULL,
                                   .initrd_fd = initrd ? open(initrd_path, O_RDONLY) : -1};
    err->text[0] = '\0';
    int r = arch_load(&machine, &payload, entry, err);
    close(payload.kernel_fd);
    if (initrd)
        close(payload.initrd_fd);
    return r;
}

static int load(struct arch_entry *entry, struct err *err)
{
    return load_with("console=ttyS0", false, true, entry, err);
}

/* ---- bzImage ---- */

#define BZ_SETUP_SECTS 7u /* payload at 4096: it can be mapped */
#define BZ_PAYLOAD     20000u

static uint8_t image[256 * 1024];

static size_t make_bzimage(unsigned setup_sects, uint32_t payload)
{
    struct setup_header h = {
        .setup_sects = (uint8_t)setup_sects,
        .boot_flag = 0xaa55,
        .jump = 0x66eb,
        .version = 0x020f,
        .syssize = (payload + 15) / 16,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 255,
        .pref_address = 0x1000000,
        .init_size = 0x2000000,
    };
    memcpy(&h.header, "HdrS", 4);
    memset(image, 0, sizeof(image));
    memcpy(image + 0x1f1, &h, sizeof(h));
    size_t at = (setup_sects + 1) * 512;
    for (uint32_t i = 0; i < payload; i++)
        image[at + i] = (uint8_t)(i * 31 + i / 256);
    return at + payload;
}

static struct setup_header *bz_header(void)
{
    return (struct setup_header *)(image + 0x1f1);
}

static void check_placed(uint64_t at, size_t from, uint32_t len)
{
    uint8_t *got = guest_memory_at(&mem, at, len, GUEST_READ);
    ck_assert_ptr_nonnull(got);
    ck_assert_mem_eq(got, image + from, len);
}

START_TEST(bzimage_is_placed_whether_mapped_or_copied)
{
    /* setup_sects 7 and 39 let pages be mapped, 8 and 0 (which means 4) do not. */
    static const unsigned sects[] = {7, 39, 8, 0};
    for (unsigned i = 0; i < ARRAY_SIZE(sects); i++) {
        struct arch_entry entry;
        struct err err;
        size_t len = make_bzimage(sects[i] ? sects[i] : 4, BZ_PAYLOAD);
        bz_header()->setup_sects = (uint8_t)sects[i];
        guest_memory_free(&mem); /* the last round's mapping of the file ends here */
        open_memory(128 * MIB);
        put_file(kernel_path, image, len);
        int r = load(&entry, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        ck_assert_int_eq(entry.protocol, ARCH_BOOT_LINUX64);
        ck_assert_uint_eq(entry.ip, 0x1000200);
        ck_assert_uint_eq(entry.params, LAYOUT_BOOT_PARAMS);
        check_placed(0x1000000, len - BZ_PAYLOAD, BZ_PAYLOAD);
    }
}
END_TEST

START_TEST(the_guest_can_write_its_kernel_and_the_file_stays)
{
    struct arch_entry entry;
    struct err err;
    size_t len = make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD);
    put_file(kernel_path, image, len);
    ck_assert_int_eq(load(&entry, &err), 0);
    memset(guest_memory_at(&mem, 0x1000000, BZ_PAYLOAD, GUEST_WRITE), 0xee, BZ_PAYLOAD);
    uint8_t byte;
    int fd = open(kernel_path, O_RDONLY);
    ck_assert_int_eq(pread(fd, &byte, 1, 4096 + 100), 1);
    close(fd);
    ck_assert_uint_eq(byte, image[4096 + 100]);
}
END_TEST

START_TEST(zero_page_tells_linux_what_it_needs)
{
    struct arch_entry entry;
    struct err err;
    uint8_t initrd[5000];
    memset(initrd, 0x5a, sizeof(initrd));
    put_file(initrd_path, initrd, sizeof(initrd));
    put_file(kernel_path, image, make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD));
    ck_assert_int_eq(load_with("quiet foo=bar", true, true, &entry, &err), 0);
    const struct boot_params *bp = guest_memory_at(&mem, entry.params, sizeof(*bp), GUEST_READ);
    ck_assert_uint_eq(bp->hdr.type_of_loader, 0xff);
    ck_assert_uint_eq(bp->hdr.ramdisk_size, sizeof(initrd));
    ck_assert_uint_eq(bp->hdr.ramdisk_image % 4096, 0);
    ck_assert_uint_ge(bp->hdr.ramdisk_image, 0x1000000 + 0x2000000);
    ck_assert_mem_eq(guest_memory_at(&mem, bp->hdr.ramdisk_image, sizeof(initrd), GUEST_READ), initrd,
                     sizeof(initrd));
    ck_assert_str_eq(guest_memory_at(&mem, bp->hdr.cmd_line_ptr, 256, GUEST_READ), "quiet foo=bar");
    uint64_t rsdp;
    memcpy(&rsdp, (const uint8_t *)bp + 0x70, 8);
    ck_assert_mem_eq(guest_memory_at(&mem, rsdp, 8, GUEST_READ), "RSD PTR ", 8);
    const uint8_t *seed = guest_memory_at(&mem, bp->hdr.setup_data, 48, GUEST_READ);
    ck_assert_uint_eq(load_le64(seed), 0);
    ck_assert_uint_eq(load_le32(seed + 8), 9);
    ck_assert_uint_eq(load_le32(seed + 12), 32);
    static const uint8_t zero[32];
    ck_assert_mem_ne(seed + 16, zero, 32);
}
END_TEST

START_TEST(memory_map_covers_ram_and_reserves_the_rest)
{
    struct arch_entry entry;
    struct err err;
    guest_memory_free(&mem);
    open_memory(4096 * MIB);
    put_file(kernel_path, image, make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD));
    ck_assert_int_eq(load(&entry, &err), 0);
    const struct boot_params *bp = guest_memory_at(&mem, entry.params, sizeof(*bp), GUEST_READ);
    uint64_t ram = 0, last_end = 0;
    for (unsigned i = 0; i < bp->e820_entries; i++) {
        const struct boot_e820_entry *e = &bp->e820_table[i];
        ck_assert_uint_ge(e->addr, last_end);
        last_end = e->addr + e->size;
        if (e->type == 1) {
            ram += e->size;
            ck_assert(last_end <= 0x9fc00 || e->addr >= 0x100000);
            ck_assert(last_end <= 0xc0000000 || e->addr >= 0x100000000);
        }
    }
    ck_assert_uint_eq(ram, 4096 * MIB - (0x100000 - 0x9fc00));
    ck_assert_uint_eq(last_end, 0x100000000 + 1024 * MIB);
}
END_TEST

START_TEST(small_guests_get_a_relocated_kernel_or_a_sentence)
{
    struct arch_entry entry;
    struct err err;
    guest_memory_free(&mem);
    open_memory(40 * MIB); /* 16 + 32 MiB do not fit, 2 + 32 do */
    put_file(kernel_path, image, make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD));
    ck_assert_int_eq(load(&entry, &err), 0);
    ck_assert_uint_eq(entry.ip, 0x200200);
    bz_header()->relocatable_kernel = 0;
    put_file(kernel_path, image, 4096 + BZ_PAYLOAD);
    ck_assert_int_eq(load(&entry, &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "48 MiB") && strstr(err.text, "--memory") && strstr(err.text, kernel_path),
                  "%s", err.text);
}
END_TEST

START_TEST(bzimages_that_are_refused)
{
    static const struct {
        const char *why;
        unsigned version;
        unsigned flags;
    } bad[] = {{"2.12", 0x20b, XLF_KERNEL_64}, {"64-bit entry", 0x20f, 0}};
    struct arch_entry entry;
    struct err err;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        size_t len = make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD);
        bz_header()->version = (uint16_t)bad[i].version;
        bz_header()->xloadflags = (uint16_t)bad[i].flags;
        put_file(kernel_path, image, len);
        ck_assert_int_eq(load(&entry, &err), -EINVAL);
        ck_assert_msg(strstr(err.text, bad[i].why) && strstr(err.text, "--kernel") &&
                          strstr(err.text, kernel_path),
                      "%s", err.text);
    }
    size_t len = make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD);
    bz_header()->syssize = 0xffffffff;
    put_file(kernel_path, image, len);
    ck_assert_int_eq(load(&entry, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "truncated"));
    bz_header()->syssize = 1;
    put_file(kernel_path, image, len);
    ck_assert_int_eq(load(&entry, &err), -EINVAL);
}
END_TEST

START_TEST(bzimage_cut_anywhere_ends_in_a_sentence)
{
    struct arch_entry entry;
    struct err err;
    size_t len = make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD);
    for (size_t cut = 1; cut < len; cut += cut < 700 ? 13 : 977) {
        put_file(kernel_path, image, cut);
        ck_assert_int_eq(load(&entry, &err), -EINVAL);
        ck_assert_msg(strstr(err.text, kernel_path) != NULL, "%s", err.text);
    }
}
END_TEST

/* ---- ELF ---- */

struct elf_image {
    Elf64_Ehdr e;
    Elf64_Phdr p[3];
    uint8_t note[20];
    uint8_t fill[4096 - sizeof(Elf64_Ehdr) - 3 * sizeof(Elf64_Phdr) - 20];
    uint8_t code[9000];
};

static struct elf_image elf;

static void make_elf(bool pvh)
{
    memset(&elf, 0, sizeof(elf));
    memcpy(elf.e.e_ident, ELFMAG, SELFMAG);
    elf.e.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e.e_ident[EI_DATA] = ELFDATA2LSB;
    elf.e.e_type = ET_EXEC;
    elf.e.e_machine = EM_X86_64;
    elf.e.e_entry = 0xffffffff81000010;
    elf.e.e_phoff = offsetof(struct elf_image, p);
    elf.e.e_phentsize = sizeof(Elf64_Phdr);
    elf.e.e_phnum = pvh ? 3 : 2;
    elf.p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_offset = offsetof(struct elf_image, code),
                            .p_vaddr = 0xffffffff81000000,
                            .p_paddr = 0x1000000,
                            .p_filesz = 8192,
                            .p_memsz = 65536};
    elf.p[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_offset = offsetof(struct elf_image, code) + 8192,
                            .p_vaddr = 0xffffffff81100000,
                            .p_paddr = 0x1100000,
                            .p_filesz = 808,
                            .p_memsz = 808};
    elf.p[2] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = offsetof(struct elf_image, note), .p_filesz = 20};
    store_le32(elf.note, 4);
    store_le32(elf.note + 4, 4);
    store_le32(elf.note + 8, 18);
    memcpy(elf.note + 12, "Xen", 4);
    store_le32(elf.note + 16, 0x1000020);
    for (unsigned i = 0; i < sizeof(elf.code); i++)
        elf.code[i] = (uint8_t)(i * 7 + 1);
}

static int load_elf(struct arch_entry *entry, struct err *err)
{
    put_file(kernel_path, &elf, sizeof(elf));
    return load(entry, err);
}

START_TEST(elf_by_note_and_by_entry)
{
    struct arch_entry entry;
    struct err err;
    make_elf(false);
    ck_assert_msg(load_elf(&entry, &err) == 0, "%s", err.text);
    ck_assert_int_eq(entry.protocol, ARCH_BOOT_ELF64);
    ck_assert_uint_eq(entry.ip, 0x1000010);
    ck_assert_uint_eq(entry.params, LAYOUT_BOOT_PARAMS);
    ck_assert_mem_eq(guest_memory_at(&mem, 0x1000000, 8192, GUEST_READ), elf.code, 8192);
    ck_assert_mem_eq(guest_memory_at(&mem, 0x1100000, 808, GUEST_READ), elf.code + 8192, 808);
    static const uint8_t zero[4096];
    ck_assert_mem_eq(guest_memory_at(&mem, 0x1002000, 4096, GUEST_READ), zero, 4096);
    make_elf(true);
    ck_assert_int_eq(load_elf(&entry, &err), 0);
    ck_assert_int_eq(entry.protocol, ARCH_BOOT_PVH);
    ck_assert_uint_eq(entry.ip, 0x1000020);
    ck_assert_uint_eq(entry.params, LAYOUT_PVH_INFO);
    const uint8_t *info = guest_memory_at(&mem, entry.params, 56, GUEST_READ);
    ck_assert_uint_eq(load_le32(info), 0x336ec578);
    ck_assert_str_eq(guest_memory_at(&mem, load_le64(info + 24), 16, GUEST_READ), "console=ttyS0");
    ck_assert_mem_eq(guest_memory_at(&mem, load_le64(info + 32), 8, GUEST_READ), "RSD PTR ", 8);
    ck_assert_uint_gt(load_le32(info + 48), 2);
}
END_TEST

static void refused(const char *why)
{
    struct arch_entry entry;
    struct err err;
    int r = load_elf(&entry, &err);
    ck_assert_msg(r == -EINVAL && strstr(err.text, why) && strstr(err.text, kernel_path), "%d %s", r,
                  err.text);
}

START_TEST(elfs_that_are_refused)
{
    make_elf(false);
    elf.e.e_machine = EM_AARCH64;
    refused("not a 64-bit x86 kernel");
    make_elf(false);
    elf.e.e_ident[EI_CLASS] = ELFCLASS32;
    refused("not a 64-bit x86 kernel");
    make_elf(false);
    elf.e.e_phnum = 0;
    refused("program headers");
    make_elf(false);
    elf.e.e_phnum = 0xffff;
    refused("program headers");
    make_elf(false);
    elf.e.e_phoff = UINT64_MAX - 10;
    refused("truncated");
    make_elf(false);
    elf.p[0].p_memsz = 1;
    refused("malformed");
    make_elf(false);
    elf.p[0].p_paddr = UINT64_MAX - 100;
    refused("malformed");
    make_elf(false);
    elf.p[0].p_offset = UINT64_MAX - 100;
    refused("truncated");
    make_elf(false);
    elf.p[0].p_memsz = 512 * MIB;
    refused("--memory");
    make_elf(false);
    elf.p[1].p_paddr = 0x1008000;
    refused("overlaps");
    make_elf(false);
    elf.p[0].p_paddr = LAYOUT_BOOT_PARAMS;
    refused("structures");
    make_elf(false);
    elf.p[0].p_paddr = LAYOUT_BIOS - 4096;
    refused("structures");
    make_elf(false);
    elf.e.e_entry = 0x5;
    refused("entry point");
    make_elf(true);
    store_le32(elf.note + 16, 0x5000000);
    refused("PVH entry");
    make_elf(false);
    elf.p[0].p_type = elf.p[1].p_type = PT_NULL;
    refused("nothing to load");
}
END_TEST

START_TEST(notes_that_lie_about_their_size)
{
    struct arch_entry entry;
    struct err err;
    for (uint32_t bad = 0; bad < 3; bad++) {
        make_elf(true);
        store_le32(elf.note + (bad == 0 ? 0 : 4), bad == 2 ? 0x7fffffff : 0xffffffff);
        ck_assert_int_eq(load_elf(&entry, &err), 0); /* no note is found, the 64-bit entry is */
        ck_assert_int_eq(entry.protocol, ARCH_BOOT_ELF64);
    }
}
END_TEST

START_TEST(elf_cut_anywhere_ends_in_a_sentence)
{
    struct arch_entry entry;
    struct err err;
    make_elf(true);
    for (size_t cut = 1; cut < sizeof(elf); cut += cut < 300 ? 3 : 501) {
        put_file(kernel_path, &elf, cut);
        ck_assert_int_eq(load(&entry, &err), -EINVAL);
        ck_assert_msg(strstr(err.text, kernel_path) != NULL, "%s", err.text);
    }
}
END_TEST

/* ---- the rest ---- */

START_TEST(things_that_are_no_kernel)
{
    static const struct {
        const char *bytes, *why;
        size_t len;
    } bad[] = {{"\x1f\x8b\x08 some gzip", "gzip", 13},
               {"#!/bin/sh\nexit", "script", 14},
               {"070701 cpio", "--initrd", 11},
               {"garbage", "bzImage", 7},
               {"\x7f"
                "ELF",
                "truncated", 4},
               {"\x28\xb5\x2f\xfd....", "zstd", 8}};
    struct arch_entry entry;
    struct err err;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put_file(kernel_path, bad[i].bytes, bad[i].len);
        ck_assert_int_eq(load(&entry, &err), -EINVAL);
        ck_assert_msg(strstr(err.text, bad[i].why) && strstr(err.text, kernel_path), "%s", err.text);
    }
}
END_TEST

START_TEST(initrd_that_does_not_fit)
{
    struct arch_entry entry;
    struct err err;
    put_file(kernel_path, image, make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD));
    ck_assert_int_eq(truncate(initrd_path, 81 * (off_t)MIB), 0);
    ck_assert_int_eq(load_with("", true, true, &entry, &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "--initrd") && strstr(err.text, initrd_path) &&
                      strstr(err.text, "--memory"),
                  "%s", err.text);
    ck_assert_int_eq(truncate(initrd_path, 80 * (off_t)MIB), 0);
    ck_assert_int_eq(load_with("", true, true, &entry, &err), 0);
}
END_TEST

START_TEST(command_line_length_and_devices)
{
    struct arch_entry entry;
    struct err err;
    char line[300];
    put_file(kernel_path, image, make_bzimage(BZ_SETUP_SECTS, BZ_PAYLOAD));
    memset(line, 'x', sizeof(line));
    line[255] = '\0';
    ck_assert_int_eq(load_with(line, false, true, &entry, &err), 0);
    line[255] = 'x';
    line[256] = '\0';
    ck_assert_int_eq(load_with(line, false, true, &entry, &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "--cmdline") && strstr(err.text, "255"), "%s", err.text);

    const char *got = guest_memory_at(&mem, LAYOUT_CMDLINE, 256, GUEST_READ);
    static const char devices[] =
        " virtio_mmio.device=0x1000@0xd0000000:5 virtio_mmio.device=0x1000@0xd0001000:6"
        " minivmm_ice.device=0x1000@0xd0003000:8";
    char want[256];
    ck_assert_int_eq(load_with("a acpi=off b -- init words", false, true, &entry, &err), 0);
    snprintf(want, sizeof(want), "a acpi=off b%s -- init words", devices);
    ck_assert_str_eq(got, want);
    ck_assert_int_eq(load_with("a", false, false, &entry, &err), 0);
    snprintf(want, sizeof(want), "a%s", devices);
    ck_assert_str_eq(got, want);
    ck_assert_int_eq(load_with("notacpi=off", false, true, &entry, &err), 0);
    ck_assert_str_eq(got, "notacpi=off");
    ck_assert_int_eq(load_with(NULL, false, true, &entry, &err), 0);
    ck_assert_str_eq(got, "console=ttyS0");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch-load");
    TCase *t = tcase_create("loaders");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, bzimage_is_placed_whether_mapped_or_copied);
    tcase_add_test(t, the_guest_can_write_its_kernel_and_the_file_stays);
    tcase_add_test(t, zero_page_tells_linux_what_it_needs);
    tcase_add_test(t, memory_map_covers_ram_and_reserves_the_rest);
    tcase_add_test(t, small_guests_get_a_relocated_kernel_or_a_sentence);
    tcase_add_test(t, bzimages_that_are_refused);
    tcase_add_test(t, bzimage_cut_anywhere_ends_in_a_sentence);
    tcase_add_test(t, elf_by_note_and_by_entry);
    tcase_add_test(t, elfs_that_are_refused);
    tcase_add_test(t, notes_that_lie_about_their_size);
    tcase_add_test(t, elf_cut_anywhere_ends_in_a_sentence);
    tcase_add_test(t, things_that_are_no_kernel);
    tcase_add_test(t, initrd_that_does_not_fit);
    tcase_add_test(t, command_line_length_and_devices);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
