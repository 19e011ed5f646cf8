/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/event.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int event_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void event_signal(int fd)
{
    const uint64_t one = 1;
    /* The write fails only when the counter is at its top: then the event is pending anyway. */
    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

uint64_t event_clear(int fd)
{
    uint64_t count = 0;
    ssize_t got;
    do
        got = read(fd, &count, sizeof(count));
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(count) ? count : 0;
}
