/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?" for mistyped names. */
#ifndef MINIVMM_VMM_SUGGEST_H
#define MINIVMM_VMM_SUGGEST_H

/*
 * Edits (insertion, removal, replacement, swap of neighbours) that turn a into b; counting stops at 3, and
 * names over 31 bytes count as 3.
 */
unsigned suggest_distance(const char *a, const char *b);

/* Keeps the nearest of several names: start with {typed}, offer each, then read best (NULL: none within 2).
 */
struct suggestion {
    const char *typed;
    const char *best;
    unsigned distance;
};

void suggest_offer(struct suggestion *s, const char *name);

#endif
