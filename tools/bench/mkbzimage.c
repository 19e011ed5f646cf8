/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a kernel image of 3 MB by the x86 boot protocol 2.15, whose code only ends the machine: what it
 * costs to start is the monitor's own.
 *
 * usage: mkbzimage FILE
 */
#include <asm/bootparam.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 512u
#define SETUP_SECTS                                                                                          \
    39u /* with the boot sector 20 KiB, so that the payload is page-aligned as Debian's is                   \
         */
#define PAYLOAD  (3u << 20)
#define HEADER   0x1f1u
#define ENTRY_64 0x200u

/* mov $0, %al; out %al, $0xF4; 1: hlt; jmp 1b -- the same bytes in 32-bit and 64-bit mode */
static const uint8_t code[] = {0xB0, 0x00, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD};

static uint8_t image[(SETUP_SECTS + 1) * SECTOR + PAYLOAD];

static void fill_header(void)
{
    struct setup_header h = {
        .setup_sects = SETUP_SECTS,
        .syssize = PAYLOAD / 16,
        .boot_flag = 0xAA55,
        .jump = 0xEB | (0x268 - 0x202) << 8, /* the header's end, by which loaders know its length */
        .header = 0x53726448,                /* HdrS */
        .version = 0x020F,
        .loadflags = LOADED_HIGH,
        .code32_start = 0x100000,
        .initrd_addr_max = 0x7FFFFFFF,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .min_alignment = 21,
        .xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        .cmdline_size = 2047,
        .pref_address = 0x1000000,
        .init_size = 32u << 20,
    };
    memcpy(image + HEADER, &h, sizeof(h));
}

int main(int argc, char **argv)
{
    uint8_t *payload = image + (SETUP_SECTS + 1) * SECTOR;
    uint32_t noise = 1;
    if (argc != 2) {
        fputs("usage: mkbzimage FILE\n", stderr);
        return 2;
    }
    fill_header();
    for (uint32_t i = 0; i < PAYLOAD; i++) {
        noise = noise * 1664525u + 1013904223u;
        payload[i] = (uint8_t)(noise >> 24);
    }
    memcpy(payload, code, sizeof(code));
    memcpy(payload + ENTRY_64, code, sizeof(code));
    FILE *f = fopen(argv[1], "wbe");
    if (!f || fwrite(image, sizeof(image), 1, f) != 1 || fclose(f) != 0) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
