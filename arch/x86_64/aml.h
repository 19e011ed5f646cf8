/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small AML writer (ACPI 6.4, chapter 20): each call appends one term to a fixed buffer; scopes are opened
 * and closed, and their package lengths filled in on closing. An overflow is remembered and reported once at
 * the end.
 */
#ifndef MINIVMM_X86_AML_H
#define MINIVMM_X86_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 8u

struct aml {
    uint8_t *at;
    size_t size, used;
    bool overflow;
    size_t open[AML_DEPTH_MAX]; /* where the package lengths of open terms stand */
    unsigned depth;
};

void aml_begin(struct aml *aml, void *buffer, size_t size);

/* Terms with a body; aml_close() ends the innermost one. */
void aml_scope(struct aml *aml, const char *name);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned args, bool serialized);
void aml_if(struct aml *aml); /* the predicate follows */
void aml_package(struct aml *aml, unsigned elements);
void aml_field(struct aml *aml, const char *region); /* DWordAcc, NoLock, Preserve */
void aml_close(struct aml *aml);

void aml_name(struct aml *aml, const char *name); /* Name(name, ...): the value follows */
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id); /* "PNP0501" */
void aml_memory_region(struct aml *aml, const char *name, uint64_t base, uint32_t size);
void aml_field_unit(struct aml *aml, const char *name, unsigned bits);
void aml_and(struct aml *aml); /* And(a, b): two operands and a target follow */
void aml_local0(struct aml *aml);
void aml_no_target(struct aml *aml);
void aml_store(struct aml *aml); /* source and target follow */
void aml_notify(struct aml *aml, const char *path, uint8_t code);
void aml_path(struct aml *aml, const char *path); /* "NAME", or "\NAME.NAME" */

/* A resource template between begin and end. */
void aml_resources(struct aml *aml);
void aml_resources_end(struct aml *aml);
void aml_memory(struct aml *aml, uint64_t base, uint32_t size); /* read-write; size > 0 */
void aml_interrupt(struct aml *aml, uint32_t gsi); /* edge-triggered, active-high, exclusive, consumer */
void aml_port(struct aml *aml, uint16_t port, uint8_t count);

#endif
