/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands that are whole programs of their own; argv[0] is the command's name. Each returns the exit
 * code. */
#ifndef MINIVMM_VMM_COMMANDS_H
#define MINIVMM_VMM_COMMANDS_H

int run_main(int argc, char **argv);       /* minivmm --kernel ...: parse, create, run, exit code */
int doctor_main(int argc, char **argv);    /* minivmm doctor */
int boot_test_main(int argc, char **argv); /* minivmm boot-test */
int slots_main(int argc, char **argv);     /* minivmm slots */
int key_main(int argc, char **argv);       /* minivmm key set|evict|list */
int stats_main(int argc, char **argv);     /* minivmm stats */
int fleet_main(int argc, char **argv);     /* minivmm fleet COMMAND */

/* minivmm fleet up|check|plan: argv[0] is that word. */
int fleet_up_main(int argc, char **argv);
int fleet_check_main(int argc, char **argv);
int fleet_plan_main(int argc, char **argv);

#endif
