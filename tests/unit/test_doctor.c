/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor: the form of its answers, and its judgement of devices that are no KVM. */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmm/commands.h"
#include "vmm/doctor.h"

static char text[8192]; /* what the doctor said last */

/* Runs the doctor with flags, its standard output and error caught in text. */
static int run(const char *flags)
{
    char buf[256], program[] = "doctor", *argv[8] = {program};
    int argc = 1;
    snprintf(buf, sizeof(buf), "%s", flags);
    for (char *at = strtok(buf, " "); at && argc < 7; at = strtok(NULL, " "))
        argv[argc++] = at;
    FILE *caught = tmpfile();
    ck_assert_ptr_nonnull(caught);
    fflush(NULL);
    int out = dup(STDOUT_FILENO), errs = dup(STDERR_FILENO);
    ck_assert(out >= 0 && errs >= 0);
    dup2(fileno(caught), STDOUT_FILENO);
    dup2(fileno(caught), STDERR_FILENO);
    int code = doctor_main(argc, argv);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(errs, STDERR_FILENO);
    close(out);
    close(errs);
    rewind(caught);
    text[fread(text, 1, sizeof(text) - 1, caught)] = '\0';
    fclose(caught);
    return code;
}

START_TEST(every_line_has_a_level_and_a_subject)
{
    int code = run("--kvm /nonexistent/kvm");
    ck_assert_int_eq(code, 1);
    unsigned lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        bool known = strncmp(line, "ok    ", 6) == 0 || strncmp(line, "warn  ", 6) == 0 ||
                     strncmp(line, "fail  ", 6) == 0;
        ck_assert_msg(known && strstr(line, ": "), "no finding: %s", line);
        bool mend = strstr(line, " \xE2\x80\x94 ") != NULL;
        ck_assert_msg(mend == (line[0] != 'o'), "a mend where there is trouble, and only there: %s", line);
        lines++;
    }
    ck_assert_uint_ge(lines, 12);
}
END_TEST

START_TEST(a_missing_kvm_fails_with_its_mend)
{
    ck_assert_int_eq(run("--kvm=/nonexistent/kvm"), 1);
    ck_assert_ptr_nonnull(strstr(text, "fail  KVM device: /nonexistent/kvm: No such file or directory"));
    ck_assert_ptr_nonnull(strstr(text, "modprobe"));
    ck_assert_int_eq(run("--kvm /dev/null"), 1);
    ck_assert_ptr_nonnull(strstr(text, "/dev/null is not a KVM device"));
}
END_TEST

START_TEST(the_probe_is_silent)
{
    ck_assert_int_eq(run("--probe native --kvm /dev/null"), 1);
    ck_assert_str_eq(text, "");
    ck_assert_int_eq(run("--probe=native --kvm /nonexistent"), 1);
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(bad_flags_are_refused)
{
    ck_assert_int_eq(run("--jsno"), 2);
    ck_assert_ptr_nonnull(strstr(text, "'--jsno'"));
    ck_assert_int_eq(run("--probe other"), 2);
    ck_assert_int_eq(run("--kvm"), 2);
    ck_assert_int_eq(run("--help"), 0);
    ck_assert_ptr_nonnull(strstr(text, "usage: minivmm doctor"));
}
END_TEST

START_TEST(json_is_escaped)
{
    struct doctor_report report = {.count = 0};
    doctor_note(&report, DOCTOR_OK, "a", "unused", "q\"b\\t\tend");
    doctor_note(&report, DOCTOR_FAIL, "b", "mend \"it\"", "%d", 7);
    char *json = NULL;
    size_t size;
    FILE *out = open_memstream(&json, &size);
    doctor_print_json(&report, out);
    fclose(out);
    ck_assert_str_eq(json, "[\n"
                           "  {\n    \"level\": \"ok\",\n    \"what\": \"a\",\n"
                           "    \"found\": \"q\\\"b\\\\t\\u0009end\",\n    \"mend\": null\n  },\n"
                           "  {\n    \"level\": \"fail\",\n    \"what\": \"b\",\n"
                           "    \"found\": \"7\",\n    \"mend\": \"mend \\\"it\\\"\"\n  }\n"
                           "]\n");
    free(json);
}
END_TEST

/* The line about subject, without its level; NULL when there is none. Once in a report. */
static const char *line_about(const struct doctor_report *report, const char *subject)
{
    const char *found = NULL;
    for (unsigned i = 0; i < report->count; i++)
        if (strcmp(report->finding[i].what, subject) == 0) {
            ck_assert_msg(!found, "twice: %s", subject);
            found = report->finding[i].found;
        }
    return found;
}

static int namespace_link(char *link, size_t size)
{
    ssize_t n = readlink("/proc/self/ns/user", link, size - 1);
    link[n > 0 ? n : 0] = '\0';
    return (int)n;
}

START_TEST(each_wall_of_the_cell_is_looked_at)
{
    static const char *const subjects[] = {
        "user namespaces", "other namespaces", "no_new_privs",   "seccomp filters",
        "Landlock",        "--cpu-limit",      "--memory-limit", "io_uring restrictions",
        "io_uring",        "memfd_secret",     "locked memory",  "open files"};
    struct doctor_report report = {.count = 0};
    doctor_look_at_kernel(&report);
    doctor_look_at_cell(&report);
    for (unsigned i = 0; i < sizeof(subjects) / sizeof(*subjects); i++)
        ck_assert_msg(line_about(&report, subjects[i]) != NULL, "missing: %s", subjects[i]);
    for (unsigned i = 0; i < report.count; i++)
        ck_assert_msg(report.finding[i].level == DOCTOR_OK || report.finding[i].mend, "no mend: %s",
                      report.finding[i].what);
    ck_assert_uint_lt(report.count, DOCTOR_FINDINGS_MAX - 8);
}
END_TEST

START_TEST(trying_the_walls_leaves_none_around_the_doctor)
{
    char before[64], after[64];
    struct doctor_report report = {.count = 0};
    int privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), filter = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    ck_assert_int_gt(namespace_link(before, sizeof(before)), 0);
    doctor_look_at_cell(&report);
    ck_assert_int_gt(namespace_link(after, sizeof(after)), 0);
    ck_assert_str_eq(before, after);
    ck_assert_int_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), privs);
    ck_assert_int_eq(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), filter);
}
END_TEST

/* A process without descriptors to spare gets no ring and no ruleset, and can't read where its groups are. */
START_TEST(what_is_refused_is_told_with_its_reason)
{
    struct doctor_report report = {.count = 0};
    struct rlimit old, none;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    doctor_look_at_cell(&report);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_str_eq(line_about(&report, "Landlock"), strerror(EMFILE));
    ck_assert_str_eq(line_about(&report, "io_uring restrictions"), strerror(EMFILE));
    ck_assert_ptr_nonnull(strstr(line_about(&report, "--cpu-limit"), "no control group"));
}
END_TEST

START_TEST(a_full_book_stays_in_its_bounds)
{
    struct doctor_report report = {.count = 0};
    for (unsigned i = 0; i < DOCTOR_FINDINGS_MAX + 3; i++)
        doctor_note(&report, DOCTOR_OK, "x", NULL, "%u", i);
    ck_assert_uint_eq(report.count, DOCTOR_FINDINGS_MAX);
    ck_assert_str_eq(report.finding[DOCTOR_FINDINGS_MAX - 1].found, "34");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("doctor");
    TCase *tcase = tcase_create("doctor");
    tcase_add_test(tcase, every_line_has_a_level_and_a_subject);
    tcase_add_test(tcase, a_missing_kvm_fails_with_its_mend);
    tcase_add_test(tcase, the_probe_is_silent);
    tcase_add_test(tcase, bad_flags_are_refused);
    tcase_add_test(tcase, json_is_escaped);
    tcase_add_test(tcase, each_wall_of_the_cell_is_looked_at);
    tcase_add_test(tcase, trying_the_walls_leaves_none_around_the_doctor);
    tcase_add_test(tcase, what_is_refused_is_told_with_its_reason);
    tcase_add_test(tcase, a_full_book_stays_in_its_bounds);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
