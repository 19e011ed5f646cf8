/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet ps, start, stop, restart, reload, down. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/exit_codes.h"
#include "vmm/fleet_client.h"
#include "vmm/json.h"

#define DOWN_SECONDS 10u

/* A VM's line of "ps" in a row of 80 columns. */
static void print_row(char *line)
{
    enum { NAME, STATE, PID, UPTIME, RESTARTS, FIRST, SLOTS, FACTS };
    static const char *const wanted[FACTS] = {"vm", "state", "pid", "uptime", "restarts", "first", "slots"};
    const char *found[FACTS] = {"?", "?", "-", NULL, "-", NULL, NULL};
    const char *key;
    const char *value;
    char name[33];
    char uptime[FLEET_UPTIME_MAX];
    char slots[32] = "-";
    while (fleet_next_fact(&line, &key, &value))
        for (unsigned i = 0; i < FACTS; i++)
            if (strcmp(key, wanted[i]) == 0)
                found[i] = value;
    unsigned long first = found[FIRST] ? strtoul(found[FIRST], NULL, 10) : 0;
    unsigned long count = found[SLOTS] ? strtoul(found[SLOTS], NULL, 10) : 0;
    if (count && found[FIRST])
        snprintf(slots, sizeof(slots), "%lu-%lu", first, first + count - 1);
    fleet_format_uptime(uptime, found[UPTIME] ? strtod(found[UPTIME], NULL) : -1);
    fleet_fit(name, sizeof(name) - 1, found[NAME]);
    printf("%-32s %-9s %9s %8s %8s %8s\n", name, found[STATE], found[PID], uptime, found[RESTARTS], slots);
}

static void print_object(struct json *json, char *line)
{
    const char *key;
    const char *value;
    json_open(json, NULL, '{');
    while (fleet_next_fact(&line, &key, &value))
        if (json_is_number(value) && strcmp(key, "vm") != 0)
            json_raw(json, key, value);
        else
            json_string(json, strcmp(key, "vm") == 0 ? "name" : key, value);
    json_close(json, '}');
}

struct ps {
    bool as_json, begun;
    struct json json;
};

/* Not before the first answer, so that a refusal stands alone. */
static void begin_ps(struct ps *ps)
{
    if (ps->begun)
        return;
    ps->begun = true;
    if (ps->as_json)
        json_open(&ps->json, NULL, '[');
    else
        printf("%-32s %-9s %9s %8s %8s %8s\n", "NAME", "STATE", "PID", "UPTIME", "RESTARTS", "SLOTS");
}

static void on_ps_line(void *ctx, char *line)
{
    struct ps *ps = ctx;
    begin_ps(ps);
    if (ps->as_json)
        print_object(&ps->json, line);
    else
        print_row(line);
}

int fleet_ps(const struct fleet_wish *wish)
{
    struct err err = {{0}};
    struct fleet_link link;
    struct ps ps = {.as_json = wish->json, .json = {.out = stdout}};
    int code = fleet_link_open(wish, &link, &err);
    if (code < 0)
        return fleet_fail(wish, &err);
    code = fleet_ask(&link, "ps", CONTROL_PATIENCE, on_ps_line, &ps, &err);
    fleet_link_close(&link);
    if (code == 0)
        begin_ps(&ps);
    if (wish->json && ps.begun)
        json_close(&ps.json, ']');
    return code < 0 ? fleet_fail(wish, &err) : EXIT_CODE_OK;
}

/* "stop web db", or "stop *" for all. */
static int make_request(const struct fleet_wish *wish, char *request, size_t size, struct err *err)
{
    size_t at = (size_t)snprintf(request, size, "%s%s", wish->command, wish->all ? " *" : "");
    for (unsigned i = 0; i < wish->names && at < size; i++)
        at += (size_t)snprintf(request + at, size - at, " %s", wish->name[i]);
    if (at >= size)
        return err_set(err, -E2BIG, "these are too many names for one request: name fewer, or --all");
    return 0;
}

static void on_progress(void *ctx, char *line)
{
    bool *failed = ctx;
    if (strncmp(line, "failed ", 7) == 0)
        *failed = true;
    puts(line);
    fflush(stdout);
}

/* The supervisor has answered, and now ends. */
static int wait_for_end(int pid_fd, const struct fleet_link *link, struct err *err)
{
    struct pollfd gone = {.fd = pid_fd, .events = POLLIN};
    int n;
    do
        n = poll(&gone, 1, DOWN_SECONDS * 1000);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return 0;
    return err_set(err, -ETIMEDOUT, "all VMs of %s are stopped, but its supervisor still runs after %u s",
                   link->name, DOWN_SECONDS);
}

/* Of a connection of its own: afterwards the process may be gone and its number another's. */
static int pidfd_of(const struct fleet_link *link)
{
    int fd = control_connect_owner(link->dir_fd, link->file, 0);
    int pid_fd = fd < 0 ? -1 : control_peer_pidfd(fd);
    if (fd >= 0)
        close(fd);
    return pid_fd;
}

int fleet_order(const struct fleet_wish *wish)
{
    struct err err = {{0}};
    struct fleet_link link;
    char request[CONTROL_LINE_MAX];
    bool failed = false;
    int pid_fd = -1;
    if (make_request(wish, request, sizeof(request), &err) < 0 || fleet_link_open(wish, &link, &err) < 0)
        return fleet_fail(wish, &err);
    if (strcmp(wish->command, "down") == 0)
        pid_fd = pidfd_of(&link);
    int code = fleet_ask(&link, request, 0, on_progress, &failed, &err);
    if (code == 0 && pid_fd >= 0)
        code = wait_for_end(pid_fd, &link, &err);
    if (pid_fd >= 0)
        close(pid_fd);
    fleet_link_close(&link);
    if (code < 0)
        return fleet_fail(wish, &err);
    return failed ? EXIT_CODE_FAILURE : EXIT_CODE_OK;
}
