/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_X86_DSDT_H
#define MINIVMM_X86_DSDT_H

#include <stddef.h>

#include "minivmm/arch.h"

/* Writes the DSDT's AML (without the table header) and returns its length; 0 when size is too small. */
size_t dsdt_write(const struct arch_machine *machine, void *buffer, size_t size);

#endif
