/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical memory as the devices see it: a few regions of host memory. Every guest address goes
 * through guest_memory_at() or one of the helpers built on it. Contents are hostile and may change at any
 * time: read a field once, check it, then use the copy.
 */
#ifndef MINIVMM_GUEST_MEMORY_H
#define MINIVMM_GUEST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/errors.h"

#define GUEST_REGIONS_MAX 4

struct guest_region {
    uint64_t gpa;  /* first guest physical address */
    uint64_t size; /* bytes, > 0; gpa + size never wraps */
    uint8_t *hva;  /* the host's mapping, valid for the VM's life */
    bool readonly; /* devices must not write here (ROM) */
};

struct guest_memory {
    struct guest_region region[GUEST_REGIONS_MAX]; /* sorted by gpa, disjoint */
    unsigned count;
};

enum guest_access { GUEST_READ, GUEST_WRITE };

/*
 * The host address of guest bytes [gpa, gpa + len), or NULL when any of them lies outside memory, the range
 * spans two regions, or access is GUEST_WRITE and the region is read-only. len may be 0 (the address must
 * still be inside a region). The pointer stays valid for the VM's life.
 */
void *guest_memory_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len, enum guest_access access);

/*
 * As guest_memory_at() for the longest run from gpa that lies in one region: *run is its length, 1 .. len
 * (0 when len is 0). For buffers that may span regions: the caller goes on at gpa + *run.
 */
void *guest_memory_run(const struct guest_memory *mem, uint64_t gpa, uint64_t len, enum guest_access access,
                       uint64_t *run);

/* Copies len bytes from / to guest memory. 0, or -EFAULT with nothing copied. */
int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *to, uint64_t len);
int guest_memory_write(const struct guest_memory *mem, uint64_t gpa, const void *from, uint64_t len);

#define GUEST_MEMORY_MIN (16ULL << 20)

enum guest_hugepages { GUEST_HUGEPAGES_OFF, GUEST_HUGEPAGES_ON };

/*
 * Maps the regions that layout names (gpa and size filled, hva NULL) as private anonymous memory, unreserved,
 * out of core dumps; with GUEST_HUGEPAGES_ON from the host's 2 MiB huge pages, else advised to transparent
 * ones. mem owns the mappings until guest_memory_free(). -ENOMEM with a sentence when the host can't give it.
 */
int guest_memory_alloc(struct guest_memory *mem, const struct guest_region *layout, unsigned count,
                       enum guest_hugepages hugepages, struct err *err);
void guest_memory_free(struct guest_memory *mem);

#endif
