/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm key and minivmm stats: the operator's keys and the counters of a running VM. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/commands.h"
#include "vmm/config_internal.h"
#include "vmm/control.h"
#include "vmm/exit_codes.h"
#include "vmm/keyfile.h"

static const char key_usage[] =
    "usage: minivmm key set --vm NAME --slot N --file PATH [--alg ALG]\n"
    "       minivmm key evict --vm NAME --slot N\n"
    "       minivmm key list --vm NAME\n"
    "\n"
    "set    puts the key in a file into a keyslot of the operator's; the slot keeps its\n"
    "       disk and data unit\n"
    "evict  wipes it: the disk's requests fail until there is a key again\n"
    "list   tells what the VM's keyslots are for; it never shows a key\n"
    "\n"
    "  --vm NAME    the VM\n"
    "  --slot N     the host's number of the keyslot, as list and minivmm slots tell it\n"
    "  --file PATH  the key: raw bytes or hexadecimal digits, readable by you alone\n"
    "  --alg ALG    aes-xts (default), essiv-aes-cbc, bitlocker-aes-cbc or aes-ecb\n"
    "  --help       print this help\n"
    "\n"
    "Exit codes: 0 done, 1 there is no such VM or it refused, 2 bad flags or key file.\n";

static const char stats_usage[] =
    "usage: minivmm stats NAME [--json]\n"
    "\n"
    "Tells what a VM's keyslots and encrypted disks did: requests, bytes, data\n"
    "units, and those that were denied, found an empty slot, or failed.\n"
    "\n"
    "Exit codes: 0 done, 1 there is no such VM, 2 bad flags.\n";

static int report(int code, const struct err *err)
{
    fprintf(stderr, "minivmm: error: %s\n", err->text);
    return code;
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

enum { FLAG_VM, FLAG_SLOT, FLAG_FILE, FLAG_ALG, FLAGS };
static const char *const flag_name[FLAGS] = {"--vm", "--slot", "--file", "--alg"};

struct key_wish {
    const char *what, *value[FLAGS];
};

/* Takes "--flag VALUE" or "--flag=VALUE" at argv[*i]. */
static int take_flag(struct key_wish *wish, int argc, char **argv, int *i, struct err *err)
{
    const char *arg = argv[*i];
    size_t len = strcspn(arg, "=");
    for (unsigned f = 0; f < FLAGS; f++) {
        if (strlen(flag_name[f]) != len || strncmp(arg, flag_name[f], len) != 0)
            continue;
        if (wish->value[f])
            return err_set(err, -EINVAL, "key: %s is given twice", flag_name[f]);
        if (!arg[len] && *i + 1 == argc)
            return err_set(err, -EINVAL, "key: %s needs a value", flag_name[f]);
        wish->value[f] = arg[len] ? arg + len + 1 : argv[++*i];
        return 0;
    }
    return err_set(err, -EINVAL, "key: unknown flag '%s'; minivmm key --help lists them", arg);
}

static int parse_key(int argc, char **argv, struct key_wish *wish, struct err *err)
{
    /* By bit: flags that the call needs, and flags that it may have. */
    static const struct {
        const char *name;
        unsigned needs, may;
    } calls[] = {
        {"set", 1U << FLAG_VM | 1U << FLAG_SLOT | 1U << FLAG_FILE, 1U << FLAG_ALG},
        {"evict", 1U << FLAG_VM | 1U << FLAG_SLOT, 0},
        {"list", 1U << FLAG_VM, 0},
    };
    static const char *const names[] = {"set", "evict", "list", NULL};
    unsigned call = 0;
    wish->what = argv[1];
    int code = config_value_choice(wish->what, names, &call, err);
    if (code < 0)
        return err_prefix(err, code, "key");
    for (int i = 2; code == 0 && i < argc; i++)
        code = take_flag(wish, argc, argv, &i, err);
    for (unsigned f = 0; code == 0 && f < FLAGS; f++) {
        if ((calls[call].needs & 1U << f) && !wish->value[f])
            code = err_set(err, -EINVAL, "key %s: %s is missing", wish->what, flag_name[f]);
        else if (!((calls[call].needs | calls[call].may) & 1U << f) && wish->value[f])
            code = err_set(err, -EINVAL, "key %s: %s does not belong here", wish->what, flag_name[f]);
    }
    uint64_t slot = 0;
    if (code == 0 && wish->value[FLAG_SLOT]) {
        code = config_value_number(wish->value[FLAG_SLOT], 0, ICE_SLOTS_MAX - 1, &slot, err);
        return code < 0 ? err_prefix(err, code, "--slot") : 0;
    }
    return code;
}

/* The algorithm's name goes into a request line. */
static int check_alg(const char *name, struct err *err)
{
    const char *names[ICE_ALG_COUNT + 1] = {NULL};
    unsigned alg = 0;
    for (unsigned i = 0; i < ICE_ALG_COUNT; i++)
        names[i] = ice_alg_name(i);
    int code = config_value_choice(name, names, &alg, err);
    return code < 0 ? err_prefix(err, code, "--alg") : 0;
}

int key_main(int argc, char **argv)
{
    struct err err = {{0}};
    struct key_wish wish = {0};
    char request[128], *text = NULL;
    if (argc < 2 || is_help(argv[1])) {
        fputs(key_usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_CODE_USAGE : EXIT_CODE_OK;
    }
    int code = parse_key(argc, argv, &wish, &err), fd = -1;
    const char *alg = wish.value[FLAG_ALG] ? wish.value[FLAG_ALG] : ice_alg_name(ICE_ALG_AES_XTS);
    if (code == 0)
        code = check_alg(alg, &err);
    if (code == 0 && wish.value[FLAG_FILE]) {
        /* The VM reads it: the bytes never come into this process. */
        fd = keyfile_open(wish.value[FLAG_FILE], &err);
        code = fd < 0 ? err_prefix(&err, fd, "--file") : 0;
    }
    if (code < 0)
        return report(EXIT_CODE_USAGE, &err);
    const char *slot = wish.value[FLAG_SLOT];
    snprintf(request, sizeof(request), "key %s%s%s%s%s", wish.what, slot ? " " : "", slot ? slot : "",
             fd >= 0 ? " " : "", fd >= 0 ? alg : "");
    code = control_ask(wish.value[FLAG_VM], request, fd, &text, &err);
    if (fd >= 0)
        close(fd);
    if (code < 0) {
        err_prefix(&err, code, "key %s", wish.what);
        return report(EXIT_CODE_FAILURE, &err);
    }
    fputs(text, stdout);
    free(text);
    return EXIT_CODE_OK;
}

int stats_main(int argc, char **argv)
{
    struct err err = {{0}};
    const char *name = NULL;
    char *text = NULL;
    bool as_json = false;
    for (int i = 1; i < argc; i++) {
        if (is_help(argv[i])) {
            fputs(stats_usage, stdout);
            return EXIT_CODE_OK;
        }
        if (strcmp(argv[i], "--json") == 0) {
            as_json = true;
        } else if (argv[i][0] == '-' || name) {
            err_set(&err, -EINVAL, "stats: '%s' is too much; minivmm stats --help tells what is possible",
                    argv[i]);
            return report(EXIT_CODE_USAGE, &err);
        } else {
            name = argv[i];
        }
    }
    if (!name) {
        err_set(&err, -EINVAL, "stats: name a running VM: minivmm stats NAME");
        return report(EXIT_CODE_USAGE, &err);
    }
    int code = control_ask(name, "stats", -1, &text, &err);
    if (code < 0)
        return report(code == -EINVAL ? EXIT_CODE_USAGE : EXIT_CODE_FAILURE, &err);
    if (as_json)
        control_print_json(stdout, text);
    else
        fputs(text, stdout);
    free(text);
    return EXIT_CODE_OK;
}
