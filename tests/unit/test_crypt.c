/* SPDX-License-Identifier: Apache-2.0 */
/* The slots that a VM's configuration comes to: windows, named and unnamed operator's slots share the host's
 * map. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/config.h"
#include "vmm/crypt.h"

static struct config config;
static struct crypt engine;
static struct err err;
static char dir[64], key[96], map[96];

static void setup(void)
{
    uint8_t bytes[64];
    config_init(&config);
    snprintf(dir, sizeof(dir), "/tmp/minivmm-crypt-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(key, sizeof(key), "%s/key", dir);
    snprintf(map, sizeof(map), "%s/map", dir);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(0x80 + i);
    int fd = open(key, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    close(fd);
}

static void teardown(void)
{
    config_free(&config);
    unlink(key);
    unlink(map);
    ck_assert_int_eq(rmdir(dir), 0);
}

static void create(const char *slots)
{
    char buf[1024], *argv[32];
    int argc = 0;
    snprintf(buf, sizeof(buf),
             "minivmm --kernel k --name crypt --disk a.img,encrypt=%s,unit=4096 --disk b.img --disk "
             "c.img,id=named "
             "--ice-key slot=40,disk=named,alg=aes-xts,unit=512,file=%s --ice-map %s --ice-slots %s",
             key, key, map, slots);
    for (char *at = strtok(buf, " "); at; at = strtok(NULL, " "))
        argv[argc++] = at;
    argv[argc] = NULL;
    ck_assert_int_eq(config_parse_args(&config, argc, argv, &err), 0);
    ck_assert_msg(config_check(&config, &err) == 0, "%s", err.text);
    memset(&engine, 0, sizeof(engine));
    ck_assert_msg(crypt_open(&engine, &config, &err) == 0, "%s", err.text);
    ck_assert_msg(crypt_load(&engine, &config, &err) == 0, "%s", err.text);
    ck_assert_msg(crypt_create(&engine, &config, &err) == 0, "%s", err.text);
}

/* Loop index: the window is the first fit, or where encrypt= would have gone. */
START_TEST(operators_slots_are_claimed_from_the_map)
{
    struct slotmap_entry held[SLOTMAP_SLOTS_MAX];
    bool guest = true;

    create(_i ? "4@0" : "4");
    ck_assert_int_eq(slotmap_list(map, held, &err), 3);
    ck_assert(held[0].first == 0 && held[0].count == 4);
    ck_assert(held[1].first == 4 && held[1].count == 1);
    ck_assert(held[2].first == 40 && held[2].count == 1);
    ck_assert_int_eq(ice_slot_owner(engine.ice, 4, &guest), 0);
    ck_assert(!guest);
    ck_assert_int_eq(ice_slot_owner(engine.ice, 40, &guest), 2);
    ck_assert(!guest);
    ck_assert_int_eq(ice_slot_owner(engine.ice, 0, &guest), 1);
    ck_assert(guest);
    ck_assert_uint_eq(engine.disk[0].transparent.unit, 4096);
    ck_assert_uint_eq(engine.disk[1].transparent.unit, 0);
    crypt_destroy(&engine);
    ck_assert_int_eq(slotmap_list(map, held, &err), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("crypt");
    TCase *tcase = tcase_create("slots");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, operators_slots_are_claimed_from_the_map, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
