/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_BENCH_VHOSTUSER_H
#define MINIVMM_BENCH_VHOSTUSER_H

#include "ringdrv.h"

/*
 * Connects to a vhost-user-blk server and gives it the guest's memory (memory_fd) and ring as queue 0;
 * ring->kick_fd becomes a new eventfd, *call_fd another that the server signals. Aborts with a sentence on
 * failure; returns the socket.
 */
int vhostuser_connect(const char *path, struct guest *g, int memory_fd, struct ring *ring, int *call_fd);

#endif
