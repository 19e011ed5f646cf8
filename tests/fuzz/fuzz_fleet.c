/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the input is a fleet's file. Whatever it says, loading ends, each error has a sentence,
 * and a fleet without errors has a plan in which no two windows meet and whose VMs can be told as flags.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm/slotmap.h"
#include "vmm/config_args.h"
#include "vmm/fleet_config.h"

#define INPUT_MAX 16384u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_problems(const struct fleet_problems *problems, int code)
{
    unsigned errors = 0;
    for (unsigned i = 0; i < problems->count; i++) {
        if (!*problems->list[i].text || !*problems->list[i].file)
            abort();
        errors += !problems->list[i].warning;
    }
    if (errors > problems->errors || (code < 0) != (problems->errors > 0) || (code < 0 && !errors))
        abort();
}

static void judge_vm(const struct fleet *fleet, const struct fleet_vm *vm, bool used[SLOTMAP_SLOTS_MAX])
{
    const struct config_engine *ice = &vm->config.ice;
    char **args = NULL;
    if (!vm->config.kernel || !vm->file || !vm->line || config_check(&vm->config, NULL) < 0 ||
        fleet_find(fleet, vm->config.name) != vm || config_args(&vm->config, "", &args) < 0)
        abort();
    config_args_free(args);
    if (ice->slots && (ice->offset < 0 || (unsigned)ice->offset + ice->slots > fleet->total))
        abort();
    for (unsigned i = 0; i < ice->slots; i++) {
        if (used[(unsigned)ice->offset + i])
            abort();
        used[(unsigned)ice->offset + i] = true;
    }
}

static void count_change(void *ctx, enum fleet_change change, const char *vm)
{
    (void)vm;
    unsigned *kept = ctx;
    *kept += change == FLEET_KEEP;
}

static void judge_fleet(struct fleet *fleet)
{
    bool used[SLOTMAP_SLOTS_MAX] = {false};
    unsigned kept = 0;
    for (unsigned i = 0; i < fleet->vms && i < 256; i++)
        judge_vm(fleet, &fleet->vm[i], used);
    fleet_keep_windows(fleet, fleet);
    fleet_changes(fleet, fleet, count_change, &kept);
    if (kept != fleet->vms || !*fleet->name || fleet->vms == 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fleet fleet;
    struct fleet_problems problems;
    char path[64];
    if (size == 0 || size > INPUT_MAX)
        return 0;
    int fd = memfd_create("fleet.conf", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int code = fleet_load(path, &fleet, &problems);
    judge_problems(&problems, code);
    if (code == 0)
        judge_fleet(&fleet);
    fleet_problems_free(&problems);
    fleet_free(&fleet);
    close(fd);
    return 0;
}
