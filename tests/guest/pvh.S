/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second door for guest-pvh.elf: the PVH note, and its 32-bit entry (protected mode without paging, EBX:
 * start info), which goes to 64-bit mode and on as _start does.
 */
    .section .note.pvh, "a", @note
    .balign 4
    .long   4, 4, 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz  "Xen"
    .long   pvh_entry

    .section .text
    .code32
    .global pvh_entry
pvh_entry:
    cli
    mov     $0x20, %eax                 /* PAE */
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xC0000080, %ecx           /* EFER.LME */
    rdmsr
    or      $0x100, %eax
    wrmsr
    mov     %cr0, %eax
    or      $0x80000001, %eax           /* PG, PE */
    mov     %eax, %cr0
    lgdt    gdt_pointer
    ljmp    $0x08, $pvh_long
    .code64
pvh_long:
    mov     24(%rbx), %rbx              /* hvm_start_info.cmdline_paddr */
    jmp     start_with_cmdline
    .section .note.GNU-stack, "", @progbits
