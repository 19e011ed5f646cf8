/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one VM: waits its turn, starts, runs, ends, starts again. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmm/exit_codes.h"
#include "vmm/fleet.h"

int64_t fleet_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *fleet_state_name(enum fleet_state state)
{
    static const char *const names[] = {"waiting", "starting", "running", "stopping",
                                        "backoff", "stopped",  "failed"};
    return names[state];
}

static int64_t backoff(unsigned delay_ms, unsigned times)
{
    int64_t ms = delay_ms ? delay_ms : 1;
    while (times-- && ms < FLEET_BACKOFF_MAX_MS)
        ms *= 2;
    return ms < FLEET_BACKOFF_MAX_MS ? ms : FLEET_BACKOFF_MAX_MS;
}

int64_t fleet_restart_after(enum fleet_restart policy, unsigned delay_ms, unsigned quick, int code)
{
    if (policy == FLEET_RESTART_NEVER)
        return FLEET_NEVER;
    /* A reset is no failure, but one after the other without a pause would be a storm of forks. */
    if (code == EXIT_CODE_RESET)
        return quick ? backoff(delay_ms, quick - 1) : 0;
    /* Who stopped it by its own control socket wants it to stay so. */
    bool failed = code != EXIT_CODE_OK && code != EXIT_CODE_USAGE && code != EXIT_CODE_STOPPED;
    return failed || policy == FLEET_RESTART_ALWAYS ? backoff(delay_ms, quick) : FLEET_NEVER;
}

const char *unit_name(const struct unit *unit)
{
    return unit->vm->config.name;
}

struct unit *unit_find(const struct supervisor *up, const char *name)
{
    struct unit *unit = up->units;
    while (unit && (unit->leaving || strcmp(unit_name(unit), name) != 0))
        unit = unit->next;
    return unit;
}

int unit_create(struct supervisor *up, struct fleet_vm *vm, struct unit **out)
{
    struct unit *unit = calloc(1, sizeof(*unit));
    if (!unit)
        return -ENOMEM;
    *unit = (struct unit){
        .up = up,
        .vm = vm,
        .state = FLEET_STOPPED,
        .since = fleet_now_ms(),
        .deadline = FLEET_NEVER,
        .running_at = FLEET_NEVER,
        .pid_fd = -1,
        .ready_fd = -1,
        .console_fd = -1,
        .log_fd = -1,
        .ask_fd = -1,
        .exit_code = -1,
    };
    struct unit **at = &up->units;
    while (*at)
        at = &(*at)->next;
    *at = unit;
    *out = unit;
    return 0;
}

void unit_free(struct unit *unit)
{
    struct unit **at = &unit->up->units;
    while (*at != unit)
        at = &(*at)->next;
    *at = unit->next;
    server_forget(unit);
    output_detach(unit);
    output_close_log(unit);
    slotmap_release(unit->window);
    free(unit->ring.bytes);
    free(unit);
}

static void enter(struct unit *unit, enum fleet_state state, int64_t deadline)
{
    if (unit->state != state)
        unit->since = fleet_now_ms();
    unit->state = state;
    unit->deadline = deadline;
}

static void fail(struct unit *unit, const char *why)
{
    char text[sizeof(unit->why) + 48];
    int64_t next = unit->deadline;
    snprintf(unit->why, sizeof(unit->why), "%s", why);
    if (unit->state == FLEET_BACKOFF) {
        int64_t ms = next - unit->since;
        snprintf(text, sizeof(text), "%s; next try in %lld.%03lld s", why, (long long)(ms / 1000),
                 (long long)(ms % 1000));
        why = text;
    }
    server_tell(unit, "failed", why);
}

void unit_ended(struct unit *unit, int code, const char *why)
{
    char usual[sizeof(unit->why)];
    const struct fleet_vm *vm = unit->vm;
    bool ordered = unit->state == FLEET_STOPPING;
    int64_t now = fleet_now_ms();
    if (unit->running_at != FLEET_NEVER && now - unit->running_at >= FLEET_STEADY_MS)
        unit->quick = 0;
    unit->running_at = FLEET_NEVER;
    unit->exit_code = code;
    if (!why) {
        snprintf(usual, sizeof(usual), "%s (exit code %d)", exit_code_meaning(code), code);
        why = usual;
    }
    if (ordered) {
        enter(unit, FLEET_STOPPED, FLEET_NEVER);
        server_tell(unit, "stopped", NULL);
        if (unit->again && !unit->up->ending && !unit->leaving)
            unit_start(unit);
        return;
    }
    int64_t after = fleet_restart_after(vm->restart, vm->restart_delay_ms, unit->quick, code);
    bool failed = code != EXIT_CODE_OK && code != EXIT_CODE_RESET && code != EXIT_CODE_STOPPED;
    if (after != FLEET_NEVER && !unit->up->ending) {
        unit->since = now;
        enter(unit, FLEET_BACKOFF, now + after);
        unit->quick++;
    } else {
        enter(unit, failed ? FLEET_FAILED : FLEET_STOPPED, FLEET_NEVER);
    }
    if (failed)
        fail(unit, why);
    else
        server_tell(unit, "stopped", why);
}

/* Takes the place in the new file that a reload has for it. */
static void become_next(struct unit *unit)
{
    if (!unit->next_vm)
        return;
    unit->vm = unit->next_vm;
    unit->next_vm = NULL;
    slotmap_release(unit->window);
    unit->window = NULL;
    output_close_log(unit);
}

static int claim(struct unit *unit, int offset, struct err *err)
{
    struct config *config = &unit->vm->config;
    unsigned first = 0;
    const struct slotmap_request request = {
        .path = config->ice.map,
        .total = config->ice.total,
        .slots = config->ice.slots,
        .offset = offset,
        .name = config->name,
    };
    int code = slotmap_claim(&request, &unit->window, &first, err);
    if (code == 0)
        config->ice.offset = (int)first;
    return code;
}

static int claim_window(struct unit *unit, struct err *err)
{
    if (!unit->vm->config.ice.slots || unit->window)
        return 0;
    int code = claim(unit, unit->vm->config.ice.offset, err);
    /* The planned place is another fleet's: any other will do for who named none. */
    if (code == -EBUSY && !unit->vm->slots_fixed)
        code = claim(unit, SLOTMAP_ANYWHERE, err);
    return code;
}

void units_claim_windows(struct supervisor *up)
{
    struct err err = {{0}};
    /* Planned places before chosen ones, lest a choice takes a planned one. */
    for (struct unit *unit = up->units; unit; unit = unit->next)
        if (!unit->leaving && unit->vm->config.ice.slots && !unit->window)
            (void)claim(unit, unit->vm->config.ice.offset, NULL);
    for (struct unit *unit = up->units; unit; unit = unit->next)
        if (!unit->leaving && claim_window(unit, &err) < 0)
            log_error("%s: %s", unit_name(unit), err.text);
}

static void begin(struct unit *unit)
{
    struct err err = {{0}};
    int code = EXIT_CODE_FAILURE;
    unit->turn = unit->again = false;
    unit->why[0] = '\0';
    if (unit->exit_code >= 0)
        unit->restarts++;
    enter(unit, FLEET_STARTING, FLEET_NEVER);
    server_tell(unit, "starting", NULL);
    int r = claim_window(unit, &err);
    if (r == 0)
        r = spawn_unit(unit, &code, &err);
    if (r < 0)
        unit_ended(unit, code, err.text);
}

void unit_became_ready(struct unit *unit)
{
    unit->running_at = fleet_now_ms();
    if (unit->state != FLEET_STARTING)
        return; /* is being stopped */
    enter(unit, FLEET_RUNNING, FLEET_NEVER);
    server_tell(unit, "running", NULL);
}

void unit_queue(struct unit *unit)
{
    unit->turn = false;
    enter(unit, FLEET_WAITING, FLEET_NEVER);
}

void unit_start(struct unit *unit)
{
    unit->again = unit->state == FLEET_STOPPING;
    if (unit->pid)
        return;
    unit->quick = 0;
    unit->turn = true;
    enter(unit, FLEET_WAITING, fleet_now_ms());
}

void unit_stop(struct unit *unit)
{
    unit->again = false;
    if (!unit->pid) {
        enter(unit, FLEET_STOPPED, FLEET_NEVER);
        return;
    }
    if (unit->state == FLEET_STOPPING)
        return;
    enter(unit, FLEET_STOPPING, fleet_now_ms() + (int64_t)unit->vm->stop_timeout_s * 1000 + FLEET_KILL_MS);
    server_tell(unit, "stopping", NULL);
    spawn_ask_to_stop(unit);
}

void unit_kill(struct unit *unit)
{
    if (unit->pid_fd < 0)
        return;
    unit->again = false;
    enter(unit, FLEET_STOPPING, FLEET_NEVER);
    (void)syscall(SYS_pidfd_send_signal, unit->pid_fd, SIGKILL, NULL, 0);
}

void unit_restart(struct unit *unit)
{
    if (unit->pid) {
        unit_stop(unit);
        unit->again = true;
    } else {
        unit_start(unit);
    }
}

bool unit_is_settled(const struct unit *unit)
{
    return unit->state != FLEET_WAITING && unit->state != FLEET_STARTING && unit->state != FLEET_STOPPING;
}

static bool is_due(const struct unit *unit, int64_t now)
{
    return unit->deadline != FLEET_NEVER && now >= unit->deadline;
}

/* A window may be free only when those who leave are gone. */
static bool must_wait_for_slots(const struct unit *unit)
{
    return unit->up->reloading && unit->vm->config.ice.slots && !unit->window;
}

static bool may_begin(const struct unit *unit, unsigned starting, int64_t now)
{
    bool turn = (unit->state == FLEET_WAITING && unit->turn) || unit->state == FLEET_BACKOFF;
    return turn && !unit->pid && is_due(unit, now) && starting < FLEET_STARTING_MAX &&
           !must_wait_for_slots(unit);
}

/* Gives those of the lowest order that has not come up yet their turn. */
static void give_turns(struct supervisor *up, int64_t now)
{
    bool any = false;
    int order = 0;
    for (const struct unit *unit = up->units; unit; unit = unit->next)
        if ((unit->state == FLEET_WAITING || unit->state == FLEET_STARTING) &&
            (!any || unit->vm->order < order)) {
            order = unit->vm->order;
            any = true;
        }
    for (struct unit *unit = up->units; any && unit; unit = unit->next)
        if (unit->state == FLEET_WAITING && !unit->turn && unit->vm->order == order) {
            unit->turn = true;
            unit->deadline = now + unit->vm->delay_ms;
        }
}

/* Stops those of the highest order that still has a process. */
static void stop_in_turn(struct supervisor *up)
{
    bool any = false;
    int order = 0;
    for (const struct unit *unit = up->units; unit; unit = unit->next)
        if (unit->pid && (!any || unit->vm->order > order)) {
            order = unit->vm->order;
            any = true;
        }
    for (struct unit *unit = up->units; unit; unit = unit->next)
        if (!unit->pid || unit->vm->order == order)
            if (unit->state != FLEET_STOPPING && unit->state != FLEET_STOPPED && unit->state != FLEET_FAILED)
                unit_stop(unit);
}

static void free_gone(struct supervisor *up)
{
    for (struct unit *unit = up->units, *next; unit; unit = next) {
        next = unit->next;
        if (unit->leaving && !unit->pid)
            unit_free(unit);
        else if (!unit->pid)
            become_next(unit);
    }
}

/* True when one that began has ended already, which may be the turn of others. */
static bool advance(struct supervisor *up)
{
    int64_t now = fleet_now_ms();
    unsigned starting = 0;
    bool ended = false;
    for (const struct unit *unit = up->units; unit; unit = unit->next)
        starting += unit->state == FLEET_STARTING;
    for (struct unit *unit = up->units; unit; unit = unit->next) {
        if (unit->state == FLEET_STOPPING && is_due(unit, now)) {
            log_warn("%s did not stop in time, and is killed", unit_name(unit));
            bool again = unit->again;
            unit_kill(unit);
            unit->again = again;
        } else if (!up->ending && may_begin(unit, starting, now)) {
            begin(unit);
            starting += unit->state == FLEET_STARTING;
            ended |= unit->state != FLEET_STARTING;
        }
    }
    return ended;
}

void units_advance(struct supervisor *up)
{
    free_gone(up);
    reload_advance(up);
    do {
        if (up->ending)
            stop_in_turn(up);
        else
            give_turns(up, fleet_now_ms());
    } while (advance(up));
}

int units_timeout(const struct supervisor *up)
{
    int64_t now = fleet_now_ms();
    int64_t soonest = FLEET_NEVER;
    unsigned starting = 0;
    for (const struct unit *unit = up->units; unit; unit = unit->next)
        starting += unit->state == FLEET_STARTING;
    bool full = starting >= FLEET_STARTING_MAX;
    for (const struct unit *unit = up->units; unit; unit = unit->next) {
        if (unit->deadline == FLEET_NEVER)
            continue;
        /* Whoever these wait for wakes us. */
        if (unit->state != FLEET_STOPPING && is_due(unit, now) && (full || must_wait_for_slots(unit)))
            continue;
        if (soonest == FLEET_NEVER || unit->deadline < soonest)
            soonest = unit->deadline;
    }
    if (soonest == FLEET_NEVER)
        return -1;
    return soonest > now ? (int)(soonest - now) : 0;
}
