/* SPDX-License-Identifier: Apache-2.0 */
/* Windows are disjoint across processes and die with their holders. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/slotmap.h"

static char dir[64], path[128];

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/minivmm-slots-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/run/ice.slots", dir);
}

static void teardown(void)
{
    char run[128];
    snprintf(run, sizeof(run), "%s/run", dir);
    unlink(path);
    rmdir(run);
    rmdir(dir);
}

static int claim(unsigned total, unsigned slots, int offset, const char *name, struct slotmap **map,
                 unsigned *first, struct err *err)
{
    struct slotmap_request r = {path, total, slots, offset, name};
    return slotmap_claim(&r, map, first, err);
}

START_TEST(first_fit_and_fixed_windows_are_disjoint)
{
    struct slotmap *a, *b, *c, *d;
    unsigned at;
    struct err err;
    ck_assert_int_eq(claim(64, 8, SLOTMAP_ANYWHERE, "a", &a, &at, &err), 0);
    ck_assert_uint_eq(at, 0);
    ck_assert_int_eq(claim(64, 32, 20, "b", &b, &at, &err), 0);
    ck_assert_uint_eq(at, 20);
    ck_assert_int_eq(claim(64, 12, SLOTMAP_ANYWHERE, "c", &c, &at, &err), 0);
    ck_assert_uint_eq(at, 8);
    ck_assert_int_eq(claim(64, 13, SLOTMAP_ANYWHERE, "d", &d, &at, &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "minivmm slots"));
    ck_assert_int_eq(claim(64, 12, SLOTMAP_ANYWHERE, "d", &d, &at, &err), 0);
    ck_assert_uint_eq(at, 52);
    slotmap_release(c);
    ck_assert_int_eq(claim(64, 1, SLOTMAP_ANYWHERE, "c", &c, &at, &err), 0);
    ck_assert_uint_eq(at, 8);
    slotmap_release(a);
    slotmap_release(b);
    slotmap_release(c);
    slotmap_release(d);
}
END_TEST

START_TEST(overlap_names_the_holder)
{
    struct slotmap *a, *b;
    unsigned at;
    struct err err;
    ck_assert_int_eq(claim(64, 8, 20, "web-1", &a, &at, &err), 0);
    static const int offsets[] = {20, 13, 27, 22};
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(claim(64, 8, offsets[i], "b", &b, &at, &err), -EBUSY);
        ck_assert_msg(strstr(err.text, "'web-1'") && strstr(err.text, "20 to 27"), "%s", err.text);
    }
    ck_assert_int_eq(claim(64, 8, 12, "b", &b, &at, &err), 0);
    slotmap_release(b);
    ck_assert_int_eq(claim(64, 8, 28, "b", &b, &at, &err), 0);
    slotmap_release(b);
    slotmap_release(a);
}
END_TEST

START_TEST(nonsense_is_refused)
{
    struct slotmap *a;
    unsigned at;
    struct err err;
    ck_assert_int_eq(claim(64, 0, SLOTMAP_ANYWHERE, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(0, 1, SLOTMAP_ANYWHERE, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(257, 1, SLOTMAP_ANYWHERE, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(64, 65, SLOTMAP_ANYWHERE, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(64, 8, 57, "a", &a, &at, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "--ice-total"));
    ck_assert_int_eq(claim(64, 8, -2, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(256, 256, SLOTMAP_ANYWHERE, "a", &a, &at, &err), -EINVAL);
    ck_assert_int_eq(claim(64, 8, 56, "a", &a, &at, &err), 0);
    slotmap_release(a);
    ck_assert_int_eq(claim(256, 255, 1, "a", &a, &at, &err), 0);
    slotmap_release(a);
    ck_assert_int_eq(mkdir(path, 0700), -1);
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_lt(claim(64, 8, 0, "a", &a, &at, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, path));
    rmdir(path);
}
END_TEST

START_TEST(a_killed_holder_leaves_nothing)
{
    struct slotmap *mine;
    struct slotmap_entry list[SLOTMAP_SLOTS_MAX];
    unsigned at;
    struct err err;
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct slotmap *theirs;
        if (claim(64, 64, 0, "victim", &theirs, &at, NULL) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(claim(64, 1, SLOTMAP_ANYWHERE, "a", &mine, &at, &err), -EBUSY);
    ck_assert_int_eq(slotmap_list(path, list, &err), 1);
    ck_assert_str_eq(list[0].name, "victim");
    ck_assert_int_eq(list[0].pid, child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ck_assert_int_eq(slotmap_list(path, list, &err), 0);
    ck_assert_int_eq(claim(64, 64, 0, "a", &mine, &at, &err), 0);
    slotmap_release(mine);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

START_TEST(listing_in_slot_order)
{
    struct slotmap *a, *b, *c;
    struct slotmap_entry list[SLOTMAP_SLOTS_MAX];
    unsigned at;
    struct err err;
    ck_assert_int_eq(slotmap_list(path, list, &err), 0); /* no file yet */
    ck_assert_int_eq(claim(64, 4, 40, "late", &a, &at, &err), 0);
    ck_assert_int_eq(claim(64, 4, 4, "early", &b, &at, &err), 0);
    ck_assert_int_eq(claim(64, 4, 8, "next", &c, &at, &err), 0); /* adjacent, yet its own entry */
    ck_assert_int_eq(slotmap_list(path, list, &err), 3);
    ck_assert_str_eq(list[0].name, "early");
    ck_assert_uint_eq(list[0].first, 4);
    ck_assert_uint_eq(list[0].count, 4);
    ck_assert_str_eq(list[1].name, "next");
    ck_assert_str_eq(list[2].name, "late");
    ck_assert_uint_eq(list[2].first, 40);
    ck_assert_int_eq(list[2].pid, getpid());
    /* A record that lies about its range is not believed. */
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pwrite(fd, "9 1 liar", 8, 4096 + 4 * 128), 8);
    close(fd);
    ck_assert_int_eq(slotmap_list(path, list, &err), 3);
    ck_assert_str_eq(list[0].name, "?");
    slotmap_release(a);
    slotmap_release(b);
    slotmap_release(c);
}
END_TEST

/* Many processes at once ask for first fit: all 64 slots go out exactly once. */
START_TEST(a_race_hands_out_each_slot_once)
{
    struct slotmap_entry list[SLOTMAP_SLOTS_MAX];
    struct err err;
    int ready[2], hold[2];
    pid_t child[16];
    ck_assert_int_eq(pipe(ready), 0);
    ck_assert_int_eq(pipe(hold), 0);
    for (unsigned i = 0; i < 16; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            struct slotmap *map;
            unsigned at;
            char c = claim(64, 4, SLOTMAP_ANYWHERE, "racer", &map, &at, NULL) == 0 ? (char)at : (char)-1;
            close(hold[1]);
            if (write(ready[1], &c, 1) != 1 || read(hold[0], &c, 1) != 0)
                _exit(1);
            _exit(0);
        }
    }
    close(hold[0]);
    bool seen[64] = {false};
    for (unsigned i = 0; i < 16; i++) {
        signed char at;
        ck_assert_int_eq(read(ready[0], &at, 1), 1);
        ck_assert_int_ge(at, 0);
        ck_assert_int_eq(at % 4, 0);
        ck_assert(!seen[at]);
        seen[at] = true;
    }
    ck_assert_int_eq(slotmap_list(path, list, &err), 16);
    close(hold[1]);
    for (unsigned i = 0; i < 16; i++)
        waitpid(child[i], NULL, 0);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("slotmap");
    TCase *t = tcase_create("windows");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, first_fit_and_fixed_windows_are_disjoint);
    tcase_add_test(t, overlap_names_the_holder);
    tcase_add_test(t, nonsense_is_refused);
    tcase_add_test(t, a_killed_holder_leaves_nothing);
    tcase_add_test(t, listing_in_slot_order);
    tcase_add_test(t, a_race_hands_out_each_slot_once);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
