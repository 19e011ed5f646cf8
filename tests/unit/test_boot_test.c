/* SPDX-License-Identifier: Apache-2.0 */
/* boot-test with shell scripts in the VM's place: verdicts, order, time, what is left behind, reports. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/boot_test.h"
#include "vmm/json.h"

static struct boot_plan plan;
static struct boot_run run;

static void setup(void)
{
    memset(&plan, 0, sizeof(plan));
    plan.timeout_s = 30;
    plan.signal_fd = -1;
}

static void add(struct boot_pattern *p, unsigned *count, const char *text)
{
    p[*count].text = text;
    ck_assert_int_eq(regcomp(&p[*count].regex, text, REG_EXTENDED), 0);
    ++*count;
}

static void expect(const char *text)
{
    add(plan.expect, &plan.expects, text);
}

static void reject(const char *text)
{
    add(plan.reject, &plan.rejects, text);
}

static void teardown(void)
{
    for (unsigned i = 0; i < plan.expects; i++)
        regfree(&plan.expect[i].regex);
    for (unsigned i = 0; i < plan.rejects; i++)
        regfree(&plan.reject[i].regex);
}

/* A "VM": a shell script, whose console is its descriptor 3. */
static enum boot_outcome vm(const char *script)
{
    char sh[] = "/bin/sh";
    char flag[] = "-c";
    char *copy = strdup(script);
    char *argv[] = {sh, flag, copy, NULL};
    boot_run_once(&plan, argv, &run);
    free(copy);
    return run.outcome;
}

START_TEST(power_off_passes_where_nothing_is_expected)
{
    ck_assert_int_eq(vm("echo booted >&3; exit 0"), BOOT_PASS);
    ck_assert_str_eq(boot_tail(&run, 0), "booted");
    ck_assert_ptr_null(boot_tail(&run, 1));
    ck_assert_int_eq(vm("exit 4"), BOOT_FAIL);
    ck_assert_ptr_nonnull(strstr(run.reason, "reset"));
}
END_TEST

START_TEST(all_expects_in_order_pass_and_end_the_run)
{
    expect("one");
    expect("^two");
    expect("three");
    ck_assert_int_eq(vm("echo 'the one' >&3; echo two, three >&3; sleep 60"), BOOT_PASS);
    ck_assert_int_eq(vm("echo two >&3; echo one >&3; echo three >&3"), BOOT_FAIL);
    ck_assert_ptr_nonnull(strstr(run.reason, "--expect 2 of 3, '^two'"));
    ck_assert_int_eq(vm("echo one two three >&3"), BOOT_FAIL); /* two does not begin its line */
}
END_TEST

START_TEST(one_piece_of_text_serves_one_expect)
{
    expect("ping");
    expect("ping");
    ck_assert_int_eq(vm("echo ping >&3"), BOOT_FAIL);
    ck_assert_int_eq(vm("echo ping ping >&3"), BOOT_PASS);
}
END_TEST

START_TEST(a_prompt_has_no_newline)
{
    expect("login: ");
    ck_assert_int_eq(vm("printf 'debian log' >&3; printf 'in: ' >&3; sleep 60"), BOOT_PASS);
}
END_TEST

START_TEST(the_end_of_a_line_is_not_guessed)
{
    expect("done$");
    ck_assert_int_eq(vm("printf done >&3; sleep 0.2; echo ' with errors' >&3"), BOOT_FAIL);
    ck_assert_int_eq(vm("printf 'done\\r\\n' >&3; sleep 60"), BOOT_PASS);
    ck_assert_int_eq(vm("printf done >&3"), BOOT_PASS); /* nothing comes behind it any more */
}
END_TEST

START_TEST(a_reject_fails_at_once)
{
    expect("login:");
    reject("[Oo]ops");
    ck_assert_int_eq(vm("echo fine >&3; echo 'Oops: 0002' >&3; sleep 60"), BOOT_FAIL);
    ck_assert_ptr_nonnull(strstr(run.reason, "[Oo]ops"));
    ck_assert_ptr_nonnull(strstr(run.reason, "Oops: 0002"));
    ck_assert_int_lt(run.ms, 25000);
}
END_TEST

START_TEST(panics_are_told_by_code_and_by_console)
{
    expect("login:");
    ck_assert_int_eq(vm("exit 3"), BOOT_PANIC);
    ck_assert_int_eq(vm("echo 'Kernel panic - not syncing: VFS' >&3; echo more >&3; sleep 60"), BOOT_PANIC);
    ck_assert_str_eq(boot_tail(&run, 1), "more");
    ck_assert_int_eq(vm("echo 'Kernel panic - not syncing: VFS' >&3; exit 4"), BOOT_PANIC);
}
END_TEST

START_TEST(time_runs_out_however_much_is_said)
{
    expect("login:");
    plan.timeout_s = 1;
    ck_assert_int_eq(vm("sleep 60"), BOOT_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(run.reason, "login:"));
    ck_assert_int_eq(vm("while :; do echo again and again >&3; done"), BOOT_TIMEOUT);
    ck_assert_int_eq(vm("exit 124"), BOOT_TIMEOUT);
}
END_TEST

START_TEST(a_signal_is_heard_however_much_is_said)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    plan.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    ck_assert_int_ge(plan.signal_fd, 0);
    plan.timeout_s = 20;
    /* Patterns that cost more than writing does, so that the pipe is never found empty. */
    expect("(.|login)*(.|in)*:");
    reject("(.|p)*(.|a)*nic");
    ck_assert_int_eq(vm("cat /dev/zero >&3 & cat /dev/zero >&3 & sleep 0.3; kill -USR1 $PPID; wait"),
                     BOOT_FAIL);
    ck_assert_msg(run.interrupted, "%s", run.reason);
    close(plan.signal_fd);
    plan.signal_fd = -1;
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
END_TEST

START_TEST(bad_use_comes_with_the_vms_own_words)
{
    ck_assert_int_eq(vm("echo '--disk: no such file' >&2; exit 2"), BOOT_USAGE);
    ck_assert_ptr_nonnull(strstr(run.reason, "--disk: no such file"));
    ck_assert_int_eq(vm("kill -9 $$"), BOOT_FAIL);
    ck_assert_ptr_nonnull(strstr(run.reason, "signal 9"));
    char nowhere[] = "/nonexistent/minivmm";
    char *argv[] = {nowhere, NULL};
    boot_run_once(&plan, argv, &run);
    ck_assert_int_eq(run.outcome, BOOT_FAIL);
    ck_assert_ptr_nonnull(strstr(run.reason, nowhere));
}
END_TEST

START_TEST(endless_lines_and_zeros_do_no_harm)
{
    expect("behind");
    reject("0{4097}");
    ck_assert_int_eq(vm("head -c 100000 /dev/zero | tr '\\0' 0 >&3; printf '\\000behind' >&3; sleep 60"),
                     BOOT_PASS);
}
END_TEST

START_TEST(nothing_is_left_running)
{
    char path[] = "/tmp/minivmm-boot-XXXXXX";
    char script[256];
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    expect("up");
    /* It will not go by SIGTERM, and neither will its child. */
    snprintf(script, sizeof(script),
             "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >%s; while :; do sleep 1; done' & "
             "while ! test -s %s; do sleep 0.1; done; echo up >&3; while :; do sleep 1; done",
             path, path);
    ck_assert_int_eq(vm(script), BOOT_PASS);
    char text[32] = "";
    ck_assert_int_gt(pread(fd, text, sizeof(text) - 1, 0), 0);
    pid_t left = (pid_t)atoi(text);
    ck_assert_int_gt(left, 1);
    /* It was killed: it goes, though not at this very moment (the test's own time-out is the bound). */
    char state[64] = "";
    char name[64];
    snprintf(name, sizeof(name), "/proc/%d/stat", (int)left);
    FILE *stat;
    while (!strstr(state, ") Z") && !strstr(state, ") X") && (stat = fopen(name, "re"))) {
        (void)!fgets(state, sizeof(state), stat);
        fclose(stat);
        usleep(1000);
    }
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(the_log_has_every_byte)
{
    char *text = NULL;
    size_t len = 0;
    expect("first");
    plan.log = open_memstream(&text, &len);
    ck_assert_int_eq(vm("trap 'head -c 200000 /dev/zero >&3; exit 6' TERM; printf 'first\\r\\n' >&3; "
                        "while :; do sleep 0.1; done"),
                     BOOT_PASS);
    fclose(plan.log);
    ck_assert_uint_eq(len, 200000 + 7);
    ck_assert_mem_eq(text, "first\r\n", 7);
    free(text);
}
END_TEST

START_TEST(the_tail_keeps_the_last_lines)
{
    ck_assert_int_eq(vm("i=1; while [ $i -le 50 ]; do echo line $i >&3; i=$((i + 1)); done"), BOOT_PASS);
    ck_assert_str_eq(boot_tail(&run, 0), "line 31");
    ck_assert_str_eq(boot_tail(&run, 19), "line 50");
    ck_assert_ptr_null(boot_tail(&run, 20));
}
END_TEST

START_TEST(exit_codes_are_the_documented_ones)
{
    ck_assert_int_eq(boot_exit_code(BOOT_PASS), 0);
    ck_assert_int_eq(boot_exit_code(BOOT_FAIL), 1);
    ck_assert_int_eq(boot_exit_code(BOOT_TIMEOUT), 124);
    ck_assert_int_eq(boot_exit_code(BOOT_PANIC), 3);
    ck_assert_int_eq(boot_exit_code(BOOT_USAGE), 2);
}
END_TEST

/* The report of kind on one bad run whose texts are as bad as can be. */
static char *report(const char *kind)
{
    char path[] = "/tmp/minivmm-report-XXXXXX";
    char text[64];
    struct err err;
    struct boot_report r;
    close(mkstemp(path));
    snprintf(text, sizeof(text), "%s:%s", kind, path);
    struct boot_run bad = {.outcome = BOOT_FAIL, .ms = 1042, .lines = 2};
    strcpy(bad.reason, "--reject '<\"&\033' was seen");
    strcpy(bad.tail[0], "]]> \xff \xed\xa0\x80 \xc3\xa9\t\033[2J");
    strcpy(bad.tail[1], "plain");
    ck_assert_int_eq(boot_report_open(text, &r, &err), 0);
    boot_report_run(&r, &bad, 0);
    ck_assert_int_eq(boot_report_end(&r, "a<b", &bad, 1, &err), 0);
    FILE *file = fopen(path, "re");
    char *all = calloc(1, 8192);
    ck_assert_uint_gt(fread(all, 1, 8191, file), 0);
    fclose(file);
    unlink(path);
    return all;
}

START_TEST(reports_are_well_formed_whatever_the_guest_says)
{
    char *text = report("junit");
    ck_assert_ptr_nonnull(strstr(text, "tests=\"1\" failures=\"1\""));
    ck_assert_ptr_nonnull(strstr(text, "name=\"a&lt;b run 1\" time=\"1.042\""));
    ck_assert_ptr_nonnull(strstr(text, "message=\"--reject '&lt;&quot;&amp;?' was seen\""));
    ck_assert_ptr_nonnull(strstr(text, "]]&gt; ? ??? \xc3\xa9\t?[2J\nplain\n</failure>"));
    free(text);
    text = report("json");
    ck_assert_ptr_nonnull(strstr(text, "\"seconds\": 1.042"));
    ck_assert_ptr_nonnull(strstr(text, "'<\\\"&\\u001b' was"));
    ck_assert_ptr_nonnull(strstr(text, "\"]]> \\ufffd \\ufffd\\ufffd\\ufffd \xc3\xa9\\u0009\\u001b[2J\","));
    free(text);
    text = report("tap");
    ck_assert_int_eq(strncmp(text, "TAP version 13\nnot ok 1 - boot\n  ---\n", 37), 0);
    ck_assert_ptr_nonnull(strstr(text, "\n  ...\n1..1\n"));
    ck_assert_ptr_null(strchr(text, '\033'));
    free(text);
    text = report("text");
    ck_assert_ptr_nonnull(strstr(text, "run 1: fail in 1.042 s: "));
    ck_assert_ptr_nonnull(strstr(text, "0 of 1 passed"));
    ck_assert_ptr_null(strchr(text, '\033'));
    free(text);
}
END_TEST

START_TEST(bad_reports_are_refused)
{
    struct boot_report r;
    struct err err;
    ck_assert_int_eq(boot_report_open("xml", &r, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "junit"));
    ck_assert_int_eq(boot_report_open("tap:", &r, &err), -EINVAL);
    ck_assert_int_eq(boot_report_open("tapir", &r, &err), -EINVAL);
    ck_assert_int_eq(boot_report_open("json:/nonexistent/x", &r, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x"));
}
END_TEST

START_TEST(numbers_in_json)
{
    static const char *const good[] = {"0", "-1", "12", "0.5", "10.25"};
    static const char *const bad[] = {"", "-", "01", "1.", ".5", "0x1", "1e3", "1 ", "+1"};
    for (unsigned i = 0; i < 5; i++)
        ck_assert_msg(json_is_number(good[i]), "%s", good[i]);
    for (unsigned i = 0; i < 9; i++)
        ck_assert_msg(!json_is_number(bad[i]), "%s", bad[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("boot-test");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, power_off_passes_where_nothing_is_expected);
    tcase_add_test(tc, all_expects_in_order_pass_and_end_the_run);
    tcase_add_test(tc, one_piece_of_text_serves_one_expect);
    tcase_add_test(tc, a_prompt_has_no_newline);
    tcase_add_test(tc, the_end_of_a_line_is_not_guessed);
    tcase_add_test(tc, a_reject_fails_at_once);
    tcase_add_test(tc, panics_are_told_by_code_and_by_console);
    tcase_add_test(tc, time_runs_out_however_much_is_said);
    tcase_add_test(tc, a_signal_is_heard_however_much_is_said);
    tcase_add_test(tc, bad_use_comes_with_the_vms_own_words);
    tcase_add_test(tc, endless_lines_and_zeros_do_no_harm);
    tcase_add_test(tc, nothing_is_left_running);
    tcase_add_test(tc, the_log_has_every_byte);
    tcase_add_test(tc, the_tail_keeps_the_last_lines);
    tcase_add_test(tc, exit_codes_are_the_documented_ones);
    tcase_add_test(tc, reports_are_well_formed_whatever_the_guest_says);
    tcase_add_test(tc, bad_reports_are_refused);
    tcase_add_test(tc, numbers_in_json);
    suite_add_tcase(suite, tc);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
