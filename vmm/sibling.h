/* SPDX-License-Identifier: Apache-2.0 */
/*
 * minivmm is two programs in one folder: minivmm, which a VM's process runs and which has no line of code for
 * fleets, and minivmm-fleet, to which "minivmm fleet" hands over.
 */
#ifndef MINIVMM_VMM_SIBLING_H
#define MINIVMM_VMM_SIBLING_H

#include <stddef.h>

#include "minivmm/errors.h"

/* The path of the other program: name in the folder of this one. -ENOENT with a sentence where it is not
 * there. */
int sibling_path(const char *name, char *path, size_t size, struct err *err);

/* minivmm fleet ...: becomes minivmm-fleet; argv[0] is the command's name. Returns the exit code of failure.
 */
int fleet_exec(int argc, char **argv);

#endif
