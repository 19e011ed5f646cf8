/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port, driven as Linux's 8250 driver does: detection, interrupts whose edges must not be lost,
 * input. */
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "minivmm/serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define FCR        IIR
#define IER_RX     0x01
#define IER_THRE   0x02
#define FIFO_ON    0x01
#define FIFO_CLEAR 0x02
#define DLAB       0x80
#define LOOP       0x10
#define NONE       0x01
#define THRE       0x02
#define RX         0x04
#define STREAM     5000u

static struct serial *serial;
static int irq_fd, room_fd;
static uint8_t sent[64];
static size_t sent_len;
static atomic_uint rooms;

static void on_output(void *ctx, const uint8_t *bytes, size_t len)
{
    ck_assert_ptr_eq(ctx, &serial);
    ck_assert_uint_le(sent_len + len, sizeof(sent));
    memcpy(sent + sent_len, bytes, len);
    sent_len += len;
}

static void on_room(void *ctx)
{
    ck_assert_ptr_eq(ctx, &serial);
    atomic_fetch_add(&rooms, 1);
    event_signal(room_fd);
}

static uint8_t in(unsigned reg)
{
    uint8_t value = 0xa5;
    serial_bus_ops.read(serial, reg, &value, 1);
    return value;
}

static void out(unsigned reg, uint8_t value)
{
    serial_bus_ops.write(serial, reg, &value, 1);
}

/* The edges since the last look. */
static uint64_t edges(void)
{
    return event_clear(irq_fd);
}

static size_t feed(const char *text)
{
    return serial_feed(serial, (const uint8_t *)text, strlen(text));
}

static void setup(void)
{
    struct err err;
    irq_fd = event_open();
    room_fd = event_open();
    ck_assert_int_ge(irq_fd, 0);
    ck_assert_int_ge(room_fd, 0);
    sent_len = 0;
    atomic_store(&rooms, 0);
    const struct serial_config config = {
        .irq_fd = irq_fd, .output = on_output, .input_ready = on_room, .ctx = &serial};
    ck_assert_int_eq(serial_create(&config, &serial, &err), 0);
}

static void teardown(void)
{
    serial_destroy(serial);
    close(irq_fd);
    close(room_fd);
}

START_TEST(is_detected_as_a_16550a)
{
    out(IER, 0);
    ck_assert_uint_eq(in(IER), 0);
    out(IER, 0xff);
    ck_assert_uint_eq(in(IER), 0x0f);
    out(IER, 0);
    out(MCR, LOOP | 0x0a); /* RTS and OUT2 come back as CTS and DCD */
    ck_assert_uint_eq(in(MSR)&0xf0, 0x90);
    out(MCR, LOOP | 0x05); /* DTR and OUT1 as DSR and RI */
    ck_assert_uint_eq(in(MSR)&0xf0, 0x60);
    out(MCR, 0);
    ck_assert_uint_eq(in(MSR)&0xf0, 0xb0);
    ck_assert_uint_eq(in(IIR), NONE);
    out(FCR, FIFO_ON);
    ck_assert_uint_eq(in(IIR), 0xc0 | NONE);
    out(FCR, 0);
    ck_assert_uint_eq(in(IIR), NONE);
    out(SCR, 0x5a);
    ck_assert_uint_eq(in(SCR), 0x5a);
    ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier)
{
    out(IER, IER_RX);
    out(LCR, DLAB | 3);
    out(DATA, 0x34);
    out(IER, 0x12);
    ck_assert_uint_eq(in(DATA), 0x34);
    ck_assert_uint_eq(in(IER), 0x12);
    out(LCR, 3);
    ck_assert_uint_eq(in(LCR), 3);
    ck_assert_uint_eq(in(IER), IER_RX);
    ck_assert_uint_eq(sent_len, 0);
}
END_TEST

START_TEST(enabling_thre_and_each_byte_sent_raise_the_line)
{
    ck_assert_uint_eq(edges(), 0);
    out(IER, IER_THRE);
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(in(IIR), THRE);
    ck_assert_uint_eq(in(IIR), NONE); /* reading it acknowledged it */
    ck_assert_uint_eq(edges(), 0);
    for (const char *c = "hi"; *c; c++) {
        out(DATA, (uint8_t)*c);
        ck_assert_uint_eq(edges(), 1);
        ck_assert_uint_eq(in(IIR), THRE);
    }
    /* A driver that polls LSR, and reads IIR only when the line rises, hears of each byte too. */
    for (unsigned i = 0; i < 2; i++) {
        out(DATA, '!');
        ck_assert_uint_eq(edges(), 1);
    }
    /* Linux tests for a broken THRE interrupt by switching it off and on. */
    out(IER, 0);
    out(IER, IER_THRE);
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(in(IIR), THRE);
    ck_assert_uint_eq(sent_len, 4);
    ck_assert_mem_eq(sent, "hi!!", 4);
}
END_TEST

START_TEST(a_masked_condition_raises_nothing_until_it_is_unmasked)
{
    ck_assert_uint_eq(feed("x"), 1);
    out(DATA, 'y');
    ck_assert_uint_eq(edges(), 0);
    ck_assert_uint_eq(in(IIR), NONE);
    out(IER, IER_RX);
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(in(IIR), RX);
}
END_TEST

START_TEST(input_comes_before_thre_and_thre_is_raised_after_it)
{
    out(FCR, FIFO_ON);
    out(IER, IER_RX | IER_THRE);
    ck_assert_uint_eq(feed("ab"), 2);
    ck_assert_uint_ge(edges(), 1);
    ck_assert_uint_eq(in(IIR)&0x0f, RX);
    ck_assert_uint_eq(in(IIR)&0x0f, RX); /* only reading the data takes it back */
    ck_assert_uint_eq(in(LSR)&1, 1);
    ck_assert_uint_eq(in(DATA), 'a');
    ck_assert_uint_eq(edges(), 0);
    ck_assert_uint_eq(in(DATA), 'b');
    ck_assert_uint_eq(in(LSR)&1, 0);
    /* THRE was pending all along and had no edge of its own yet. */
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(in(IIR)&0x0f, THRE);
    ck_assert_uint_eq(in(IIR)&0x0f, NONE);
}
END_TEST

START_TEST(a_byte_that_comes_while_one_waits_has_an_edge_of_its_own)
{
    out(FCR, FIFO_ON);
    out(IER, IER_RX);
    ck_assert_uint_eq(feed("a"), 1);
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(feed("b"), 1);
    ck_assert_uint_eq(edges(), 1);
    ck_assert_uint_eq(in(DATA), 'a');
    ck_assert_uint_eq(in(DATA), 'b');
    ck_assert_uint_eq(feed(""), 0);
    ck_assert_uint_eq(edges(), 0);
}
END_TEST

START_TEST(takes_what_fits_and_asks_for_more_when_read)
{
    ck_assert_uint_eq(feed("abc"), 1); /* no FIFO yet */
    ck_assert_uint_eq(feed("b"), 0);
    ck_assert_uint_eq(in(DATA), 'a');
    ck_assert_uint_eq(atomic_load(&rooms), 1);
    ck_assert_uint_eq(in(DATA), 0); /* empty: nothing, and no new room */
    ck_assert_uint_eq(atomic_load(&rooms), 1);
    out(FCR, FIFO_ON);
    ck_assert_uint_eq(feed("0123456789abcdefXYZ"), 16);
    atomic_store(&rooms, 0);
    for (const char *c = "0123456789abcdef"; *c; c++)
        ck_assert_uint_eq(in(DATA), (uint8_t)*c);
    ck_assert_uint_eq(atomic_load(&rooms), 16);
}
END_TEST

/* A driver that starts empties the FIFO rather than read it: who waits for room must hear of that too. */
START_TEST(room_made_by_control_registers_is_told)
{
    ck_assert_uint_eq(feed("ab"), 1);
    out(FCR, FIFO_ON);
    ck_assert_uint_eq(atomic_load(&rooms), 1);
    ck_assert_uint_eq(feed("0123456789abcdef"), 16);
    out(FCR, FIFO_ON | FIFO_CLEAR);
    ck_assert_uint_eq(atomic_load(&rooms), 2);
    ck_assert_uint_eq(in(LSR)&1, 0);
    out(MCR, LOOP);
    ck_assert_uint_eq(feed("z"), 0);
    ck_assert_uint_eq(atomic_load(&rooms), 2);
    out(MCR, 0);
    ck_assert_uint_eq(atomic_load(&rooms), 3);
    ck_assert_uint_eq(feed("z"), 1);
}
END_TEST

START_TEST(loopback_keeps_bytes_from_the_wire)
{
    out(FCR, FIFO_ON);
    out(IER, IER_RX);
    out(MCR, LOOP);
    for (unsigned i = 0; i < 16; i++)
        out(DATA, (uint8_t)('a' + i));
    ck_assert_uint_ge(edges(), 1);
    ck_assert_uint_eq(in(LSR), 0x61);
    out(DATA, '!');
    ck_assert_uint_eq(in(LSR), 0x63); /* overrun, told once */
    ck_assert_uint_eq(in(LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(in(DATA), 'a' + i);
    ck_assert_uint_eq(in(LSR), 0x60);
    ck_assert_uint_eq(sent_len, 0);
}
END_TEST

START_TEST(wide_accesses_stay_in_their_bytes)
{
    uint8_t wide[8];
    memset(wide, 0xee, sizeof(wide));
    out(SCR, 0x77);
    serial_bus_ops.read(serial, SCR, wide, 4);
    const uint8_t wanted[8] = {0x77, 0, 0, 0, 0xee, 0xee, 0xee, 0xee};
    ck_assert_mem_eq(wide, wanted, sizeof(wide));
    const uint8_t many[4] = {'a', 'b', 'c', 'd'};
    serial_bus_ops.write(serial, DATA, many, 4);
    ck_assert_uint_eq(sent_len, 1);
}
END_TEST

START_TEST(works_without_a_host_side)
{
    struct serial *alone;
    const struct serial_config config = {.irq_fd = irq_fd};
    ck_assert_int_eq(serial_create(&config, &alone, NULL), 0);
    uint8_t byte = 'x';
    serial_bus_ops.write(alone, DATA, &byte, 1);
    ck_assert_uint_eq(serial_feed(alone, &byte, 1), 1);
    serial_bus_ops.read(alone, DATA, &byte, 1);
    ck_assert_uint_eq(byte, 'x');
    serial_destroy(alone);
}
END_TEST

static bool wait_on(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 20000) == 1 && event_clear(fd) > 0;
}

static void *feeder(void *arg)
{
    for (unsigned n = 0; n < STREAM;) {
        uint8_t byte = (uint8_t)n;
        if (serial_feed(serial, &byte, 1))
            n++;
        else if (!wait_on(room_fd))
            return arg; /* no room was announced */
    }
    return NULL;
}

/* The driver looks only when the line has risen, and until nothing is pending, as Linux does. */
START_TEST(no_edge_is_lost_between_threads)
{
    out(FCR, FIFO_ON);
    out(IER, IER_RX);
    pthread_t thread;
    void *failure;
    unsigned got = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, feeder, serial), 0);
    while (got < STREAM) {
        ck_assert_msg(wait_on(irq_fd), "the line stayed low after %u bytes", got);
        while (!(in(IIR)&NONE)) {
            ck_assert_uint_eq(in(DATA), (uint8_t)got);
            got++;
        }
    }
    pthread_join(thread, &failure);
    ck_assert_msg(failure == NULL, "room was not announced");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial");
    TCase *tc = tcase_create("serial");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, is_detected_as_a_16550a);
    tcase_add_test(tc, divisor_latch_hides_data_and_ier);
    tcase_add_test(tc, enabling_thre_and_each_byte_sent_raise_the_line);
    tcase_add_test(tc, a_masked_condition_raises_nothing_until_it_is_unmasked);
    tcase_add_test(tc, input_comes_before_thre_and_thre_is_raised_after_it);
    tcase_add_test(tc, a_byte_that_comes_while_one_waits_has_an_edge_of_its_own);
    tcase_add_test(tc, takes_what_fits_and_asks_for_more_when_read);
    tcase_add_test(tc, room_made_by_control_registers_is_told);
    tcase_add_test(tc, loopback_keeps_bytes_from_the_wire);
    tcase_add_test(tc, wide_accesses_stay_in_their_bytes);
    tcase_add_test(tc, works_without_a_host_side);
    tcase_add_test(tc, no_edge_is_lost_between_threads);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
