/* SPDX-License-Identifier: Apache-2.0 */
/* From one version of the file to the next, with the VMs running. */
#include <errno.h>
#include <string.h>

#include "vmm/fleet.h"

/* Loads what the file says now; next is to be freed in any case. plan: nothing comes of it, so that what does
 * not stand in the way is not worth a word. */
static int load(struct supervisor *up, struct fleet *next, bool plan, FILE *out, struct err *err)
{
    struct fleet_problems problems;
    int code = fleet_load(up->fleet.path, next, &problems);
    for (unsigned i = 0; i < problems.count; i++) {
        const struct fleet_problem *p = &problems.list[i];
        if (plan && p->warning)
            continue;
        fprintf(out, "problem %s:%u: %s%s\n", p->file, p->line, p->warning ? "warning: " : "", p->text);
        if (!plan)
            log_write(p->warning ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, "%s:%u: %s", p->file, p->line, p->text);
    }
    if (code < 0)
        err_set(err, code, "%s has %u problems: nothing was changed", up->fleet.path, problems.errors);
    fleet_problems_free(&problems);
    if (code == 0 && strcmp(next->name, up->fleet.name) != 0)
        code = err_set(err, -EINVAL, "the fleet is called %s while it runs, it can't become %s",
                       up->fleet.name, next->name);
    if (code == 0)
        fleet_keep_windows(&up->fleet, next);
    return code;
}

struct reloading {
    struct supervisor *up;
    reload_fn *told;
    void *ctx;
    FILE *out;
};

static void start_new(struct supervisor *up, struct fleet_vm *vm, struct unit **unit)
{
    *unit = NULL;
    if (unit_create(up, vm, unit) < 0)
        log_error("%s: no memory for it", vm->config.name);
    else if (vm->autostart)
        unit_queue(*unit);
}

static void restart_changed(struct unit *unit, struct fleet_vm *vm)
{
    unit->next_vm = vm;
    if (unit->pid || unit->state != FLEET_STOPPED)
        unit_restart(unit);
}

static void on_change(void *ctx, enum fleet_change change, const char *name)
{
    const struct reloading *r = ctx;
    struct unit *unit = unit_find(r->up, name);
    struct fleet_vm *vm = fleet_find(&r->up->fleet, name);
    if (change == FLEET_START) {
        start_new(r->up, vm, &unit);
    } else if (unit && change == FLEET_STOP) {
        unit_stop(unit);
        unit->leaving = true;
    } else if (unit && change == FLEET_RESTART) {
        restart_changed(unit, vm);
    } else if (unit) {
        unit->vm = vm;
        /* Its log may have been moved away to start a new one. */
        output_close_log(unit);
        output_open_log(unit);
    }
    if (unit && r->told)
        r->told(r->ctx, unit, change);
}

int reload_fleet(struct supervisor *up, FILE *out, reload_fn *told, void *ctx, struct err *err)
{
    struct fleet next;
    struct reloading reloading = {.up = up, .told = told, .ctx = ctx};
    if (up->ending)
        return err_set(err, -EBUSY, "the fleet is being stopped");
    if (up->reloading)
        return err_set(err, -EBUSY, "a reload still waits for VMs to stop: try again when it is done");
    int code = load(up, &next, false, out, err);
    if (code < 0) {
        fleet_free(&next);
        return code;
    }
    notify_send(&up->notify, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)fleet_now_ms() * 1000);
    up->old = up->fleet;
    up->fleet = next;
    up->reloading = true;
    if (supervisor_lock(up, err) < 0)
        log_warn("%s", err->text);
    fleet_changes(&up->old, &up->fleet, on_change, &reloading);
    log_info("%s was read again", up->fleet.path);
    return 0;
}

static void print_change(void *ctx, enum fleet_change change, const char *name)
{
    static const char *const words[] = {
        [FLEET_KEEP] = "keep", [FLEET_START] = "start", [FLEET_STOP] = "stop", [FLEET_RESTART] = "restart"};
    const struct reloading *r = ctx;
    fprintf(r->out, "%s %s\n", words[change], name);
}

int reload_plan(struct supervisor *up, FILE *out, struct err *err)
{
    struct fleet next;
    int code = load(up, &next, true, out, err);
    if (code == 0)
        fleet_changes(&up->fleet, &next, print_change, &(struct reloading){.out = out});
    fleet_free(&next);
    return code;
}

void reload_advance(struct supervisor *up)
{
    if (!up->reloading)
        return;
    for (const struct unit *unit = up->units; unit; unit = unit->next)
        if (unit->leaving || unit->next_vm)
            return;
    fleet_free(&up->old);
    up->reloading = false;
    if (!up->ending)
        units_claim_windows(up);
    notify_send(&up->notify, "READY=1");
}
