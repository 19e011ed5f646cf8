/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/bus.h"

#include <errno.h>
#include <string.h>

/* The index of the first range whose base is above addr. */
static unsigned bus_after(const struct bus *bus, uint64_t addr)
{
    unsigned low = 0, high = bus->count;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (bus->range[mid].base > addr)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static const struct bus_range *bus_find(const struct bus *bus, uint64_t addr, uint32_t len)
{
    unsigned after = bus_after(bus, addr);
    if (!after)
        return NULL;
    const struct bus_range *r = &bus->range[after - 1];
    /* Differences only: base + size may be 2^64. */
    uint64_t off = addr - r->base;
    return off < r->size && len <= r->size - off ? r : NULL;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *dev,
            const char *name, struct err *err)
{
    if (!size || base + (size - 1) < base)
        return err_set(err, -EINVAL, "%s: the address range 0x%llx + 0x%llx is empty or wraps", name,
                       (unsigned long long)base, (unsigned long long)size);
    unsigned at = bus_after(bus, base);
    const struct bus_range *hit = NULL;
    if (at > 0 && base - bus->range[at - 1].base < bus->range[at - 1].size)
        hit = &bus->range[at - 1];
    else if (at < bus->count && bus->range[at].base - base < size)
        hit = &bus->range[at];
    if (hit)
        return err_set(err, -EEXIST, "%s: the address range 0x%llx + 0x%llx overlaps %s at 0x%llx + 0x%llx",
                       name, (unsigned long long)base, (unsigned long long)size, hit->name,
                       (unsigned long long)hit->base, (unsigned long long)hit->size);
    if (bus->count == BUS_RANGES_MAX)
        return err_set(err, -ENOSPC, "%s: the bus has no room for more than %d ranges", name, BUS_RANGES_MAX);
    memmove(&bus->range[at + 1], &bus->range[at], (bus->count - at) * sizeof(bus->range[0]));
    bus->range[at] = (struct bus_range){base, size, ops, dev, name};
    bus->count++;
    return 0;
}

bool bus_read(const struct bus *bus, uint64_t addr, void *data, uint32_t len)
{
    const struct bus_range *r = bus_find(bus, addr, len);
    if (!r) {
        memset(data, 0xff, len);
        return false;
    }
    r->ops->read(r->dev, addr - r->base, data, len);
    return true;
}

bool bus_write(const struct bus *bus, uint64_t addr, const void *data, uint32_t len)
{
    const struct bus_range *r = bus_find(bus, addr, len);
    if (!r)
        return false;
    r->ops->write(r->dev, addr - r->base, data, len);
    return true;
}
