/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor and page tables, and the registers of vCPU 0's first instruction. */
#include "start.h"

#include <errno.h>
#include <string.h>

#include "layout.h"
#include "payload.h"

#define CR0_PE   (1u << 0)
#define CR0_ET   (1u << 4)
#define CR0_NE   (1u << 5)
#define CR0_PG   (1u << 31)
#define CR4_PAE  (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

#define PTE_PRESENT 0x1u
#define PTE_WRITE   0x2u
#define PTE_LARGE   0x80u

/* Linux wants these selectors at its 64-bit entry (__BOOT_CS, __BOOT_DS); PVH takes any flat ones. */
#define SELECTOR_CODE 0x10u
#define SELECTOR_DATA 0x18u
#define SELECTOR_TSS  0x20u

/* flags: G, D/B, L, AVL in bits 15:12, access byte in bits 7:0. */
static uint64_t descriptor(uint16_t flags, uint32_t base, uint32_t limit)
{
    return (uint64_t)(limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(flags & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(flags >> 12) << 52 | (uint64_t)(base >> 24) << 56;
}

static struct kvm_segment segment(uint16_t selector, uint64_t descriptor_value, uint32_t limit)
{
    return (struct kvm_segment){
        .selector = selector,
        .limit = limit,
        .type = descriptor_value >> 40 & 0xf,
        .s = descriptor_value >> 44 & 1,
        .dpl = descriptor_value >> 45 & 3,
        .present = descriptor_value >> 47 & 1,
        .avl = descriptor_value >> 52 & 1,
        .l = descriptor_value >> 53 & 1,
        .db = descriptor_value >> 54 & 1,
        .g = descriptor_value >> 55 & 1,
    };
}

#define CODE64 descriptor(0xa09b, 0, 0xfffff)
#define CODE32 descriptor(0xc09b, 0, 0xfffff)
#define DATA32 descriptor(0xc093, 0, 0xfffff)
#define TSS32  descriptor(0x008b, 0, 0x67)

/*
 * What lies at the reset vector: Linux reboots by jumping there in real mode where nothing tells it of a
 * better way (BOOT_BIOS), and expects a BIOS. This one asks the keyboard controller for the reset: mov al,
 * 0xfe; out 0x64, al; hlt.
 */
static const uint8_t reset_code[] = {0xb0, 0xfe, 0xe6, ARCH_PORT_KEYBOARD, 0xf4, 0xeb, 0xfd};

int start_tables_write(const struct guest_memory *mem, struct err *err)
{
    const uint64_t gdt[] = {0, 0, CODE64, DATA32, TSS32, 0};
    uint64_t *pml4 = guest_memory_at(mem, LAYOUT_PML4, PAGE_BYTES, GUEST_WRITE);
    uint64_t *pdpt = guest_memory_at(mem, LAYOUT_PDPT, PAGE_BYTES, GUEST_WRITE);
    uint64_t *pd = guest_memory_at(mem, LAYOUT_PD, 4 * PAGE_BYTES, GUEST_WRITE);
    if (!pml4 || !pdpt || !pd || guest_memory_write(mem, LAYOUT_GDT, gdt, sizeof(gdt)) < 0 ||
        guest_memory_write(mem, LAYOUT_RESET_VECTOR, reset_code, sizeof(reset_code)) < 0)
        return err_set(err, -EINVAL, "--memory is too small for the boot structures");
    pml4[0] = LAYOUT_PDPT | PTE_PRESENT | PTE_WRITE;
    for (uint64_t i = 0; i < 4; i++)
        pdpt[i] = (LAYOUT_PD + i * PAGE_BYTES) | PTE_PRESENT | PTE_WRITE;
    for (uint64_t i = 0; i < 4 * 512ULL; i++)
        pd[i] = i << 21 | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
    return 0;
}

void start_registers(const struct arch_entry *entry, struct kvm_regs *regs, struct kvm_sregs *sregs)
{
    bool pvh = entry->protocol == ARCH_BOOT_PVH;
    struct kvm_segment data = segment(SELECTOR_DATA, DATA32, 0xffffffff);
    sregs->cs = segment(SELECTOR_CODE, pvh ? CODE32 : CODE64, 0xffffffff);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr = segment(SELECTOR_TSS, TSS32, 0x67);
    sregs->gdt.base = LAYOUT_GDT;
    sregs->gdt.limit = 6 * 8 - 1;
    sregs->idt.base = 0;
    sregs->idt.limit = 0; /* an exception before the guest has an IDT is a triple fault, which is reported */
    sregs->cr0 = CR0_PE | CR0_ET;
    if (!pvh) {
        sregs->cr0 |= CR0_PG | CR0_NE;
        sregs->cr3 = LAYOUT_PML4;
        sregs->cr4 |= CR4_PAE;
        sregs->efer |= EFER_LME | EFER_LMA;
    }
    memset(regs, 0, sizeof(*regs));
    regs->rflags = 2;
    regs->rip = entry->ip;
    regs->rsp = LAYOUT_STACK_TOP;
    if (pvh)
        regs->rbx = entry->params;
    else
        regs->rsi = entry->params;
}
