/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A UART, as far as Linux's 8250 driver and simple guests need it: FIFO, receive and transmit-empty
 * interrupts, loopback, scratch. Output is written as it comes (a full pipe or pty drops after a short wait
 * is not acceptable for files, see serial_create); input is fed by the main thread.
 */
#ifndef MINIVMM_SERIAL_H
#define MINIVMM_SERIAL_H

#include <stddef.h>
#include <stdint.h>

#include "minivmm/bus.h"
#include "minivmm/errors.h"

struct serial;

struct serial_config {
    int irq_fd; /* eventfd of the line; not owned */
    /*
     * Called on a vCPU thread with bytes that the guest sent, at least once a line and whenever the
     * transmitter idles; must not block for long. NULL: output is dropped.
     */
    void (*output)(void *ctx, const uint8_t *bytes, size_t len);
    void (*input_ready)(void *ctx); /* the receive FIFO has room again; any thread; may be NULL */
    void *ctx;
};

int serial_create(const struct serial_config *config, struct serial **out, struct err *err);
void serial_destroy(struct serial *serial);

/* Gives received bytes; takes what fits in the FIFO and returns how many. Any thread. */
size_t serial_feed(struct serial *serial, const uint8_t *bytes, size_t len);

extern const struct bus_ops serial_bus_ops; /* 8 byte-wide registers; dev: the struct serial */

#endif
