/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error type. Every function that can fail returns 0 or -errno and, where a sentence helps a person,
 * fills a struct err for its caller. Only vmm/main.c prints one and exits.
 */
#ifndef MINIVMM_ERRORS_H
#define MINIVMM_ERRORS_H

#include <stddef.h>

#define ERR_TEXT_MAX 1024

/* One failure: a whole sentence for a person (no newline), naming the flag, key, file or line at fault. */
struct err {
    char text[ERR_TEXT_MAX];
};

/*
 * Writes the sentence (printf style) into e, cut at ERR_TEXT_MAX, and returns code, so that a caller can
 * write: return err_set(e, -EINVAL, "--memory: ...", ...). e may be NULL: then only the code is returned.
 * code: a negative errno value.
 */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * Puts "prefix: " in front of what e holds and returns code; used by callers that know the flag or line that
 * the callee could not know. e may be NULL.
 */
int err_prefix(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
