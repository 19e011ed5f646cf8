/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm slots: who holds which of the host's keyslots. */
#include <errno.h>
#include <string.h>

#include "minivmm/slotmap.h"
#include "vmm/commands.h"
#include "vmm/config_internal.h"
#include "vmm/exit_codes.h"
#include "vmm/json.h"

static const char usage[] = "usage: minivmm slots [--json] [--ice-map PATH] [--ice-total N]\n"
                            "\n"
                            "Tells who holds which of the host's keyslots, and which are free.\n"
                            "\n"
                            "  --json            an array of objects; free ranges have no name and pid\n"
                            "  --ice-map PATH    the map, as for --ice-map of the VMs\n"
                            "  --ice-total N     keyslots of the host, as for the VMs (default: 64)\n"
                            "  --help            print this help\n"
                            "\n"
                            "Exit codes: 0 done, 1 the map can't be read, 2 bad flags.\n";

struct slots_wish {
    const char *map;
    unsigned total;
    bool json, help;
};

/* The value of --flag VALUE (then *i moves on) or --flag=VALUE; NULL when arg is another flag or lacks it. */
static const char *value_of(const char *flag, const char *arg, const char *next, int *i)
{
    size_t len = strlen(flag);
    if (strncmp(arg, flag, len) != 0)
        return NULL;
    if (arg[len] == '=')
        return arg + len + 1;
    if (arg[len] || !next)
        return NULL;
    ++*i;
    return next;
}

static int parse(int argc, char **argv, struct slots_wish *wish, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *next = argv[i + 1], *value = NULL;
        uint64_t total = 0;
        if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
            wish->help = true;
        } else if (strcmp(flag, "--json") == 0) {
            wish->json = true;
        } else if ((value = value_of("--ice-map", flag, next, &i))) {
            wish->map = value;
        } else if ((value = value_of("--ice-total", flag, next, &i))) {
            if (config_value_number(value, 1, SLOTMAP_SLOTS_MAX, &total, err) < 0)
                return err_prefix(err, -EINVAL, "slots: --ice-total");
            wish->total = (unsigned)total;
        } else {
            return err_set(err, -EINVAL,
                           "slots: '%s' is unknown or lacks its value; minivmm slots --help tells", flag);
        }
    }
    return 0;
}

static void print_range(struct json *json, unsigned first, unsigned count, const struct slotmap_entry *entry)
{
    if (!json->out) {
        char range[16], pid[16] = "-";
        snprintf(range, sizeof(range), "%u-%u", first, first + count - 1);
        if (entry)
            snprintf(pid, sizeof(pid), "%d", (int)entry->pid);
        printf("%-8s %5u  %-24s %s\n", range, count, entry ? entry->name : "-", pid);
        return;
    }
    json_open(json, NULL, '{');
    json_integer(json, "first", first);
    json_integer(json, "count", count);
    json_raw(json, "free", entry ? "false" : "true");
    if (entry) {
        json_string(json, "name", entry->name);
        json_integer(json, "pid", entry->pid);
    }
    json_close(json, '}');
}

static void print_map(const struct slots_wish *wish, const struct slotmap_entry *entries, int n)
{
    struct json json = {.out = wish->json ? stdout : NULL};
    unsigned next = 0;
    if (wish->json)
        json_open(&json, NULL, '[');
    else
        printf("%-8s %5s  %-24s %s\n", "SLOTS", "COUNT", "VM", "PID");
    for (int i = 0; i < n; i++) {
        if (entries[i].first > next)
            print_range(&json, next, entries[i].first - next, NULL);
        print_range(&json, entries[i].first, entries[i].count, &entries[i]);
        next = entries[i].first + entries[i].count;
    }
    if (next < wish->total)
        print_range(&json, next, wish->total - next, NULL);
    if (wish->json)
        json_close(&json, ']');
}

int slots_main(int argc, char **argv)
{
    struct err err = {{0}};
    struct slots_wish wish = {.total = SLOTMAP_TOTAL_DEFAULT};
    struct slotmap_entry entries[SLOTMAP_SLOTS_MAX];
    int code = EXIT_CODE_OK;
    if (parse(argc, argv, &wish, &err) < 0)
        code = EXIT_CODE_USAGE;
    else if (wish.help)
        fputs(usage, stdout);
    else {
        int n = slotmap_list(wish.map, entries, &err);
        if (n < 0)
            code = EXIT_CODE_FAILURE;
        else
            print_map(&wish, entries, n);
    }
    if (code != EXIT_CODE_OK)
        fprintf(stderr, "minivmm: error: %s\n", err.text);
    return code;
}
