/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map and Linux's zero page. */
#include <asm/bootparam.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include "layout.h"
#include "minivmm/bytes.h"
#include "payload.h"

#define LOADER_UNDEFINED    0xffu
#define RNG_SEED_TYPE       9u /* SETUP_RNG_SEED, younger than Debian's header */
#define RNG_SEED_BYTES      32u
#define RSDP_ADDRESS_OFFSET 0x70u
#define SETUP_DATA_HEADER   16u

unsigned memmap_fill(const struct guest_memory *mem, struct memmap_entry *map)
{
    unsigned n = 0;
    map[n++] = (struct memmap_entry){0, LAYOUT_EBDA, MEMMAP_RAM};
    map[n++] = (struct memmap_entry){LAYOUT_EBDA, LAYOUT_EBDA_END - LAYOUT_EBDA, MEMMAP_RESERVED};
    map[n++] = (struct memmap_entry){LAYOUT_BIOS, LAYOUT_BIOS_END - LAYOUT_BIOS, MEMMAP_RESERVED};
    for (unsigned i = 0; i < mem->count; i++) {
        const struct guest_region *r = &mem->region[i];
        uint64_t start = r->gpa < LAYOUT_HIGH ? LAYOUT_HIGH : r->gpa;
        map[n++] = (struct memmap_entry){start, r->gpa + r->size - start, MEMMAP_RAM};
    }
    return n;
}

/* Seeds the guest's random generator; a guest without virtio-rng would otherwise boot with little entropy. */
static int write_seed(const struct guest_memory *mem, struct err *err)
{
    uint8_t node[SETUP_DATA_HEADER + RNG_SEED_BYTES] = {0};
    store_le32(node + 8, RNG_SEED_TYPE);
    store_le32(node + 12, RNG_SEED_BYTES);
    if (getrandom(node + SETUP_DATA_HEADER, RNG_SEED_BYTES, 0) != RNG_SEED_BYTES)
        return err_set(err, -EIO, "the host gave no random seed for the guest");
    return guest_memory_write(mem, LAYOUT_SETUP_DATA, node, sizeof(node));
}

static void fill_header(struct boot_params *bp, const struct boot_info *info,
                        const struct loaded_kernel *kernel)
{
    struct setup_header *h = &bp->hdr;
    if (kernel->has_header) {
        memcpy(h, kernel->setup_header,
               kernel->setup_header_len < sizeof(*h) ? kernel->setup_header_len : sizeof(*h));
    } else {
        h->boot_flag = 0xaa55;
        memcpy(&h->header, "HdrS", 4);
        h->version = 0x020f;
        h->kernel_alignment = 0x1000000;
    }
    h->type_of_loader = LOADER_UNDEFINED;
    h->cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
    h->cmdline_size = info->cmdline_len;
    h->ramdisk_image = (uint32_t)info->initrd;
    h->ramdisk_size = (uint32_t)info->initrd_size;
    bp->ext_ramdisk_image = (uint32_t)(info->initrd >> 32);
    bp->ext_ramdisk_size = (uint32_t)(info->initrd_size >> 32);
    h->setup_data = LAYOUT_SETUP_DATA;
}

int boot_params_write(const struct boot_info *info, const struct loaded_kernel *kernel, struct err *err)
{
    struct boot_params bp;
    struct memmap_entry map[MEMMAP_MAX];
    memset(&bp, 0, sizeof(bp));
    fill_header(&bp, info, kernel);
    memcpy((uint8_t *)&bp + RSDP_ADDRESS_OFFSET, &info->rsdp, sizeof(info->rsdp));
    unsigned n = memmap_fill(info->mem, map);
    for (unsigned i = 0; i < n; i++)
        bp.e820_table[i] =
            (struct boot_e820_entry){.addr = map[i].start, .size = map[i].size, .type = map[i].type};
    bp.e820_entries = (uint8_t)n;
    int r = write_seed(info->mem, err);
    if (r == 0)
        r = guest_memory_write(info->mem, LAYOUT_BOOT_PARAMS, &bp, sizeof(bp));
    return r;
}
