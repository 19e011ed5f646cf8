/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/guest_memory.h"

#include <errno.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE (2ULL << 20)

void *guest_memory_run(const struct guest_memory *mem, uint64_t gpa, uint64_t len, enum guest_access access,
                       uint64_t *run)
{
    for (unsigned i = 0; i < mem->count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (gpa < r->gpa || gpa - r->gpa >= r->size)
            continue;
        if (access == GUEST_WRITE && r->readonly)
            return NULL;
        uint64_t off = gpa - r->gpa;
        *run = len < r->size - off ? len : r->size - off;
        return r->hva + off;
    }
    return NULL;
}

void *guest_memory_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len, enum guest_access access)
{
    uint64_t run;
    void *at = guest_memory_run(mem, gpa, len, access, &run);
    return at && run == len ? at : NULL;
}

/* Nothing is copied before all of it is known to be there: a failed copy leaves no half. */
static int check_span(const struct guest_memory *mem, uint64_t gpa, uint64_t len, enum guest_access access)
{
    uint64_t run;
    do {
        if (!guest_memory_run(mem, gpa, len, access, &run))
            return -EFAULT;
        gpa += run;
        len -= run;
    } while (len);
    return 0;
}

int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *to, uint64_t len)
{
    uint8_t *out = to;
    uint64_t run = 0;

    if (check_span(mem, gpa, len, GUEST_READ))
        return -EFAULT;
    for (; len; gpa += run, len -= run, out += run) {
        const void *at = guest_memory_run(mem, gpa, len, GUEST_READ, &run);
        memcpy(out, at, run);
    }
    return 0;
}

int guest_memory_write(const struct guest_memory *mem, uint64_t gpa, const void *from, uint64_t len)
{
    const uint8_t *in = from;
    uint64_t run = 0;

    if (check_span(mem, gpa, len, GUEST_WRITE))
        return -EFAULT;
    for (; len; gpa += run, len -= run, in += run) {
        void *at = guest_memory_run(mem, gpa, len, GUEST_WRITE, &run);
        memcpy(at, in, run);
    }
    return 0;
}

/*
 * Aligned to 2 MiB, because KVM maps a transparent huge page only where guest and host addresses agree in
 * their low 21 bits; guest regions start on such bounds.
 */
static uint8_t *map_aligned(uint64_t size)
{
    if (size > SIZE_MAX - HUGE_PAGE)
        return NULL;
    uint8_t *all = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    uint64_t lead = -(uintptr_t)all & (HUGE_PAGE - 1);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t kept = (size + page - 1) & ~(page - 1);
    if (lead)
        munmap(all, lead);
    if (lead + kept < size + HUGE_PAGE)
        munmap(all + lead + kept, size + HUGE_PAGE - lead - kept);
    return all + lead;
}

static uint8_t *map_region(uint64_t size, enum guest_hugepages hugepages)
{
    uint8_t *at;
    if (hugepages == GUEST_HUGEPAGES_ON) {
        /* Reserved at once: without, a host that lacks the pages shows it by SIGBUS at the first touch. */
        at = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
        if (at == MAP_FAILED)
            return NULL;
    } else {
        at = map_aligned(size);
        if (!at)
            return NULL;
        /*
         * Advice: a host without transparent huge pages does without. The first 2 MiB hold what a guest is
         * started with, a few KiB: clearing a whole huge page for them costs a start 0.1 to 8 ms of CPU.
         */
        madvise(at, size, MADV_HUGEPAGE);
        madvise(at, size < HUGE_PAGE ? size : HUGE_PAGE, MADV_NOHUGEPAGE);
    }
    madvise(at, size, MADV_DONTDUMP);
    return at;
}

static int check_layout(const struct guest_region *layout, unsigned count, enum guest_hugepages hugepages,
                        struct err *err)
{
    uint64_t total = 0, end = 0;
    if (!count || count > GUEST_REGIONS_MAX)
        return err_set(err, -EINVAL, "guest memory: %u regions, expected 1 to %d", count, GUEST_REGIONS_MAX);
    for (unsigned i = 0; i < count; i++) {
        const struct guest_region *r = &layout[i];
        if (!r->size || r->gpa < end || __builtin_add_overflow(r->gpa, r->size, &end))
            return err_set(err, -EINVAL, "guest memory: region %u at 0x%llx is empty, out of order or wraps",
                           i, (unsigned long long)r->gpa);
        if (hugepages == GUEST_HUGEPAGES_ON && r->size % HUGE_PAGE)
            return err_set(err, -EINVAL,
                           "guest memory: with huge pages the size must be a multiple of 2 MiB, and %llu "
                           "bytes is not",
                           (unsigned long long)r->size);
        total += r->size;
    }
    /* The mapping is unreserved, so the kernel itself would promise any size. */
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (total > host)
        return err_set(err, -ENOMEM,
                       "guest memory: %llu MiB asked for, but this host has only %llu MiB; ask for less",
                       (unsigned long long)(total >> 20), (unsigned long long)(host >> 20));
    return 0;
}

int guest_memory_alloc(struct guest_memory *mem, const struct guest_region *layout, unsigned count,
                       enum guest_hugepages hugepages, struct err *err)
{
    mem->count = 0;
    int rc = check_layout(layout, count, hugepages, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i < count; i++) {
        struct guest_region *r = &mem->region[i];
        *r = layout[i];
        r->hva = map_region(r->size, hugepages);
        if (!r->hva) {
            err_set(err, -ENOMEM, "guest memory: the host can't map %llu MiB%s",
                    (unsigned long long)(r->size >> 20),
                    hugepages == GUEST_HUGEPAGES_ON
                        ? " of 2 MiB huge pages; set /proc/sys/vm/nr_hugepages high enough, or leave huge "
                          "pages off"
                        : "; ask for less, or raise the address space limit (ulimit -v)");
            guest_memory_free(mem);
            return -ENOMEM;
        }
        mem->count = i + 1;
    }
    return 0;
}

void guest_memory_free(struct guest_memory *mem)
{
    for (unsigned i = 0; i < mem->count; i++)
        munmap(mem->region[i].hva, mem->region[i].size);
    mem->count = 0;
}
