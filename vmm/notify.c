/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTIFY_MAX 512

void notify_open(struct notify *notify)
{
    const char *path = getenv("NOTIFY_SOCKET"); // NOLINT(concurrency-mt-unsafe)
    size_t len = path ? strlen(path) : 0;
    *notify = (struct notify){.fd = -1, .address.sun_family = AF_UNIX};
    if (len > 1 && len < sizeof(notify->address.sun_path) && (path[0] == '/' || path[0] == '@')) {
        memcpy(notify->address.sun_path, path, len);
        if (path[0] == '@')
            notify->address.sun_path[0] = '\0';
        /* An abstract name ends where the address does: a zero byte more would be another name. */
        notify->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
        notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    unsetenv("NOTIFY_SOCKET"); // NOLINT(concurrency-mt-unsafe)
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}

void notify_send(const struct notify *notify, const char *fmt, ...)
{
    char text[NOTIFY_MAX];
    if (notify->fd < 0)
        return;
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (len <= 0)
        return;
    size_t size = (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1;
    (void)!sendto(notify->fd, text, size, MSG_NOSIGNAL, (const struct sockaddr *)&notify->address,
                  notify->len);
}
