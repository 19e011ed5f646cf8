/* SPDX-License-Identifier: Apache-2.0 */
/* What the vmm/cell*.c files share. */
#ifndef MINIVMM_VMM_CELL_INTERNAL_H
#define MINIVMM_VMM_CELL_INTERNAL_H

#include "minivmm/errors.h"

/* Replaces the root of the process's mount namespace by an empty directory that can't be written. */
int cell_empty_root(struct err *err);

/* Takes away all access to files by path, and what else this kernel's Landlock can. 0 where it has none. */
int cell_landlock(struct err *err);

#endif
