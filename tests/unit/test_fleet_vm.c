/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor without a VM: programs of a line of shell stand for VMs, told by the name of their "VM" what
 * to do. Its turns are driven by hand, as its loop does.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/fleet.h"

#define PATIENCE_MS 20000
#define VMS         3u

/*
 * What stands for a VM: says that it is ready, then does what its kernel's name asks. Its flags are a real
 * VM's: --ready-fd N is among them.
 */
static const char program[] =
    "#!/bin/sh\n"
    "trap 'exit 6' TERM\n"
    "while [ $# -gt 0 ]; do case $1 in\n"
    "--ready-fd) ready=$2 ;; --ready-fd=*) ready=${1#*=} ;; --kernel) does=$2 ;; --kernel=*) does=${1#*=} "
    ";;\n"
    "--name) name=$2 ;; --name=*) name=${1#*=} ;; esac; shift; done\n"
    "echo \"$name\" >>started\n"
    "case $does in refuse) exit 2 ;; never-ready) exit 1 ;; esac\n"
    "echo ready >/proc/self/fd/$ready\n"
    "echo \"I am $name\"\n"
    "case $does in exit*) exit ${does#exit} ;; echo) exec cat ;; deaf) trap '' TERM ;; esac\n"
    "while :; do sleep 0.02; done\n";

static char dir[64];
static struct supervisor up;
static struct fleet_vm vms[VMS];

static void on_signal(void *arg, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)events;
    ck_assert_int_eq(read(up.signal_fd, &info, sizeof(info)), sizeof(info));
    spawn_on_child(arg);
}

static void turn(void)
{
    units_advance(&up);
    int ms = units_timeout(&up);
    ck_assert_int_eq(loop_run_once(up.loop, ms >= 0 && ms < 50 ? ms : 50), 0);
}

static void write_program(void)
{
    int fd = open("vm", O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    ck_assert_int_eq(write(fd, program, sizeof(program) - 1), sizeof(program) - 1);
    close(fd);
}

static void setup(void)
{
    struct err err;
    sigset_t set;
    strcpy(dir, "/tmp/minivmm-fleet-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    write_program();
    up =
        (struct supervisor){.program = "./vm", .dir_fd = -1, .lock_fd = -1, .signal_fd = -1, .notify.fd = -1};
    ck_assert_int_eq(loop_create(&up.loop, &err), 0);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    up.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    ck_assert_int_eq(loop_add(up.loop, up.signal_fd, EPOLLIN, on_signal, &up), 0);
    ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (unsigned i = 0; i < VMS; i++) {
        char name[8];
        vms[i] =
            (struct fleet_vm){.restart = FLEET_RESTART_NEVER, .restart_delay_ms = 1, .stop_timeout_s = 5};
        config_init(&vms[i].config);
        snprintf(name, sizeof(name), "v%u", i);
        free(vms[i].config.name);
        vms[i].config.name = strdup(name);
        vms[i].config.kernel = strdup("run");
        vms[i].config.control = false;
    }
}

static void teardown(void)
{
    for (struct unit *unit = up.units; unit; unit = unit->next)
        unit_kill(unit);
    for (bool any = true; any;) {
        any = false;
        for (const struct unit *unit = up.units; unit; unit = unit->next)
            any |= unit->pid != 0;
        up.ending = true;
        if (any)
            turn();
    }
    while (up.units)
        unit_free(up.units);
    loop_destroy(up.loop);
    close(up.signal_fd);
    for (unsigned i = 0; i < VMS; i++)
        config_free(&vms[i].config);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static struct unit *add(unsigned i, const char *does)
{
    struct unit *unit;
    free(vms[i].config.kernel);
    vms[i].config.kernel = strdup(does);
    ck_assert_int_eq(unit_create(&up, &vms[i], &unit), 0);
    return unit;
}

static void until(const struct unit *unit, enum fleet_state state)
{
    int64_t end = fleet_now_ms() + PATIENCE_MS;
    while (unit->state != state) {
        ck_assert_msg(fleet_now_ms() < end, "%s is %s, not %s", unit_name(unit),
                      fleet_state_name(unit->state), fleet_state_name(state));
        turn();
    }
}

/* The names in the order in which their processes came. */
static void started(const char *names)
{
    char got[256] = "";
    FILE *in = fopen("started", "re");
    ck_assert_ptr_nonnull(in);
    size_t n = fread(got, 1, sizeof(got) - 1, in);
    (void)fclose(in);
    for (size_t i = 0; i < n; i++)
        if (got[i] == '\n')
            got[i] = ' ';
    ck_assert_str_eq(got, names);
}

START_TEST(when_to_restart)
{
    static const unsigned second = 1000;
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_NEVER, second, 0, 1), FLEET_NEVER);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_NEVER, second, 0, 4), FLEET_NEVER);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, second, 0, 0), FLEET_NEVER);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, second, 0, 2), FLEET_NEVER);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, second, 0, 3), 1000);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, second, 0, 137), 1000);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ALWAYS, second, 0, 0), 1000);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ALWAYS, second, 0, 2), 1000);
}
END_TEST

START_TEST(back_off_doubles_up_to_a_minute)
{
    int64_t sum = 0;
    for (unsigned quick = 0; quick < 5; quick++)
        ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, 500, quick, 3), 500 << quick);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, 500, 4000000000U, 3), 60000);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, 4000000000U, 1, 3), 60000);
    /* No delay asked for is no storm either. */
    for (unsigned quick = 0; quick < 30; quick++)
        sum += fleet_restart_after(FLEET_RESTART_ALWAYS, 0, quick, 0);
    ck_assert_int_gt(sum, 10 * 60000);
}
END_TEST

START_TEST(resets_start_at_once_but_not_in_a_storm)
{
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, 1000, 0, 4), 0);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ON_FAILURE, 1000, 1, 4), 1000);
    ck_assert_int_eq(fleet_restart_after(FLEET_RESTART_ALWAYS, 1000, 3, 4), 4000);
}
END_TEST

START_TEST(runs_says_and_stops)
{
    struct unit *unit = add(0, "run");
    unit_queue(unit);
    ck_assert_str_eq(fleet_state_name(unit->state), "waiting");
    until(unit, FLEET_RUNNING);
    ck_assert_int_gt(unit->pid, 0);
    while (unit->ring.total < 8)
        turn();
    ck_assert_int_eq(memcmp(unit->ring.bytes, "I am v0\n", 8), 0);
    unit_stop(unit);
    until(unit, FLEET_STOPPED);
    ck_assert_int_eq(unit->pid, 0);
    ck_assert_int_eq(unit->exit_code, 6);
    ck_assert_int_eq(unit->restarts, 0);
}
END_TEST

START_TEST(lower_orders_first)
{
    vms[0].order = 2;
    vms[1].order = -1;
    vms[2].order = 1;
    struct unit *units[] = {add(0, "run"), add(1, "never-ready"), add(2, "run")};
    for (unsigned i = 0; i < VMS; i++)
        unit_queue(units[i]);
    units_advance(&up);
    ck_assert_int_eq(units[2]->pid, 0);
    ck_assert_int_eq(units[0]->pid, 0);
    until(units[0], FLEET_RUNNING);
    ck_assert_int_eq(units[1]->state, FLEET_FAILED);
    ck_assert_int_eq(units[2]->state, FLEET_RUNNING);
    started("v1 v2 v0 ");
}
END_TEST

START_TEST(ends_in_reverse_order)
{
    vms[1].order = 1;
    struct unit *first = add(0, "run");
    struct unit *last = add(1, "run");
    unit_queue(first);
    unit_queue(last);
    until(last, FLEET_RUNNING);
    up.ending = true;
    units_advance(&up);
    ck_assert_int_eq(last->state, FLEET_STOPPING);
    ck_assert_int_eq(first->state, FLEET_RUNNING);
    until(last, FLEET_STOPPED);
    until(first, FLEET_STOPPED);
}
END_TEST

START_TEST(failures_back_off)
{
    vms[0].restart = FLEET_RESTART_ON_FAILURE;
    vms[0].restart_delay_ms = 20;
    struct unit *unit = add(0, "exit3");
    unit_queue(unit);
    until(unit, FLEET_BACKOFF);
    ck_assert_int_eq(unit->exit_code, 3);
    ck_assert_int_eq(unit->deadline - unit->since, 20);
    while (unit->quick < 3)
        turn();
    until(unit, FLEET_BACKOFF);
    ck_assert_int_eq(unit->deadline - unit->since, 20 << (unit->quick - 1));
    ck_assert_uint_ge(unit->restarts, 2);
    unit_stop(unit);
    ck_assert_int_eq(unit->state, FLEET_STOPPED);
    turn();
    ck_assert_int_eq(unit->pid, 0);
}
END_TEST

START_TEST(a_refused_start_is_not_tried_again)
{
    vms[0].restart = FLEET_RESTART_ON_FAILURE;
    struct unit *unit = add(0, "refuse");
    unit_queue(unit);
    until(unit, FLEET_FAILED);
    ck_assert_int_eq(unit->exit_code, 2);
    ck_assert_int_eq(unit->deadline, FLEET_NEVER);
    started("v0 ");
}
END_TEST

START_TEST(a_killed_one_comes_again_and_others_stay)
{
    vms[0].restart = vms[1].restart = FLEET_RESTART_ON_FAILURE;
    struct unit *victim = add(0, "run");
    struct unit *other = add(1, "run");
    unit_queue(victim);
    unit_queue(other);
    until(victim, FLEET_RUNNING);
    until(other, FLEET_RUNNING);
    pid_t before = victim->pid;
    pid_t neighbour = other->pid;
    ck_assert_int_eq(kill(before, SIGKILL), 0);
    until(victim, FLEET_BACKOFF);
    ck_assert_int_eq(victim->exit_code, 137);
    until(victim, FLEET_RUNNING);
    ck_assert_int_ne(victim->pid, before);
    ck_assert_int_eq(other->pid, neighbour);
    ck_assert_int_eq(other->restarts, 0);
}
END_TEST

START_TEST(restart_by_order)
{
    struct unit *unit = add(0, "run");
    unit_start(unit);
    until(unit, FLEET_RUNNING);
    unit_restart(unit);
    ck_assert_int_eq(unit->state, FLEET_STOPPING);
    until(unit, FLEET_RUNNING);
    started("v0 v0 ");
    ck_assert_int_eq(unit->restarts, 1);
}
END_TEST

START_TEST(the_deaf_are_killed)
{
    vms[0].stop_timeout_s = 0;
    struct unit *unit = add(0, "deaf");
    unit_start(unit);
    until(unit, FLEET_RUNNING);
    unit_stop(unit);
    /* Its deadline, brought forward. */
    unit->deadline = fleet_now_ms();
    until(unit, FLEET_STOPPED);
    ck_assert_int_eq(unit->exit_code, 137);
}
END_TEST

START_TEST(no_program)
{
    up.program = "/nowhere/at/all";
    struct unit *unit = add(0, "run");
    unit_start(unit);
    until(unit, FLEET_FAILED);
    ck_assert_ptr_nonnull(strstr(unit->why, "could not be started: No such file"));
}
END_TEST

START_TEST(logs_are_appended_and_full_disks_survived)
{
    char got[64] = "";
    vms[0].log = strdup("log");
    vms[1].log = strdup("/dev/full");
    FILE *log = fopen("log", "we");
    (void)fputs("old\n", log);
    (void)fclose(log);
    struct unit *unit = add(0, "run");
    struct unit *full = add(1, "run");
    unit_start(unit);
    unit_start(full);
    until(unit, FLEET_RUNNING);
    until(full, FLEET_RUNNING);
    while (unit->ring.total < 8 || full->ring.total < 8)
        turn();
    ck_assert(full->log_failed);
    ck_assert_int_eq(full->state, FLEET_RUNNING);
    log = fopen("log", "re");
    ck_assert_uint_eq(fread(got, 1, sizeof(got), log), 12);
    (void)fclose(log);
    ck_assert_str_eq(got, "old\nI am v0\n");
    free(vms[0].log);
    free(vms[1].log);
    vms[0].log = vms[1].log = NULL;
}
END_TEST

START_TEST(ring_keeps_the_last_bytes)
{
    struct fleet_ring ring = {0};
    char much[FLEET_RING + 10];
    const char *piece;
    uint64_t lost;
    uint64_t at = 0;
    ck_assert_uint_eq(ring_tail(&ring, 10), 0);
    ck_assert_uint_eq(ring_piece(&ring, &at, &piece, &lost), 0);
    ring_append(&ring, "one\ntwo\nthree\n", 14);
    ck_assert_uint_eq(ring_tail(&ring, 1), 8);
    ck_assert_uint_eq(ring_tail(&ring, 2), 4);
    ck_assert_uint_eq(ring_tail(&ring, 100), 0);
    ck_assert_uint_eq(ring_tail(&ring, 0), 14);
    ring_append(&ring, "fo", 2);
    ck_assert_uint_eq(ring_tail(&ring, 1), 14);
    memset(much, 'm', sizeof(much));
    ring_append(&ring, much, sizeof(much));
    ck_assert_uint_eq(ring.total, 16 + sizeof(much));
    ck_assert_uint_eq(ring_piece(&ring, &at, &piece, &lost), FLEET_RING - 26);
    ck_assert_uint_eq(lost, 26);
    ck_assert_uint_eq(at, 26);
    at += FLEET_RING - 26;
    ck_assert_uint_eq(ring_piece(&ring, &at, &piece, &lost), 26);
    ck_assert_uint_eq(lost, 0);
    free(ring.bytes);
}
END_TEST

/* What the file holds is in the object, which has a size that stays. */
static void holds(int fd, const char *text)
{
    size_t len = strlen(text);
    struct stat st;
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, (int)len);
    char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_int_eq(memcmp(map, text, len), 0);
    munmap(map, len);
}

START_TEST(key_objects)
{
    void *map;
    for (int secret = 0; secret < 2; secret++) {
        int fd = key_object(5, secret, &map);
        ck_assert_int_ge(fd, 0);
        memcpy(map, "keys!", 5);
        munmap(map, 5);
        holds(fd, "keys!");
        ck_assert_int_ne(ftruncate(fd, 4), 0);
        ck_assert_int_ne(ftruncate(fd, 6), 0);
        ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(fd);
    }
}
END_TEST

static void write_key(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
    close(fd);
}

START_TEST(keys_are_handed_over)
{
    struct handover handover;
    struct err err;
    struct config *config = &vms[0].config;
    write_key("key", "0123456789abcdef\n", 0600);
    write_key("pass", "a passphrase", 0600);
    config->disks = 2;
    config->disk[0] = (struct config_disk){.path = strdup("a.img"), .encrypt = strdup("key")};
    config->disk[1] =
        (struct config_disk){.path = strdup("b.img"), .luks = true, .passphrase = strdup("pass")};
    config->ice.keys = 1;
    config->ice.key[0] = (struct config_key){.file = strdup("key"), .disk = strdup("a.img"), .fd = -1};
    ck_assert_int_eq(handover_open(&handover, config, NULL, &err), 0);
    ck_assert_uint_eq(handover.fds, 3);
    holds(handover.fd[0], "0123456789abcdef\n");
    holds(handover.fd[1], "a passphrase");
    holds(handover.config.ice.key[0].fd, "0123456789abcdef\n");
    char path[32];
    snprintf(path, sizeof(path), "/dev/fd/%d", handover.fd[0]);
    ck_assert_str_eq(handover.config.disk[0].encrypt, path);
    snprintf(path, sizeof(path), "/dev/fd/%d", handover.fd[1]);
    ck_assert_str_eq(handover.config.disk[1].passphrase, path);
    ck_assert_ptr_null(handover.config.ice.key[0].file);
    ck_assert_str_eq(config->disk[0].encrypt, "key");
    handover_close(&handover);
}
END_TEST

START_TEST(bad_keys_are_refused)
{
    struct handover handover;
    struct err err;
    struct config *config = &vms[0].config;
    config->disks = 1;
    config->disk[0] = (struct config_disk){.path = strdup("a.img"), .encrypt = strdup("key")};
    ck_assert_int_eq(handover_open(&handover, config, NULL, &err), -ENOENT);
    write_key("key", "", 0600);
    ck_assert_int_eq(handover_open(&handover, config, NULL, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "disk a.img,encrypt: key is empty"));
    write_key("key", "0123456789abcdef", 0600);
    ck_assert_int_eq(chmod("key", 0644), 0);
    ck_assert_int_eq(handover_open(&handover, config, NULL, &err), -EPERM);
    ck_assert_uint_eq(handover.fds, 0);
}
END_TEST

START_TEST(the_key_encryption_key_stays)
{
    struct handover handover;
    struct handover again;
    struct err err;
    struct config *config = &vms[0].config;
    write_key("kek", "0123456789abcdef0123456789abcdef", 0600);
    config->ice.slots = 4;
    ck_assert_int_eq(handover_open(&handover, config, "kek", &err), 0);
    ck_assert_uint_eq(handover.fds, 1);
    ck_assert_int_eq(handover.config.ice.vm_key_fd, handover.fd[0]);
    ck_assert_ptr_null(handover.config.ice.kek);
    const struct config *other = &vms[1].config;
    vms[1].config.ice.slots = 4;
    ck_assert_int_eq(handover_open(&again, other, "kek", &err), 0);
    char *a = mmap(NULL, 32, PROT_READ, MAP_SHARED, handover.fd[0], 0);
    char *b = mmap(NULL, 32, PROT_READ, MAP_SHARED, again.fd[0], 0);
    ck_assert_int_ne(memcmp(a, b, 32), 0); /* each VM its own */
    munmap(a, 32);
    munmap(b, 32);
    handover_close(&handover);
    handover_close(&again);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("fleet_vm");
    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, when_to_restart);
    tcase_add_test(cases, back_off_doubles_up_to_a_minute);
    tcase_add_test(cases, resets_start_at_once_but_not_in_a_storm);
    tcase_add_test(cases, runs_says_and_stops);
    tcase_add_test(cases, lower_orders_first);
    tcase_add_test(cases, ends_in_reverse_order);
    tcase_add_test(cases, failures_back_off);
    tcase_add_test(cases, a_refused_start_is_not_tried_again);
    tcase_add_test(cases, a_killed_one_comes_again_and_others_stay);
    tcase_add_test(cases, restart_by_order);
    tcase_add_test(cases, the_deaf_are_killed);
    tcase_add_test(cases, no_program);
    tcase_add_test(cases, logs_are_appended_and_full_disks_survived);
    tcase_add_test(cases, ring_keeps_the_last_bytes);
    tcase_add_test(cases, key_objects);
    tcase_add_test(cases, keys_are_handed_over);
    tcase_add_test(cases, bad_keys_are_refused);
    tcase_add_test(cases, the_key_encryption_key_stays);
    Suite *suite = suite_create("fleet_vm");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
