/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/suggest.h"

#include <string.h>

#define NAME_MAX_LEN 31u
#define TOO_FAR      3u

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned suggest_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la > NAME_MAX_LEN || lb > NAME_MAX_LEN)
        return TOO_FAR;
    unsigned row[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];
    for (unsigned i = 0; i <= la; i++)
        row[i][0] = i;
    for (unsigned j = 0; j <= lb; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= la; i++) {
        for (size_t j = 1; j <= lb; j++) {
            unsigned d = row[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d = least(d, least(row[i - 1][j], row[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d = least(d, row[i - 2][j - 2] + 1);
            row[i][j] = d;
        }
    }
    return least(row[la][lb], TOO_FAR);
}

void suggest_offer(struct suggestion *s, const char *name)
{
    unsigned d = suggest_distance(s->typed, name);
    /* Half of a short name changed is another name, not a slip. */
    if (d >= TOO_FAR || (size_t)d * 2 > strlen(name) || (s->best && d >= s->distance))
        return;
    s->best = name;
    s->distance = d;
}
