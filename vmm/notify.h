/* SPDX-License-Identifier: Apache-2.0 */
/* Tells a service manager how things are: the datagrams of sd_notify(3). */
#ifndef MINIVMM_VMM_NOTIFY_H
#define MINIVMM_VMM_NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t len;
};

/* Takes $NOTIFY_SOCKET, a path or (with @) an abstract name, out of the environment: children are not to use
 * it. What is no such thing counts as none. */
void notify_open(struct notify *notify);
void notify_close(struct notify *notify);

/* Sends "READY=1" and the like; lines are parted by \n. Never waits, and a manager that is gone is nobody's
 * failure. */
void notify_send(const struct notify *notify, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
