/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of a configuration file, for libinih. They are handed to it one by one from a copy in memory, so
 * that each sentence can tell its line, and so that what libinih would cut in silence is refused: overlong
 * lines and section names.
 */
#ifndef MINIVMM_VMM_CONFIG_LINES_H
#define MINIVMM_VMM_CONFIG_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "minivmm/errors.h"

#define LINES_LINE_SIZE                                                                                      \
    4096 /* bytes, line end included; the kernel reads command lines of half of that                         \
          */

struct lines {
    char *text; /* the whole file; the owner's to free */
    size_t len, at;
    unsigned line; /* the one that libinih has now, from 1 */
    bool indented; /* it begins with a blank */
    bool
        has_key; /* a key came before it in its section, so that libinih takes indented lines as more of it */
};

/*
 * Reads a file of at most 1 MiB whole. -errno, with a sentence that begins with path, when it can't be read,
 * is empty or larger, all without waiting for a pipe's writer. st: what was opened; NULL is fine.
 */
int lines_load(struct lines *lines, const char *path, struct stat *st, struct err *err);

/*
 * The next line, with its end. 1; 0 at the end of the file; -EINVAL with a sentence, without the place, for a
 * line that libinih would not take whole (the one after it is next).
 */
int lines_next(struct lines *lines, char *to, size_t size, struct err *err);

/* Sets libinih up for such lines. */
void lines_set_up_libinih(void);

#endif
