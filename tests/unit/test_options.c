/* SPDX-License-Identifier: Apache-2.0 */
/* Flags: what each stores, what each refuses, and the sentence for it. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/config.h"
#include "vmm/config_internal.h"
#include "vmm/options.h"
#include "vmm/suggest.h"

#define ARGS_MAX 48

static struct config config;
static struct err err;

static void setup(void)
{
    config_init(&config);
    memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
    config_free(&config);
}

/* Splits text at blanks into argv, behind the program's name; the texts live in buf. */
static int split(const char *text, char *buf, size_t size, char **argv)
{
    static char program[] = "minivmm";
    int argc = 0;
    argv[argc++] = program;
    snprintf(buf, size, "%s", text);
    for (char *at = strtok(buf, " "); at; at = strtok(NULL, " ")) {
        ck_assert_int_lt(argc, ARGS_MAX - 1);
        argv[argc++] = at;
    }
    argv[argc] = NULL;
    return argc;
}

static int parse(const char *text)
{
    char buf[4096], *argv[ARGS_MAX];
    int argc = split(text, buf, sizeof(buf), argv);
    return config_parse_args(&config, argc, argv, &err);
}

static enum options_action action(const char *text)
{
    char buf[4096], *argv[ARGS_MAX];
    int argc = split(text, buf, sizeof(buf), argv);
    return options_action(argc, argv);
}

static void assert_has(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
}

START_TEST(defaults_are_as_documented)
{
    ck_assert_int_eq(parse("--kernel k --disk d"), 0);
    ck_assert_int_eq(config_check(&config, &err), 0);
    ck_assert_uint_eq(config.memory, 128ULL << 20);
    ck_assert_uint_eq(config.cpus, 1);
    ck_assert_str_eq(config.cpu, "host");
    ck_assert_str_eq(config.kvm, "/dev/kvm");
    ck_assert_int_eq(config.console, CONSOLE_STDIO);
    ck_assert(config.rng && config.control && !config.hugepages && !config.debug_exit);
    ck_assert_uint_eq(config.timeout_s, 0);
    char name[32];
    snprintf(name, sizeof(name), "vm-%ld", (long)getpid());
    ck_assert_str_eq(config.name, name);
    const struct config_disk *d = &config.disk[0];
    ck_assert(!d->readonly && !d->direct && d->writeback && d->discard && d->write_zeroes);
    ck_assert_uint_eq(d->queue_size, 256);
    ck_assert_uint_eq(d->queues, 0);
    ck_assert_int_eq(d->engine, DISK_ENGINE_AUTO);
}
END_TEST

START_TEST(every_flag_is_stored)
{
    ck_assert_int_eq(
        parse(
            "--kernel k --initrd=i --cmdline=root=/dev/vda --memory 3G --cpus=32 --cpu x86-64-v2 --hugepages "
            "--console file:log --name a.b-c_1 --timeout 7 --no-rng --debug-exit --kvm /k "
            "--no-control --verbose"),
        0);
    ck_assert_str_eq(config.kernel, "k");
    ck_assert_str_eq(config.initrd, "i");
    ck_assert_str_eq(config.cmdline, "root=/dev/vda");
    ck_assert_uint_eq(config.memory, 3ULL << 30);
    ck_assert_uint_eq(config.cpus, 32);
    ck_assert_str_eq(config.cpu, "x86-64-v2");
    ck_assert_int_eq(config.console, CONSOLE_FILE);
    ck_assert_str_eq(config.console_path, "log");
    ck_assert_str_eq(config.name, "a.b-c_1");
    ck_assert_uint_eq(config.timeout_s, 7);
    ck_assert(config.hugepages && !config.rng && config.debug_exit && !config.control && config.verbose);
    ck_assert_str_eq(config.kvm, "/k");
    ck_assert_int_eq(config_check(&config, &err), 0);
}
END_TEST

START_TEST(disk_keys_are_stored)
{
    ck_assert_int_eq(
        parse("--disk a,,b,ro,direct=on,cache=writethrough,discard=off,write-zeroes=no,engine=sync,"
              "queues=32,queue-size=1024,id=root,serial=S,,1 --disk b"),
        0);
    ck_assert_uint_eq(config.disks, 2);
    const struct config_disk *d = &config.disk[0];
    ck_assert_str_eq(d->path, "a,b");
    ck_assert(d->readonly && d->direct && !d->writeback && !d->discard && !d->write_zeroes);
    ck_assert_int_eq(d->engine, DISK_ENGINE_SYNC);
    ck_assert_uint_eq(d->queues, 32);
    ck_assert_uint_eq(d->queue_size, 1024);
    ck_assert_str_eq(d->id, "root");
    ck_assert_str_eq(d->serial, "S,1");
    ck_assert_str_eq(config.disk[1].path, "b");
    ck_assert(!config.disk[1].readonly);
}
END_TEST

/* A command line that is refused, and what its sentence must say. */
static const struct {
    const char *args, *says, *says_too;
} refused[] = {
    {"--cpus 0", "--cpus", "1 to 32"},
    {"--cpus 33", "'33'", "1 to 32"},
    {"--cpus 2x", "'2x'", "--cpus"},
    {"--cpus -1", "'-1'", "1 to 32"},
    {"--cpus +1", "'+1'", "1 to 32"},
    {"--cpus=", "--cpus", "''"},
    {"--cpus 18446744073709551617", "--cpus", "1 to 32"},
    {"--cpus", "--cpus needs a value", "--cpus N"},
    {"--memory 15M", "--memory", "16M"},
    {"--memory 256", "less than 16M", "add K, M or G"},
    {"--memory 256MB", "'256MB'", "256M"},
    {"--memory 17179869184G", "--memory", "not a size"},
    {"--memory 99999999999999999999", "--memory", "not a size"},
    {"--memory 16777217", "multiple of 4K", "--memory"},
    {"--timeout -3", "--timeout", "0 to"},
    {"--console tty", "stdio, pty, none, file:PATH", "pty'?"},
    {"--console file:", "--console", "path"},
    {"--console file:PATH --console pty", "--console is given twice", "once"},
    {"--name a/b", "'a/b'", "--name"},
    {"--name ..", "'..'", "letters"},
    {"--kernel=", "--kernel", "empty"},
    {"--kernel a --kernel b", "--kernel is given twice", "once"},
    {"--kernal a", "'--kernal'", "did you mean '--kernel'?"},
    {"--memroy 1G", "'--memroy'", "did you mean '--memory'?"},
    {"--xyzzy", "'--xyzzy'", "--help"},
    {"--no-rng=maybe", "--no-rng", "neither on nor off"},
    {"--help=x", "--help takes no value", ""},
    {"kernel", "'kernel'", "neither a flag nor a command"},
    {"--disk", "--disk needs a value", "PATH"},
    {"--disk ,ro", "--disk: path: is empty", ""},
    {"--disk a,rw", "unknown key 'rw'", "--disk"},
    {"--disk a,quues=2", "'quues'", "did you mean 'queues'?"},
    {"--disk a,queues=0", "queues: '0'", "1 to 32"},
    {"--disk a,queues=33", "queues: '33'", "1 to 32"},
    {"--disk a,queue-size=3", "queue-size: '3'", "power of two from 2 to 1024"},
    {"--disk a,queue-size=2048", "'2048'", "2 to 1024"},
    {"--disk a,queue-size=1", "'1'", "2 to 1024"},
    {"--disk a,cache=none", "'none'", "writeback, writethrough"},
    {"--disk a,engine=uring", "'uring'", "auto, io_uring, sync"},
    {"--disk a,queues", "queues needs a value", "queues=N"},
    {"--disk a,ro,ro=off", "ro is given twice", "--disk"},
    {"--disk a,path=b", "path is given twice", ""},
    {"--disk a,serial=123456789012345678901", "serial", "1 to 20"},
    {"--disk a,id=", "id: ''", "1 to 63"},
    {"--disk a,,", "", NULL},
    {"--disk a,", "unknown key ''", ""},
};

START_TEST(bad_flags_get_a_sentence)
{
    int code = parse(refused[_i].args);
    if (!refused[_i].says_too) { /* not refused: a doubled comma belongs to the path */
        ck_assert_int_eq(code, 0);
        ck_assert_str_eq(config.disk[0].path, "a,");
        return;
    }
    ck_assert_int_eq(code, -EINVAL);
    assert_has(err.text, refused[_i].says);
    assert_has(err.text, refused[_i].says_too);
}
END_TEST

/* Flags that parse, but do not go together. */
static const struct {
    const char *args, *says;
} clashes[] = {
    {"--disk a", "--kernel is missing"},
    {"--kernel k --disk a --disk a", "named twice"},
    {"--kernel k --disk /dev/null --disk /dev/../dev/null", "one file"},
    {"--kernel k --disk a,id=x --disk b,id=x", "the id 'x'"},
    {"--kernel k --disk a,id=disk1 --disk b", "the id 'disk1'"},
    {"--kernel k --verbose --quiet", "exclude each other"},
    {"--kernel k --hugepages --memory 16388K", "multiple of 2M"},
};

START_TEST(clashes_get_a_sentence)
{
    ck_assert_int_eq(parse(clashes[_i].args), 0);
    ck_assert_int_eq(config_check(&config, &err), -EINVAL);
    assert_has(err.text, clashes[_i].says);
}
END_TEST

START_TEST(fifteen_disks_are_too_many)
{
    ck_assert_int_eq(parse("--disk a --disk b --disk c --disk d --disk e --disk f --disk g --disk h --disk i "
                           "--disk j --disk k --disk l --disk m --disk n"),
                     0);
    ck_assert_uint_eq(config.disks, CONFIG_DISKS_MAX);
    ck_assert_int_eq(parse("--disk o"), -E2BIG);
    assert_has(err.text, "at most 14");
    assert_has(err.text, "interrupt lines");
}
END_TEST

START_TEST(a_long_or_broken_cmdline_is_refused)
{
    config.kernel = strdup("k");
    config.cmdline = malloc(2049);
    memset(config.cmdline, 'a', 2048);
    config.cmdline[2047] = '\0';
    ck_assert_int_eq(config_check(&config, &err), 0);
    config.cmdline[2047] = 'a';
    config.cmdline[2048] = '\0';
    ck_assert_int_eq(config_check(&config, &err), -EINVAL);
    assert_has(err.text, "2047");
    strcpy(config.cmdline, "a\nb");
    ck_assert_int_eq(config_check(&config, &err), -EINVAL);
    assert_has(err.text, "byte 2");
}
END_TEST

START_TEST(help_and_version_are_found)
{
    ck_assert_int_eq(action(""), OPTIONS_HELP);
    ck_assert_int_eq(action("--nonsense --help"), OPTIONS_HELP);
    ck_assert_int_eq(action("-h"), OPTIONS_HELP);
    ck_assert_int_eq(action("--kernel k --version"), OPTIONS_VERSION);
    ck_assert_int_eq(action("--cmdline --help --kernel k"), OPTIONS_RUN);
    ck_assert_int_eq(action("--cmdline=--help"), OPTIONS_RUN);
}
END_TEST

START_TEST(help_names_every_option_within_80_columns)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    options_print_help(out);
    options_print_version(out);
    fclose(out);
    assert_has(text, "minivmm " MINIVMM_VERSION "\n");
    for (unsigned i = 0; i < config_options_count; i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "\n  --%s%s%s", config_options[i].name, config_options[i].arg ? " " : "",
                 config_options[i].arg ? config_options[i].arg : "");
        assert_has(text, flag);
    }
    for (unsigned i = 1; i < config_disk_keys_count; i++) {
        char key[64];
        snprintf(key, sizeof(key), "\n  %s=%s", config_disk_keys[i].name, config_disk_keys[i].arg);
        assert_has(text, key);
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        ck_assert_msg(strlen(line) <= 80, "longer than 80 columns: %s", line);
    free(text);
}
END_TEST

START_TEST(distances_are_edits)
{
    ck_assert_uint_eq(suggest_distance("kernel", "kernel"), 0);
    ck_assert_uint_eq(suggest_distance("kernal", "kernel"), 1);
    ck_assert_uint_eq(suggest_distance("memroy", "memory"), 1);
    ck_assert_uint_eq(suggest_distance("kernl", "kernel"), 1);
    ck_assert_uint_eq(suggest_distance("", "ab"), 2);
    ck_assert_uint_eq(suggest_distance("abc", "xyz"), 3);
    ck_assert_uint_eq(suggest_distance("abcdefghijklmnopqrstuvwxyzabcdefghijklmnop", "a"), 3);
    struct suggestion s = {.typed = "xy"};
    suggest_offer(&s, "ro");
    ck_assert_ptr_null(s.best);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tcase = tcase_create("flags");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, defaults_are_as_documented);
    tcase_add_test(tcase, every_flag_is_stored);
    tcase_add_test(tcase, disk_keys_are_stored);
    tcase_add_loop_test(tcase, bad_flags_get_a_sentence, 0, ARRAY_SIZE(refused));
    tcase_add_loop_test(tcase, clashes_get_a_sentence, 0, ARRAY_SIZE(clashes));
    tcase_add_test(tcase, fifteen_disks_are_too_many);
    tcase_add_test(tcase, a_long_or_broken_cmdline_is_refused);
    tcase_add_test(tcase, help_and_version_are_found);
    tcase_add_test(tcase, help_names_every_option_within_80_columns);
    tcase_add_test(tcase, distances_are_edits);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
