/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts: IDT, local APIC with a periodic tick, IO-APIC; and the start of a second CPU. */
#include "guest.h"

#define LAPIC         0xFEE00000ULL
#define LAPIC_ID      (LAPIC + 0x20)
#define LAPIC_EOI     (LAPIC + 0xB0)
#define LAPIC_SVR     (LAPIC + 0xF0)
#define LAPIC_ICR_LO  (LAPIC + 0x300)
#define LAPIC_ICR_HI  (LAPIC + 0x310)
#define LAPIC_TIMER   (LAPIC + 0x320)
#define LAPIC_COUNT   (LAPIC + 0x380)
#define LAPIC_DIVIDE  (LAPIC + 0x3E0)
#define IOAPIC_SELECT 0xFEC00000ULL
#define IOAPIC_WINDOW 0xFEC00010ULL

#define ICR_INIT    0x4500u /* INIT, assert */
#define ICR_STARTUP 0x4600u

/* KVM's LAPIC timer counts nanoseconds when not divided. */
#define TICK_COUNT (1000000000u / TICKS_PER_S)

#define AP_TRAMPOLINE 0x8000ULL

struct idt_entry {
    uint16_t offset_low, selector, type, offset_mid;
    uint32_t offset_high, zero;
};

struct __attribute__((packed)) idt_pointer {
    uint16_t limit;
    uint64_t base;
};

extern uint8_t stubs[][16];
extern const uint8_t ap_trampoline[], ap_trampoline_end[];

static struct idt_entry idt[256] __attribute__((aligned(16)));
static uint64_t tick_count;

static struct {
    irq_handler *fn;
    void *arg;
} handlers[24];

static void idt_set(unsigned vector)
{
    uint64_t at = (uint64_t)stubs[vector];

    idt[vector] = (struct idt_entry){
        .offset_low = (uint16_t)at,
        .selector = 0x08,
        .type = 0x8E00,
        .offset_mid = (uint16_t)(at >> 16),
        .offset_high = (uint32_t)(at >> 32),
    };
}

static void idt_load(void)
{
    struct idt_pointer p = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" ::"m"(p));
}

void cpu_init(void)
{
    for (unsigned v = 0; v < 32; v++)
        idt_set(v);
    for (unsigned gsi = 0; gsi < ARRAY_SIZE(handlers); gsi++)
        idt_set(VECTOR_GSI(gsi));
    idt_set(VECTOR_TICK);
    idt_set(VECTOR_SPURIOUS);
    idt_load();

    /* The PICs stay out of it. */
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
    mmio_write32(LAPIC_SVR, 0x100 | VECTOR_SPURIOUS);
    mmio_write32(LAPIC_DIVIDE, 0xB); /* by 1 */
    mmio_write32(LAPIC_TIMER, 0x20000 | VECTOR_TICK);
    mmio_write32(LAPIC_COUNT, TICK_COUNT);
}

void irq_connect(unsigned gsi, irq_handler *handler, void *arg)
{
    handlers[gsi].arg = arg;
    handlers[gsi].fn = handler;
    /* High word first: destination APIC 0. Low word: edge-triggered, active high, fixed, unmasked. */
    mmio_write32(IOAPIC_SELECT, 0x11 + 2 * gsi);
    mmio_write32(IOAPIC_WINDOW, 0);
    mmio_write32(IOAPIC_SELECT, 0x10 + 2 * gsi);
    mmio_write32(IOAPIC_WINDOW, VECTOR_GSI(gsi));
}

void irq_eoi(void)
{
    mmio_write32(LAPIC_EOI, 0);
}

uint64_t ticks(void)
{
    return READ_ONCE(tick_count);
}

void ticks_stop(void)
{
    mmio_write32(LAPIC_COUNT, 0);
}

void interrupt(uint64_t vector, uint64_t error, uint64_t rip)
{
    unsigned gsi = (unsigned)vector - VECTOR_GSI(0);

    if (vector < 32) {
        print("Bail out! exception ");
        print_number(vector);
        print(" error ");
        print_hex(error);
        print(" at ");
        print_hex(rip);
        print("\n");
        outb(DEBUG_EXIT, 31);
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    if (vector == VECTOR_SPURIOUS)
        return;
    if (vector == VECTOR_TICK)
        WRITE_ONCE(tick_count, tick_count + 1);
    else if (gsi < ARRAY_SIZE(handlers) && handlers[gsi].fn)
        handlers[gsi].fn(handlers[gsi].arg);
    irq_eoi();
}

bool wait_change32(const volatile uint32_t *word, uint32_t value)
{
    uint64_t until = ticks() + GIVE_UP_TICKS;
    bool changed;

    /* sti takes effect after the next instruction, so nothing can come between it and hlt. */
    __asm__ volatile("cli" ::: "memory");
    while (!(changed = *word != value) && ticks() < until)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    __asm__ volatile("sti" ::: "memory");
    return changed;
}

static void (*ap_fn)(void);
static volatile uint32_t ap_up;

/* The second CPU's first C: interrupts stay off there, it polls. */
void ap_main(void)
{
    idt_load();
    ap_up = 1;
    ap_fn();
}

static void wait_ticks(unsigned n)
{
    uint64_t until = ticks() + n;

    while (ticks() < until)
        __asm__ volatile("sti; hlt" ::: "memory");
}

bool ap_start(void (*fn)(void))
{
    volatile uint8_t *to = (volatile uint8_t *)AP_TRAMPOLINE;

    for (size_t i = 0; ap_trampoline + i < ap_trampoline_end; i++)
        to[i] = ap_trampoline[i];
    ap_fn = fn;
    ap_up = 0;
    mmio_write32(LAPIC_ICR_HI, 1u << 24);
    mmio_write32(LAPIC_ICR_LO, ICR_INIT);
    wait_ticks(1);
    mmio_write32(LAPIC_ICR_HI, 1u << 24);
    mmio_write32(LAPIC_ICR_LO, ICR_STARTUP | (AP_TRAMPOLINE >> 12));
    return wait_change32(&ap_up, 0);
}
