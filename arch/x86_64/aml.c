/* SPDX-License-Identifier: Apache-2.0 */
#include "aml.h"

#include <string.h>

#include "minivmm/bytes.h"

#define OP_ZERO       0x00u
#define OP_NAME       0x08u
#define OP_BYTE       0x0au
#define OP_WORD       0x0bu
#define OP_DWORD      0x0cu
#define OP_STRING     0x0du
#define OP_QWORD      0x0eu
#define OP_SCOPE      0x10u
#define OP_BUFFER     0x11u
#define OP_PACKAGE    0x12u
#define OP_METHOD     0x14u
#define OP_EXT        0x5bu
#define OP_REGION     0x80u
#define OP_FIELD      0x81u
#define OP_DEVICE     0x82u
#define OP_LOCAL0     0x60u
#define OP_STORE      0x70u
#define OP_AND        0x7bu
#define OP_NOTIFY     0x86u
#define OP_IF         0xa0u
#define DUAL_PREFIX   0x2eu
#define SYSTEM_MEMORY 0x00u
#define FIELD_DWORD   0x03u

#define PKG_LENGTH_BYTES 3u /* always the three-byte form: room for 1 MiB, and no moving of what follows */

#define RES_MEMORY32  0x86u
#define RES_QWORD     0x8au
#define RES_INTERRUPT 0x89u
#define RES_IO        0x47u
#define RES_END       0x79u
#define QWORD_MEMORY  0x00u
#define QWORD_FLAGS   0x0du /* consumer, first and last address fixed */
#define READ_WRITE    0x01u
#define IRQ_FLAGS     0x03u /* consumer, edge, active-high, exclusive */

void aml_begin(struct aml *aml, void *buffer, size_t size)
{
    *aml = (struct aml){.at = buffer, .size = size};
}

static void put(struct aml *aml, const void *bytes, size_t len)
{
    if (aml->overflow || len > aml->size - aml->used) {
        aml->overflow = true;
        return;
    }
    memcpy(aml->at + aml->used, bytes, len);
    aml->used += len;
}

static void put8(struct aml *aml, unsigned v)
{
    put(aml, &(uint8_t){(uint8_t)v}, 1);
}

static void put16(struct aml *aml, uint16_t v)
{
    uint8_t b[2];
    store_le16(b, v);
    put(aml, b, sizeof(b));
}

static void put32(struct aml *aml, uint32_t v)
{
    uint8_t b[4];
    store_le32(b, v);
    put(aml, b, sizeof(b));
}

static void put64(struct aml *aml, uint64_t v)
{
    uint8_t b[8];
    store_le64(b, v);
    put(aml, b, sizeof(b));
}

static void open_length(struct aml *aml)
{
    if (aml->depth == AML_DEPTH_MAX) {
        aml->overflow = true;
        return;
    }
    aml->open[aml->depth++] = aml->used;
    put(aml, "\0\0\0", PKG_LENGTH_BYTES);
}

/* ACPI 20.2.4: the length counts itself; bits 7:6 of the first byte tell how many bytes follow it. */
void aml_close(struct aml *aml)
{
    if (aml->overflow || aml->depth == 0)
        return;
    size_t at = aml->open[--aml->depth], len = aml->used - at;
    aml->at[at] = (uint8_t)((PKG_LENGTH_BYTES - 1) << 6 | (len & 0xf));
    aml->at[at + 1] = (uint8_t)(len >> 4);
    aml->at[at + 2] = (uint8_t)(len >> 12);
    if (len >= 1u << 20)
        aml->overflow = true;
}

static void put_segment(struct aml *aml, const char *name, size_t len)
{
    char seg[4] = {'_', '_', '_', '_'};
    memcpy(seg, name, len < 4 ? len : 4);
    put(aml, seg, 4);
}

void aml_path(struct aml *aml, const char *path)
{
    if (*path == '\\') {
        put8(aml, '\\');
        path++;
    }
    const char *dot = strchr(path, '.');
    if (dot) {
        put8(aml, DUAL_PREFIX);
        put_segment(aml, path, (size_t)(dot - path));
        path = dot + 1;
    }
    put_segment(aml, path, strlen(path));
}

void aml_scope(struct aml *aml, const char *name)
{
    put8(aml, OP_SCOPE);
    open_length(aml);
    aml_path(aml, name);
}

void aml_device(struct aml *aml, const char *name)
{
    put8(aml, OP_EXT);
    put8(aml, OP_DEVICE);
    open_length(aml);
    aml_path(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned args, bool serialized)
{
    put8(aml, OP_METHOD);
    open_length(aml);
    aml_path(aml, name);
    put8(aml, args | (serialized ? 8u : 0u));
}

void aml_if(struct aml *aml)
{
    put8(aml, OP_IF);
    open_length(aml);
}

void aml_package(struct aml *aml, unsigned elements)
{
    put8(aml, OP_PACKAGE);
    open_length(aml);
    put8(aml, elements);
}

void aml_field(struct aml *aml, const char *region)
{
    put8(aml, OP_EXT);
    put8(aml, OP_FIELD);
    open_length(aml);
    aml_path(aml, region);
    put8(aml, FIELD_DWORD);
}

void aml_field_unit(struct aml *aml, const char *name, unsigned bits)
{
    put_segment(aml, name, strlen(name));
    put8(aml, bits); /* below 64: the one-byte form of a package length */
}

void aml_name(struct aml *aml, const char *name)
{
    put8(aml, OP_NAME);
    aml_path(aml, name);
}

void aml_integer(struct aml *aml, uint64_t v)
{
    if (v <= 1) {
        put8(aml, (unsigned)v);
    } else if (v <= UINT8_MAX) {
        put8(aml, OP_BYTE);
        put8(aml, (unsigned)v);
    } else if (v <= UINT16_MAX) {
        put8(aml, OP_WORD);
        put16(aml, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        put8(aml, OP_DWORD);
        put32(aml, (uint32_t)v);
    } else {
        put8(aml, OP_QWORD);
        put64(aml, v);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    put8(aml, OP_STRING);
    put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* ACPI 19.3.4: three letters of five bits, four hexadecimal digits, in big-endian order. */
void aml_eisa_id(struct aml *aml, const char *id)
{
    unsigned letters = (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');
    uint8_t b[5] = {OP_DWORD, (uint8_t)(letters >> 8), (uint8_t)letters,
                    (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])),
                    (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6]))};
    put(aml, b, sizeof(b));
}

void aml_memory_region(struct aml *aml, const char *name, uint64_t base, uint32_t size)
{
    put8(aml, OP_EXT);
    put8(aml, OP_REGION);
    aml_path(aml, name);
    put8(aml, SYSTEM_MEMORY);
    aml_integer(aml, base);
    aml_integer(aml, size);
}

void aml_and(struct aml *aml)
{
    put8(aml, OP_AND);
}

void aml_local0(struct aml *aml)
{
    put8(aml, OP_LOCAL0);
}

void aml_no_target(struct aml *aml)
{
    put8(aml, OP_ZERO);
}

void aml_store(struct aml *aml)
{
    put8(aml, OP_STORE);
}

void aml_notify(struct aml *aml, const char *path, uint8_t code)
{
    put8(aml, OP_NOTIFY);
    aml_path(aml, path);
    aml_integer(aml, code);
}

/* Buffer(size) { bytes }: the size is a two-byte integer, filled in at the end. */
void aml_resources(struct aml *aml)
{
    put8(aml, OP_BUFFER);
    open_length(aml);
    put8(aml, OP_WORD);
    put16(aml, 0);
}

void aml_resources_end(struct aml *aml)
{
    put8(aml, RES_END);
    put8(aml, 0); /* a checksum of 0 means: not checked */
    if (!aml->overflow && aml->depth) {
        size_t size_at = aml->open[aml->depth - 1] + PKG_LENGTH_BYTES + 1, size = aml->used - size_at - 2;
        store_le16(aml->at + size_at, (uint16_t)size);
        if (size > UINT16_MAX)
            aml->overflow = true;
    }
    aml_close(aml);
}

static void put_memory32(struct aml *aml, uint32_t base, uint32_t size)
{
    put8(aml, RES_MEMORY32);
    put16(aml, 9);
    put8(aml, READ_WRITE);
    put32(aml, base);
    put32(aml, size);
}

static void put_memory64(struct aml *aml, uint64_t base, uint64_t size)
{
    put8(aml, RES_QWORD);
    put16(aml, 43);
    put8(aml, QWORD_MEMORY);
    put8(aml, QWORD_FLAGS);
    put8(aml, READ_WRITE);
    put64(aml, 0); /* granularity */
    put64(aml, base);
    put64(aml, base + size - 1);
    put64(aml, 0); /* translation */
    put64(aml, size);
}

void aml_memory(struct aml *aml, uint64_t base, uint32_t size)
{
    if (base + (size - 1) <= UINT32_MAX)
        put_memory32(aml, (uint32_t)base, size);
    else
        put_memory64(aml, base, size);
}

void aml_interrupt(struct aml *aml, uint32_t gsi)
{
    put8(aml, RES_INTERRUPT);
    put16(aml, 6);
    put8(aml, IRQ_FLAGS);
    put8(aml, 1);
    put32(aml, gsi);
}

void aml_port(struct aml *aml, uint16_t port, uint8_t count)
{
    put8(aml, RES_IO);
    put8(aml, 1); /* decodes 16 bits */
    put16(aml, port);
    put16(aml, port);
    put8(aml, 1);
    put8(aml, count);
}
