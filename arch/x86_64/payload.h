/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the loader: files, where their bytes go, and what the boot protocols need to know of the result. */
#ifndef MINIVMM_X86_PAYLOAD_H
#define MINIVMM_X86_PAYLOAD_H

#include "minivmm/arch.h"

struct payload_file {
    const char *path; /* for messages */
    int fd;
    uint64_t size;
};

/* A kernel in guest memory. */
struct loaded_kernel {
    struct arch_entry entry; /* params is filled later */
    uint64_t start, end;     /* guest memory that it takes, its own zeroed and scratch space included */
    uint64_t initrd_max;     /* highest address that the initrd's last byte may have */
    uint64_t cmdline_max;    /* bytes of command line that it takes, without the NUL */
    bool has_header;         /* setup_header is its own (bzImage) */
    uint8_t setup_header[0x290 - 0x1f1];
    uint32_t setup_header_len;
};

/* Fills file->size. -errno with a sentence. */
int payload_open(struct payload_file *file, const char *path, int fd, struct err *err);

/* Reads exactly len bytes at offset; -EINVAL with a sentence that says "truncated" where the file ends
 * before. */
int payload_read(const struct payload_file *file, uint64_t offset, void *to, uint64_t len, struct err *err);

/*
 * Brings file bytes [offset, offset + len) to guest memory at gpa: mapped copy-on-write where offset and
 * address agree within a page, read for the rest. Refuses what does not fit or would cover the boot
 * structures.
 */
int payload_place(const struct guest_memory *mem, const struct payload_file *file, uint64_t offset,
                  uint64_t gpa, uint64_t len, struct err *err);

/* -ENOEXEC: not this format, nothing said. Any other error comes with a sentence. */
int bzimage_load(const struct guest_memory *mem, const struct payload_file *file,
                 struct loaded_kernel *kernel, struct err *err);
int elf_load(const struct guest_memory *mem, const struct payload_file *file, struct loaded_kernel *kernel,
             struct err *err);

/* True when [start, end) leaves alone all that the monitor itself puts into guest memory. */
bool payload_clear_of_boot_area(uint64_t start, uint64_t end);

/* Writes the command line to LAYOUT_CMDLINE; *len: bytes without the NUL. */
int cmdline_write(const struct arch_machine *machine, uint64_t max, uint32_t *len, struct err *err);

struct boot_info {
    const struct guest_memory *mem;
    uint64_t rsdp; /* 0: none */
    uint64_t initrd, initrd_size;
    uint32_t cmdline_len;
};

/* The zero page for Linux, with memory map and random seed; at LAYOUT_BOOT_PARAMS. */
int boot_params_write(const struct boot_info *info, const struct loaded_kernel *kernel, struct err *err);

/* hvm_start_info with memory map and module list; at LAYOUT_PVH_INFO. */
int pvh_write(const struct boot_info *info, struct err *err);

/* The guest's memory map, by the type numbers that e820 and PVH share; returns how many entries. */
#define MEMMAP_MAX      8u
#define MEMMAP_RAM      1u
#define MEMMAP_RESERVED 2u

struct memmap_entry {
    uint64_t start, size;
    uint32_t type;
};

unsigned memmap_fill(const struct guest_memory *mem, struct memmap_entry *map);

/* Page tables and descriptors for the first instruction. */
int start_tables_write(const struct guest_memory *mem, struct err *err);

#endif
