/* SPDX-License-Identifier: Apache-2.0 */
/* LUKS2 volumes that cryptsetup made: the key that comes out is the one cryptsetup dumps, and what can't work
 * is refused. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/luks.h"

#define FAST "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 -q "

static char dir[64];

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int sh(const char *fmt, ...)
{
    char command[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(command, sizeof(command), "cd %s && exec >log 2>&1; PATH=$PATH:/sbin:/usr/sbin; ", dir);
    vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
    va_end(ap);
    return system(command);
}

static const char *at(const char *name)
{
    static char path[2][128];
    static unsigned turn;
    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/minivmm-luks-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(
        sh("printf secret > pass; printf 'secret\\n' > pass.nl; printf wrong > pass.bad; : > pass.empty; "
           "truncate -s 24M img"),
        0);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static int luks_open(const char *path, const char *passphrase_file, struct luks_volume *volume, uint8_t *key,
                     struct err *err)
{
    struct luks_job job = {0};
    int fd = open(passphrase_file, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    int r = luks_start(path, fd, passphrase_file, &job, err);
    close(fd);
    return r < 0 ? r : luks_finish(&job, path, volume, key, err);
}

static void same_key_as_cryptsetup_dumps(const char *passphrase_file, uint32_t key_size)
{
    struct luks_volume v;
    struct err err;
    uint8_t key[LUKS_KEY_MAX], want[LUKS_KEY_MAX];
    int r = luks_open(at("img"), at(passphrase_file), &v, key, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_eq(v.key_size, key_size);
    ck_assert_int_eq(sh("cryptsetup luksDump -q --dump-volume-key --volume-key-file vk --key-file pass img"),
                     0);
    FILE *f = fopen(at("vk"), "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(want, 1, key_size, f), key_size);
    fclose(f);
    unlink(at("vk"));
    ck_assert_mem_eq(key, want, key_size);
}

START_TEST(keys_and_geometry)
{
    struct luks_volume v;
    struct err err;
    uint8_t key[LUKS_KEY_MAX];
    ck_assert_int_eq(sh("cryptsetup luksFormat " FAST "--type luks2 --sector-size 512 --key-file pass img"),
                     0);
    same_key_as_cryptsetup_dumps("pass", 64);
    same_key_as_cryptsetup_dumps("pass.nl", 64);
    ck_assert_int_eq(luks_open(at("img"), at("pass"), &v, key, &err), 0);
    ck_assert_uint_eq(v.sector_size, 512);
    ck_assert_uint_eq(v.data_offset, 16u << 20);
    ck_assert_uint_eq(v.iv_offset, 0);
    ck_assert_uint_eq(v.data_size, 0);
    ck_assert_int_eq(sh("cryptsetup luksFormat " FAST
                        "--type luks2 --sector-size 4096 --key-size 256 --key-file pass img"),
                     0);
    same_key_as_cryptsetup_dumps("pass", 32);
    ck_assert_int_eq(luks_open(at("img"), at("pass"), &v, key, &err), 0);
    ck_assert_uint_eq(v.sector_size, 4096);
}
END_TEST

static void refused(const char *image, const char *passphrase_file, int code, const char *why)
{
    struct luks_volume v;
    struct err err = {""};
    uint8_t key[LUKS_KEY_MAX];
    int r = luks_open(at(image), at(passphrase_file), &v, key, &err);
    ck_assert_msg(r == code && strstr(err.text, why), "%d: %s", r, err.text);
    ck_assert_ptr_nonnull(strstr(err.text, at(image)));
}

START_TEST(bad_passphrases)
{
    ck_assert_int_eq(sh("cryptsetup luksFormat " FAST "--type luks2 --key-file pass img"), 0);
    refused("img", "pass.bad", -EKEYREJECTED, "no key slot");
    refused("img", "pass.empty", -EINVAL, "empty");
}
END_TEST

START_TEST(volumes_that_are_refused)
{
    refused("img", "pass", -EINVAL, "not a LUKS2 volume");
    refused("none", "pass", -ENOENT, "can't be opened");
    ck_assert_int_eq(sh("cryptsetup luksFormat " FAST "--type luks1 --key-file pass img"), 0);
    refused("img", "pass", -EINVAL, "not a LUKS2 volume");
    ck_assert_int_eq(sh("truncate -s 0 img; truncate -s 24M img; cryptsetup luksFormat " FAST
                        "--type luks2 --cipher aes-cbc-essiv:sha256 --key-size 256 --key-file pass img"),
                     0);
    refused("img", "pass", -EINVAL, "aes-cbc-essiv");
    ck_assert_int_eq(sh("truncate -s 0 img; truncate -s 40M img; cryptsetup luksFormat " FAST
                        "--type luks2 --key-file pass img && "
                        "cryptsetup reencrypt --init-only " FAST
                        "--force-offline-reencrypt --key-file pass img"),
                     0);
    refused("img", "pass", -EINVAL, "reencryption");
}
END_TEST

/*
 * Alters the metadata of both headers, 16 KiB each, and mends their checksums: SHA-256 over the header with
 * the checksum's 64 bytes at 448 zero. The metadata is JSON text behind the first 4096 bytes, with zeroes
 * behind.
 */
static void alter_metadata(const char *sed)
{
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(
            sh("dd if=img of=hdr bs=16384 skip=%u count=1 status=none && head -c 4096 hdr >bin && "
               "tail -c +4097 hdr | LC_ALL=C sed '%s' >json && cat bin json | head -c 16384 >new && "
               "! cmp -s hdr new && dd if=/dev/zero of=new bs=1 seek=448 count=64 conv=notrunc status=none "
               "&& "
               "sum=$(sha256sum <new | cut -c 1-64 | sed 's/../\\\\x&/g') && "
               "$(command -v env) printf \"$sum\" | dd of=new bs=1 seek=448 conv=notrunc status=none && "
               "dd if=new of=img bs=16384 seek=%u conv=notrunc status=none",
               i, sed, i),
            0);
}

static void format_anew(void)
{
    ck_assert_int_eq(sh("truncate -s 0 img; truncate -s 24M img; cryptsetup luksFormat " FAST
                        "--type luks2 --sector-size 512 --key-file pass img"),
                     0);
}

START_TEST(metadata_that_is_refused)
{
    static const struct {
        const char *sed, *why;
    } cases[] = {
        {"s/\"config\":{/\"config\":{\"requirements\":{\"mandatory\":[\"from-the-future\"]},/",
         "requirement"},
        {"s/\"sector_size\":512/&,\"integrity\":{\"type\":\"hmac(sha256)\",\"journal_encryption\":\"none\","
         "\"journal_integrity\":\"none\"}/",
         "integrity"},
        {"s/\"segments\":{\"0\":{\"type\":\"crypt\",\"offset\":\"16777216\",\"size\":\"dynamic\"/"
         "\"segments\":{\"1\":{\"type\":\"crypt\",\"offset\":\"17825792\",\"size\":\"dynamic\","
         "\"iv_tweak\":\"2048\",\"encryption\":\"aes-xts-plain64\",\"sector_size\":512},"
         "\"0\":{\"type\":\"crypt\",\"offset\":\"16777216\",\"size\":\"1048576\"/;"
         "s/\"segments\":\\[\"0\"/&,\"1\"/",
         "segments"},
    };
    struct luks_volume v;
    struct err err = {""};
    uint8_t key[LUKS_KEY_MAX];
    /* Altered harmlessly, it opens: the way of altering is right. */
    format_anew();
    alter_metadata("s/\"offset\":\"16777216\"/\"offset\":\"16781312\"/");
    ck_assert_msg(luks_open(at("img"), at("pass"), &v, key, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(v.data_offset, 16781312);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        format_anew();
        alter_metadata(cases[i].sed);
        refused("img", "pass", -EINVAL, cases[i].why);
    }
}
END_TEST

/* A header cut off or garbled anywhere must end in a sentence. */
START_TEST(damaged_headers)
{
    static const char *const cuts[] = {"100", "4096", "16384", "32768", "1048576"};
    struct luks_volume v;
    uint8_t key[LUKS_KEY_MAX];
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct err err = {""};
        ck_assert_int_eq(sh("truncate -s 0 img; truncate -s 24M img; cryptsetup luksFormat " FAST
                            "--type luks2 --key-file pass img && truncate -s %s img",
                            cuts[i]),
                         0);
        ck_assert_int_lt(luks_open(at("img"), at("pass"), &v, key, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, at("img")));
    }
}
END_TEST

int main(void)
{
    if (system("PATH=$PATH:/sbin:/usr/sbin command -v cryptsetup >/dev/null") != 0) {
        printf("# SKIP luks: cryptsetup is not installed (Debian: cryptsetup-bin)\n100%%: Checks: 1, "
               "Failures: 0, Errors: 0\n");
        return EXIT_SUCCESS;
    }
    Suite *s = suite_create("luks");
    TCase *t = tcase_create("volumes");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, keys_and_geometry);
    tcase_add_test(t, bad_passphrases);
    tcase_add_test(t, volumes_that_are_refused);
    tcase_add_test(t, metadata_that_is_refused);
    tcase_add_test(t, damaged_headers);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
