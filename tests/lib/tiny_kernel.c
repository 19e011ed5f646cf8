/* SPDX-License-Identifier: Apache-2.0 */
#include "tiny_kernel.h"

#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CODE_OFFSET 0x1000U

char *tiny_file_make(const void *bytes, size_t len)
{
    char path[] = "/tmp/minivmm-test-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    char *copy = strdup(path);
    ck_assert_ptr_nonnull(copy);
    return copy;
}

char *tiny_kernel_make(const void *code, size_t len)
{
    size_t size = CODE_OFFSET + len;
    uint8_t *image = calloc(1, size);
    ck_assert_ptr_nonnull(image);
    const Elf64_Ehdr head = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = TINY_KERNEL_ENTRY,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1,
    };
    const Elf64_Phdr segment = {
        .p_type = PT_LOAD,
        .p_flags = PF_R | PF_W | PF_X,
        .p_offset = CODE_OFFSET,
        .p_vaddr = TINY_KERNEL_ENTRY,
        .p_paddr = TINY_KERNEL_ENTRY,
        .p_filesz = len,
        .p_memsz = len,
        .p_align = CODE_OFFSET,
    };
    memcpy(image, &head, sizeof(head));
    memcpy(image + sizeof(head), &segment, sizeof(segment));
    memcpy(image + CODE_OFFSET, code, len);
    char *path = tiny_file_make(image, size);
    free(image);
    return path;
}
