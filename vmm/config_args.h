/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as the command line that gives it. */
#ifndef MINIVMM_VMM_CONFIG_ARGS_H
#define MINIVMM_VMM_CONFIG_ARGS_H

#include "minivmm/config.h"

/*
 * The flags, NULL-terminated, that config_parse_args() turns into the same configuration; settings that have
 * their default are left out, the order is fixed: two configurations are equal when their flags are.
 * argv[0] is program. -ENOMEM. To be freed by config_args_free().
 */
int config_args(const struct config *config, const char *program, char ***argv);
void config_args_free(char **argv);

#endif
