/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: who sits on which keyslots, and what a reload would change. */
#include <stdlib.h>
#include <string.h>

#include "minivmm/slotmap.h"
#include "vmm/config_args.h"
#include "vmm/fleet_slots.h"

#define ROW 64u

struct fleet_slots_use fleet_slots_use(const struct fleet *fleet)
{
    struct fleet_slots_use use = {0};
    for (unsigned i = 0; i < fleet->vms; i++) {
        const struct config *config = &fleet->vm[i].config;
        use.windows += config->ice.slots;
        use.keys += config->ice.keys;
        for (unsigned j = 0; j < config->disks; j++)
            use.hidden += config->disk[j].encrypt || config->disk[j].luks;
    }
    return use;
}

int fleet_slots_fit(bool *used, unsigned total, unsigned count)
{
    unsigned run = 0;
    for (unsigned i = 0; i < total; i++) {
        run = used[i] ? 0 : run + 1;
        if (run == count) {
            memset(used + i + 1 - count, true, count);
            return (int)(i + 1 - count);
        }
    }
    return -1;
}

static int compare_vms(const void *a, const void *b)
{
    const struct fleet_vm *const *x = a, *const *y = b;
    return strcmp((*x)->config.name, (*y)->config.name);
}

/* VMs in order of their names; NULL without memory. */
static const struct fleet_vm **sort_vms(const struct fleet *fleet)
{
    const struct fleet_vm **list = calloc(fleet->vms + 1, sizeof(const struct fleet_vm *));
    for (unsigned i = 0; list && i < fleet->vms; i++)
        list[i] = &fleet->vm[i];
    if (list)
        qsort(list, fleet->vms, sizeof(const struct fleet_vm *), compare_vms);
    return list;
}

/* sorted: of the fleet, or NULL. */
static const struct fleet_vm *find_sorted(const struct fleet *fleet, const struct fleet_vm **sorted,
                                          const struct fleet_vm *like)
{
    if (!sorted)
        return fleet_find(fleet, like->config.name);
    const struct fleet_vm **found =
        bsearch(&like, sorted, fleet->vms, sizeof(const struct fleet_vm *), compare_vms);
    return found ? *found : NULL;
}

static bool is_free(const bool *used, unsigned first, unsigned count)
{
    return memchr(used + first, true, count) == NULL;
}

/* Marks what has a place of its own. */
static void mark_fixed(const struct fleet *fleet, bool *used)
{
    for (unsigned i = 0; i < fleet->vms; i++) {
        const struct config_engine *ice = &fleet->vm[i].config.ice;
        if (fleet->vm[i].slots_fixed)
            memset(used + ice->offset, true, ice->slots);
        for (unsigned k = 0; k < ice->keys; k++)
            used[ice->key[k].slot] = true;
    }
}

void fleet_keep_windows(const struct fleet *old, struct fleet *next)
{
    bool used[SLOTMAP_SLOTS_MAX] = {false}, good = true;
    int *offset = calloc(next->vms + 1, sizeof(*offset));
    const struct fleet_vm **sorted = sort_vms(old);
    mark_fixed(next, used);
    for (unsigned i = 0; offset && i < next->vms; i++) {
        const struct fleet_vm *vm = &next->vm[i], *was = find_sorted(old, sorted, vm);
        const struct config_engine *a = was ? &was->config.ice : NULL, *b = &vm->config.ice;
        offset[i] = -1;
        if (!a || vm->slots_fixed || !b->slots || a->slots != b->slots || a->offset < 0 ||
            (unsigned)a->offset + a->slots > next->total || !is_free(used, (unsigned)a->offset, a->slots))
            continue;
        offset[i] = a->offset;
        memset(used + a->offset, true, a->slots);
    }
    for (unsigned i = 0; offset && i < next->vms; i++) {
        const struct fleet_vm *vm = &next->vm[i];
        if (vm->config.ice.slots && !vm->slots_fixed && offset[i] < 0)
            good &= (offset[i] = fleet_slots_fit(used, next->total, vm->config.ice.slots)) >= 0;
    }
    for (unsigned i = 0; offset && good && i < next->vms; i++)
        if (next->vm[i].config.ice.slots && !next->vm[i].slots_fixed)
            next->vm[i].config.ice.offset = offset[i];
    free(offset);
    free(sorted);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_config(const struct config *a, const struct config *b)
{
    char **x = NULL, **y = NULL;
    bool same = config_args(a, "", &x) == 0 && config_args(b, "", &y) == 0;
    for (size_t i = 0; same && (x[i] || y[i]); i++)
        same = same_text(x[i], y[i]);
    config_args_free(x);
    config_args_free(y);
    return same;
}

bool fleet_vm_same(const struct fleet_vm *a, const struct fleet_vm *b)
{
    return a->restart == b->restart && a->restart_delay_ms == b->restart_delay_ms && a->order == b->order &&
           a->delay_ms == b->delay_ms && a->stop_timeout_s == b->stop_timeout_s &&
           a->autostart == b->autostart && same_text(a->log, b->log) && same_config(&a->config, &b->config);
}

static enum fleet_change change_of(const struct fleet *old, const struct fleet_vm *was,
                                   const struct fleet *next, const struct fleet_vm *vm)
{
    if (!was)
        return FLEET_START;
    /* A wrapped key is bound to the key-encryption key. */
    bool same_kek = !vm->config.ice.slots || same_text(old->kek, next->kek);
    return same_kek && fleet_vm_same(was, vm) ? FLEET_KEEP : FLEET_RESTART;
}

void fleet_changes(const struct fleet *old, const struct fleet *next, fleet_change_fn *fn, void *ctx)
{
    static const struct fleet none = {0};
    static const enum fleet_change turns[] = {FLEET_RESTART, FLEET_START, FLEET_KEEP};
    if (!old)
        old = &none;
    const struct fleet_vm **before = sort_vms(old), **after = sort_vms(next);
    unsigned char *change = calloc(next->vms + 1, 1);
    for (unsigned i = 0; i < old->vms; i++)
        if (!find_sorted(next, after, &old->vm[i]))
            fn(ctx, FLEET_STOP, old->vm[i].config.name);
    for (unsigned i = 0; change && i < next->vms; i++)
        change[i] = change_of(old, find_sorted(old, before, &next->vm[i]), next, &next->vm[i]);
    for (unsigned t = 0; t < 3; t++) {
        for (unsigned i = 0; i < next->vms; i++) {
            const struct fleet_vm *vm = &next->vm[i];
            enum fleet_change is =
                change ? change[i] : change_of(old, find_sorted(old, before, vm), next, vm);
            if (is == turns[t])
                fn(ctx, is, vm->config.name);
        }
    }
    free(before);
    free(after);
    free(change);
}

static char letter(unsigned window)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    return letters[window % (sizeof(letters) - 1)];
}

static void print_rows(const struct fleet *fleet, FILE *out)
{
    char cells[SLOTMAP_SLOTS_MAX + 1];
    unsigned windows = 0;
    memset(cells, '.', sizeof(cells));
    for (unsigned i = 0; i < fleet->vms; i++) {
        const struct config_engine *ice = &fleet->vm[i].config.ice;
        if (ice->slots && ice->offset >= 0)
            memset(cells + ice->offset, letter(windows++), ice->slots);
        for (unsigned k = 0; k < ice->keys; k++)
            cells[ice->key[k].slot] = '#';
    }
    for (unsigned at = 0; at < fleet->total; at += ROW)
        fprintf(out, "%5u  %.*s\n", at, (int)(fleet->total - at < ROW ? fleet->total - at : ROW), cells + at);
}

void fleet_print_slots(const struct fleet *fleet, FILE *out)
{
    const struct fleet_slots_use use = fleet_slots_use(fleet);
    unsigned windows = 0;
    fprintf(out, "keyslots: %u of %u%s\n", use.windows + use.keys + use.hidden, fleet->total,
            use.windows + use.keys ? " ('.' is free)" : "");
    if (use.windows + use.keys)
        print_rows(fleet, out);
    for (unsigned i = 0; i < fleet->vms; i++) {
        const struct fleet_vm *vm = &fleet->vm[i];
        const struct config_engine *ice = &vm->config.ice;
        if (!ice->slots || ice->offset < 0)
            continue;
        char range[16];
        snprintf(range, sizeof(range), "%d-%u", ice->offset, (unsigned)ice->offset + ice->slots - 1);
        fprintf(out, "%5c  %-8s%s %s\n", letter(windows++), range, vm->slots_fixed ? "*" : " ",
                vm->config.name);
    }
    if (use.keys)
        fprintf(out, "    #  keys of the operator's: %u\n", use.keys);
    if (use.hidden)
        fprintf(out, "       encrypt= disks, on free ones at their start: %u\n", use.hidden);
}
