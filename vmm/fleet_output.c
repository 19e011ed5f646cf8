/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's console: its last bytes in memory, all of them in the log file, and to who follows. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/fleet.h"

#define PIECE      4096u
#define TURN_BYTES 65536u /* of one console in one turn of the loop, so that others get theirs */

void ring_append(struct fleet_ring *ring, const char *bytes, size_t len)
{
    if (!ring->bytes)
        ring->bytes = malloc(FLEET_RING);
    if (!ring->bytes)
        return;
    while (len) {
        size_t at = ring->total % FLEET_RING;
        size_t n = len < FLEET_RING - at ? len : FLEET_RING - at;
        memcpy(ring->bytes + at, bytes, n);
        ring->total += n;
        bytes += n;
        len -= n;
    }
}

static uint64_t oldest(const struct fleet_ring *ring)
{
    return ring->total > FLEET_RING ? ring->total - FLEET_RING : 0;
}

size_t ring_piece(const struct fleet_ring *ring, uint64_t *at, const char **piece, uint64_t *lost)
{
    *lost = 0;
    if (*at < oldest(ring)) {
        *lost = oldest(ring) - *at;
        *at = oldest(ring);
    }
    if (*at == ring->total)
        return 0;
    size_t from = *at % FLEET_RING;
    *piece = ring->bytes + from;
    uint64_t left = ring->total - *at;
    return left < FLEET_RING - from ? (size_t)left : FLEET_RING - from;
}

uint64_t ring_tail(const struct fleet_ring *ring, unsigned lines)
{
    uint64_t at = ring->total;
    /* The newline at the very end closes the last line and begins none. */
    for (unsigned seen = 0; at > oldest(ring); at--)
        if (at < ring->total && ring->bytes[(at - 1) % FLEET_RING] == '\n' && ++seen == lines)
            break;
    return lines ? at : ring->total;
}

static void write_log(struct unit *unit, const char *bytes, size_t len)
{
    while (unit->log_fd >= 0 && len) {
        ssize_t n = write(unit->log_fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (!unit->log_failed)
                log_warn_limited(&unit->log_said,
                                 "%s: its log %s could not be written, bytes are missing: %s",
                                 unit_name(unit), unit->vm->log, strerror(n < 0 ? errno : EIO));
            unit->log_failed = true;
            return;
        }
        if (unit->log_failed)
            log_info("%s: its log can be written again", unit_name(unit));
        unit->log_failed = false;
        bytes += n;
        len -= (size_t)n;
    }
}

/* False at the end of the stream. */
static bool take(struct unit *unit)
{
    char bytes[PIECE];
    for (size_t taken = 0; taken < TURN_BYTES;) {
        ssize_t n = read(unit->console_fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return false;
        ring_append(&unit->ring, bytes, (size_t)n);
        write_log(unit, bytes, (size_t)n);
        taken += (size_t)n;
    }
    return true;
}

static void close_console(struct unit *unit)
{
    loop_remove(unit->up->loop, unit->console_fd);
    close(unit->console_fd);
    unit->console_fd = -1;
}

static void on_console(void *arg, uint32_t events)
{
    struct unit *unit = arg;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        bool more = take(unit);
        server_new_output(unit);
        if (!more)
            close_console(unit);
    }
    if (unit->console_fd >= 0 && (events & EPOLLOUT))
        server_console_writable(unit);
}

void output_attach(struct unit *unit, int fd)
{
    unit->console_fd = fd;
    if (loop_add(unit->up->loop, fd, EPOLLIN, on_console, unit) < 0) {
        close(fd);
        unit->console_fd = -1;
    }
}

void output_detach(struct unit *unit)
{
    if (unit->console_fd < 0)
        return;
    (void)take(unit);
    server_new_output(unit);
    close_console(unit);
}

void output_open_log(struct unit *unit)
{
    const char *path = unit->vm->log;
    if (!path || unit->log_fd >= 0)
        return;
    /* Non-blocking: a FIFO or terminal by mistake must not hold up the whole fleet. */
    unit->log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (unit->log_fd < 0)
        log_warn("%s: its log %s could not be opened, it runs without: %s", unit_name(unit), path,
                 strerror(errno));
}

void output_close_log(struct unit *unit)
{
    if (unit->log_fd >= 0)
        close(unit->log_fd);
    unit->log_fd = -1;
    unit->log_failed = false;
}
