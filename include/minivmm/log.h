/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: the only global state of the program. One line a message, to standard error unless log_open()
 * named another descriptor: "minivmm[NAME]: level: text". Safe to call from every thread; one write(2) a
 * line. Never pass key bytes, and pass guest-chosen strings only through log_printable().
 */
#ifndef MINIVMM_LOG_H
#define MINIVMM_LOG_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* fd: where lines go (not owned); name: the VM's name or NULL (copied). Call before the first thread starts.
 */
void log_open(int fd, const char *name, enum log_level most);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/*
 * A rate limit for messages that a guest can provoke: at most one a second each. Zero-initialise it;
 * shareable between threads.
 */
struct log_limit {
    _Atomic int64_t next_ns;
    _Atomic uint64_t held_back;
};

/* As log_warn(), but only when the limit lets it; then it also says how many messages were held back since.
 */
void log_warn_limited(struct log_limit *limit, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
