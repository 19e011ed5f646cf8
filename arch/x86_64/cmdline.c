/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel command line: the user's, plus device discovery for guests that get no ACPI. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"
#include "minivmm/ice_abi.h"
#include "payload.h"

#define DEFAULT_CMDLINE "console=ttyS0"

static bool has_word(const char *line, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = line; (p = strstr(p, word)); p += len)
        if ((p == line || p[-1] == ' ') && (p[len] == '\0' || p[len] == ' '))
            return true;
    return false;
}

/* Words behind "--" are the init program's, so devices must come before them; 0: no such end. */
static size_t kernel_part(const char *line)
{
    const char *p = strstr(line, " -- ");
    return p ? (size_t)(p - line) : strlen(line);
}

static int append(char *out, size_t size, size_t *used, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static int append(char *out, size_t size, size_t *used, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + *used, size - *used, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size - *used)
        return -ENAMETOOLONG;
    *used += (size_t)n;
    return 0;
}

static int append_devices(const struct arch_machine *machine, char *out, size_t size, size_t *used)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < machine->device_count; i++) {
        const struct arch_device *d = &machine->device[i];
        const char *word = d->kind == ARCH_DEVICE_VIRTIO_MMIO   ? "virtio_mmio.device"
                           : d->kind == ARCH_DEVICE_KEY_SERVICE ? ICE_KEYS_CMDLINE
                                                                : NULL;
        if (word)
            r = append(out, size, used, " %s=%#llx@%#llx:%u", word, (unsigned long long)d->size,
                       (unsigned long long)d->base, d->gsi);
    }
    return r;
}

int cmdline_write(const struct arch_machine *machine, uint64_t max, uint32_t *len, struct err *err)
{
    const char *line = machine->cmdline ? machine->cmdline : DEFAULT_CMDLINE;
    bool discovery = (!machine->acpi || has_word(line, "acpi=off")) && !strstr(line, "virtio_mmio.device=");
    size_t head = kernel_part(line), used = 0;
    if (max >= LAYOUT_CMDLINE_MAX || max == 0)
        max = LAYOUT_CMDLINE_MAX - 1;
    char *out = guest_memory_at(machine->mem, LAYOUT_CMDLINE, max + 1, GUEST_WRITE);
    if (!out)
        return err_set(err, -EINVAL, "--memory is too small for the command line");
    int r = append(out, max + 1, &used, "%.*s", (int)head, line);
    if (r == 0 && discovery)
        r = append_devices(machine, out, max + 1, &used);
    if (r == 0)
        r = append(out, max + 1, &used, "%s", line + head);
    if (r < 0)
        return err_set(err, -EINVAL, "--cmdline: is too long: this kernel takes %llu bytes%s",
                       (unsigned long long)max,
                       discovery ? ", of which the devices' addresses take a part" : "");
    *len = (uint32_t)used;
    return 0;
}
