/* SPDX-License-Identifier: Apache-2.0 */
/* Files into guest memory. */
#include "payload.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"

int payload_open(struct payload_file *file, const char *path, int fd, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "%s: can't be examined: %s", path, strerror(errno));
    if (st.st_size <= 0)
        return err_set(err, -EINVAL, "%s: is empty", path);
    *file = (struct payload_file){.path = path, .fd = fd, .size = (uint64_t)st.st_size};
    return 0;
}

static int truncated(const struct payload_file *file, uint64_t need, struct err *err)
{
    return err_set(err, -EINVAL,
                   "%s: is truncated: it has %llu bytes and says that it has at least %llu; copy it anew",
                   file->path, (unsigned long long)file->size, (unsigned long long)need);
}

int payload_read(const struct payload_file *file, uint64_t offset, void *to, uint64_t len, struct err *err)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, len, &end) || end > file->size)
        return truncated(file, offset + len, err);
    for (uint64_t done = 0; done < len;) {
        ssize_t n = pread(file->fd, (uint8_t *)to + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "%s: can't be read: %s", file->path, strerror(errno));
        if (n == 0)
            return truncated(file, end, err);
        done += (uint64_t)n;
    }
    return 0;
}

bool payload_clear_of_boot_area(uint64_t start, uint64_t end)
{
    static const struct {
        uint64_t start, end;
    } ours[] = {{0, LAYOUT_BOOT_END}, {LAYOUT_EBDA, LAYOUT_EBDA_END}, {LAYOUT_BIOS, LAYOUT_BIOS_END}};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (start < ours[i].end && end > ours[i].start)
            return false;
    return true;
}

int payload_place(const struct guest_memory *mem, const struct payload_file *file, uint64_t offset,
                  uint64_t gpa, uint64_t len, struct err *err)
{
    uint64_t end;
    if (len == 0)
        return 0;
    if (__builtin_add_overflow(gpa, len, &end) || !payload_clear_of_boot_area(gpa, end))
        return err_set(
            err, -EINVAL,
            "%s: wants to be loaded at %#llx (%llu bytes), over the structures that it is started with",
            file->path, (unsigned long long)gpa, (unsigned long long)len);
    uint8_t *to = guest_memory_at(mem, gpa, len, GUEST_WRITE);
    if (!to)
        return err_set(err, -EINVAL,
                       "%s: does not fit the guest's memory (%llu bytes at %#llx); raise --memory",
                       file->path, (unsigned long long)len, (unsigned long long)gpa);
    if (__builtin_add_overflow(offset, len, &end) || end > file->size)
        return truncated(file, offset + len, err);
    uint64_t mapped = 0;
    if ((uintptr_t)to % PAGE_BYTES == 0 && offset % PAGE_BYTES == 0) {
        mapped = len - len % PAGE_BYTES;
        /* Private: what the guest writes stays in this VM, and pages that it never touches cost nothing. */
        if (mapped && mmap(to, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                           file->fd, (off_t)offset) == MAP_FAILED)
            mapped = 0;
        /* The new mapping starts without what the old one was told. */
        if (mapped)
            madvise(to, mapped, MADV_DONTDUMP);
    }
    return payload_read(file, offset + mapped, to + mapped, len - mapped, err);
}
