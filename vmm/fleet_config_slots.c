/* SPDX-License-Identifier: Apache-2.0 */
/* Gives each VM of a fleet its window of keyslots: those with a place of their own first, then first fit. */
#include <errno.h>
#include <string.h>

#include "vmm/fleet_config_internal.h"
#include "vmm/fleet_slots.h"

/* Of each slot: the VM that has it, from 1, and where this stands. */
struct holder {
    unsigned vm, source, line;
    bool key;
};

static bool fits(const struct fleet *fleet, const struct config_engine *ice)
{
    return ice->slots && ice->offset >= 0 && (unsigned)ice->offset + ice->slots <= fleet->total;
}

/* Takes a range for a VM; the first slot that another has is told. */
static void take(struct loader *l, struct holder *held, const struct holder *mine, unsigned first,
                 unsigned count)
{
    bool told = false;
    for (unsigned i = first; i < first + count; i++) {
        const struct holder *other = &held[i];
        if (other->vm && !told && (other->vm != mine->vm || other->key != mine->key)) {
            fleet_problem(l, mine->source, mine->line, false,
                          "%s of VM '%s' (slots %u to %u) overlaps %s of VM '%s' at slot %u (%s:%u)",
                          mine->key ? "a key" : "the window", l->fleet->vm[mine->vm - 1].config.name, first,
                          first + count - 1, other->key ? "a key" : "the window",
                          l->fleet->vm[other->vm - 1].config.name, i, l->fleet->files[other->source],
                          other->line);
            told = true;
        }
        if (!other->vm)
            held[i] = *mine;
    }
}

static struct holder holder_of(const struct loader *l, unsigned vm)
{
    const struct fleet_vm *v = &l->fleet->vm[vm];
    struct holder mine = {.vm = vm + 1, .line = v->line};
    while (l->fleet->files[mine.source] != v->file)
        mine.source++;
    if (l->window[vm]) {
        mine.source = l->window[vm]->source;
        mine.line = l->window[vm]->line;
    }
    return mine;
}

static void take_fixed(struct loader *l, struct holder *held)
{
    for (unsigned i = 0; i < l->fleet->vms; i++) {
        const struct config_engine *ice = &l->fleet->vm[i].config.ice;
        if (!ice->slots && !ice->keys)
            continue;
        struct holder mine = holder_of(l, i);
        if (ice->window_fd >= 0)
            fleet_problem(l, mine.source, mine.line, false,
                          "ice-slots: fd= is for the command line: the supervisor hands the window down");
        if (fits(l->fleet, ice))
            take(l, held, &mine, (unsigned)ice->offset, ice->slots);
        mine.key = true;
        for (unsigned k = 0; k < ice->keys; k++)
            if (ice->key[k].slot < l->fleet->total)
                take(l, held, &mine, ice->key[k].slot, 1);
    }
}

static void place_rest(struct loader *l, const struct holder *held)
{
    struct fleet *fleet = l->fleet;
    bool used[SLOTMAP_SLOTS_MAX] = {false};
    for (unsigned i = 0; i < fleet->total; i++)
        used[i] = held[i].vm;
    for (unsigned i = 0; i < fleet->vms; i++) {
        struct config_engine *ice = &fleet->vm[i].config.ice;
        if (!ice->slots || ice->offset >= 0)
            continue;
        ice->offset = fleet_slots_fit(used, fleet->total, ice->slots);
        if (ice->offset >= 0)
            continue;
        struct holder mine = holder_of(l, i);
        fleet_problem(l, mine.source, mine.line, false,
                      "ice-slots: no %u free keyslots in a row are left for VM '%s' between the windows "
                      "with a place of their own (N@FIRST): move those together",
                      ice->slots, fleet->vm[i].config.name);
    }
}

void fleet_plan_slots(struct loader *l)
{
    struct fleet *fleet = l->fleet;
    struct holder held[SLOTMAP_SLOTS_MAX] = {{0}};
    take_fixed(l, held);
    struct fleet_slots_use use = fleet_slots_use(fleet);
    unsigned sum = use.windows + use.keys + use.hidden;
    if (sum > fleet->total)
        fleet_problem(
            l, 0, 0, false,
            "the VMs need %u keyslots (%u in windows, %u for keys, %u for encrypt= disks), which is "
            "more than the host's %u: raise ice-total in [fleet] where the host has more, or give "
            "the VMs fewer",
            sum, use.windows, use.keys, use.hidden, fleet->total);
    else
        place_rest(l, held);
}
