/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test guest: a freestanding 64-bit kernel that drives minivmm's devices by their specifications and
 * reports TAP lines on COM1. It uses no SSE, no int3 and no long string instructions, so that it also runs
 * on a KVM that emulates kernel-mode code.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u

#define COM1            0x3F8u
#define DEBUG_EXIT      0xF4u
#define MMIO_BASE       0xD0000000ULL
#define MMIO_STRIDE     0x1000ULL
#define MMIO_WINDOWS    19u
#define MMIO_GSI        5u
#define VECTOR_GSI(gsi) (0x30u + (gsi))
#define VECTOR_TICK     0xE0u
#define VECTOR_SPURIOUS 0xFFu
#define TICKS_PER_S     20u

/* A lost interrupt ends a wait after this long; nothing is judged by time. */
#define GIVE_UP_TICKS (20u * TICKS_PER_S)

#define READ_ONCE(x)     (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
/* x86 keeps loads in order among loads and stores among stores; only store-then-load needs a real fence. */
#define barrier()        __asm__ volatile("" ::: "memory")
#define full_barrier()   __asm__ volatile("lock; orl $0, (%%rsp)" ::: "memory", "cc")
#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint32_t mmio_read32(uint64_t addr)
{
    uint32_t v;
    __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(addr) : "memory");
    return v;
}

static inline void mmio_write32(uint64_t addr, uint32_t v)
{
    __asm__ volatile("movl %0, (%1)" ::"r"(v), "r"(addr) : "memory");
}

static inline uint8_t mmio_read8(uint64_t addr)
{
    uint8_t v;
    __asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(addr) : "memory");
    return v;
}

static inline void cpu_relax(void)
{
    __asm__ volatile("pause");
}

/* cpu.c */
typedef void irq_handler(void *arg);
void cpu_init(void);
void irq_connect(unsigned gsi, irq_handler *handler, void *arg);
void irq_eoi(void);
uint64_t ticks(void);
void ticks_stop(void); /* for a guest that only waits */
/* Sleeps (interrupts on) until *word differs from value or GIVE_UP_TICKS passed; true when it differs. */
bool wait_change32(const volatile uint32_t *word, uint32_t value);
bool ap_start(void (*fn)(void)); /* true once the second CPU runs fn */
void ap_main(void);
void interrupt(uint64_t vector, uint64_t error, uint64_t rip);

/* report.c */
void print(const char *s);
void print_number(uint64_t n);
void print_hex(uint64_t n);
void fail(const char *file, int line, const char *what);
void skip(const char *why);
_Noreturn void finish(void);
bool test_begin(const char *name); /* false when the command line leaves this test out */
void test_end(void);
bool text_equal(const char *a, const char *b);
/* The value of "name=" on the command line, ended by a space or NUL; NULL when absent. */
const char *cmdline_value(const char *name);
uint64_t cmdline_number(const char *name, uint64_t otherwise); /* decimal */
void report_init(const char *cmdline);

/* Ends the current test as failed. A test returns at its first failure: later steps would only repeat it. */
#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fail(__FILE__, __LINE__, #cond);                                                                 \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)

/* bench.c: the load that the command line asks for, which ends the machine; returns when it asks for none. */
void bench(void);

/* The tests. */
void test_transport(void);
void test_block(void);
void test_block_queues(void);
void test_interrupts(void);
void test_hostile(void);
void test_rng(void);
void test_smp(void);

/* ice_modes.c: what "ice=..." on the command line asks for in place of all else; false when it asks nothing.
 */
bool ice_mode(void);
void test_ice(void);

/* fleet.c: the modes of a fleet's VM, and what it does behind them; that ends the machine unless "then" says
 * exit. */
void run_fleet(void);
void run_panic(void);
void fleet_then(void);

#endif
