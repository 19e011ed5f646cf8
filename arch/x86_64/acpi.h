/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_X86_ACPI_H
#define MINIVMM_X86_ACPI_H

#include "minivmm/arch.h"

/*
 * Writes RSDP, XSDT, FADT, MADT and DSDT (hardware-reduced ACPI 6) into the BIOS area of guest memory. *rsdp:
 * guest physical address of the RSDP. -EINVAL, -ENOSPC with a sentence.
 */
int acpi_build(const struct arch_machine *machine, uint64_t *rsdp, struct err *err);

#endif
