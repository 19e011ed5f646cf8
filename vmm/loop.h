/* SPDX-License-Identifier: Apache-2.0 */
/* The main thread's event loop: descriptors and callbacks over epoll. Main thread only. */
#ifndef MINIVMM_VMM_LOOP_H
#define MINIVMM_VMM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/errors.h"

struct loop;

/* events: EPOLL* bits that are ready. The callback may add and remove watches, its own too. */
typedef void loop_fn(void *arg, uint32_t events);

int loop_create(struct loop **out, struct err *err);
void loop_destroy(struct loop *loop); /* watched descriptors stay the callers' */

/* Watches fd for events (EPOLLIN, ...). -errno; -EPERM for descriptors that epoll can't watch (plain files).
 */
int loop_add(struct loop *loop, int fd, uint32_t events, loop_fn *fn, void *arg);
int loop_modify(struct loop *loop, int fd, uint32_t events);
void loop_remove(struct loop *loop, int fd);

/* Waits once (timeout_ms -1: for ever) and dispatches all that is ready. 0 or -errno (EINTR is 0). */
int loop_run_once(struct loop *loop, int timeout_ms);

#endif
