/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return code;
}

int err_prefix(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    char old[ERR_TEXT_MAX];
    memcpy(old, e->text, sizeof(old));
    old[sizeof(old) - 1] = '\0';
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(e->text))
        return code;
    snprintf(e->text + n, sizeof(e->text) - (size_t)n, ": %.*s", (int)(sizeof(e->text) - (size_t)n - 3), old);
    return code;
}
