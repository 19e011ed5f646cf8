/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor is asked for over its socket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "vmm/config_internal.h"
#include "vmm/fleet_internal.h"
#include "vmm/suggest.h"

#define LINES_MAX 100000u

static void end(struct client *client, const char *why)
{
    client->mode = CLIENT_ENDING;
    if (why)
        client_say(client, "error: %s\n", why);
    else
        client_say(client, "ok\n");
}

static void describe(struct client *client, const struct unit *unit, int64_t now)
{
    const struct config *config = &unit->vm->config;
    client_say(client, "vm=%s state=%s restarts=%u", unit_name(unit), fleet_state_name(unit->state),
               unit->restarts);
    if (unit->pid)
        client_say(client, " pid=%d", (int)unit->pid);
    if (unit->running_at != FLEET_NEVER)
        client_say(client, " uptime=%lld.%03lld", (long long)((now - unit->running_at) / 1000),
                   (long long)((now - unit->running_at) % 1000));
    if (config->ice.slots && unit->window)
        client_say(client, " first=%d slots=%u", config->ice.offset, config->ice.slots);
    if (unit->exit_code >= 0)
        client_say(client, " exit=%d", unit->exit_code);
    if (unit->state == FLEET_BACKOFF || (unit->state == FLEET_WAITING && unit->turn)) {
        int64_t left = unit->deadline > now ? unit->deadline - now : 0;
        client_say(client, " next=%lld.%03lld", (long long)(left / 1000), (long long)(left % 1000));
    }
    client_say(client, " since=%lld.%03lld\n", (long long)((now - unit->since) / 1000),
               (long long)((now - unit->since) % 1000));
}

static void list(struct client *client)
{
    int64_t now = fleet_now_ms();
    for (const struct unit *unit = client->server->up->units; unit; unit = unit->next)
        describe(client, unit, now);
    end(client, NULL);
}

/* -ENOMEM when the client can't be made to wait for it. */
static int want(struct client *client, struct unit *unit, bool up)
{
    struct want *more = realloc(client->want, (client->wants + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    client->want = more;
    client->want[client->wants++] = (struct want){.unit = unit, .up = up};
    return 0;
}

/* 1: it got there, -1: it failed to, 0: not yet. */
static int judge(const struct want *w)
{
    const struct unit *unit = w->unit;
    if (w->done || !unit)
        return 1;
    if (!w->up)
        return !unit->pid && unit_is_settled(unit) ? 1 : 0;
    if (!unit_is_settled(unit))
        return 0;
    return unit->state == FLEET_FAILED || unit->state == FLEET_BACKOFF ? -1 : 1;
}

void client_settle(struct client *client)
{
    unsigned open = 0;
    for (unsigned i = 0; i < client->wants; i++) {
        struct want *w = &client->want[i];
        int verdict = judge(w);
        open += verdict == 0;
        client->failed += verdict < 0;
        w->done = verdict != 0;
        if (w->done)
            w->unit = NULL;
    }
    /* Whoever ends the fleet hears so when the supervisor itself ends. */
    if (open || client->down)
        return;
    if (client->failed) {
        char why[64];
        snprintf(why, sizeof(why), "%u of %u VMs failed", client->failed, client->wants);
        end(client, why);
    } else {
        end(client, NULL);
    }
}

/* What was told before the client began to wait, or will not be since it is so already. */
static void say_where_it_is(struct client *client, const struct unit *unit, bool up)
{
    if (unit->state == FLEET_STOPPING)
        client_say(client, "stopping %s\n", unit_name(unit));
    else if (up && unit->state == FLEET_RUNNING)
        client_say(client, "running %s\n", unit_name(unit));
    else if (!up && !unit->pid)
        client_say(client, "stopped %s\n", unit_name(unit));
}

static void no_such_vm(struct client *client, const char *name)
{
    struct suggestion near = {.typed = name};
    char why[256];
    for (const struct unit *unit = client->server->up->units; unit; unit = unit->next)
        suggest_offer(&near, unit_name(unit));
    if (near.best)
        snprintf(why, sizeof(why), "there is no VM '%.64s' in this fleet; did you mean %s?", name, near.best);
    else
        snprintf(why, sizeof(why), "there is no VM '%.64s' in this fleet", name);
    end(client, why);
}

/* Collects the VMs of the words. False: the client has its answer. */
static bool name_units(struct client *client, char *words, bool up)
{
    struct supervisor *fleet = client->server->up;
    char *word;
    bool any = false;
    int code = 0;
    while (code == 0 && (word = strsep(&words, " "))) {
        struct unit *unit = *word ? unit_find(fleet, word) : NULL;
        if (!*word)
            continue;
        any = true;
        if (strcmp(word, "*") == 0) {
            for (unit = fleet->units; code == 0 && unit; unit = unit->next)
                code = unit->leaving ? 0 : want(client, unit, up);
        } else if (unit) {
            code = want(client, unit, up);
        } else {
            no_such_vm(client, word);
            return false;
        }
    }
    if (code < 0)
        end(client, "out of memory");
    else if (!any)
        end(client, "name a VM, or * for all");
    return code == 0 && any;
}

static void change(struct client *client, char *words, bool up, void (*act)(struct unit *))
{
    if (up && client->server->up->ending) {
        end(client, "the fleet is being stopped");
        return;
    }
    if (!name_units(client, words, up))
        return;
    client->mode = CLIENT_WAITING;
    for (unsigned i = 0; i < client->wants; i++) {
        struct unit *unit = client->want[i].unit;
        bool told = unit->state != FLEET_STOPPING;
        act(unit);
        if (unit->state != FLEET_STOPPING || !told)
            say_where_it_is(client, unit, up);
    }
}

/* fleet_changes() told of it and the change is under way. */
static void on_change(void *ctx, struct unit *unit, enum fleet_change what)
{
    struct client *client = ctx;
    bool up = what != FLEET_STOP && unit->state != FLEET_STOPPED;
    if (what != FLEET_KEEP && want(client, unit, up) == 0)
        say_where_it_is(client, unit, up);
}

static void reload(struct client *client, bool plan)
{
    struct err err = {{0}};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out) {
        end(client, "out of memory");
        return;
    }
    struct supervisor *up = client->server->up;
    client->mode = CLIENT_WAITING;
    int code = plan ? reload_plan(up, out, &err) : reload_fleet(up, out, on_change, client, &err);
    (void)fclose(out);
    client_say(client, "%s", text ? text : "");
    free(text);
    if (code < 0)
        end(client, err.text);
    else if (plan)
        end(client, NULL);
}

static void stream(struct client *client, struct unit *unit, uint64_t from, uint64_t until, bool both)
{
    client->mode = CLIENT_STREAM;
    client->stream = unit;
    client->at = from;
    client->until = until;
    client->both = both;
    client_say(client, "stream\n");
}

/* NAME LINES [follow] */
static void logs(struct client *client, char *words)
{
    const char *name = strsep(&words, " ");
    const char *lines = words ? strsep(&words, " ") : NULL;
    uint64_t n = 0;
    struct unit *unit = name ? unit_find(client->server->up, name) : NULL;
    bool follow = words && strcmp(words, "follow") == 0;
    if (!name || !lines || config_value_number(lines, 0, LINES_MAX, &n, NULL) < 0 || (words && !follow))
        end(client, "logs takes a VM's name, a number of lines, and perhaps the word follow");
    else if (!unit)
        no_such_vm(client, name);
    else
        stream(client, unit, ring_tail(&unit->ring, (unsigned)n), follow ? UINT64_MAX : unit->ring.total,
               false);
}

static void console(struct client *client, const char *name)
{
    struct unit *unit = unit_find(client->server->up, name);
    char why[160];
    if (!unit) {
        no_such_vm(client, name);
    } else if (unit->vm->config.console != CONSOLE_STDIO) {
        snprintf(why, sizeof(why), "the console of %s is elsewhere: its settings name another", name);
        end(client, why);
    } else if (unit->console_fd < 0) {
        snprintf(why, sizeof(why), "%s has no console now: it is %s", name, fleet_state_name(unit->state));
        end(client, why);
    } else {
        stream(client, unit, unit->ring.total, UINT64_MAX, true);
    }
}

static void down(struct client *client)
{
    struct supervisor *up = client->server->up;
    client->mode = CLIENT_WAITING;
    client->down = true;
    for (struct unit *unit = up->units; unit; unit = unit->next)
        if (unit->pid)
            (void)want(client, unit, false);
    if (!up->ending)
        supervisor_end(up);
}

static bool is_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

void client_request(struct client *client)
{
    char *words = client->in;
    if (!is_text(words)) {
        end(client, "the request holds control characters");
        return;
    }
    const char *what = strsep(&words, " ");
    char none[] = "";
    if (!words)
        words = none;
    if (strcmp(what, "ps") == 0)
        list(client);
    else if (strcmp(what, "start") == 0)
        change(client, words, true, unit_start);
    else if (strcmp(what, "stop") == 0)
        change(client, words, false, unit_stop);
    else if (strcmp(what, "restart") == 0)
        change(client, words, true, unit_restart);
    else if (strcmp(what, "reload") == 0)
        reload(client, false);
    else if (strcmp(what, "plan") == 0)
        reload(client, true);
    else if (strcmp(what, "down") == 0)
        down(client);
    else if (strcmp(what, "logs") == 0)
        logs(client, words);
    else if (strcmp(what, "console") == 0)
        console(client, words);
    else
        end(client, "unknown request: ps, start, stop, restart, reload, plan, down, logs and console are");
}
