/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: dispatch, changes from within callbacks, what it refuses. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/loop.h"

struct fixture {
    struct loop *loop;
    int fd[2];
    unsigned calls[2];
    uint32_t events;
};

static struct fixture f;

static void setup(void)
{
    struct err err;
    f = (struct fixture){0};
    ck_assert_int_eq(loop_create(&f.loop, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        f.fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        ck_assert_int_ge(f.fd[i], 0);
    }
}

static void teardown(void)
{
    loop_destroy(f.loop);
    close(f.fd[0]);
    close(f.fd[1]);
}

static void signal_fd(int fd)
{
    uint64_t one = 1;
    ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

static void count(void *arg, uint32_t events)
{
    unsigned *calls = arg;
    ++*calls;
    f.events = events;
}

START_TEST(dispatches_what_is_ready_and_only_that)
{
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, count, &f.calls[0]), 0);
    ck_assert_int_eq(loop_add(f.loop, f.fd[1], EPOLLIN, count, &f.calls[1]), 0);
    ck_assert_int_eq(loop_run_once(f.loop, 0), 0);
    ck_assert_uint_eq(f.calls[0] + f.calls[1], 0);
    signal_fd(f.fd[1]);
    ck_assert_int_eq(loop_run_once(f.loop, -1), 0);
    ck_assert_uint_eq(f.calls[0], 0);
    ck_assert_uint_eq(f.calls[1], 1);
    ck_assert_uint_eq(f.events, EPOLLIN);
}
END_TEST

START_TEST(a_change_of_events_takes_effect)
{
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], 0, count, &f.calls[0]), 0);
    signal_fd(f.fd[0]);
    ck_assert_int_eq(loop_run_once(f.loop, 0), 0);
    ck_assert_uint_eq(f.calls[0], 0);
    ck_assert_int_eq(loop_modify(f.loop, f.fd[0], EPOLLOUT), 0);
    ck_assert_int_eq(loop_run_once(f.loop, 0), 0);
    ck_assert_uint_eq(f.calls[0], 1);
    ck_assert_uint_eq(f.events, EPOLLOUT);
    ck_assert_int_eq(loop_modify(f.loop, f.fd[1], EPOLLIN), -ENOENT);
}
END_TEST

/* Both are ready in one batch; whichever comes first takes both out, and the other must stay silent. */
static void remove_both(void *arg, uint32_t events)
{
    count(arg, events);
    loop_remove(f.loop, f.fd[0]);
    loop_remove(f.loop, f.fd[1]);
}

START_TEST(a_callback_may_remove_itself_and_others_of_its_batch)
{
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, remove_both, &f.calls[0]), 0);
    ck_assert_int_eq(loop_add(f.loop, f.fd[1], EPOLLIN, remove_both, &f.calls[1]), 0);
    signal_fd(f.fd[0]);
    signal_fd(f.fd[1]);
    ck_assert_int_eq(loop_run_once(f.loop, -1), 0);
    ck_assert_uint_eq(f.calls[0] + f.calls[1], 1);
    ck_assert_int_eq(loop_run_once(f.loop, 0), 0);
    ck_assert_uint_eq(f.calls[0] + f.calls[1], 1);
}
END_TEST

static void add_other(void *arg, uint32_t events)
{
    count(arg, events);
    loop_remove(f.loop, f.fd[0]);
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, count, &f.calls[1]), 0);
}

START_TEST(a_callback_may_watch_its_descriptor_anew)
{
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, add_other, &f.calls[0]), 0);
    signal_fd(f.fd[0]);
    ck_assert_int_eq(loop_run_once(f.loop, -1), 0);
    ck_assert_int_eq(loop_run_once(f.loop, -1), 0);
    ck_assert_uint_eq(f.calls[0], 1);
    ck_assert_uint_eq(f.calls[1], 1);
}
END_TEST

START_TEST(refuses_what_epoll_refuses)
{
    char path[] = "/tmp/minivmm-loop-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    ck_assert_int_eq(loop_add(f.loop, fd, EPOLLIN, count, &f.calls[0]), -EPERM);
    close(fd);
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, count, &f.calls[0]), 0);
    ck_assert_int_eq(loop_add(f.loop, f.fd[0], EPOLLIN, count, &f.calls[0]), -EEXIST);
    ck_assert_int_eq(loop_add(f.loop, -1, EPOLLIN, count, &f.calls[0]), -EBADF);
}
END_TEST

START_TEST(more_than_a_batch_is_served_in_turns)
{
    enum { MANY = 40 };
    int fd[MANY];
    unsigned calls[MANY] = {0};
    for (unsigned i = 0; i < MANY; i++) {
        fd[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        ck_assert_int_eq(loop_add(f.loop, fd[i], EPOLLIN, count, &calls[i]), 0);
    }
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(loop_run_once(f.loop, 0), 0);
    for (unsigned i = 0; i < MANY; i++) {
        ck_assert_uint_gt(calls[i], 0);
        loop_remove(f.loop, fd[i]);
        close(fd[i]);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("loop");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, dispatches_what_is_ready_and_only_that);
    tcase_add_test(tc, a_change_of_events_takes_effect);
    tcase_add_test(tc, a_callback_may_remove_itself_and_others_of_its_batch);
    tcase_add_test(tc, a_callback_may_watch_its_descriptor_anew);
    tcase_add_test(tc, refuses_what_epoll_refuses);
    tcase_add_test(tc, more_than_a_batch_is_served_in_turns);
    Suite *suite = suite_create("loop");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
