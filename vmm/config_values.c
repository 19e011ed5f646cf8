/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsers of single values: no junk behind numbers, no signs, no overflow, and a sentence for each. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/config_internal.h"
#include "vmm/suggest.h"

/* Reads digits up to end; false when there are none or they don't fit 64 bits. */
static bool digits(const char *text, const char **end, uint64_t *out)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    *end = p;
    *out = value;
    return p != text;
}

int config_value_number(const char *text, uint64_t least, uint64_t most, uint64_t *out, struct err *err)
{
    const char *end;
    uint64_t value;
    if (!digits(text, &end, &value) || *end || value < least || value > most)
        return err_set(err, -EINVAL, "'%s' is not a whole number from %llu to %llu", text,
                       (unsigned long long)least, (unsigned long long)most);
    *out = value;
    return 0;
}

int config_value_fd(const char *text, int *out, struct err *err)
{
    uint64_t n = 0;
    if (config_value_number(text, 3, 65535, &n, NULL) < 0)
        return err_set(err, -EINVAL, "'%s' is not the number of an inherited descriptor, 3 to 65535", text);
    *out = (int)n;
    return 0;
}

bool config_names_descriptor(const char *path, int *fd)
{
    static const char prefix[] = "/dev/fd/";
    const char *end;
    uint64_t n = 0;
    if (strncmp(path, prefix, sizeof(prefix) - 1) != 0 || !digits(path + sizeof(prefix) - 1, &end, &n) ||
        *end || n > INT_MAX)
        return false;
    *fd = (int)n;
    return true;
}

int config_value_size(const char *text, uint64_t *out, struct err *err)
{
    const char *end;
    uint64_t value;
    if (digits(text, &end, &value)) {
        static const char units[] = "KMG";
        const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
        unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
        end += unit != NULL;
        if (*end == '\0' && value <= UINT64_MAX >> shift) {
            *out = value << shift;
            return 0;
        }
    }
    return err_set(err, -EINVAL,
                   "'%s' is not a size: expected a whole number of bytes, or one with K, M or G "
                   "behind it, such as 256M",
                   text);
}

int config_value_bool(const char *text, bool *out, struct err *err)
{
    static const char *const yes[] = {"on", "yes", "true", "1"};
    static const char *const no[] = {"off", "no", "false", "0"};
    for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "'%s' is neither on nor off (also: yes, no, true, false, 1, 0)", text);
}

int config_value_choice(const char *text, const char *const *names, unsigned *out, struct err *err)
{
    char list[128] = "";
    size_t at = 0;
    struct suggestion near = {.typed = text};
    for (unsigned i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return 0;
        }
        suggest_offer(&near, names[i]);
        int n = snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", names[i]);
        if (n > 0 && (size_t)n < sizeof(list) - at)
            at += (size_t)n;
    }
    return err_set(err, -EINVAL, "'%s' is not one of %s%s%s%s", text, list,
                   near.best ? "; did you mean '" : "", near.best ? near.best : "", near.best ? "'?" : "");
}

/* Takes over text, which may be NULL for lack of memory. */
static int store(char **out, char *text, struct err *err)
{
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    free(*out);
    *out = text;
    return 0;
}

int config_value_string(const char *text, char **out, struct err *err)
{
    return store(out, strdup(text), err);
}

int config_value_path(const char *text, const char *base, char **out, struct err *err)
{
    if (!*text)
        return err_set(err, -EINVAL, "is empty: expected the path of a file");
    if (!base || *text == '/')
        return config_value_string(text, out, err);
    char *joined = NULL;
    if (asprintf(&joined, "%s/%s", base, text) < 0)
        joined = NULL;
    return store(out, joined, err);
}

int config_value_name(const char *text, char **out, struct err *err)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t len = strlen(text);
    if (len == 0 || len >= CONFIG_NAME_MAX || strspn(text, allowed) != len || *text == '.' || *text == '-')
        return err_set(err, -EINVAL,
                       "'%s' is not a name: expected 1 to %u letters, digits, '_', '.' and '-', the first "
                       "not '.' or '-'",
                       text, CONFIG_NAME_MAX - 1);
    return config_value_string(text, out, err);
}
