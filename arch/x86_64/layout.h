/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things lie in the guest's physical memory. Everything that the guest may reclaim once it has read it
 * lies below 0x30000; the rest of low memory stays free for the SMP trampoline of the guest's choice.
 */
#ifndef MINIVMM_X86_LAYOUT_H
#define MINIVMM_X86_LAYOUT_H

#define LAYOUT_GDT         0x1000ULL
#define LAYOUT_PML4        0x2000ULL
#define LAYOUT_PDPT        0x3000ULL
#define LAYOUT_PD          0x4000ULL /* four pages: 4 GiB in 2 MiB pages */
#define LAYOUT_BOOT_PARAMS 0x10000ULL
#define LAYOUT_SETUP_DATA  0x11000ULL
#define LAYOUT_PVH_INFO    0x12000ULL
#define LAYOUT_STACK_TOP   0x1fff0ULL
#define LAYOUT_CMDLINE     0x20000ULL
#define LAYOUT_CMDLINE_MAX 0x10000ULL
#define LAYOUT_BOOT_END    0x30000ULL /* first byte behind what we write before the payload */

#define LAYOUT_EBDA         0x9fc00ULL /* MP floating pointer and table */
#define LAYOUT_EBDA_END     0xa0000ULL
#define LAYOUT_BIOS         0xe0000ULL /* RSDP and ACPI tables, and code at the reset vector */
#define LAYOUT_BIOS_END     0x100000ULL
#define LAYOUT_RESET_VECTOR 0xffff0ULL
#define LAYOUT_HIGH         0x100000ULL

#define LAYOUT_HOLE     0xc0000000ULL /* RAM stops here and goes on at 4 GiB */
#define LAYOUT_HOLE_END 0x100000000ULL

#define LAYOUT_IOAPIC       0xfec00000ULL
#define LAYOUT_LAPIC        0xfee00000ULL
#define LAYOUT_IDENTITY_MAP 0xfffbc000ULL
#define LAYOUT_TSS          0xfffbd000ULL

#define PAGE_BYTES 4096ULL

#endif
