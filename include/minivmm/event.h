/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two kinds of edges between guest and device, as eventfds, so that devices know no KVM: a kick (guest ->
 * device; under KVM an ioeventfd) and an interrupt line (device -> guest; under KVM an irqfd,
 * edge-triggered).
 */
#ifndef MINIVMM_EVENT_H
#define MINIVMM_EVENT_H

#include <stdint.h>

#include "minivmm/errors.h"

/* An eventfd (EFD_CLOEXEC | EFD_NONBLOCK), counter 0; the caller closes it. Returns the fd or -errno. */
int event_open(void);

/* Adds 1 to the counter: wakes whoever polls it, or raises the line when it is an irqfd. Never blocks. */
void event_signal(int fd);

/* Takes the counter down to 0; returns what it was (0 when nothing was signalled). Never blocks. */
uint64_t event_clear(int fd);

#endif
