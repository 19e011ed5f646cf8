/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this KVM runs guest kernel code natively. A software KVM may advertise CPU features whose
 * instructions its emulator lacks, so only trying tells: a tiny 64-bit guest executes int3, an SSE
 * instruction and cmpxchg16b and then writes a port. It runs in a child process, so that a KVM that hangs on
 * it can be killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpuid.h"
#include "layout.h"
#include "minivmm/arch.h"
#include "payload.h"
#include "start.h"

#define PROBE_MEMORY   0x200000u
#define PROBE_CODE     0x100000u
#define PROBE_IDT      0x110000u
#define PROBE_PORT     0xf4u
#define PROBE_LIMIT_MS 2000
#define CR4_OSFXSR     0x600u /* OSFXSR and OSXMMEXCPT */

/* Progress is what the guest leaves in bl: how far it came tells which instruction failed. */
static const uint8_t guest_code[] = {
    0x31, 0xdb,                                     /* xor ebx, ebx */
    0xcc,                                           /* int3: the handler sets bl to 1 */
    0x80, 0xfb,       0x01,                         /* cmp bl, 1 */
    0x75, 0x20,                                     /* jne out */
    0x66, 0x0f,       0xef, 0xc0,                   /* pxor xmm0, xmm0 */
    0xb3, 0x02,                                     /* mov bl, 2 */
    0x31, 0xc0,       0x31, 0xd2, 0x31, 0xc9,       /* xor eax, eax; xor edx, edx; xor ecx, ecx */
    0x48, 0xc7,       0xc7, 0x00, 0x20, 0x11, 0x00, /* mov rdi, 0x112000 */
    0x48, 0x0f,       0xc7, 0x0f,                   /* cmpxchg16b [rdi] */
    0x75, 0x07,                                     /* jne out (memory was zero, so it is equal) */
    0xb3, 0x03,                                     /* mov bl, 3 */
    0x90, 0x90,       0x90, 0x90, 0x90,             /* nop */
    0x88, 0xd8,                                     /* out: mov al, bl */
    0xe6, PROBE_PORT,                               /* out 0xf4, al */
    0xf4,                                           /* hlt */
};
static const uint8_t handler[] = {0xb3, 0x01, 0x48, 0xcf}; /* mov bl, 1; iretq */
#define HANDLER_AT (PROBE_CODE + 0x800u)

static const char *const reached[] = {"int3", "SSE (pxor)", "cmpxchg16b", NULL};

/* A 64-bit interrupt gate for vector 3. */
static void write_gate(uint8_t *ram)
{
    uint8_t *gate = ram + PROBE_IDT + (size_t)3 * 16;
    uint32_t at = HANDLER_AT;
    memcpy(gate, &at, 2);
    gate[2] = 0x10; /* code selector */
    gate[5] = 0x8e; /* present, interrupt gate */
    gate[6] = (uint8_t)(at >> 16);
    gate[7] = (uint8_t)(at >> 24);
}

static int prepare(int kvm_fd, uint8_t *ram, int *vm_fd, int *vcpu_fd)
{
    struct guest_memory mem = {.region = {{.gpa = 0, .size = PROBE_MEMORY, .hva = ram}}, .count = 1};
    struct arch_cpu_model *model;
    const struct arch_entry entry = {.protocol = ARCH_BOOT_ELF64, .ip = PROBE_CODE};
    memcpy(ram + PROBE_CODE, guest_code, sizeof(guest_code));
    memcpy(ram + HANDLER_AT, handler, sizeof(handler));
    write_gate(ram);
    *vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_MEMORY,
                                                 .userspace_addr = (uintptr_t)ram};
    if (*vm_fd < 0 || start_tables_write(&mem, NULL) < 0 || arch_vm_init(kvm_fd, *vm_fd, NULL) < 0 ||
        ioctl(*vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return -EIO;
    *vcpu_fd = ioctl(*vm_fd, KVM_CREATE_VCPU, 0);
    if (*vcpu_fd < 0 || arch_cpu_model_create(kvm_fd, "host", &model, NULL) < 0)
        return -EIO;
    int r = arch_vcpu_init(kvm_fd, *vcpu_fd, 0, 1, model, &entry, NULL);
    arch_cpu_model_free(model);
    struct kvm_sregs sregs;
    if (r < 0 || ioctl(*vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return -EIO;
    sregs.idt.base = PROBE_IDT;
    sregs.idt.limit = 4 * 16 - 1;
    sregs.cr4 |= CR4_OSFXSR;
    return ioctl(*vcpu_fd, KVM_SET_SREGS, &sregs) < 0 ? -EIO : 0;
}

/* The child's work: 0 native; 1 + n: failed after n instructions of reached[]; -errno. */
static int run_probe(int kvm_fd)
{
    int vm_fd, vcpu_fd;
    uint8_t *ram = mmap(NULL, PROBE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (ram == MAP_FAILED || size < 0 || prepare(kvm_fd, ram, &vm_fd, &vcpu_fd) < 0)
        return -EIO;
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (run == MAP_FAILED)
        return -EIO;
    while (ioctl(vcpu_fd, KVM_RUN, 0) < 0)
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == PROBE_PORT) {
        uint8_t progress = *((uint8_t *)run + run->io.data_offset);
        return progress >= 3 ? 0 : 1 + progress;
    }
    struct kvm_regs regs;
    if (ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0)
        return -errno;
    return 1 + (int)(regs.rbx & 3);
}

static int verdict(int code, char *why, uint32_t why_size)
{
    if (code < 0) {
        snprintf(why, why_size, "the probe could not run: %s", strerror(-code));
        return code;
    }
    if (code == 0)
        return 0;
    const char *what = reached[code - 1 < 3 ? code - 1 : 2];
    snprintf(why, why_size, "guest kernel code is emulated, not run: %s fails", what);
    return 1;
}

int arch_probe_native(int kvm_fd, char *why, uint32_t why_size)
{
    int fds[2], code = -EIO;
    why[0] = '\0';
    if (pipe2(fds, O_CLOEXEC) < 0)
        return verdict(-errno, why, why_size);
    pid_t child = fork();
    if (child == 0) {
        int answer = run_probe(kvm_fd);
        ssize_t ignored = write(fds[1], &answer, sizeof(answer));
        (void)ignored;
        _exit(0);
    }
    close(fds[1]);
    if (child < 0) {
        code = -errno;
    } else {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        if (poll(&p, 1, PROBE_LIMIT_MS) != 1)
            code = -ETIMEDOUT;
        else if (read(fds[0], &code, sizeof(code)) != (ssize_t)sizeof(code))
            code = -EIO;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    close(fds[0]);
    return verdict(code, why, why_size);
}
