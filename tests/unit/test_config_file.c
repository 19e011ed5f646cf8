/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: what they store, what wins, and where each sentence points. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/config.h"

static struct config config;
static struct err err;
static char dir[64], path[96];

static void setup(void)
{
    config_init(&config);
    memset(&err, 0, sizeof(err));
    snprintf(dir, sizeof(dir), "/tmp/minivmm-config-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/vm.conf", dir);
}

static void teardown(void)
{
    config_free(&config);
    unlink(path);
    rmdir(dir);
}

static void write_file(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, len, file), len);
    ck_assert_int_eq(fclose(file), 0);
}

static int parse(const char *text)
{
    write_file(text, strlen(text));
    return config_parse_file(&config, path, &err);
}

/* Parses flags, "%s" among them standing for the file's path. */
static int parse_args(const char *flags)
{
    char buf[512], program[] = "minivmm", *argv[16] = {program};
    int argc = 1;
    snprintf(buf, sizeof(buf), "%s", flags);
    for (char *at = strtok(buf, " "); at && argc < 15; at = strtok(NULL, " "))
        argv[argc++] = strcmp(at, "%s") == 0 ? path : at;
    return config_parse_args(&config, argc, argv, &err);
}

/* The sentence of a refused file begins with its path and the line. */
static void assert_refused(int code, unsigned line, const char *says)
{
    char place[128];
    snprintf(place, sizeof(place), "%s:%u: ", path, line);
    ck_assert_int_eq(code, -EINVAL);
    ck_assert_msg(strncmp(err.text, place, strlen(place)) == 0, "'%s' is not about line %u", err.text, line);
    ck_assert_msg(strstr(err.text, says) != NULL, "'%s' does not say '%s'", err.text, says);
}

static void assert_path(const char *got, const char *name)
{
    char want[128];
    snprintf(want, sizeof(want), "%s/%s", dir, name);
    ck_assert_str_eq(got, want);
}

START_TEST(a_whole_file_is_stored)
{
    ck_assert_int_eq(parse("\xEF\xBB\xBF# a comment\r\n"
                           "kernel = k\r\n"
                           "[vm]\n"
                           "cmdline = console=ttyS0 x ;y\n"
                           "    root=/dev/vda a ;b\n"
                           "\n"
                           "\trw\n"
                           "memory: 256M\n"
                           "disk = a,ro\n"
                           "disk = /b\n"
                           "no-rng = yes\n"
                           "hugepages = off\n"
                           "console = file:log\n"
                           "[disk data]\n"
                           "queues = 4\n"
                           "path = c\n"
                           "ro = true\n"),
                     0);
    assert_path(config.kernel, "k");
    ck_assert_str_eq(config.cmdline, "console=ttyS0 x ;y root=/dev/vda a ;b rw");
    ck_assert_uint_eq(config.memory, 256ULL << 20);
    ck_assert_uint_eq(config.disks, 3);
    assert_path(config.disk[0].path, "a");
    ck_assert(config.disk[0].readonly);
    ck_assert_str_eq(config.disk[1].path, "/b");
    assert_path(config.disk[2].path, "c");
    ck_assert_str_eq(config.disk[2].id, "data");
    ck_assert_uint_eq(config.disk[2].queues, 4);
    ck_assert(config.disk[2].readonly && !config.rng && !config.hugepages);
    assert_path(config.console_path, "log");
    ck_assert_int_eq(config_check(&config, &err), 0);
}
END_TEST

START_TEST(the_command_line_wins)
{
    static const char text[] = "kernel = k\ncpus = 2\nhugepages = on\nconsole = file:log\ndisk = a\n";
    write_file(text, sizeof(text) - 1);
    ck_assert_int_eq(parse_args("--cpus 3 --config %s --hugepages=off --console none --disk b"), 0);
    assert_path(config.kernel, "k");
    ck_assert_uint_eq(config.cpus, 3);
    ck_assert(!config.hugepages);
    ck_assert_int_eq(config.console, CONSOLE_NONE);
    ck_assert_ptr_null(config.console_path);
    ck_assert_uint_eq(config.disks, 2);
    assert_path(config.disk[0].path, "a");
    ck_assert_str_eq(config.disk[1].path, "b");
}
END_TEST

START_TEST(sentences_of_a_file_name_it_through_the_flag)
{
    write_file("\ncpus = 0\n", 10);
    assert_refused(parse_args("--config %s"), 2, "cpus: '0'");
    ck_assert_ptr_null(strstr(err.text, "--config"));
}
END_TEST

static const struct {
    const char *text;
    unsigned line;
    const char *says;
} refused[] = {
    {"kernel = k\ncpus = 99\n", 2, "cpus: '99' is not a whole number from 1 to 32"},
    {"kernal = k\n", 1, "unknown key 'kernal'; did you mean 'kernel'?"},
    {"config = other.conf\n", 1, "unknown key 'config'"},
    {"help = on\n", 1, "unknown key 'help'"},
    {"\n\nno equals sign\ncpus = 99\n", 3, "key = value"},
    {"cpus = 99\nno equals sign\n", 1, "cpus"},
    {"[vm\nkernel = k\n", 1, "[section]"},
    {"[vn]\nkernel = k\n", 2, "unknown section [vn]"},
    {"cpus = 1\ncpus = 2\n", 2, "cpus is given twice"},
    {"cpus = 1\n[vm]\ncpus = 2\n", 3, "cpus is given twice"},
    {"kernel = k\n  cpus = 2\n", 2, "at the margin"},
    {"cpus = 2 ; two\n", 1, "'2 ; two'"},
    {"verbose = perhaps\n", 1, "neither on nor off"},
    {"kernel =\n", 1, "kernel: is empty"},
    {"disk = a,quues=1\n", 1, "did you mean 'queues'?"},
    {"[disk a]\nro = on\n\n[disk b]\npath = x\n", 2, "[disk a] has no path"},
    {"[disk a]\npath = x\npath = y\n", 3, "path is given twice"},
    {"[disk a]\npath = x\n[disk b]\npath = y\n[disk a]\npath = z\n", 6, "path is given twice"},
    {"[disk a]\nid = b\n", 2, "[disk a]"},
    {"[disk a/b]\npath = x\n", 2, "'a/b' is not a name"},
    {"[disk aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\npath = x\n", 1, "longer than 49"},
    {"cpus = 1\nname = a\033[1m\n", 2, "control character"},
};

START_TEST(bad_lines_are_pointed_at)
{
    assert_refused(parse(refused[_i].text), refused[_i].line, refused[_i].says);
}
END_TEST

START_TEST(an_indented_line_behind_a_section_is_a_key)
{
    ck_assert_int_eq(parse("cpus = 1\n[vm]\n  memory = 32M\n"), 0);
    ck_assert_uint_eq(config.memory, 32ULL << 20);
}
END_TEST

START_TEST(long_lines_are_whole_or_refused)
{
    char text[8192];
    memset(text, 'a', sizeof(text));
    memcpy(text, "cpus=2\ncmdline=", 15);
    text[7 + 4095] = '\0';
    write_file(text, 7 + 4095); /* 4095 bytes without a line end are the most */
    ck_assert_int_eq(config_parse_file(&config, path, &err), 0);
    ck_assert_uint_eq(strlen(config.cmdline), 4095 - 8);
    config_free(&config);
    config_init(&config);
    write_file(text, 7);
    text[7 + 4095] = 'a';
    write_file(text, 7 + 4096);
    assert_refused(config_parse_file(&config, path, &err), 2, "longer than 4095 bytes");
}
END_TEST

START_TEST(files_that_are_none_are_refused)
{
    ck_assert_int_eq(parse(""), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "is empty"));
    write_file("kernel=a\0b\n", 11);
    assert_refused(config_parse_file(&config, path, &err), 1, "byte 9 is a control character");
    ck_assert_int_eq(config_parse_file(&config, dir, &err), -EISDIR);
    ck_assert_ptr_nonnull(strstr(err.text, dir));
    ck_assert_int_eq(config_parse_file(&config, "/nonexistent/vm.conf", &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/vm.conf"));
    ck_assert_int_eq(config_parse_file(&config, "/dev/zero", &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "larger than 1 MiB"));
    unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(config_parse_file(&config, path, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "is empty"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config file");
    TCase *tcase = tcase_create("file");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_whole_file_is_stored);
    tcase_add_test(tcase, the_command_line_wins);
    tcase_add_test(tcase, sentences_of_a_file_name_it_through_the_flag);
    tcase_add_loop_test(tcase, bad_lines_are_pointed_at, 0, ARRAY_SIZE(refused));
    tcase_add_test(tcase, an_indented_line_behind_a_section_is_a_key);
    tcase_add_test(tcase, long_lines_are_whole_or_refused);
    tcase_add_test(tcase, files_that_are_none_are_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
