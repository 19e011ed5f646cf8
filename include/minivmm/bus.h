/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address decoding for MMIO and port I/O: disjoint ranges, each with a handler. Filled before the first vCPU
 * runs, read-only afterwards, so lookups take no lock. Handlers are called on vCPU threads, several at once:
 * a device with state guards itself.
 */
#ifndef MINIVMM_BUS_H
#define MINIVMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/errors.h"

#define BUS_RANGES_MAX 48

struct bus_ops {
    /* offset: from the range's base; len: 1, 2, 4 or 8 bytes; data is little-endian, len bytes. */
    void (*read)(void *dev, uint64_t offset, void *data, uint32_t len);
    void (*write)(void *dev, uint64_t offset, const void *data, uint32_t len);
};

struct bus_range {
    uint64_t base, size;
    const struct bus_ops *ops;
    void *dev;
    const char *name;
};

struct bus {
    struct bus_range range[BUS_RANGES_MAX]; /* sorted by base */
    unsigned count;
};

/* name is kept by reference. -EEXIST with a sentence when the range overlaps another, -ENOSPC when full. */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *dev,
            const char *name, struct err *err);

/*
 * One guest access. An access that no range holds in full reads as all-ones and writes nothing; false then,
 * so that the caller can count it.
 */
bool bus_read(const struct bus *bus, uint64_t addr, void *data, uint32_t len);
bool bus_write(const struct bus *bus, uint64_t addr, const void *data, uint32_t len);

#endif
