/* SPDX-License-Identifier: Apache-2.0 */
/* ELF kernels: by the PVH note where there is one, else by the 64-bit entry with boot_params in RSI. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "minivmm/bytes.h"
#include "payload.h"

#define SEGMENTS_MAX     64u
#define NOTES_MAX        (1u << 20) /* more is no kernel's; it is passed over */
#define NOTE_PHYS32      18u        /* XEN_ELFNOTE_PHYS32_ENTRY */
#define NOTE_ALIGN(n)    (((n) + 3) & ~3ULL)
#define CMDLINE_ASSUMED  2047u /* what every Linux for x86 takes */
#define INITRD_MAX_BELOW 0xffffffffULL

struct elf {
    const struct payload_file *file;
    Elf64_Ehdr ehdr;
    Elf64_Phdr phdr[SEGMENTS_MAX];
};

static int read_headers(struct elf *elf, struct err *err)
{
    const struct payload_file *file = elf->file;
    Elf64_Ehdr *e = &elf->ehdr;
    if (file->size < SELFMAG || payload_read(file, 0, e, SELFMAG, NULL) < 0 ||
        memcmp(e, ELFMAG, SELFMAG) != 0)
        return -ENOEXEC;
    int r = payload_read(file, 0, e, sizeof(*e), err);
    if (r < 0)
        return r;
    if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
        e->e_machine != EM_X86_64 || (e->e_type != ET_EXEC && e->e_type != ET_DYN))
        return err_set(err, -EINVAL, "%s: is an ELF file, but not a 64-bit x86 kernel image", file->path);
    if (e->e_phnum == 0 || e->e_phnum > SEGMENTS_MAX || e->e_phentsize != sizeof(Elf64_Phdr))
        return err_set(err, -EINVAL,
                       "%s: has %u program headers of %u bytes; 1 to %u of %zu bytes are expected",
                       file->path, e->e_phnum, e->e_phentsize, SEGMENTS_MAX, sizeof(Elf64_Phdr));
    return payload_read(file, e->e_phoff, elf->phdr, e->e_phnum * sizeof(Elf64_Phdr), err);
}

static bool overlaps_earlier(const struct elf *elf, unsigned i)
{
    const Elf64_Phdr *p = &elf->phdr[i];
    for (unsigned j = 0; j < i; j++) {
        const Elf64_Phdr *q = &elf->phdr[j];
        if (q->p_type == PT_LOAD && p->p_paddr < q->p_paddr + q->p_memsz &&
            q->p_paddr < p->p_paddr + p->p_memsz)
            return true;
    }
    return false;
}

static int load_segment(const struct elf *elf, unsigned i, const struct guest_memory *mem, struct err *err)
{
    const Elf64_Phdr *p = &elf->phdr[i];
    uint64_t end;
    if (p->p_filesz > p->p_memsz || __builtin_add_overflow(p->p_paddr, p->p_memsz, &end))
        return err_set(err, -EINVAL, "%s: segment %u is malformed (%llu bytes in the file, %llu in memory)",
                       elf->file->path, i, (unsigned long long)p->p_filesz, (unsigned long long)p->p_memsz);
    if (overlaps_earlier(elf, i))
        return err_set(err, -EINVAL, "%s: segment %u overlaps an earlier one", elf->file->path, i);
    if (!guest_memory_at(mem, p->p_paddr, p->p_memsz, GUEST_WRITE))
        return err_set(err, -EINVAL,
                       "%s: segment %u (%llu bytes at %#llx) does not fit the guest's memory; raise --memory",
                       elf->file->path, i, (unsigned long long)p->p_memsz, (unsigned long long)p->p_paddr);
    if (!payload_clear_of_boot_area(p->p_paddr, end))
        return err_set(
            err, -EINVAL,
            "%s: segment %u (%llu bytes at %#llx) covers the structures that it is started with; link the "
            "kernel at 1 MiB or above",
            elf->file->path, i, (unsigned long long)p->p_memsz, (unsigned long long)p->p_paddr);
    return payload_place(mem, elf->file, p->p_offset, p->p_paddr, p->p_filesz, err);
}

/* Looks through one note segment. True and *entry when the PVH note is there. */
static bool find_note(const uint8_t *notes, uint64_t size, uint64_t *entry)
{
    for (uint64_t at = 0; at + 12 <= size;) {
        uint64_t name = NOTE_ALIGN((uint64_t)load_le32(notes + at)), desc = load_le32(notes + at + 4);
        uint32_t type = load_le32(notes + at + 8);
        uint64_t name_at = at + 12, desc_at = name_at + name, next = desc_at + NOTE_ALIGN(desc);
        if (desc_at > size || desc > size - desc_at)
            return false;
        if (type == NOTE_PHYS32 && name == 4 && memcmp(notes + name_at, "Xen", 4) == 0 &&
            (desc == 4 || desc == 8)) {
            *entry = desc == 4 ? load_le32(notes + desc_at) : load_le64(notes + desc_at);
            return true;
        }
        at = next;
    }
    return false;
}

/* 1 and *entry: a PVH kernel; 0: none; -errno. */
static int pvh_entry(const struct elf *elf, uint64_t *entry, struct err *err)
{
    for (unsigned i = 0; i < elf->ehdr.e_phnum; i++) {
        const Elf64_Phdr *p = &elf->phdr[i];
        if (p->p_type != PT_NOTE || p->p_filesz > NOTES_MAX)
            continue;
        uint8_t *notes = malloc(p->p_filesz + 1);
        if (!notes)
            return err_set(err, -ENOMEM, "%s: no memory for its notes", elf->file->path);
        int r = payload_read(elf->file, p->p_offset, notes, p->p_filesz, err);
        bool found = r == 0 && find_note(notes, p->p_filesz, entry);
        free(notes);
        if (r < 0 || found)
            return r < 0 ? r : 1;
    }
    return 0;
}

static bool in_segment(const struct elf *elf, uint64_t address, bool virtual, uint64_t *physical)
{
    for (unsigned i = 0; i < elf->ehdr.e_phnum; i++) {
        const Elf64_Phdr *p = &elf->phdr[i];
        uint64_t base = virtual ? p->p_vaddr : p->p_paddr;
        if (p->p_type == PT_LOAD && address >= base && address - base < p->p_filesz) {
            *physical = p->p_paddr + (address - base);
            return true;
        }
    }
    return false;
}

static int find_entry(const struct elf *elf, struct arch_entry *entry, struct err *err)
{
    uint64_t pvh = 0;
    int r = pvh_entry(elf, &pvh, err);
    if (r < 0)
        return r;
    entry->protocol = r ? ARCH_BOOT_PVH : ARCH_BOOT_ELF64;
    if (r && (pvh > UINT32_MAX || !in_segment(elf, pvh, false, &entry->ip)))
        return err_set(err, -EINVAL, "%s: its PVH entry %#llx is not in a loaded segment", elf->file->path,
                       (unsigned long long)pvh);
    if (!r && !in_segment(elf, elf->ehdr.e_entry, true, &entry->ip) &&
        !in_segment(elf, elf->ehdr.e_entry, false, &entry->ip))
        return err_set(err, -EINVAL, "%s: its entry point %#llx is not in a loaded segment", elf->file->path,
                       (unsigned long long)elf->ehdr.e_entry);
    return 0;
}

int elf_load(const struct guest_memory *mem, const struct payload_file *file, struct loaded_kernel *kernel,
             struct err *err)
{
    struct elf elf = {.file = file};
    int r = read_headers(&elf, err);
    if (r < 0)
        return r;
    *kernel = (struct loaded_kernel){
        .start = UINT64_MAX, .initrd_max = INITRD_MAX_BELOW, .cmdline_max = CMDLINE_ASSUMED};
    for (unsigned i = 0; i < elf.ehdr.e_phnum; i++) {
        const Elf64_Phdr *p = &elf.phdr[i];
        if (p->p_type != PT_LOAD || p->p_memsz == 0)
            continue;
        r = load_segment(&elf, i, mem, err);
        if (r < 0)
            return r;
        kernel->start = p->p_paddr < kernel->start ? p->p_paddr : kernel->start;
        kernel->end = p->p_paddr + p->p_memsz > kernel->end ? p->p_paddr + p->p_memsz : kernel->end;
    }
    if (!kernel->end)
        return err_set(err, -EINVAL, "%s: has nothing to load", file->path);
    return find_entry(&elf, &kernel->entry, err);
}
