/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for secrets: one fixed range that is never swapped and never dumped (memfd_secret where the kernel
 * has it, so that not even the kernel's own map shows it; else mlock). Blocks are wiped when freed. libcrypto
 * allocates here too, since its expanded keys are as good as the keys. It is one per process, because
 * libcrypto's hooks are.
 */
#ifndef MINIVMM_ICE_ARENA_H
#define MINIVMM_ICE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "minivmm/errors.h"

/* Maps the arena; -ENOMEM with a sentence (RLIMIT_MEMLOCK). A second call is 0 and changes nothing. */
int arena_open(struct err *err);

/* "memfd_secret" or "mlock"; NULL before arena_open(). */
const char *arena_kind(void);

/* As malloc, realloc, free; any thread. NULL when the arena is full. */
void *arena_alloc(size_t size);
void *arena_realloc(void *old, size_t size);
void arena_free(void *p);

/* True when p points into the arena. */
bool arena_holds(const void *p);

/* How often the bytes occur in the arena's touched part; lets a test prove that a dropped key is gone. */
size_t arena_search(const void *bytes, size_t len);

#endif
