/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1200

static struct {
    int fd;
    enum log_level most;
    char tag[80];
} log_state = {.fd = STDERR_FILENO, .most = LOG_LEVEL_INFO, .tag = "minivmm"};

void log_open(int fd, const char *name, enum log_level most)
{
    log_state.fd = fd;
    log_state.most = most;
    if (name)
        snprintf(log_state.tag, sizeof(log_state.tag), "minivmm[%s]", name);
    else
        snprintf(log_state.tag, sizeof(log_state.tag), "minivmm");
}

void log_write(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    if (level > log_state.most)
        return;
    char line[LINE_MAX_BYTES];
    int used = snprintf(line, sizeof(line), "%s: %s: ", log_state.tag, names[level]);
    va_list ap;
    va_start(ap, fmt);
    int body = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, fmt, ap);
    va_end(ap);
    size_t len = body < 0 ? (size_t)used : (size_t)used + (size_t)body;
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    line[len++] = '\n';
    /* One write a line keeps lines whole between threads; a log that can't be written has nowhere to say so.
     */
    ssize_t ignored = write(log_state.fd, line, len);
    (void)ignored;
}

bool log_limit_pass(struct log_limit *limit, uint64_t *missed)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t t = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    int64_t next = atomic_load_explicit(&limit->next_ns, memory_order_relaxed);
    if (t < next || !atomic_compare_exchange_strong_explicit(&limit->next_ns, &next, t + 1000000000,
                                                             memory_order_relaxed, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&limit->held_back, 1, memory_order_relaxed);
        return false;
    }
    *missed = atomic_exchange_explicit(&limit->held_back, 0, memory_order_relaxed);
    return true;
}
