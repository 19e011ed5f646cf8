/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: walks argv by the table of options. */
#include "vmm/options.h"

#include <errno.h>
#include <string.h>

#include "vmm/config_internal.h"

/* One flag of argv, taken apart: --name value, or --name=value. */
struct arg {
    const char *text;  /* as written */
    const char *name;  /* behind the dashes */
    size_t len;        /* of the name */
    const char *value; /* NULL: none */
    const struct option_def *option;
};

/* Reads the flag at argv[*i] and moves *i behind it and its value; option is NULL for an unknown one. */
static void next_arg(int argc, char **argv, int *i, struct arg *arg)
{
    *arg = (struct arg){.text = argv[(*i)++]};
    if (strcmp(arg->text, "-h") == 0)
        arg->name = "help";
    else if (strcmp(arg->text, "-V") == 0)
        arg->name = "version";
    else if (strncmp(arg->text, "--", 2) == 0)
        arg->name = arg->text + 2;
    else
        return;
    arg->len = strcspn(arg->name, "=");
    arg->option = config_option_find(arg->name, arg->len);
    if (arg->name[arg->len] == '=')
        arg->value = arg->name + arg->len + 1;
    else if (arg->option && arg->option->arg && *i < argc)
        arg->value = argv[(*i)++];
}

enum options_action options_action(int argc, char **argv)
{
    struct arg arg;
    for (int i = 1; i < argc;) {
        next_arg(argc, argv, &i, &arg);
        if (arg.option && (arg.option->flags & OPTION_ANSWERS) && !arg.value)
            return strcmp(arg.option->name, "help") == 0 ? OPTIONS_HELP : OPTIONS_VERSION;
    }
    return argc < 2 ? OPTIONS_HELP : OPTIONS_RUN;
}

static int unknown_arg(const struct arg *arg, struct err *err)
{
    if (!arg->name)
        return err_set(
            err, -EINVAL,
            "'%s' is neither a flag nor a command: flags begin with --, and minivmm --help lists both",
            arg->text);
    char name[64];
    size_t len = arg->len < sizeof(name) - 1 ? arg->len : sizeof(name) - 1;
    memcpy(name, arg->name, len);
    name[len] = '\0';
    return config_unknown_option("--", name, false, err);
}

/* Checks the flag, and applies it if it is (files) --config or (not files) anything else. */
static int apply_arg(struct config *config, const struct arg *arg, bool files, uint64_t *seen,
                     struct err *err)
{
    const struct option_def *option = arg->option;
    if (!option)
        return unknown_arg(arg, err);
    if (!option->set)
        return err_set(err, -EINVAL, "--%s takes no value", option->name);
    uint64_t bit = 1ULL << (option - config_options);
    if ((*seen & bit) && !(option->flags & OPTION_REPEAT))
        return err_set(err, -EINVAL, "--%s is given twice: give it once", option->name);
    *seen |= bit;
    if (option->arg && !arg->value)
        return err_set(err, -EINVAL, "--%s needs a value: --%s %s", option->name, option->name, option->arg);
    if ((strcmp(option->name, "config") == 0) != files)
        return 0;
    int code = option->set(config, arg->value ? arg->value : "on", NULL, err);
    if (code < 0 && !files) /* a file's sentences name the file and line */
        return err_prefix(err, code, "--%s", option->name);
    return code;
}

/* Two walks, files first: what stands on the command line wins over a file, wherever. */
static int apply_args(struct config *config, int argc, char **argv, bool files, struct err *err)
{
    uint64_t seen = 0;
    int code = 0;
    struct arg arg;
    for (int i = 1; i < argc && code == 0;) {
        next_arg(argc, argv, &i, &arg);
        code = apply_arg(config, &arg, files, &seen, err);
    }
    return code;
}

int config_parse_args(struct config *config, int argc, char **argv, struct err *err)
{
    int code = apply_args(config, argc, argv, true, err);
    return code < 0 ? code : apply_args(config, argc, argv, false, err);
}
