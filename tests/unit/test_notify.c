/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager hears: over a path, over an abstract name, and over nonsense. */
#include <check.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/notify.h"

static char dir[64];
static int manager;

/* name: as in $NOTIFY_SOCKET. */
static void listen_on(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(manager, 0);
    ck_assert_int_eq(bind(manager, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    ck_assert_int_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
}

static void hears(const char *text)
{
    char got[1024] = "";
    ssize_t n = recv(manager, got, sizeof(got) - 1, MSG_DONTWAIT);
    ck_assert_int_ge(n, 0);
    ck_assert_str_eq(got, text);
}

static void setup(void)
{
    strcpy(dir, "/tmp/minivmm-notify-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    manager = -1;
}

static void teardown(void)
{
    char path[128];
    if (manager >= 0)
        close(manager);
    snprintf(path, sizeof(path), "%s/socket", dir);
    (void)unlink(path);
    ck_assert_int_eq(rmdir(dir), 0);
}

START_TEST(over_a_path)
{
    char path[128];
    struct notify notify;
    snprintf(path, sizeof(path), "%s/socket", dir);
    listen_on(path);
    notify_open(&notify);
    ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
    notify_send(&notify, "READY=1\nSTATUS=%u of %u VMs run", 11U, 12U);
    hears("READY=1\nSTATUS=11 of 12 VMs run");
    close(manager);
    manager = -1;
    notify_send(&notify, "STOPPING=1"); /* to nobody */
    notify_close(&notify);
    notify_send(&notify, "STOPPING=1");
}
END_TEST

START_TEST(over_an_abstract_name)
{
    char name[64];
    struct notify notify;
    snprintf(name, sizeof(name), "@minivmm-notify-%d", (int)getpid());
    listen_on(name);
    notify_open(&notify);
    notify_send(&notify, "READY=1");
    hears("READY=1");
    notify_close(&notify);
}
END_TEST

START_TEST(long_text_is_cut)
{
    char name[64];
    char much[2000];
    char got[2000];
    struct notify notify;
    snprintf(name, sizeof(name), "@minivmm-notify-long-%d", (int)getpid());
    listen_on(name);
    memset(much, 'x', sizeof(much) - 1);
    much[sizeof(much) - 1] = '\0';
    notify_open(&notify);
    notify_send(&notify, "STATUS=%s", much);
    ssize_t n = recv(manager, got, sizeof(got), MSG_DONTWAIT);
    ck_assert_int_gt(n, 100);
    ck_assert_int_lt(n, 1000);
    ck_assert_int_eq(memcmp(got, "STATUS=xxx", 10), 0);
    notify_close(&notify);
}
END_TEST

START_TEST(nobody_listens)
{
    static const char *const none[] = {"", "/", "relative", "vsock:1:2", "/nowhere/at/all"};
    struct notify notify;
    for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        ck_assert_int_eq(setenv("NOTIFY_SOCKET", none[i], 1), 0);
        notify_open(&notify);
        ck_assert_int_eq(notify.fd >= 0, i == 4);
        notify_send(&notify, "READY=1");
        notify_close(&notify);
    }
    notify_open(&notify);
    ck_assert_int_eq(notify.fd, -1);
    notify_send(&notify, "READY=1");
}
END_TEST

START_TEST(a_name_too_long)
{
    char name[200];
    struct notify notify;
    memset(name, 'n', sizeof(name) - 1);
    name[0] = '@';
    name[sizeof(name) - 1] = '\0';
    ck_assert_int_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
    notify_open(&notify);
    ck_assert_int_eq(notify.fd, -1);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("notify");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, over_a_path);
    tcase_add_test(cases, over_an_abstract_name);
    tcase_add_test(cases, long_text_is_cut);
    tcase_add_test(cases, nobody_listens);
    tcase_add_test(cases, a_name_too_long);
    Suite *suite = suite_create("notify");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
