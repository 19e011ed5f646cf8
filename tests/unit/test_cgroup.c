/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups: where they are found (in trees of plain files), and a real one where this host lets us. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cgroup.h"

static char root[64];

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        ck_assert(mkdir(full, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static const char *get(const char *path)
{
    static char text[256];
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    FILE *file = fopen(full, "r");
    if (!file)
        return "absent";
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void setup(void)
{
    snprintf(root, sizeof(root), "/tmp/test_cgroup.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void teardown(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    ck_assert_int_eq(system(command), 0);
}

#define HYBRID                                                                                               \
    "20 1 0:5 / /proc rw - proc proc rw\n"                                                                   \
    "31 23 0:28 / /cg rw,relatime - tmpfs tmpfs rw,mode=755\n"                                               \
    "32 31 0:29 / /cg/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"                     \
    "33 31 0:30 / /cg/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"                                        \
    "35 31 0:32 /box /cg/memory rw,relatime shared:7 master:2 - cgroup cgroup rw,memory\n"                   \
    "41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw\n"

#define UNIFIED "41 31 0:38 / /cg rw,relatime - cgroup2 cgroup2 rw\n"

static void assert_place(enum cgroup_controller which, unsigned version, const char *dir)
{
    struct cgroup_place place;
    struct err err = {{0}};
    ck_assert_msg(cgroup_find(root, which, &place, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(place.version, version);
    ck_assert_str_eq(place.dir + strlen(root), dir);
}

static void assert_no_place(enum cgroup_controller which, const char *why)
{
    struct cgroup_place place;
    struct err err = {{0}};
    ck_assert_int_eq(cgroup_find(root, which, &place, &err), -ENOTSUP);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
}

START_TEST(old_hierarchies_are_found_by_controller)
{
    put("proc/self/mountinfo", HYBRID);
    put("proc/self/cgroup", "4:memory:/box/mine\n3:cpuset:/set\n1:cpu,cpuacct:/\n0::/\n");
    put("cg/unified/cgroup.controllers", "hugetlb cpuset\n");
    put("cg/cpu,cpuacct/tasks", "");
    put("cg/memory/mine/tasks", "");
    assert_place(CGROUP_CPU, 1, "/cg/cpu,cpuacct");
    assert_place(CGROUP_MEMORY, 1, "/cg/memory/mine");
}
END_TEST

START_TEST(a_group_outside_of_what_is_mounted_is_no_place)
{
    put("proc/self/mountinfo", HYBRID);
    put("cg/cpu,cpuacct/tasks", "");
    put("cg/memory/tasks", "");
    put("proc/self/cgroup", "4:memory:/boxer\n1:cpu,cpuacct:/../..\n");
    assert_no_place(CGROUP_MEMORY, "no control group");
    assert_no_place(CGROUP_CPU, "no control group");
    put("proc/self/cgroup", "4:memory:/box\n3:cpuset:/\nnonsense\n");
    assert_place(CGROUP_MEMORY, 1, "/cg/memory");
    assert_no_place(CGROUP_CPU, "no control group");
}
END_TEST

START_TEST(the_unified_hierarchy_goes_first_where_it_has_the_controller)
{
    put("proc/self/mountinfo", HYBRID);
    put("proc/self/cgroup", "4:memory:/box\n1:cpu,cpuacct:/\n0::/user/me\n");
    put("cg/unified/user/me/cgroup.controllers", "memory pids\n");
    put("cg/cpu,cpuacct/tasks", "");
    put("cg/memory/tasks", "");
    assert_place(CGROUP_MEMORY, 2, "/cg/unified/user/me");
    assert_place(CGROUP_CPU, 1, "/cg/cpu,cpuacct");
}
END_TEST

START_TEST(beside_the_supervisor)
{
    put("proc/self/mountinfo", UNIFIED);
    put("proc/self/cgroup", "0::/unit/supervisor\n");
    put("cg/unit/cgroup.controllers", "cpuset cpu memory\n");
    put("cg/unit/supervisor/cgroup.controllers", "cpu\n");
    assert_place(CGROUP_CPU, 2, "/cg/unit");
    assert_place(CGROUP_MEMORY, 2, "/cg/unit");
    put("cg/unit/cgroup.controllers", "\n");
    assert_place(CGROUP_CPU, 2, "/cg/unit/supervisor");
    assert_no_place(CGROUP_MEMORY, "memory");
}
END_TEST

START_TEST(no_hierarchies_no_limits)
{
    struct cgroup *group = NULL;
    struct err err = {{0}};
    ck_assert_int_eq(cgroup_create_at(root, "x", 0, 0, &group, &err), 0);
    ck_assert_ptr_null(group);
    ck_assert_int_eq(cgroup_create_at(root, "x", 50, 0, &group, &err), -ENOTSUP);
    ck_assert_ptr_eq(strstr(err.text, "--cpu-limit: "), err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "Delegate=yes"));
    ck_assert_int_eq(cgroup_create_at(root, "x", 0, 1 << 20, &group, &err), -ENOTSUP);
    ck_assert_ptr_eq(strstr(err.text, "--memory-limit: "), err.text);
    ck_assert_ptr_null(group);
}
END_TEST

START_TEST(limits_are_written_in_the_words_of_v2)
{
    put("proc/self/mountinfo", UNIFIED);
    put("proc/self/cgroup", "0::/unit\n");
    put("cg/unit/cgroup.controllers", "cpu memory\n");
    put("cg/unit/cgroup.subtree_control", "          memory\n"); /* writes leave its end as it is */
    put("cg/unit/minivmm-a/cgroup.procs", "");
    put("cg/unit/minivmm-a/cpu.max", "");
    put("cg/unit/minivmm-a/memory.max", "");
    put("cg/unit/minivmm-a/memory.swap.max", "");
    struct cgroup *group = NULL;
    struct err err = {{0}};
    int code = cgroup_create_at(root, "a", 250, 3ULL << 30, &group, &err);
    ck_assert_msg(code == 0, "%s", err.text);
    ck_assert_str_eq(get("cg/unit/minivmm-a/cpu.max"), "250000 100000");
    ck_assert_str_eq(get("cg/unit/minivmm-a/memory.max"), "3221225472");
    ck_assert_str_eq(get("cg/unit/minivmm-a/memory.swap.max"), "0");
    ck_assert_msg(strstr(get("cg/unit/cgroup.subtree_control"), "+cpu") != NULL, "cpu is switched on");
    ck_assert_msg(strstr(get("cg/unit/cgroup.subtree_control"), "+memory") == NULL, "memory was on before");
    ck_assert_int_eq(cgroup_add(group, 4711, &err), 0);
    ck_assert_str_eq(get("cg/unit/minivmm-a/cgroup.procs"), "4711");
    cgroup_remove(group);
}
END_TEST

/* A group of v2 that we are in, made by someone, with one of that name below it that takes limits. */
static void put_own_group(const char *processes)
{
    put("proc/self/mountinfo", UNIFIED);
    put("proc/self/cgroup", "0::/unit\n");
    put("cg/unit/cgroup.controllers", "cpu memory\n");
    put("cg/unit/cgroup.subtree_control", "");
    put("cg/unit/cgroup.type", "domain\n");
    put("cg/unit/cgroup.procs", processes);
    put("cg/unit/supervisor/cgroup.procs", "");
    put("cg/unit/minivmm-a/cgroup.procs", "");
    put("cg/unit/minivmm-a/cpu.max", "");
}

START_TEST(the_own_group_is_left_for_a_leaf_first)
{
    char pid[16];
    struct cgroup *group = NULL;
    struct err err = {{0}};
    put_own_group("");
    int code = cgroup_create_at(root, "a", 50, 0, &group, &err);
    ck_assert_msg(code == 0, "%s", err.text);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    ck_assert_str_eq(get("cg/unit/supervisor/cgroup.procs"), pid);
    ck_assert_str_eq(get("cg/unit/cgroup.subtree_control"), "+cpu");
    cgroup_remove(group);
}
END_TEST

START_TEST(other_processes_in_the_own_group_forbid_limits)
{
    struct cgroup *group = NULL;
    struct err err = {{0}};
    put_own_group("77\n");
    ck_assert_int_eq(cgroup_create_at(root, "a", 50, 0, &group, &err), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(err.text, "other processes"));
    ck_assert_str_eq(get("cg/unit/cgroup.subtree_control"), "");
}
END_TEST

START_TEST(a_group_in_use_is_left_alone)
{
    put("proc/self/mountinfo", UNIFIED);
    put("proc/self/cgroup", "0::/\n");
    put("cg/cgroup.controllers", "cpu memory\n");
    put("cg/cgroup.subtree_control", "cpu memory\n");
    put("cg/minivmm-a/cgroup.procs", "123\n");
    put("cg/minivmm-a/cpu.max", "old");
    struct cgroup *group = NULL;
    struct err err = {{0}};
    ck_assert_int_eq(cgroup_create_at(root, "a", 50, 0, &group, &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "minivmm-a"));
    ck_assert_ptr_null(group);
    ck_assert_str_eq(get("cg/minivmm-a/cpu.max"), "old");
}
END_TEST

/* Whether this host lets us set both limits; says so when not. */
static bool host_has_groups(void)
{
    struct cgroup *group = NULL;
    struct err err = {{0}};
    int code = cgroup_create("test-probe", 100, 64 << 20, &group, &err);
    if (code < 0)
        printf("# SKIP real control groups: %s\n", err.text);
    ck_assert_int_eq(code, code < 0 ? -ENOTSUP : 0);
    cgroup_remove(group);
    return code == 0;
}

/* Writes to memory until it is killed. */
static void eat(void)
{
    char go;
    if (read(STDIN_FILENO, &go, 1) < 0)
        _exit(1);
    for (unsigned i = 0; i < 64; i++) {
        char *mebi = malloc(1 << 20);
        if (mebi)
            memset(mebi, 1, 1 << 20);
        /* keeps the compiler from leaving the write out */
        __asm__ volatile("" : : "r"(mebi) : "memory");
    }
    _exit(0);
}

START_TEST(a_real_group_limits_and_goes)
{
    if (!host_has_groups())
        return;
    struct cgroup *group = NULL, *second = NULL;
    struct err err = {{0}};
    char name[32];
    int pipes[2], status;
    snprintf(name, sizeof(name), "test-%d", (int)getpid());
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[0], STDIN_FILENO);
        eat();
    }
    ck_assert_int_gt(child, 0);
    ck_assert_msg(cgroup_create(name, 100, 16 << 20, &group, &err) == 0, "%s", err.text);
    ck_assert_msg(cgroup_add(group, child, &err) == 0, "%s", err.text);
    ck_assert_int_eq(cgroup_create(name, 100, 0, &second, &err), -EBUSY);
    ck_assert_int_eq(write(pipes[1], "g", 1), 1);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "16 MiB held 64: status %#x", status);
    struct cgroup_place place;
    char path[CGROUP_PATH_MAX + 64];
    for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++) {
        ck_assert_int_eq(cgroup_find("", (enum cgroup_controller)i, &place, &err), 0);
        snprintf(path, sizeof(path), "%s/minivmm-%s", place.dir, name);
        ck_assert_int_eq(access(path, F_OK), 0);
    }
    cgroup_remove(group);
    ck_assert_int_eq(access(path, F_OK), -1);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(a_left_over_group_is_taken_over)
{
    if (!host_has_groups())
        return;
    struct cgroup *dead = NULL, *next = NULL;
    struct err err = {{0}};
    char name[32];
    snprintf(name, sizeof(name), "test-%d", (int)getpid());
    ck_assert_int_eq(cgroup_create(name, 100, 16 << 20, &dead, &err), 0);
    ck_assert_msg(cgroup_create(name, 50, 32 << 20, &next, &err) == 0, "%s", err.text);
    cgroup_remove(next);
    cgroup_remove(dead);
}
END_TEST

START_TEST(a_left_over_group_goes_where_the_next_has_no_limit)
{
    if (!host_has_groups())
        return;
    struct cgroup *dead = NULL, *next = NULL;
    struct err err = {{0}};
    struct cgroup_place place;
    char name[32], path[CGROUP_PATH_MAX + 64];
    snprintf(name, sizeof(name), "test-%d", (int)getpid());
    ck_assert_int_eq(cgroup_find("", CGROUP_MEMORY, &place, &err), 0);
    snprintf(path, sizeof(path), "%s/minivmm-%s", place.dir, name);
    ck_assert_int_eq(cgroup_create(name, 100, 16 << 20, &dead, &err), 0);
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_assert_msg(cgroup_create(name, 50, 0, &next, &err) == 0, "%s", err.text);
    ck_assert_int_eq(access(path, F_OK), place.version == 1 ? -1 : 0);
    cgroup_remove(next);
    cgroup_remove(dead);
}
END_TEST

START_TEST(making_room_is_harmless)
{
    struct err err = {{0}};
    int code = cgroup_make_room(&err);
    ck_assert_msg(code == 0 || code == -EBUSY, "%d: %s", code, err.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cgroup");
    TCase *tcase = tcase_create("cgroup");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, old_hierarchies_are_found_by_controller);
    tcase_add_test(tcase, a_group_outside_of_what_is_mounted_is_no_place);
    tcase_add_test(tcase, the_unified_hierarchy_goes_first_where_it_has_the_controller);
    tcase_add_test(tcase, beside_the_supervisor);
    tcase_add_test(tcase, no_hierarchies_no_limits);
    tcase_add_test(tcase, limits_are_written_in_the_words_of_v2);
    tcase_add_test(tcase, the_own_group_is_left_for_a_leaf_first);
    tcase_add_test(tcase, other_processes_in_the_own_group_forbid_limits);
    tcase_add_test(tcase, a_group_in_use_is_left_alone);
    tcase_add_test(tcase, a_real_group_limits_and_goes);
    tcase_add_test(tcase, a_left_over_group_is_taken_over);
    tcase_add_test(tcase, a_left_over_group_goes_where_the_next_has_no_limit);
    tcase_add_test(tcase, making_room_is_harmless);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
