/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts on memory: code of its own, doors for other ABIs, and keys that should be gone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile.h"
#include "minivmm/bytes.h"

#define PAGE        4096
#define MAPS_BYTES  (1 << 20)
#define X32_BIT     0x40000000L
#define I386_GETPID 20L

static char page[PAGE] __attribute__((aligned(PAGE)));

static long map_code(void)
{
    return TRY(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long make_data_code(void)
{
    return TRY(SYS_mprotect, page, PAGE, PROT_READ | PROT_EXEC);
}

static long make_code_writable(void)
{
    uintptr_t here = (uintptr_t)make_data_code & ~(uintptr_t)(PAGE - 1);
    return TRY(SYS_mprotect, here, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static long make_memfd(void)
{
    return TRY(SYS_memfd_create, "code", 0);
}

static long make_secret(void)
{
    return TRY(SYS_memfd_secret, 0);
}

static long watch_page_faults(void)
{
    return TRY(SYS_userfaultfd, 0);
}

/* The table of 32-bit calls has other numbers. */
static long enter_by_i386(void)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(I386_GETPID) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static long enter_by_x32(void)
{
    return TRY(X32_BIT | SYS_getpid);
}

/* One region of /proc/self/maps; -EACCES when the key is not in it, else 0. */
static long look_for_key(const uint8_t *from, const uint8_t *to, const uint8_t *inverted)
{
    for (const uint8_t *at = from; at + KEK_BYTES <= to; at++) {
        unsigned i = 0;
        while (i < KEK_BYTES && (at[i] ^ inverted[i]) == 0xff)
            i++;
        if (i == KEK_BYTES)
            return 0;
    }
    return -EACCES;
}

/* The key-encryption key is everyone's, so no VM may still have it: all that the process can read is looked
 * at. */
static long find_kek(void)
{
    static char maps[MAPS_BYTES];
    size_t size = 0;
    ssize_t got;
    while ((got = read(hostile.maps_fd, maps + size, sizeof(maps) - 1 - size)) > 0)
        size += (size_t)got;
    if (!size)
        return 0;
    for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, access) != 3 || access[0] != 'r' ||
            strstr(line, "[vvar") || strstr(line, "[vsyscall"))
            continue;
        if (look_for_key((const uint8_t *)from, (const uint8_t *)to, hostile.kek_inverted) == 0)
            return 0;
    }
    return KEPT_IN;
}

const struct attempt memory_attempts[] = {
    {.name = "map memory for code", .fn = map_code, .filter_only = "code alone leads to calls"},
    {.name = "make data executable", .fn = make_data_code, .filter_only = "code alone leads to calls"},
    {.name = "make code writable", .fn = make_code_writable, .filter_only = "code alone leads to calls"},
    {.name = "memfd_create", .fn = make_memfd, .filter_only = "it holds what the process has"},
    {.name = "memfd_secret", .fn = make_secret, .filter_only = "it holds what the process has"},
    {.name = "userfaultfd", .fn = watch_page_faults, .filter_only = "it watches the process's own"},
    {.name = "a 32-bit system call", .fn = enter_by_i386, .filter_only = "another number, the same walls"},
    {.name = "an x32 system call", .fn = enter_by_x32, .filter_only = "another number, the same walls"},
    {.name = "find the key-encryption key in its memory",
     .fn = find_kek,
     .passes_filter = true,
     .wants_maps = true},
};
const unsigned memory_attempts_count = ARRAY_SIZE(memory_attempts);
