/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a VM: what it asks for, and its help text. The flags themselves are parsed by
 * config_parse_args() of minivmm/config.h, from the same table.
 */
#ifndef MINIVMM_VMM_OPTIONS_H
#define MINIVMM_VMM_OPTIONS_H

#include <stdio.h>

enum options_action { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_VERSION };

/*
 * Looks for --help and --version (also -h and -V) before anything is parsed, so that they answer on a command
 * line that is otherwise wrong; values of other flags are not mistaken for them. HELP too when argv holds
 * nothing but the program's name.
 */
enum options_action options_action(int argc, char **argv);

void options_print_help(FILE *out);
void options_print_version(FILE *out); /* "minivmm VERSION" */

#endif
