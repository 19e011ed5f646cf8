/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as flags: what is parsed from them is the same configuration again. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "minivmm/arch.h"
#include "minivmm/bytes.h"
#include "vmm/config_args.h"
#include "vmm/config_internal.h"

/* Flags that, parsed and told again, come back as they are: in the table's order, none a default. */
static const char *const every[] = {
    "--kernel=/boot/a kernel",
    "--initrd=/boot/initrd",
    "--cmdline=console=ttyS0 a=\"b, c\" ,,",
    ("--disk=/img/a,,b,,,ro=on,direct=on,cache=writethrough,discard=on,write-zeroes=off,engine=io_uring,"
     "queues=3,queue-size=64,id=first,serial=S,,1"),
    "--disk=plain",
    "--disk=/c,discard=off,engine=sync,ice=required,ice-slots=5",
    "--disk=/d,ice=off",
    "--disk=/e,ice=on,ice-slots=1",
    "--disk=/f,encrypt=/k,,ey,unit=4096,iv-large-sectors=on",
    "--disk=/g,encrypt=luks,key=/pass",
    "--disk=/h,id=h",
    "--disk=/i,id=i",
    "--memory=268435456",
    "--cpus=4",
    "--hugepages",
    "--console=file:/log, too",
    "--no-rng",
    "--no-acpi",
    "--debug-exit",
    "--kvm=/dev/kvm2",
    "--ice-slots=9@11,fd=17",
    "--ice-total=256",
    "--ice-map=/map",
    "--ice-kek=/kek",
    "--ice-vm-key=18",
    "--ice-ecb",
    "--ice-key=slot=1,disk=h,alg=aes-xts,unit=512,file=/key,,1",
    "--ice-key=slot=2,disk=i,alg=aes-ecb,unit=4096,fd=19",
    "--uuid=00112233-4455-6677-8899-aabbccddeeff",
    "--name=vm.1",
    "--timeout=30",
    "--no-control",
    "--ready-fd=20",
    "--cpu-limit=150",
    "--memory-limit=536870912",
    "--no-sandbox",
    "--verbose",
    "--quiet",
};

/* Parses flags and tells them again; the caller's to free. */
static char **again(const char *const *flags, unsigned count)
{
    char *argv[64], program[] = "minivmm", text[64][256], **told = NULL;
    struct err err = {{0}};
    struct config config;
    ck_assert_uint_lt(count, 63);
    argv[0] = program;
    for (unsigned i = 0; i < count; i++) {
        snprintf(text[i], sizeof(text[i]), "%s", flags[i]);
        argv[i + 1] = text[i];
    }
    argv[count + 1] = NULL;
    config_init(&config);
    int code = config_parse_args(&config, (int)count + 1, argv, &err);
    ck_assert_msg(code == 0, "%s", err.text);
    ck_assert_int_eq(config_args(&config, "prog", &told), 0);
    config_free(&config);
    return told;
}

static void assert_same(const char *const *flags, unsigned count)
{
    char **told = again(flags, count);
    ck_assert_str_eq(told[0], "prog");
    for (unsigned i = 0; i < count; i++) {
        ck_assert_msg(told[i + 1] != NULL, "%s is missing", flags[i]);
        ck_assert_str_eq(told[i + 1], flags[i]);
    }
    ck_assert_ptr_null(told[count + 1]);
    config_args_free(told);
}

START_TEST(every_setting_comes_back)
{
    assert_same(every, ARRAY_SIZE(every));
}
END_TEST

START_TEST(every_option_of_the_table_is_tried)
{
    for (unsigned i = 0; i < config_options_count; i++) {
        const char *name = config_options[i].name;
        bool tried = strcmp(name, "config") == 0 || strcmp(name, "help") == 0 ||
                     strcmp(name, "version") == 0 || strcmp(name, "cpu") == 0; /* below */
        for (unsigned j = 0; j < ARRAY_SIZE(every); j++)
            tried |=
                strncmp(every[j] + 2, name, strlen(name)) == 0 && strcspn(every[j] + 2, "=") == strlen(name);
        ck_assert_msg(tried, "--%s is not tried", name);
    }
    for (unsigned i = 1; i < config_disk_keys_count; i++) {
        char part[64];
        bool tried = false;
        snprintf(part, sizeof(part), ",%s=", config_disk_keys[i].name);
        for (unsigned j = 0; j < ARRAY_SIZE(every); j++)
            tried |= strncmp(every[j], "--disk", 6) == 0 && strstr(every[j], part);
        ck_assert_msg(tried, "disk key %s is not tried", config_disk_keys[i].name);
    }
}
END_TEST

START_TEST(defaults_are_left_out_but_the_name)
{
    static const char *const spoken[] = {
        "--kernel=k",      "--name=x",        "--memory=128M", "--cpus=1",       "--cpu=host",
        "--console=stdio", "--hugepages=off", "--timeout=0",   "--ice-total=64", "--kvm=/dev/kvm"};
    char **told = again(spoken, ARRAY_SIZE(spoken));
    ck_assert_str_eq(told[1], "--kernel=k");
    ck_assert_str_eq(told[2], "--name=x");
    ck_assert_ptr_null(told[3]);
    config_args_free(told);
    told = again(spoken, 1);
    ck_assert_ptr_nonnull(told[2]);
    ck_assert_int_eq(strncmp(told[2], "--name=vm-", 10), 0);
    config_args_free(told);
}
END_TEST

START_TEST(other_values_of_a_setting)
{
    static const char *const sets[][2] = {
        {"--console=pty", "--name=a"},       {"--console=none", "--name=a"}, {"--ice-slots=3", "--name=a"},
        {"--ice-slots=3@0", "--name=a"},     {"--cmdline=", "--name=a"},     {"--disk=a,id=b", "--name=a"},
        {"--disk=a,discard=on", "--name=a"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
        assert_same(sets[i], 2);
    for (const char *const *cpu = arch_cpu_names(); *cpu; cpu++) {
        char flag[64];
        const char *set[] = {flag, "--name=a"};
        snprintf(flag, sizeof(flag), "--cpu=%s", *cpu);
        if (strcmp(*cpu, "host") != 0)
            assert_same(set, 2);
    }
}
END_TEST

START_TEST(many_flags_fit)
{
    const char *flags[CONFIG_DISKS_MAX + 2];
    for (unsigned n = 0; n <= CONFIG_DISKS_MAX; n++) {
        for (unsigned i = 0; i < n; i++)
            flags[i] = "--disk=same";
        flags[n] = "--name=a";
        flags[n + 1] = "--timeout=1";
        assert_same(flags, n + 2);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("configuration as flags");
    TCase *tc = tcase_create("args");
    tcase_add_test(tc, every_setting_comes_back);
    tcase_add_test(tc, every_option_of_the_table_is_tried);
    tcase_add_test(tc, defaults_are_left_out_but_the_name);
    tcase_add_test(tc, other_values_of_a_setting);
    tcase_add_test(tc, many_flags_fit);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
