/* SPDX-License-Identifier: Apache-2.0 */
/* What the vmm/cgroup*.c files share. */
#ifndef MINIVMM_VMM_CGROUP_INTERNAL_H
#define MINIVMM_VMM_CGROUP_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/cgroup.h"

/* The group that this process moves into; who starts there looks for its siblings one level up. */
#define CGROUP_LEAF "supervisor"

/* The controllers' names in files of v2 and in mount options of v1. */
extern const char *const cgroup_controller_names[CGROUP_CONTROLLERS];

/* path = dir/name; false when it is too long. */
bool cgroup_path(char path[CGROUP_PATH_MAX], const char *dir, const char *name);

/* Whether word is among the words of list, which the characters of by part. */
bool cgroup_has_word(const char *list, const char *word, const char *by);

/* Reads dir/name, up to size - 1 bytes; -errno when it cannot be read. */
int cgroup_read(const char *dir, const char *name, char *text, size_t size);

#endif
