/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers as text, for crash reports. */
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "minivmm/arch.h"

#define CODE_BYTES 16u

struct text {
    char *at;
    uint32_t left;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->at, t->left, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    uint32_t used = (uint32_t)n < t->left ? (uint32_t)n : t->left - 1;
    t->at += used;
    t->left -= used;
}

static void add_registers(struct text *t, const struct kvm_regs *r)
{
    const struct {
        const char *name;
        unsigned long long value;
    } all[] = {{"rip", r->rip}, {"rflags", r->rflags}, {"rax", r->rax}, {"rbx", r->rbx}, {"rcx", r->rcx},
               {"rdx", r->rdx}, {"rsi", r->rsi},       {"rdi", r->rdi}, {"rsp", r->rsp}, {"rbp", r->rbp},
               {"r8", r->r8},   {"r9", r->r9},         {"r10", r->r10}, {"r11", r->r11}, {"r12", r->r12},
               {"r13", r->r13}, {"r14", r->r14},       {"r15", r->r15}};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        add(t, "%6s %016llx%s", all[i].name, all[i].value, i % 3 == 2 ? "\n" : "  ");
}

static void add_code(struct text *t, int vcpu_fd, const struct guest_memory *mem, uint64_t rip)
{
    struct kvm_translation tr = {.linear_address = rip};
    if (ioctl(vcpu_fd, KVM_TRANSLATE, &tr) < 0 || !tr.valid)
        return;
    uint8_t code[CODE_BYTES];
    if (guest_memory_read(mem, tr.physical_address, code, sizeof(code)) < 0)
        return;
    add(t, "  code");
    for (unsigned i = 0; i < sizeof(code); i++)
        add(t, " %02x", code[i]);
    add(t, "\n");
}

void arch_vcpu_describe(int vcpu_fd, const struct guest_memory *mem, char *text, uint32_t size)
{
    struct text t = {text, size};
    struct kvm_regs regs;
    struct kvm_sregs s;
    if (!size)
        return;
    text[0] = '\0';
    if (ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu_fd, KVM_GET_SREGS, &s) < 0) {
        add(&t, "registers can't be read\n");
        return;
    }
    add_registers(&t, &regs);
    add(&t, "   cr0 %016llx     cr2 %016llx     cr3 %016llx\n", (unsigned long long)s.cr0,
        (unsigned long long)s.cr2, (unsigned long long)s.cr3);
    add(&t, "   cr4 %016llx    efer %016llx      cs %04x base %llx\n", (unsigned long long)s.cr4,
        (unsigned long long)s.efer, s.cs.selector, (unsigned long long)s.cs.base);
    add_code(&t, vcpu_fd, mem, s.cs.base + regs.rip);
}
