/* SPDX-License-Identifier: Apache-2.0 */
/* The PVH start info (Xen's docs/misc/pvh, struct hvm_start_info version 1), little-endian by hand. */
#include <string.h>

#include "layout.h"
#include "minivmm/bytes.h"
#include "payload.h"

#define START_MAGIC   0x336ec578u
#define START_VERSION 1u
#define START_BYTES   56u
#define MODULE_BYTES  32u
#define ENTRY_BYTES   24u
#define MODULE_AT     (LAYOUT_PVH_INFO + 64)
#define MEMMAP_AT     (LAYOUT_PVH_INFO + 128)

int pvh_write(const struct boot_info *info, struct err *err)
{
    uint8_t page[128 + MEMMAP_MAX * ENTRY_BYTES] = {0};
    struct memmap_entry map[MEMMAP_MAX];
    unsigned n = memmap_fill(info->mem, map);
    store_le32(page, START_MAGIC);
    store_le32(page + 4, START_VERSION);
    store_le32(page + 12, info->initrd_size ? 1 : 0);
    store_le64(page + 16, info->initrd_size ? MODULE_AT : 0);
    store_le64(page + 24, LAYOUT_CMDLINE);
    store_le64(page + 32, info->rsdp);
    store_le64(page + 40, MEMMAP_AT);
    store_le32(page + 48, n);
    store_le64(page + 64, info->initrd);
    store_le64(page + 72, info->initrd_size);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = page + 128 + (size_t)i * ENTRY_BYTES;
        store_le64(e, map[i].start);
        store_le64(e + 8, map[i].size);
        store_le32(e + 16, map[i].type);
    }
    if (guest_memory_write(info->mem, LAYOUT_PVH_INFO, page, sizeof(page)) < 0)
        return err_set(err, -22, "--memory is too small for the boot structures");
    return 0;
}
