/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of the crypto engine: what they store and refuse, how a window is split, what a key file may hold.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/config.h"
#include "vmm/crypt.h"
#include "vmm/keyfile.h"

#define ARGS_MAX 32
#define KEY      "--ice-key slot=40,disk=a,alg=aes-xts,unit=4096,file=k"

static struct config config;
static struct err err;
static char dir[64], path[96];

static void setup(void)
{
    config_init(&config);
    memset(&err, 0, sizeof(err));
    snprintf(dir, sizeof(dir), "/tmp/minivmm-ice-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/key", dir);
}

static void teardown(void)
{
    config_free(&config);
    unlink(path);
    ck_assert_int_eq(rmdir(dir), 0);
}

/* Parses and checks flags behind "--kernel k". */
static int parse(const char *text)
{
    char buf[1024], *argv[ARGS_MAX];
    int argc = 0;
    snprintf(buf, sizeof(buf), "minivmm --kernel k %s", text);
    for (char *at = strtok(buf, " "); at; at = strtok(NULL, " ")) {
        ck_assert_int_lt(argc, ARGS_MAX - 1);
        argv[argc++] = at;
    }
    argv[argc] = NULL;
    int code = config_parse_args(&config, argc, argv, &err);
    return code < 0 ? code : config_check(&config, &err);
}

static void assert_has(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
}

START_TEST(without_flags_there_is_no_engine)
{
    ck_assert_int_eq(parse("--disk d"), 0);
    ck_assert(!crypt_wanted(&config));
    ck_assert_uint_eq(config.ice.total, 64);
    ck_assert_uint_eq(config.ice.slots, 0);
    ck_assert_int_eq(config.ice.offset, SLOTMAP_ANYWHERE);
}
END_TEST

START_TEST(flags_are_stored)
{
    ck_assert_int_eq(parse("--disk a.img,id=a,iv-large-sectors --disk b.img,ice=required,ice-slots=3 --disk "
                           "c.img,ice=off --disk d.img,encrypt=luks,key=pass,discard --disk "
                           "e.img,encrypt=kf,unit=2048 --ice-slots 8@20 --ice-total 100 "
                           "--ice-map m --ice-kek q --ice-ecb --uuid "
                           "00112233-4455-6677-8899-AabbccddeefF " KEY),
                     0);
    static const uint8_t uuid[16] = {0,    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                     0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    const struct config_engine *ice = &config.ice;
    ck_assert(crypt_wanted(&config));
    ck_assert_uint_eq(ice->slots, 8);
    ck_assert_int_eq(ice->offset, 20);
    ck_assert_uint_eq(ice->total, 100);
    ck_assert_str_eq(ice->map, "m");
    ck_assert_str_eq(ice->kek, "q");
    ck_assert(ice->allow_ecb && ice->has_uuid);
    ck_assert_mem_eq(ice->uuid, uuid, sizeof(uuid));
    ck_assert_uint_eq(ice->keys, 1);
    ck_assert_uint_eq(ice->key[0].slot, 40);
    ck_assert_uint_eq(ice->key[0].alg, ICE_ALG_AES_XTS);
    ck_assert_uint_eq(ice->key[0].unit, 4096);
    ck_assert_str_eq(ice->key[0].file, "k");
    ck_assert(config_disk_hidden(&config, 0) && config.disk[0].iv_large && !config.disk[0].discard_asked);
    ck_assert_int_eq(config.disk[1].ice, CONFIG_ICE_REQUIRED);
    ck_assert_uint_eq(config.disk[1].ice_slots, 3);
    ck_assert(!config_disk_hidden(&config, 1) && !config_disk_hidden(&config, 2));
    ck_assert(config.disk[3].luks && config.disk[3].discard_asked && config_disk_hidden(&config, 3));
    ck_assert_str_eq(config.disk[3].passphrase, "pass");
    ck_assert_str_eq(config.disk[4].encrypt, "kf");
    ck_assert_uint_eq(config.disk[4].unit, 2048);
}
END_TEST

static const struct {
    const char *flags, *says, *says_too;
} refused[] = {
    {"--ice-slots 0", "--ice-slots: '0'", "1 to 255"},
    {"--ice-slots 256", "--ice-slots: '256'", "1 to 255"},
    {"--ice-slots 4@", "--ice-slots: ''", "0 to 255"},
    {"--ice-slots 4@256", "--ice-slots: '256'", "0 to 255"},
    {"--ice-slots -1", "--ice-slots: '-1'", "1 to 255"},
    {"--ice-slots 65", "--ice-slots: 65", "--ice-total"},
    {"--ice-slots 4@61", "--ice-slots: 4 from 61", "last, 63"},
    {"--ice-total 257", "--ice-total: '257'", "1 to 256"},
    {"--ice-total 0", "--ice-total: '0'", "1 to 256"},
    {"--uuid 00112233-4455-6677-8899-aabbccddeef", "--uuid:", "xxxxxxxx-"},
    {"--uuid 00112233-4455-6677-8899-aabbccddeefg", "--uuid:", "hexadecimal"},
    {"--uuid 0011223344-55-6677-8899-aabbccddeeff", "--uuid:", "hexadecimal"},
    {"--ice-key slot=1", "--ice-key: disk= is missing", "file or fd"},
    {"--ice-key slot=1,slot=2", "--ice-key: slot is given twice", ""},
    {"--ice-key slot", "--ice-key: 'slot' is not KEY=VALUE", ""},
    {"--ice-key slt=1", "--ice-key: 'slt'", "did you mean 'slot'"},
    {"--ice-key slot=256", "--ice-key: slot: '256'", "0 to 255"},
    {"--ice-key slot=1,disk=a,alg=aes-xtz", "--ice-key: alg: 'aes-xtz'", "did you mean 'aes-xts'"},
    {"--ice-key unit=1000", "--ice-key: unit: '1000'", "power of two"},
    {"--ice-key unit=65536", "--ice-key: unit: '65536'", "4096"},
    {"--ice-key slot=1,disk=a,alg=aes-xts,unit=512", "exactly one of", ""},
    {"--ice-key slot=1,disk=a,alg=aes-xts,unit=512,file=k,fd=3", "exactly one of", ""},
    {"--ice-key fd=2", "--ice-key: fd: '2'", "3 to"},
    {"--disk b " KEY, "--ice-key: slot=40", "no disk 'a'"},
    {"--disk b,id=a --ice-total 40 " KEY, "--ice-key: slot=40", "--ice-total 40"},
    {"--disk b,id=a --disk c --ice-slots 4@37 " KEY, "--ice-key: slot=40", "window, 37 to 40"},
    {"--disk b,id=a " KEY " " KEY, "--ice-key: slot=40", "two keys"},
    {"--disk b,id=a --ice-key slot=1,disk=a,alg=aes-xts,unit=512,file=k " KEY, "disk=a", "two keys"},
    {"--disk b,id=a --ice-key slot=1,disk=a,alg=aes-ecb,unit=512,file=k", "--ice-key: slot=1", "--ice-ecb"},
    {"--disk b,id=a,encrypt=x " KEY, "--disk: b has encrypt=", "one key"},
    {"--disk b,encrypt=luks", "--disk: b:", "key=FILE"},
    {"--disk b,key=x", "--disk: b:", "encrypt=luks"},
    {"--disk b,unit=512", "--disk: b:", "encrypt=KEYFILE"},
    {"--disk b,encrypt=luks,key=p,unit=512", "--disk: b:", "encrypt=KEYFILE"},
    {"--disk b,encrypt=x,unit=8192", "unit: '8192'", "4096"},
    {"--disk b,iv-large-sectors", "--disk: b:", "encrypt=KEYFILE"},
    {"--disk b,encrypt=luks,key=p,iv-large-sectors", "--disk: b:", "encrypt=KEYFILE"},
    {"--disk b,ice=required", "--disk: b: ice needs", "--ice-slots N"},
    {"--disk b,ice-slots=2", "--disk: b: ice-slots needs", "--ice-slots N"},
    {"--disk b,ice=off,ice-slots=2 --ice-slots 4", "--disk: b: ice=off", "exclude"},
    {"--disk b,ice,encrypt=x --ice-slots 4", "--disk: b:", "not both"},
    {"--disk b,ice=maybe", "ice: 'maybe'", "required"},
};

START_TEST(bad_settings_get_a_sentence)
{
    ck_assert_int_eq(parse(refused[_i].flags), -EINVAL);
    assert_has(err.text, refused[_i].says);
    assert_has(err.text, refused[_i].says_too);
}
END_TEST

/* Every window up to 40 slots, every number of disks, wishes drawn at random: a split is exact or refused. */
START_TEST(splits_are_exact)
{
    unsigned made = 0;
    srand(7);
    for (unsigned slots = 1; slots <= 40; slots++) {
        for (unsigned disks = 1; disks <= CONFIG_DISKS_MAX; disks++) {
            unsigned wanted[CONFIG_DISKS_MAX], count[CONFIG_DISKS_MAX], named = 0, open = 0, sum = 0;
            unsigned least = UINT32_MAX, most = 0;
            for (unsigned i = 0; i < disks; i++) {
                wanted[i] = rand() % 3 ? 0 : (unsigned)rand() % 6;
                named += wanted[i];
                open += wanted[i] == 0;
            }
            bool possible = open ? named + open <= slots : named == slots;
            ck_assert_int_eq(crypt_split(slots, wanted, disks, count, &err), possible ? 0 : -EINVAL);
            if (!possible) {
                assert_has(err.text, "--ice-slots: ");
                continue;
            }
            made++;
            for (unsigned i = 0; i < disks; i++) {
                sum += count[i];
                ck_assert_uint_ge(count[i], 1);
                if (wanted[i]) {
                    ck_assert_uint_eq(count[i], wanted[i]);
                    continue;
                }
                least = count[i] < least ? count[i] : least;
                most = count[i] > most ? count[i] : most;
            }
            ck_assert_uint_eq(sum, slots);
            ck_assert(open == 0 || most - least <= 1);
        }
    }
    ck_assert_uint_gt(made, 100);
    ck_assert_int_eq(crypt_split(4, NULL, 0, NULL, &err), -EINVAL);
    assert_has(err.text, "no disk");
}
END_TEST

/* Reads a key from a file with these contents; the scratch buffer is the caller's. */
static int read_key(const void *bytes, size_t len, uint8_t *scratch)
{
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    int got = keyfile_read(fd, "KEYFILE", scratch, &err);
    close(fd);
    return got;
}

static bool is_blank(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

START_TEST(keys_are_raw_or_hexadecimal)
{
    uint8_t raw[65], scratch[KEYFILE_SCRATCH];
    char hex[140];
    for (unsigned i = 0; i < sizeof(raw); i++)
        raw[i] = (uint8_t)(i * 5 + 0x81);
    static const unsigned lengths[] = {16, 32, 64};
    for (unsigned n = 0; n < ARRAY_SIZE(lengths); n++) {
        unsigned len = lengths[n];
        ck_assert_int_eq(read_key(raw, len, scratch), (int)len);
        ck_assert_mem_eq(scratch, raw, len);
        for (unsigned i = 0; i < len; i++)
            snprintf(hex + 2 * (size_t)i, 4, i % 2 ? "%02x" : "%02X", raw[i]);
        ck_assert_int_eq(read_key(hex, 2 * (size_t)len, scratch), (int)len);
        ck_assert_mem_eq(scratch, raw, len);
        hex[2 * len] = '\n';
        ck_assert_int_eq(read_key(hex, 2 * (size_t)len + 1, scratch), (int)len);
        ck_assert_mem_eq(scratch, raw, len);
        /* The digits are as secret as the key. */
        ck_assert(is_blank(scratch + len, sizeof(scratch) - len));
    }
}
END_TEST

START_TEST(bad_key_files_get_a_sentence)
{
    uint8_t raw[200], scratch[KEYFILE_SCRATCH];
    memset(raw, 0x99, sizeof(raw));
    ck_assert_int_eq(read_key(raw, 0, scratch), -EINVAL);
    assert_has(err.text, "KEYFILE is empty");
    ck_assert_int_eq(read_key(raw, 65, scratch), -EINVAL);
    assert_has(err.text, "at most 64 bytes");
    ck_assert(is_blank(scratch, sizeof(scratch)));
    ck_assert_int_eq(read_key(raw, 200, scratch), -EINVAL);
    memset(raw, 'a', sizeof(raw));
    ck_assert_int_eq(read_key(raw, 63, scratch), -EINVAL);
    assert_has(err.text, "odd number");
    ck_assert_int_eq(read_key(raw, 130, scratch), -EINVAL);
    ck_assert(is_blank(scratch, sizeof(scratch)));
}
END_TEST

START_TEST(lengths_name_key_sizes)
{
    struct ice_spec spec;
    ck_assert_int_eq(keyfile_spec("K", ICE_ALG_AES_XTS, 512, 32, &spec, &err), 0);
    ck_assert(spec.key_size == ICE_KEY_128 && spec.unit_exp == 0 && spec.alg == ICE_ALG_AES_XTS);
    ck_assert_int_eq(keyfile_spec("K", ICE_ALG_AES_XTS, 4096, 64, &spec, &err), 0);
    ck_assert(spec.key_size == ICE_KEY_256 && spec.unit_exp == 3);
    ck_assert_int_eq(keyfile_spec("K", ICE_ALG_ESSIV_AES_CBC, 512, 16, &spec, &err), 0);
    ck_assert_int_eq(spec.key_size, ICE_KEY_128);
    ck_assert_int_eq(keyfile_spec("K", ICE_ALG_ESSIV_AES_CBC, 512, 32, &spec, &err), 0);
    ck_assert_int_eq(spec.key_size, ICE_KEY_256);
    static const size_t wrong[] = {0, 1, 16, 31, 33, 48, 63};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        ck_assert_int_eq(keyfile_spec("K", ICE_ALG_AES_XTS, 512, wrong[i], &spec, &err), -EINVAL);
        assert_has(err.text, "aes-xts takes 32 or 64");
    }
    ck_assert_int_eq(keyfile_spec("K", ICE_ALG_BITLOCKER_AES_CBC, 512, 64, &spec, &err), -EINVAL);
    assert_has(err.text, "takes 16 or 32");
}
END_TEST

START_TEST(only_files_of_ones_own_are_opened)
{
    static const mode_t open_modes[] = {0640, 0604, 0620, 0602, 0610, 0644};
    ck_assert_int_eq(keyfile_open(path, &err), -ENOENT);
    assert_has(err.text, path);
    ck_assert_int_eq(keyfile_open(dir, &err), -EISDIR);
    assert_has(err.text, "is a directory");
    ck_assert_int_eq(keyfile_open("/dev/null", &err), -EINVAL);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(keyfile_open(path, &err), -EINVAL);
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    for (unsigned i = 0; i < ARRAY_SIZE(open_modes); i++) {
        ck_assert_int_eq(chmod(path, open_modes[i]), 0);
        ck_assert_int_eq(keyfile_open(path, &err), -EPERM);
        assert_has(err.text, "chmod 600");
    }
    ck_assert_int_eq(chmod(path, 0400), 0);
    fd = keyfile_open(path, &err);
    ck_assert_int_ge(fd, 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine settings");
    TCase *tcase = tcase_create("settings");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, without_flags_there_is_no_engine);
    tcase_add_test(tcase, flags_are_stored);
    tcase_add_loop_test(tcase, bad_settings_get_a_sentence, 0, ARRAY_SIZE(refused));
    tcase_add_test(tcase, splits_are_exact);
    tcase_add_test(tcase, keys_are_raw_or_hexadecimal);
    tcase_add_test(tcase, bad_key_files_get_a_sentence);
    tcase_add_test(tcase, lengths_name_key_sizes);
    tcase_add_test(tcase, only_files_of_ones_own_are_opened);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
