/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A as drivers see it. The transmitter is infinitely fast: a byte is out when it is written, so THR is
 * always empty and the THRE interrupt follows each write at once. The interrupt line is an edge: it is
 * signalled when the highest pending condition appears or changes, so that a driver which serves one
 * condition hears of the next.
 */
#include "minivmm/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/event.h"

#define FIFO_BYTES 16u

#define REG_DATA 0u /* RBR, THR; DLL with DLAB */
#define REG_IER  1u /* DLM with DLAB */
#define REG_IIR  2u /* read; FCR on write */
#define REG_LCR  3u
#define REG_MCR  4u
#define REG_LSR  5u
#define REG_MSR  6u
#define REG_SCR  7u

#define IER_RX       0x01u
#define IER_THRE     0x02u
#define IER_MASK     0x0fu
#define IIR_NONE     0x01u
#define IIR_THRE     0x02u
#define IIR_RX       0x04u
#define IIR_FIFO     0xc0u
#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define LCR_DLAB     0x80u
#define MCR_LOOP     0x10u
#define LSR_RX       0x01u
#define LSR_OVERRUN  0x02u
#define LSR_THR      0x60u /* THR empty, transmitter empty */
#define MSR_PRESENT  0xb0u /* CTS, DSR, DCD */

struct serial {
    struct serial_config config;
    pthread_mutex_t lock;
    uint8_t ier, lcr, mcr, lsr, scr, fcr, divisor[2];
    bool thre_pending;
    uint8_t fifo[FIFO_BYTES];
    unsigned head, count;
    uint8_t signalled; /* the IIR value for which the line was last signalled */
};

int serial_create(const struct serial_config *config, struct serial **out, struct err *err)
{
    struct serial *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for the serial port");
    s->config = *config;
    s->divisor[0] = 12; /* 9600 baud, as after power-up firmware */
    s->signalled = IIR_NONE;
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return 0;
}

void serial_destroy(struct serial *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static unsigned fifo_room(const struct serial *s)
{
    unsigned size = (s->fcr & FCR_ENABLE) ? FIFO_BYTES : 1;
    return size > s->count ? size - s->count : 0;
}

/* What serial_feed() would take. */
static unsigned feed_room(const struct serial *s)
{
    return (s->mcr & MCR_LOOP) ? 0 : fifo_room(s);
}

/* The identification of the pending condition of the highest priority. */
static uint8_t pending(const struct serial *s)
{
    if ((s->ier & IER_RX) && s->count)
        return IIR_RX;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    return IIR_NONE;
}

/* force: the condition is new even if it looks like the last one. */
static void update_line(struct serial *s, bool force)
{
    uint8_t now = pending(s);
    if (now != IIR_NONE && (force || now != s->signalled))
        event_signal(s->config.irq_fd);
    s->signalled = now;
}

static void push(struct serial *s, uint8_t byte)
{
    s->fifo[(s->head + s->count++) % FIFO_BYTES] = byte;
}

static uint8_t pop(struct serial *s)
{
    if (!s->count)
        return 0;
    uint8_t byte = s->fifo[s->head];
    s->head = (s->head + 1) % FIFO_BYTES;
    s->count--;
    return byte;
}

static uint8_t modem_status(const struct serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_PRESENT;
    /* Loopback: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
    return (uint8_t)((s->mcr & 0x0c) << 4 | (s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5);
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t id = pending(s);
    if (id == IIR_THRE)
        s->thre_pending = false; /* reading the identification takes this one back */
    return id | ((s->fcr & FCR_ENABLE) ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t lsr = s->lsr | LSR_THR | (s->count ? LSR_RX : 0);
    s->lsr = 0;
    return lsr;
}

static uint8_t read_register(struct serial *s, uint64_t reg)
{
    switch (reg) {
    case REG_DATA:
        return (s->lcr & LCR_DLAB) ? s->divisor[0] : pop(s);
    case REG_IER:
        return (s->lcr & LCR_DLAB) ? s->divisor[1] : s->ier;
    case REG_IIR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        return modem_status(s);
    default:
        return s->scr;
    }
}

static void serial_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct serial *s = dev;
    memset(data, 0, len);
    pthread_mutex_lock(&s->lock);
    unsigned room = feed_room(s);
    *(uint8_t *)data = read_register(s, offset);
    bool more_room = feed_room(s) > room;
    update_line(s, false);
    pthread_mutex_unlock(&s->lock);
    if (more_room && s->config.input_ready)
        s->config.input_ready(s->config.ctx);
}

static void write_fcr(struct serial *s, uint8_t value)
{
    if ((value ^ s->fcr) & FCR_ENABLE || value & FCR_CLEAR_RX)
        s->count = 0;
    s->fcr = value & FCR_ENABLE;
}

static void write_ier(struct serial *s, uint8_t value)
{
    /* Enabling THRE with an empty THR is an event of its own; drivers start a transmission by it. */
    if (!(s->ier & IER_THRE) && (value & IER_THRE))
        s->thre_pending = true;
    s->ier = value & IER_MASK;
}

/* A byte for the wire, or back to ourselves. True when it goes out. */
static bool transmit(struct serial *s, uint8_t byte)
{
    s->thre_pending = true;
    if (!(s->mcr & MCR_LOOP))
        return true;
    if (fifo_room(s))
        push(s, byte);
    else
        s->lsr |= LSR_OVERRUN;
    return false;
}

/* True when value is a byte to send. */
static bool write_register(struct serial *s, uint64_t reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
        if (!(s->lcr & LCR_DLAB))
            return transmit(s, value);
        s->divisor[0] = value;
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB)
            s->divisor[1] = value;
        else
            write_ier(s, value);
        break;
    case REG_IIR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        s->mcr = value & 0x1f;
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default: /* LSR and MSR are for factory tests */
        break;
    }
    return false;
}

static void serial_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    struct serial *s = dev;
    uint8_t value = *(const uint8_t *)data;
    (void)len;
    pthread_mutex_lock(&s->lock);
    unsigned room = feed_room(s);
    bool send = write_register(s, offset, value);
    bool more_room = feed_room(s) > room; /* the FIFO was emptied or enlarged, or loopback ended */
    pthread_mutex_unlock(&s->lock);
    /* Outside the lock: the host side may wait for room. */
    if (send && s->config.output)
        s->config.output(s->config.ctx, &value, 1);
    pthread_mutex_lock(&s->lock);
    update_line(s, offset == REG_DATA);
    pthread_mutex_unlock(&s->lock);
    if (more_room && s->config.input_ready)
        s->config.input_ready(s->config.ctx);
}

size_t serial_feed(struct serial *s, const uint8_t *bytes, size_t len)
{
    pthread_mutex_lock(&s->lock);
    size_t taken = 0;
    while (taken < len && feed_room(s))
        push(s, bytes[taken++]);
    update_line(s, taken > 0);
    pthread_mutex_unlock(&s->lock);
    return taken;
}

const struct bus_ops serial_bus_ops = {.read = serial_read, .write = serial_write};
