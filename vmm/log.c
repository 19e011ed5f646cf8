/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1200

static struct {
    int fd;
    enum log_level most;
    char tag[80];
    bool journal; /* reads a level from the front of each line */
} log_state = {.fd = STDERR_FILENO, .most = LOG_LEVEL_INFO, .tag = "minivmm"};

/* The service manager names the journal's stream by device and inode (systemd.exec(5)), and what it names may
 * have been redirected since. */
static bool is_journal(int fd)
{
    const char *named = getenv("JOURNAL_STREAM"); // NOLINT(concurrency-mt-unsafe)
    struct stat st;
    char own[64];
    if (!named || fstat(fd, &st) < 0)
        return false;
    snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(own, named) == 0;
}

void log_open(int fd, const char *name, enum log_level most)
{
    log_state.fd = fd;
    log_state.most = most;
    log_state.journal = is_journal(fd);
    if (name)
        snprintf(log_state.tag, sizeof(log_state.tag), "minivmm[%s]", name);
    else
        snprintf(log_state.tag, sizeof(log_state.tag), "minivmm");
}

static void write_line(enum log_level level, uint64_t held_back, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void write_line(enum log_level level, uint64_t held_back, const char *fmt, va_list ap)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    static const char *const priorities[] = {"<3>", "<4>", "<6>", "<7>"};
    char line[LINE_MAX_BYTES];
    size_t room = sizeof(line) - 64; /* for what follows the message */
    size_t len = (size_t)snprintf(line, room, "%s%s: %s: ", log_state.journal ? priorities[level] : "",
                                  log_state.tag, names[level]);
    int body = vsnprintf(line + len, room - len, fmt, ap);
    if (body > 0)
        len = len + (size_t)body < room ? len + (size_t)body : room - 1;
    if (held_back)
        len += (size_t)snprintf(line + len, sizeof(line) - len, " (and %llu more)",
                                (unsigned long long)held_back);
    line[len++] = '\n';
    /* One write a line keeps lines whole between threads; a log that can't be written has nowhere to say so.
     */
    ssize_t ignored = write(log_state.fd, line, len);
    (void)ignored;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level > log_state.most)
        return;
    va_list ap;
    va_start(ap, fmt);
    write_line(level, 0, fmt, ap);
    va_end(ap);
}

static bool limit_pass(struct log_limit *limit)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t t = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    int64_t next = atomic_load_explicit(&limit->next_ns, memory_order_relaxed);
    return t >= next && atomic_compare_exchange_strong_explicit(&limit->next_ns, &next, t + 1000000000,
                                                                memory_order_relaxed, memory_order_relaxed);
}

void log_warn_limited(struct log_limit *limit, const char *fmt, ...)
{
    if (!limit_pass(limit)) {
        atomic_fetch_add_explicit(&limit->held_back, 1, memory_order_relaxed);
        return;
    }
    uint64_t held_back = atomic_exchange_explicit(&limit->held_back, 0, memory_order_relaxed);
    if (LOG_LEVEL_WARN > log_state.most)
        return;
    va_list ap;
    va_start(ap, fmt);
    write_line(LOG_LEVEL_WARN, held_back, fmt, ap);
    va_end(ap);
}
