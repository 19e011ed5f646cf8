/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet: the words behind it, and their flags. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/commands.h"
#include "vmm/config_internal.h"
#include "vmm/exit_codes.h"
#include "vmm/fleet_client.h"
#include "vmm/json.h"
#include "vmm/suggest.h"

#define LINES_DEFAULT 100u
#define LINES_MAX     100000u
#define TURNS_MAX     1000000000u
#define DELAY_DEFAULT 2000u /* ms */
#define DELAY_LEAST   0.1   /* s */
#define DELAY_MOST    3600.0

static const char usage[] =
    "usage: minivmm fleet up FILE [--detach]\n"
    "       minivmm fleet check|plan FILE\n"
    "       minivmm fleet ps [--json]\n"
    "       minivmm fleet start|stop|restart NAME...|--all\n"
    "       minivmm fleet reload|down\n"
    "       minivmm fleet logs NAME [-n LINES] [-f]\n"
    "       minivmm fleet console NAME\n"
    "       minivmm fleet top [-n COUNT] [-d SECONDS] [--json]\n"
    "\n"
    "up       runs the VMs of a file, and watches over them until it is told to stop\n"
    "check    reports all that is wrong with a file\n"
    "plan     shows the keyslots of a file's VMs, and what up or reload would change\n"
    "ps       lists the VMs of a running fleet\n"
    "start    starts VMs of it, in their order, and waits until they run\n"
    "stop     presses their power buttons and waits; who is late is killed\n"
    "restart  stops and starts them\n"
    "reload   reads the file anew: starts, stops and restarts what changed\n"
    "down     stops all VMs, then the fleet\n"
    "logs     prints what a VM's console said\n"
    "console  puts this terminal on a VM's console; ctrl-a x leaves, the VM goes on\n"
    "top      a live table of states, loads and rates; q leaves\n"
    "\n"
    "  --fleet FLEET    which of the running fleets, by its name or file; not needed\n"
    "                   where one runs; short: -f, but not for logs\n"
    "  --all            start, stop, restart: all VMs\n"
    "  --json           ps: an array of objects; top: an object a line and turn\n"
    "  -n LINES         logs: so many last lines (default: 100)\n"
    "  -f, --follow     logs: go on with what comes\n"
    "  -n COUNT         top: so many tables (default: no end)\n"
    "  -d SECONDS       top: between tables, from 0.1 on (default: 2)\n"
    "  --help           print this help; up, check and plan have their own\n"
    "\n"
    "Exit codes: 0 done, 1 it failed or was refused, 2 bad flags.\n";

#define TAKES_NAMES  1u /* one or more, or --all */
#define TAKES_NAME   2u
#define TAKES_JSON   4u
#define TAKES_LINES  8u
#define TAKES_TURNS  16u
#define TAKES_FOLLOW 32u

static const struct command {
    const char *name;
    unsigned takes;
    int (*run)(const struct fleet_wish *wish);
    int (*main)(int argc, char **argv); /* parses its flags itself */
} commands[] = {
    {"up", 0, NULL, fleet_up_main},
    {"check", 0, NULL, fleet_check_main},
    {"plan", 0, NULL, fleet_plan_main},
    {"ps", TAKES_JSON, fleet_ps, NULL},
    {"start", TAKES_NAMES, fleet_order, NULL},
    {"stop", TAKES_NAMES, fleet_order, NULL},
    {"restart", TAKES_NAMES, fleet_order, NULL},
    {"reload", 0, fleet_order, NULL},
    {"down", 0, fleet_order, NULL},
    {"logs", TAKES_NAME | TAKES_LINES | TAKES_FOLLOW, fleet_logs, NULL},
    {"console", TAKES_NAME, fleet_console, NULL},
    {"top", TAKES_JSON | TAKES_TURNS, fleet_top, NULL},
};

static bool is_flag(const char *arg, const char *brief, const char *full)
{
    return strcmp(arg, full) == 0 || (brief && strcmp(arg, brief) == 0);
}

/* A switch that the command takes: sets it. */
static bool take_switch(const struct command *command, const char *flag, struct fleet_wish *wish)
{
    if (is_flag(flag, "-h", "--help"))
        wish->help = true;
    else if (command->takes & TAKES_NAMES && is_flag(flag, NULL, "--all"))
        wish->all = true;
    else if (command->takes & TAKES_JSON && is_flag(flag, NULL, "--json"))
        wish->json = true;
    else if (command->takes & TAKES_FOLLOW && is_flag(flag, "-f", "--follow"))
        wish->follow = true;
    else
        return false;
    return true;
}

static int set_delay(const char *value, struct fleet_wish *wish, struct err *err)
{
    double seconds = json_is_number(value) ? strtod(value, NULL) : -1;
    if (seconds < DELAY_LEAST || seconds > DELAY_MOST)
        return err_set(err, -EINVAL, "'%s' is not a number of seconds from 0.1 to 3600", value);
    wish->delay_ms = (unsigned)(seconds * 1000);
    return 0;
}

static int set_value(const struct command *command, const char *flag, const char *value,
                     struct fleet_wish *wish, struct err *err)
{
    if (strcmp(flag, "-d") == 0)
        return set_delay(value, wish, err);
    if (strcmp(flag, "-n") == 0 && command->takes & TAKES_TURNS)
        return config_value_number(value, 1, TURNS_MAX, &wish->turns, err);
    if (strcmp(flag, "-n") == 0)
        return config_value_number(value, 0, LINES_MAX, &wish->lines, err);
    if (!*value)
        return err_set(err, -EINVAL, "the name of a fleet is needed");
    wish->fleet = value;
    return 0;
}

/* The flag with a value that arg is, or NULL. *value: behind '=', where it stands there. */
static const char *value_flag(const struct command *command, const char *arg, const char **value)
{
    static const char fleet[] = "--fleet";
    *value = NULL;
    if (strncmp(arg, fleet, sizeof(fleet) - 1) == 0 && arg[sizeof(fleet) - 1] == '=') {
        *value = arg + sizeof(fleet);
        return fleet;
    }
    if (is_flag(arg, command->takes & TAKES_FOLLOW ? NULL : "-f", fleet))
        return fleet;
    if (strcmp(arg, "-n") == 0 && command->takes & (TAKES_LINES | TAKES_TURNS))
        return "-n";
    return strcmp(arg, "-d") == 0 && command->takes & TAKES_TURNS ? "-d" : NULL;
}

/* One argument, two where the flag's value is the next; returns how many, or -EINVAL. */
static int parse_one(const struct command *command, char **argv, struct fleet_wish *wish, struct err *err)
{
    const char *value;
    if (argv[0][0] != '-') {
        wish->name[wish->names++] = argv[0];
        return 1;
    }
    if (take_switch(command, argv[0], wish))
        return 1;
    const char *flag = value_flag(command, argv[0], &value);
    if (!flag)
        return err_set(err, -EINVAL, "unknown flag '%s'; minivmm fleet --help lists them", argv[0]);
    int used = value ? 1 : 2;
    if (!value && !argv[1])
        return err_set(err, -EINVAL, "%s needs a value", argv[0]);
    int code = set_value(command, flag, value ? value : argv[1], wish, err);
    return code < 0 ? err_prefix(err, code, "%s", flag) : used;
}

static int check_names(const struct command *command, const struct fleet_wish *wish, struct err *err)
{
    char file[CONTROL_FILE_MAX];
    for (unsigned i = 0; i < wish->names; i++) {
        if (!(command->takes & (TAKES_NAMES | TAKES_NAME)) || (command->takes & TAKES_NAME && i > 0))
            return err_set(err, -EINVAL, "'%s' is one word too many", wish->name[i]);
        if (control_file_name(wish->name[i], file, err) < 0)
            return -EINVAL;
    }
    if (command->takes & TAKES_NAME && wish->names == 0)
        return err_set(err, -EINVAL, "the name of a VM is needed; minivmm fleet ps lists them");
    if (wish->all && wish->names)
        return err_set(err, -EINVAL, "names and --all exclude each other");
    if (command->takes & TAKES_NAMES && wish->names == 0 && !wish->all)
        return err_set(err, -EINVAL, "names of VMs are needed, or --all; minivmm fleet ps lists them");
    return 0;
}

/* argv[0] is the command's name. wish->name has room for all arguments. */
static int parse(const struct command *command, char **argv, struct fleet_wish *wish, struct err *err)
{
    for (int i = 1; argv[i];) {
        int used = parse_one(command, argv + i, wish, err);
        if (used < 0)
            return err_prefix(err, used, "fleet %s", command->name);
        i += used;
    }
    int code = wish->help ? 0 : check_names(command, wish, err);
    return code < 0 ? err_prefix(err, code, "fleet %s", command->name) : 0;
}

static int unknown(const char *word)
{
    struct suggestion near = {.typed = word};
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        suggest_offer(&near, commands[i].name);
    if (near.best)
        fprintf(stderr, "minivmm: error: fleet: unknown command '%s'; did you mean '%s'?\n", word, near.best);
    else
        fprintf(stderr, "minivmm: error: fleet: unknown command '%s'; minivmm fleet --help lists them\n",
                word);
    return EXIT_CODE_USAGE;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct err err = {{0}};
    struct fleet_wish wish = {.command = command->name, .lines = LINES_DEFAULT, .delay_ms = DELAY_DEFAULT};
    wish.name = calloc((size_t)argc + 1, sizeof(*wish.name));
    int code = EXIT_CODE_OK;
    if (!wish.name || parse(command, argv, &wish, &err) < 0) {
        fprintf(stderr, "minivmm: error: %s\n", wish.name ? err.text : "out of memory");
        code = wish.name ? EXIT_CODE_USAGE : EXIT_CODE_FAILURE;
    } else if (wish.help) {
        fputs(usage, stdout);
    } else {
        code = command->run(&wish);
    }
    free(wish.name);
    return code;
}

int fleet_main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("minivmm: error: fleet: a command is needed; minivmm fleet --help lists them\n", stderr);
        return EXIT_CODE_USAGE;
    }
    if (is_flag(argv[1], "-h", "--help") || strcmp(argv[1], "help") == 0) {
        fputs(usage, stdout);
        return EXIT_CODE_OK;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].main ? commands[i].main(argc - 1, argv + 1)
                                    : run(&commands[i], argc - 1, argv + 1);
    return unknown(argv[1]);
}
