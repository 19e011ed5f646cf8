/* SPDX-License-Identifier: Apache-2.0 */
/* Makes, fills and removes the control group of a VM. */
#include "vmm/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/cgroup_internal.h"
#include "vmm/text_file.h"

#define CPU_PERIOD_US   100000u
#define DYING_WAIT_MS   1000u
#define DYING_WAIT_STEP 2u

#define HOW_TO_MEND                                                                                          \
    "run as root or in a delegated group (systemd-run --user --scope -p Delegate=yes ..., or Delegate=yes "  \
    "in a systemd unit), or leave the limit out"

static const char *const flags[CGROUP_CONTROLLERS] = {"--cpu-limit", "--memory-limit"};

struct cgroup {
    unsigned count;
    char dir[CGROUP_CONTROLLERS][CGROUP_PATH_MAX]; /* one when both controllers are in one hierarchy */
};

static int write_text(const char *dir, const char *name, const char *text)
{
    char path[CGROUP_PATH_MAX];
    if (!cgroup_path(path, dir, name))
        return -ENAMETOOLONG;
    return text_file_write(path, text);
}

static int write_number(const char *dir, const char *name, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return write_text(dir, name, text);
}

static bool is_on(const char *dir, const char *controller)
{
    char list[512];
    return cgroup_read(dir, "cgroup.subtree_control", list, sizeof(list)) == 0 &&
           cgroup_has_word(list, controller, " \n");
}

static int switch_on(const char *dir, const char *controller)
{
    char text[32];
    snprintf(text, sizeof(text), "+%s", controller);
    return write_text(dir, "cgroup.subtree_control", text);
}

static bool has_processes(const char *dir)
{
    char pids[16];
    return cgroup_read(dir, "cgroup.procs", pids, sizeof(pids)) == 0 && *pids;
}

/*
 * Leaves the group of ours for a leaf below it. With a process in it, a group could have no children with
 * limits; the kernel would take "+cpu" all the same, for children of threads. The root alone may have both,
 * and no type.
 */
static int move_into_leaf(const char *dir)
{
    char leaf[CGROUP_PATH_MAX], type[32];
    if (cgroup_read(dir, "cgroup.type", type, sizeof(type)) < 0)
        return 0;
    if (!cgroup_path(leaf, dir, CGROUP_LEAF))
        return -ENAMETOOLONG;
    if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
        return -errno;
    int code = write_number(leaf, "cgroup.procs", (uint64_t)getpid());
    return code == 0 && has_processes(dir) ? -EBUSY : code;
}

/* Groups in place->dir get the controller. */
static int make_room(const struct cgroup_place *place, const char *controller, struct err *err)
{
    if (place->version != 2 || is_on(place->dir, controller))
        return 0;
    int code = strcmp(place->dir, place->self) == 0 ? move_into_leaf(place->dir) : 0;
    if (code == 0)
        code = switch_on(place->dir, controller);
    if (code == -EBUSY)
        return err_set(
            err, code,
            "other processes are in the control group %s, which can so have none with limits below it",
            place->dir);
    if (code < 0)
        return err_set(err, code, "the %s controller cannot be switched on in the control group %s: %s",
                       controller, place->dir, strerror(-code));
    return 0;
}

static int say_mend(struct err *err, int code)
{
    if (err) {
        size_t at = strlen(err->text);
        snprintf(err->text + at, sizeof(err->text) - at, "; " HOW_TO_MEND);
    }
    return code;
}

int cgroup_make_room(struct err *err)
{
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++) {
        struct cgroup_place place;
        if (cgroup_find("", (enum cgroup_controller)i, &place, NULL) == 0 &&
            make_room(&place, cgroup_controller_names[i], err) == -EBUSY)
            return say_mend(err, -EBUSY);
    }
    return 0;
}

static void wait_a_little(void)
{
    const struct timespec step = {.tv_nsec = DYING_WAIT_STEP * 1000000L};
    nanosleep(&step, NULL);
}

/* Whether the group has no process, or will have none in a moment: killed ones take a while to leave. */
static bool gets_empty(const char *dir)
{
    for (unsigned waited = 0;; waited += DYING_WAIT_STEP) {
        if (!has_processes(dir))
            return true;
        if (waited >= DYING_WAIT_MS)
            return false;
        wait_a_little();
    }
}

/* Makes the group's folder in place and remembers it. A dead VM's goes first: it has limits. */
static int add_folder(struct cgroup *group, const struct cgroup_place *place, const char *vm, struct err *err)
{
    char *dir = group->dir[group->count];
    int n = snprintf(dir, CGROUP_PATH_MAX, "%s/minivmm-%s", place->dir, vm);
    if (n < 0 || (unsigned)n >= CGROUP_PATH_MAX)
        return err_set(err, -ENOTSUP, "the control group's path is too long");
    if (group->count > 0 && strcmp(dir, group->dir[0]) == 0)
        return 0;
    if (!gets_empty(dir))
        return err_set(err, -EBUSY,
                       "processes are in the control group %s: stop the VM of that name that still runs, or "
                       "choose another --name",
                       dir);
    rmdir(dir);
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return err_set(err, -ENOTSUP, "the control group %s could not be made: %s", dir, strerror(errno));
    group->count++;
    return 0;
}

static int set_cpu(const char *dir, unsigned version, unsigned percent)
{
    const uint64_t quota = (uint64_t)percent * CPU_PERIOD_US / 100;
    if (version == 1) {
        int code = write_number(dir, "cpu.cfs_period_us", CPU_PERIOD_US);
        return code < 0 ? code : write_number(dir, "cpu.cfs_quota_us", quota);
    }
    char text[64];
    snprintf(text, sizeof(text), "%" PRIu64 " %u", quota, CPU_PERIOD_US);
    return write_text(dir, "cpu.max", text);
}

/*
 * The guest's memory would go to the host's swap in the clear, and a limit that swap stretches is none. The
 * files for that are missing where the kernel counts no swap.
 */
static int set_memory(const char *dir, unsigned version, uint64_t memory)
{
    if (version == 1) {
        int code = write_number(dir, "memory.limit_in_bytes", memory);
        if (code == 0)
            write_number(dir, "memory.memsw.limit_in_bytes", memory);
        return code;
    }
    write_text(dir, "memory.swap.max", "0");
    return write_number(dir, "memory.max", memory);
}

static int set_limit(const char *dir, enum cgroup_controller which, unsigned version, uint64_t limit,
                     struct err *err)
{
    int code = which == CGROUP_CPU ? set_cpu(dir, version, (unsigned)limit) : set_memory(dir, version, limit);
    if (code < 0)
        return err_set(err, -ENOTSUP, "the control group %s did not take the limit: %s", dir,
                       strerror(-code));
    return 0;
}

static int create_for(struct cgroup *group, const char *root, const char *vm, enum cgroup_controller which,
                      uint64_t limit, struct err *err)
{
    struct cgroup_place place;
    int code = cgroup_find(root, which, &place, err);
    if (code == 0 && make_room(&place, cgroup_controller_names[which], err) < 0)
        code = -ENOTSUP;
    if (code == 0)
        code = add_folder(group, &place, vm, err);
    if (code == 0)
        code = set_limit(group->dir[group->count - 1], which, place.version, limit, err);
    if (code == -ENOTSUP) {
        err_prefix(err, code, "%s", flags[which]);
        say_mend(err, code);
    }
    return code;
}

/* The dead VM's may have been limited in a hierarchy where this one is not. One that is in use stays. */
static void remove_left_over(const char *root, const char *vm, enum cgroup_controller which)
{
    struct cgroup_place place;
    char name[CGROUP_PATH_MAX], dir[CGROUP_PATH_MAX];
    int n = snprintf(name, sizeof(name), "minivmm-%s", vm);
    if (cgroup_find(root, which, &place, NULL) == 0 && place.version == 1 && n < (int)sizeof(name) &&
        cgroup_path(dir, place.dir, name))
        (void)rmdir(dir);
}

int cgroup_create_at(const char *root, const char *vm, unsigned cpu_percent, uint64_t memory,
                     struct cgroup **out, struct err *err)
{
    *out = NULL;
    const uint64_t limit[CGROUP_CONTROLLERS] = {[CGROUP_CPU] = cpu_percent, [CGROUP_MEMORY] = memory};
    if (!cpu_percent && !memory)
        return 0;
    struct cgroup *group = calloc(1, sizeof(*group));
    if (!group)
        return err_set(err, -ENOMEM, "out of memory for the control group");
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!limit[i]) {
            remove_left_over(root, vm, (enum cgroup_controller)i);
            continue;
        }
        int code = create_for(group, root, vm, (enum cgroup_controller)i, limit[i], err);
        if (code < 0) {
            cgroup_remove(group);
            return code;
        }
    }
    *out = group;
    return 0;
}

int cgroup_create(const char *vm, unsigned cpu_percent, uint64_t memory, struct cgroup **out, struct err *err)
{
    return cgroup_create_at("", vm, cpu_percent, memory, out, err);
}

int cgroup_add(const struct cgroup *group, pid_t pid, struct err *err)
{
    for (unsigned i = 0; i < group->count; i++) {
        int code = write_number(group->dir[i], "cgroup.procs", (uint64_t)pid);
        if (code < 0)
            return err_set(err, code, "the VM's process could not be moved into the control group %s: %s",
                           group->dir[i], strerror(-code));
    }
    return 0;
}

void cgroup_remove(struct cgroup *group)
{
    if (!group)
        return;
    for (unsigned i = 0, waited = 0; i < group->count; i++)
        while (rmdir(group->dir[i]) < 0 && errno == EBUSY && waited < DYING_WAIT_MS) {
            wait_a_little();
            waited += DYING_WAIT_STEP;
        }
    free(group);
}
