/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet check and fleet plan: what a fleet's file says, without doing it. */
#include <errno.h>
#include <string.h>

#include "vmm/commands.h"
#include "vmm/exit_codes.h"
#include "vmm/fleet_client.h"
#include "vmm/fleet_slots.h"

#define PLAN_PATIENCE 30u /* seconds: the supervisor reads the file anew */

static const char usage[] =
    "usage: minivmm fleet check FILE\n"
    "       minivmm fleet plan FILE\n"
    "\n"
    "check  tells all that is wrong with a fleet's file and with what it names\n"
    "plan   shows who gets which keyslots, and what fleet up or fleet reload would do\n"
    "\n"
    "  --help  print this help\n"
    "\n"
    "Exit codes: 0 the file is good (there may be warnings), 2 it is not, or bad flags.\n";

/* The only argument that is no flag; NULL, with the exit code, when there is nothing more to do. */
static const char *file_of(int argc, char **argv, int *code)
{
    const char *file = NULL;
    *code = EXIT_CODE_USAGE;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            *code = EXIT_CODE_OK;
            return NULL;
        }
        if (argv[i][0] == '-' || file) {
            fprintf(stderr, "minivmm: error: fleet %s: '%s' is %s; minivmm fleet %s --help tells\n", argv[0],
                    argv[i], file ? "one argument too many" : "no flag of this command", argv[0]);
            return NULL;
        }
        file = argv[i];
    }
    if (!file)
        fprintf(stderr, "minivmm: error: fleet %s: the fleet's file is needed: minivmm fleet %s FILE\n",
                argv[0], argv[0]);
    return file;
}

/* Loads the fleet and tells its problems; the exit code. */
static int load(const char *file, struct fleet *fleet)
{
    struct fleet_problems problems;
    int code = fleet_load(file, fleet, &problems);
    const struct fleet_slots_use use = fleet_slots_use(fleet);
    unsigned warnings = 0;
    for (unsigned i = 0; i < problems.count; i++)
        warnings += problems.list[i].warning;
    fleet_problems_print(&problems, stderr);
    if (code == -ENOMEM) {
        fprintf(stderr, "minivmm: error: %s: out of memory\n", file);
    } else {
        printf("%s: %u VM%s, %u of %u keyslots, ", file, fleet->vms, fleet->vms == 1 ? "" : "s",
               use.windows + use.keys + use.hidden, fleet->total);
        if (problems.errors)
            printf("%u error%s", problems.errors, problems.errors == 1 ? "" : "s");
        else
            printf("no problem");
        if (warnings)
            printf(", %u warning%s", warnings, warnings == 1 ? "" : "s");
        putchar('\n');
    }
    fleet_problems_free(&problems);
    return code == -ENOMEM ? EXIT_CODE_FAILURE : code < 0 ? EXIT_CODE_USAGE : EXIT_CODE_OK;
}

int fleet_check_main(int argc, char **argv)
{
    int code;
    struct fleet fleet;
    const char *file = file_of(argc, argv, &code);
    if (!file)
        return code;
    code = load(file, &fleet);
    fleet_free(&fleet);
    return code;
}

static void print_change(void *ctx, enum fleet_change change, const char *vm)
{
    (void)ctx;
    static const char *const names[] = {"keep", "start", "stop", "restart"};
    printf("%-7s  %s\n", names[change], vm);
}

/* "restart web" of the supervisor's, the first one behind a title. */
static void print_line(void *ctx, char *line)
{
    const char **fleet = ctx;
    char *name = strchr(line, ' ');
    if (name)
        *name++ = '\0';
    if (*fleet)
        printf("\n%s runs; fleet reload would:\n", *fleet);
    *fleet = NULL;
    printf("%-7s  %s\n", line, name ? name : "");
}

/* What fleet up or, where it runs, fleet reload would do. */
static int print_changes(const struct fleet *fleet)
{
    struct err err = {{0}};
    struct fleet_link link;
    const struct fleet_wish wish = {.command = "plan", .fleet = fleet->name};
    const char *title = fleet->name;
    int code = fleet_link_open(&wish, &link, &err);
    if (code == 0) {
        code = fleet_ask(&link, "plan", PLAN_PATIENCE, print_line, &title, &err);
        fleet_link_close(&link);
    }
    if (code < 0 && code != -ENOENT)
        return fleet_fail(&wish, &err);
    if (code == -ENOENT) {
        printf("\n%s does not run; fleet up would:\n", fleet->name);
        fleet_changes(NULL, fleet, print_change, NULL);
    }
    return EXIT_CODE_OK;
}

int fleet_plan_main(int argc, char **argv)
{
    int code;
    struct fleet fleet;
    const char *file = file_of(argc, argv, &code);
    if (!file)
        return code;
    code = load(file, &fleet);
    if (code == EXIT_CODE_OK) {
        fleet_print_slots(&fleet, stdout);
        code = print_changes(&fleet);
    }
    fleet_free(&fleet);
    return code;
}
