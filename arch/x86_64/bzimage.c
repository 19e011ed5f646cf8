/* SPDX-License-Identifier: Apache-2.0 */
/* Linux's bzImage by its 64-bit entry (Documentation/x86/boot.rst, protocol 2.12 and later). */
#include <asm/bootparam.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "layout.h"
#include "minivmm/bytes.h"
#include "payload.h"

#define HEADER_OFFSET   0x1f1u
#define HEADER_MAX      0x290u /* the boot sector's copy of boot_params ends here */
#define PROTOCOL_2_12   0x020cu
#define ENTRY_64        0x200u
#define SECTOR          512u
#define OLD_SETUP_SECTS 4u
#define AT(field)       (HEADER_OFFSET + offsetof(struct setup_header, field))

struct header {
    uint8_t raw[HEADER_MAX];
    uint64_t payload_offset, payload_size;
    uint64_t preferred, needs, alignment;
};

static int read_header(const struct payload_file *file, struct header *h, struct err *err)
{
    memset(h->raw, 0, sizeof(h->raw));
    if (file->size < HEADER_MAX || payload_read(file, 0, h->raw, HEADER_MAX, NULL) < 0)
        return -ENOEXEC;
    if (load_le16(h->raw + AT(boot_flag)) != 0xaa55 || memcmp(h->raw + AT(header), "HdrS", 4) != 0)
        return -ENOEXEC;
    unsigned version = load_le16(h->raw + AT(version));
    if (version < PROTOCOL_2_12)
        return err_set(
            err, -EINVAL,
            "%s: speaks boot protocol %u.%02u, and 2.12 (Linux 3.8) is the oldest that can be started",
            file->path, version >> 8, version & 0xff);
    if (!(load_le16(h->raw + AT(xloadflags)) & XLF_KERNEL_64))
        return err_set(err, -EINVAL, "%s: has no 64-bit entry point; a 64-bit x86 kernel is needed",
                       file->path);
    uint64_t setup = h->raw[AT(setup_sects)] ? h->raw[AT(setup_sects)] : OLD_SETUP_SECTS;
    h->payload_offset = (setup + 1) * SECTOR;
    h->payload_size = (uint64_t)load_le32(h->raw + AT(syssize)) * 16;
    h->preferred = load_le64(h->raw + AT(pref_address));
    h->needs = load_le32(h->raw + AT(init_size));
    h->alignment = load_le32(h->raw + AT(kernel_alignment));
    if (h->payload_size <= ENTRY_64)
        return err_set(err, -EINVAL, "%s: its header names a kernel of %llu bytes; the file is damaged",
                       file->path, (unsigned long long)h->payload_size);
    /* syssize counts 16-byte units, so up to 15 bytes of the last one may not be in the file. */
    if (h->payload_offset + h->payload_size > file->size + 15)
        return err_set(err, -EINVAL,
                       "%s: is truncated: it has %llu bytes and its header names %llu; copy it anew",
                       file->path, (unsigned long long)file->size,
                       (unsigned long long)(h->payload_offset + h->payload_size));
    if (h->payload_offset + h->payload_size > file->size)
        h->payload_size = file->size - h->payload_offset;
    if (h->needs < h->payload_size)
        h->needs = h->payload_size;
    return 0;
}

static bool fits(const struct guest_memory *mem, uint64_t at, uint64_t bytes)
{
    return at >= LAYOUT_HIGH && guest_memory_at(mem, at, bytes, GUEST_WRITE);
}

/* Where the kernel likes to be, or the lowest place that suits one that can be moved. 0: nowhere. */
static uint64_t choose_address(const struct guest_memory *mem, const struct header *h)
{
    if (fits(mem, h->preferred, h->needs))
        return h->preferred;
    uint64_t step = h->alignment;
    if (!h->raw[AT(relocatable_kernel)] || step < PAGE_BYTES || (step & (step - 1)))
        return 0;
    uint64_t lowest = (LAYOUT_HIGH + step - 1) & ~(step - 1);
    return fits(mem, lowest, h->needs) ? lowest : 0;
}

int bzimage_load(const struct guest_memory *mem, const struct payload_file *file,
                 struct loaded_kernel *kernel, struct err *err)
{
    struct header h;
    int r = read_header(file, &h, err);
    if (r < 0)
        return r;
    uint64_t at = choose_address(mem, &h);
    if (!at)
        return err_set(err, -EINVAL,
                       "%s: needs %llu MiB of memory to start, which the guest does not have; raise --memory",
                       file->path, (unsigned long long)((h.preferred + h.needs + (1 << 20) - 1) >> 20));
    r = payload_place(mem, file, h.payload_offset, at, h.payload_size, err);
    if (r < 0)
        return r;
    *kernel = (struct loaded_kernel){
        .entry = {.protocol = ARCH_BOOT_LINUX64, .ip = at + ENTRY_64},
        .start = at,
        .end = at + h.needs,
        .initrd_max = load_le32(h.raw + AT(initrd_addr_max)),
        .cmdline_max = load_le32(h.raw + AT(cmdline_size)),
        .has_header = true,
    };
    /* The header's own length: the byte behind the jump at 0x200 counts from 0x202. */
    uint32_t end = 0x202u + h.raw[0x201];
    if (end > HEADER_MAX)
        end = HEADER_MAX;
    kernel->setup_header_len = end - HEADER_OFFSET;
    memcpy(kernel->setup_header, h.raw + HEADER_OFFSET, kernel->setup_header_len);
    return 0;
}
