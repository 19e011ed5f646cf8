/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_X86_MPTABLE_H
#define MINIVMM_X86_MPTABLE_H

#include "minivmm/arch.h"

/* Writes the MP floating pointer and table (MultiProcessor Specification 1.4) for guests that use no ACPI. */
int mptable_build(const struct arch_machine *machine, struct err *err);

#endif
