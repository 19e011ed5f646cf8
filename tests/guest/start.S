/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the test guest by the 64-bit Linux boot protocol (RSI: boot_params), the exception and interrupt
 * stubs, and the trampoline by which a second CPU reaches 64-bit mode.
 */
    .section .text.start, "ax"
    .code64
    .global _start
_start:
    cli
    mov     0x228(%rsi), %ebx           /* boot_params: hdr.cmd_line_ptr */
    .global start_with_cmdline
start_with_cmdline:
    lea     boot_stack_top(%rip), %rsp
    call    load_tables
    mov     %rbx, %rdi
    call    guest_main
1:  hlt
    jmp     1b

/* Own page tables, GDT and segments, so that nothing of the loader's is relied on. */
load_tables:
    lea     pml4(%rip), %rax
    mov     %rax, %cr3
    lgdt    gdt_pointer(%rip)
    mov     $0x10, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    pop     %rax
    pushq   $0x08
    push    %rax
    lretq

    .global ap_entry64
ap_entry64:
    lea     ap_stack_top(%rip), %rsp
    call    load_tables
    call    ap_main
1:  cli
    hlt
    jmp     1b

/* One stub a vector: push the vector, save what C may change, call interrupt(vector, error code, rip). */
    .macro STUB vector
    .balign 16
    .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17)
    .else
    pushq   $0
    .endif
    pushq   $\vector
    jmp     common
    .endm

    .balign 16
    .global stubs
stubs:
    .set    n, 0
    .rept   256
    STUB    n
    .set    n, n + 1
    .endr

common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    mov     72(%rsp), %rdi
    mov     80(%rsp), %rsi
    mov     88(%rsp), %rdx
    cld
    call    interrupt
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp
    iretq

/* Copied to AP_TRAMPOLINE (0x8000), where a started CPU begins in real mode with CS:IP = 0x0800:0. */
    .section .rodata
    .global ap_trampoline, ap_trampoline_end
    .code16
ap_trampoline:
    cli
    xor     %ax, %ax
    mov     %ax, %ds
    lgdtl   0x8000 + (ap_gdt_pointer - ap_trampoline)
    mov     $0x20, %eax                 /* PAE */
    mov     %eax, %cr4
    mov     0x8000 + (ap_cr3 - ap_trampoline), %eax
    mov     %eax, %cr3
    mov     $0xC0000080, %ecx           /* EFER.LME */
    rdmsr
    or      $0x100, %eax
    wrmsr
    mov     $0x80000011, %eax           /* PG | ET | PE: straight into 64-bit mode */
    mov     %eax, %cr0
    ljmpl   $0x08, $(0x8000 + (ap_long - ap_trampoline))
    .code64
ap_long:
    mov     0x8000 + (ap_target - ap_trampoline), %rax
    jmp     *%rax
    .balign 8
ap_target:
    .quad   ap_entry64
ap_cr3:
    .long   pml4
    .balign 8
ap_gdt:
    .quad   0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
ap_gdt_pointer:
    .word   23
    .long   0x8000 + (ap_gdt - ap_trampoline)
ap_trampoline_end:

    .section .data
    .balign 8
    .global gdt_pointer, pml4
gdt:
    .quad   0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
    .word   23
    .quad   gdt

/* The first 4 GiB mapped one to one in 2 MiB pages, uncached from 3 GiB on, all laid out at build time. */
    .balign 4096
pml4:
    .quad   pdpt + 3
    .fill   511, 8, 0
pdpt:
    .quad   pd + 3, pd + 0x1003, pd + 0x2003, pd + 0x3003
    .fill   508, 8, 0
pd:
    .set    page, 0
    .rept   2048
    .if     page < 1536
    .quad   (page << 21) + 0x83
    .else
    .quad   (page << 21) + 0x9B
    .endif
    .set    page, page + 1
    .endr

    .section .bss
    .balign 16
    .skip   16384
boot_stack_top:
    .skip   16384
ap_stack_top:
    .section .note.GNU-stack, "", @progbits
