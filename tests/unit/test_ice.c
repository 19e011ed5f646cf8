/* SPDX-License-Identifier: Apache-2.0 */
/* The crypto engine against vectors that OpenSSL did not make, and the slots' rules. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nettle/sha2.h>

#include "devices/ice/arena.h"
#include "minivmm/bytes.h"
#include "minivmm/ice.h"

static struct ice *ice;
static const struct ice_spec xts512 = {ICE_ALG_AES_XTS, 0, ICE_KEY_256};

static void setup(void)
{
    struct err err;
    int r = ice_create(&(struct ice_config){.allow_ecb = true}, &ice, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(ice_assign(ice, 20, 8, 0, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, 28, 4, 1, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, 60, 1, 0, false, &err), 0);
}

static void teardown(void)
{
    ice_destroy(ice);
}

static size_t unhex(const char *text, uint8_t *out, size_t max)
{
    size_t n = strlen(text) / 2;
    ck_assert_uint_le(n, max);
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        ck_assert_int_eq(sscanf(text + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
    return n;
}

static void fill_key(uint8_t *key, uint8_t seed)
{
    for (unsigned i = 0; i < ICE_RAW_KEY_MAX; i++)
        key[i] = (uint8_t)(i * 37 + seed);
}

static void set_xts(unsigned slot, uint8_t seed)
{
    uint8_t key[ICE_RAW_KEY_MAX];
    struct err err;
    fill_key(key, seed);
    ck_assert_int_eq(ice_slot_set(ice, slot, &xts512, key, sizeof(key), 100, &err), 0);
}

static void crypt_flat(unsigned slot, bool encrypt, uint64_t dun, const uint8_t *src, uint8_t *dst,
                       size_t len)
{
    struct ice_binding b;
    struct iovec from = {(void *)(uintptr_t)src, len}, to = {dst, len};
    ck_assert_int_eq(ice_bind(ice, 0, slot, false, &b), 0);
    ck_assert_int_eq(ice_crypt(&b, 0, encrypt, dun, 1, &from, 1, &to, 1, len), 0);
    ice_release(&b);
}

/* Cuts a buffer into segments of 1 .. 700 bytes, the same for one seed. */
static unsigned cut(uint8_t *p, size_t len, struct iovec *iov, unsigned seed)
{
    unsigned n = 0;
    while (len) {
        seed = seed * 1103515245 + 12345;
        size_t part = 1 + (seed >> 16) % 700;
        if (part > len)
            part = len;
        iov[n++] = (struct iovec){p, part};
        p += part;
        len -= part;
    }
    return n;
}

static uint8_t plain[2 * ICE_UNIT_MAX], out[2 * ICE_UNIT_MAX], back[2 * ICE_UNIT_MAX];
static struct iovec from_iov[2 * ICE_UNIT_MAX], to_iov[2 * ICE_UNIT_MAX];

static void check_one_vector(const char *line)
{
    unsigned alg, key_size, exp, units;
    unsigned long long dun;
    char key_hex[200], sha_hex[80], first_hex[80];
    ck_assert_int_eq(sscanf(line, "%u %u %u %llu %u %199s %79s %79s", &alg, &key_size, &exp, &dun, &units,
                            key_hex, sha_hex, first_hex),
                     8);
    struct ice_spec spec = {(uint8_t)alg, (uint8_t)exp, (uint8_t)key_size};
    uint8_t key[ICE_RAW_KEY_MAX], want_sha[32], sha[32], want_first[32];
    size_t key_len = unhex(key_hex, key, sizeof(key));
    unhex(sha_hex, want_sha, 32);
    unhex(first_hex, want_first, 32);
    size_t len = (size_t)ice_unit_size(&spec) * units;
    for (size_t j = 0; j < len; j++)
        plain[j] = (uint8_t)(j * 167 + (j >> 8) * 13 + key[0]);

    struct err err;
    int r = ice_slot_set(ice, 20, &spec, key, key_len, 100, &err);
    ck_assert_msg(r == 0, "%s: %s", line, err.text);
    struct ice_binding b;
    ck_assert_int_eq(ice_bind(ice, 0, 20, false, &b), 0);
    ck_assert_uint_eq(b.unit, ice_unit_size(&spec));
    for (unsigned round = 0; round < 3; round++) {
        /* Round 0 whole buffers, then two ways of scattering source and target. */
        unsigned n = 1, m = 1;
        from_iov[0] = (struct iovec){plain, len};
        to_iov[0] = (struct iovec){out, len};
        if (round) {
            n = cut(plain, len, from_iov, round);
            m = cut(out, len, to_iov, round + (unsigned)dun + 77);
        }
        memset(out, 0, len);
        ck_assert_int_eq(ice_crypt(&b, round, true, dun, 1, from_iov, n, to_iov, m, len), 0);
        struct sha256_ctx ctx;
        sha256_init(&ctx);
        sha256_update(&ctx, len, out);
        sha256_digest(&ctx, 32, sha);
        ck_assert_msg(memcmp(out, want_first, 32) == 0 && memcmp(sha, want_sha, 32) == 0, "round %u: %s",
                      round, line);
        memcpy(back, out, len);
        struct iovec whole = {back, len};
        ck_assert_int_eq(ice_crypt(&b, round, false, dun, 1, to_iov, m, &whole, 1, len), 0);
        ck_assert_mem_eq(back, plain, len);
    }
    ice_release(&b);
}

START_TEST(vectors_made_with_nettle)
{
    FILE *f = fopen("tests/vectors/ice.txt", "r");
    ck_assert_msg(f != NULL, "run from the top folder");
    char line[512];
    unsigned n = 0;
    while (fgets(line, sizeof(line), f))
        if (line[0] != '#') {
            check_one_vector(line);
            n++;
        }
    fclose(f);
    ck_assert_uint_eq(n, 140);
}
END_TEST

START_TEST(vectors_of_ieee_1619)
{
    FILE *f = fopen("tests/vectors/ieee1619.txt", "r");
    ck_assert_ptr_nonnull(f);
    char line[512], key_hex[200], source[16], first_hex[80], last_hex[40];
    unsigned n = 0;
    while (fgets(line, sizeof(line), f)) {
        unsigned number, key_size;
        unsigned long long dun;
        if (line[0] == '#')
            continue;
        ck_assert_int_eq(sscanf(line, "%u %u 0x%llx %199s %15s %79s %39s", &number, &key_size, &dun, key_hex,
                                source, first_hex, last_hex),
                         7);
        uint8_t key[ICE_RAW_KEY_MAX], first[32], last[16];
        size_t key_len = unhex(key_hex, key, sizeof(key));
        unhex(first_hex, first, 32);
        unhex(last_hex, last, 16);
        if (strcmp(source, "previous") == 0)
            memcpy(plain, out, 512);
        else
            for (unsigned i = 0; i < 512; i++)
                plain[i] = (uint8_t)i;
        struct ice_spec spec = {ICE_ALG_AES_XTS, 0, (uint8_t)key_size};
        struct err err;
        ck_assert_int_eq(ice_slot_set(ice, 20, &spec, key, key_len, 100, &err), 0);
        crypt_flat(20, true, dun, plain, out, 512);
        ck_assert_msg(memcmp(out, first, 32) == 0, "vector %u", number);
        ck_assert_msg(memcmp(out + 496, last, 16) == 0, "vector %u", number);
        n++;
    }
    fclose(f);
    ck_assert_uint_eq(n, 11);
}
END_TEST

START_TEST(in_place_and_wrong_dun_or_key)
{
    set_xts(20, 1);
    set_xts(21, 2);
    for (unsigned i = 0; i < 4096; i++)
        plain[i] = (uint8_t)(i * 7);
    memcpy(out, plain, 4096);
    crypt_flat(20, true, 5, out, out, 4096);
    ck_assert_mem_ne(out, plain, 4096);
    crypt_flat(20, false, 6, out, back, 4096);
    ck_assert_mem_ne(back, plain, 512);
    crypt_flat(21, false, 5, out, back, 4096);
    ck_assert_mem_ne(back, plain, 512);
    crypt_flat(20, false, 5, out, out, 4096);
    ck_assert_mem_eq(out, plain, 4096);
}
END_TEST

/* Stride 8 is dm-crypt's count for 4096-byte sectors: unit i of a request has IV first + 8 i. */
START_TEST(stride_counts_ivs)
{
    uint8_t key[ICE_RAW_KEY_MAX];
    struct ice_spec spec = {ICE_ALG_AES_XTS, 3, ICE_KEY_256};
    struct err err;
    struct ice_binding b;
    fill_key(key, 9);
    ck_assert_int_eq(ice_slot_set(ice, 60, &spec, key, sizeof(key), 100, &err), 0);
    ck_assert_int_eq(ice_bind(ice, 0, 60, true, &b), 0);
    struct iovec src = {plain, 8192}, dst = {out, 8192}, second = {plain + 4096, 4096}, alone = {back, 4096};
    ck_assert_int_eq(ice_crypt(&b, 0, true, 16, 8, &src, 1, &dst, 1, 8192), 0);
    ck_assert_int_eq(ice_crypt(&b, 0, true, 24, 8, &second, 1, &alone, 1, 4096), 0);
    ck_assert_mem_eq(out + 4096, back, 4096);
    ice_release(&b);
}
END_TEST

START_TEST(dun_may_reach_but_not_pass_the_end)
{
    ck_assert(ice_dun_ok(UINT64_MAX, 1, 1));
    ck_assert(ice_dun_ok(UINT64_MAX - 7, 1, 8));
    ck_assert(!ice_dun_ok(UINT64_MAX - 7, 1, 9));
    ck_assert(!ice_dun_ok(UINT64_MAX, 1, 2));
    ck_assert(ice_dun_ok(UINT64_MAX - 8, 8, 2));
    ck_assert(!ice_dun_ok(UINT64_MAX - 7, 8, 2));
    ck_assert(ice_dun_ok(0, 8, 0));
}
END_TEST

START_TEST(length_off_the_unit_is_refused)
{
    struct ice_binding b;
    struct iovec iov = {out, 1000};
    set_xts(20, 1);
    ck_assert_int_eq(ice_bind(ice, 0, 20, false, &b), 0);
    memset(out, 0xee, 1000);
    ck_assert_int_eq(ice_crypt(&b, 0, true, 0, 1, &iov, 1, &iov, 1, 1000), -EIO);
    ck_assert_uint_eq(out[0], 0xee);
    iov.iov_len = 600; /* the segments end before the length does */
    ck_assert_int_eq(ice_crypt(&b, 0, true, 0, 1, &iov, 1, &iov, 1, 1024), -EIO);
    ice_release(&b);
}
END_TEST

START_TEST(binding_keeps_to_the_window)
{
    struct ice_binding b;
    set_xts(20, 1);
    set_xts(28, 2);
    set_xts(60, 3);
    ck_assert_int_eq(ice_bind(ice, 0, 19, false, &b), -EPERM);
    ck_assert_int_eq(ice_bind(ice, 0, 28, false, &b), -EPERM); /* another disk's */
    ck_assert_int_eq(ice_bind(ice, 0, 60, false, &b), -EPERM); /* the operator's */
    ck_assert_int_eq(ice_bind(ice, 0, 20, true, &b), -EPERM);  /* the guest's */
    ck_assert_int_eq(ice_bind(ice, 0, 255, false, &b), -EPERM);
    ck_assert_int_eq(ice_bind(ice, 0, 256, false, &b), -EPERM);
    ck_assert_int_eq(ice_bind(ice, 0, 27, false, &b), -ENOKEY);
    ck_assert_ptr_null(b.slot);
    ck_assert_int_eq(ice_bind(ice, 1, 28, false, &b), 0);
    ice_release(&b);
    ck_assert_uint_eq(ice_slot_counters(ice, 28)->denied, 1);
    ck_assert_uint_eq(ice_slot_counters(ice, 27)->empty, 1);
}
END_TEST

START_TEST(eviction_waits_for_requests_and_gives_up_unchanged)
{
    struct ice_binding b, c;
    struct ice_spec spec;
    struct err err;
    uint8_t key[ICE_RAW_KEY_MAX];
    set_xts(20, 1);
    ck_assert_int_eq(ice_bind(ice, 0, 20, false, &b), 0);
    ck_assert_int_eq(ice_slot_evict(ice, 20, 20, &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "keyslot 20"));
    fill_key(key, 5);
    ck_assert_int_eq(ice_slot_set(ice, 20, &xts512, key, sizeof(key), 20, &err), -EBUSY);
    /* The slot works on as before, the old key included. */
    ck_assert_int_eq(ice_bind(ice, 0, 20, false, &c), 0);
    ice_release(&c);
    struct iovec iov = {out, 512};
    ck_assert_int_eq(ice_crypt(&b, 0, true, 0, 1, &iov, 1, &iov, 1, 512), 0);
    ice_release(&b);
    ck_assert_int_eq(ice_slot_evict(ice, 20, 20, &err), 0);
    ck_assert(!ice_slot_programmed(ice, 20, &spec));
    ck_assert_int_eq(ice_bind(ice, 0, 20, false, &b), -ENOKEY);
    ck_assert_int_eq(ice_slot_evict(ice, 20, 20, &err), 0);
}
END_TEST

struct hammer {
    _Atomic bool stop;
    uint8_t want[2][512]; /* ciphertext under either key */
    _Atomic unsigned bad, done;
    _Atomic unsigned queue;
};

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;
    static const uint8_t zero[512];
    uint8_t mine[512];
    unsigned queue = atomic_fetch_add(&h->queue, 1);
    while (!atomic_load(&h->stop)) {
        struct ice_binding b;
        struct iovec src = {(void *)(uintptr_t)zero, 512}, dst = {mine, 512};
        if (ice_bind(ice, 0, 20, false, &b) < 0)
            continue;
        if (ice_crypt(&b, queue, true, 3, 1, &src, 1, &dst, 1, 512) < 0 ||
            (memcmp(mine, h->want[0], 512) != 0 && memcmp(mine, h->want[1], 512) != 0))
            atomic_fetch_add(&h->bad, 1);
        ice_release(&b);
        atomic_fetch_add(&h->done, 1);
    }
    return NULL;
}

/* Two queue threads encrypt while the key changes under them: every result is one of the two keys', never a
 * mix. */
START_TEST(reprogramming_under_load)
{
    static struct hammer h;
    static const uint8_t zero[512];
    pthread_t t[2];
    struct err err;
    for (unsigned k = 0; k < 2; k++) {
        set_xts(20, (uint8_t)(k + 1));
        crypt_flat(20, true, 3, zero, h.want[k], 512);
    }
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, hammer_main, &h), 0);
    for (unsigned i = 0; i < 200; i++) {
        set_xts(20, (uint8_t)(i % 2 + 1));
        if (i % 10 == 9)
            ck_assert_int_eq(ice_slot_evict(ice, 20, 1000, &err), 0);
    }
    set_xts(20, 1);
    while (atomic_load(&h.done) < 100)
        usleep(1000);
    atomic_store(&h.stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    ck_assert_uint_eq(h.bad, 0);
}
END_TEST

START_TEST(bad_keys_are_refused)
{
    uint8_t key[ICE_RAW_KEY_MAX] = {0};
    struct err err;
    struct ice_spec spec;
    ck_assert_int_eq(ice_slot_set(ice, 20, &xts512, key, 64, 0, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "halves"));
    fill_key(key, 1);
    ck_assert_int_eq(ice_slot_set(ice, 20, &xts512, key, 63, 0, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "64"));
    ck_assert_int_eq(ice_slot_set(ice, 20, &xts512, key, 32, 0, &err), -EINVAL);
    ck_assert_int_eq(ice_slot_set(ice, 256, &xts512, key, 64, 0, &err), -EINVAL);
    static const struct ice_spec bad[] = {{0, 0, 0}, {0, 0, 2}, {0, 0, 4}, {0, 0, 5},      {0, 8, 3},
                                          {4, 0, 3}, {1, 1, 3}, {3, 7, 1}, {255, 255, 255}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        ck_assert_int_eq(ice_slot_set(ice, 20, &bad[i], key, 64, 0, &err), -EINVAL);
    ck_assert(!ice_slot_programmed(ice, 20, &spec));
}
END_TEST

START_TEST(capabilities_follow_the_spec_page)
{
    struct ice_spec caps[ICE_CAPS_MAX];
    unsigned n = ice_capabilities(ice, caps);
    ck_assert_uint_eq(n, 2 * 8 + 3 * 2 * 2);
    for (unsigned i = 0; i < n; i++)
        ck_assert_int_eq(ice_spec_check(ice, &caps[i], NULL), 0);
    struct ice *strict;
    struct err err;
    ck_assert_int_eq(ice_create(&(struct ice_config){.allow_ecb = false}, &strict, &err), 0);
    n = ice_capabilities(strict, caps);
    ck_assert_uint_eq(n, 2 * 8 + 2 * 2 * 2);
    for (unsigned i = 0; i < n; i++)
        ck_assert_uint_ne(caps[i].alg, ICE_ALG_AES_ECB);
    ck_assert_int_eq(ice_spec_check(strict, &(struct ice_spec){ICE_ALG_AES_ECB, 0, ICE_KEY_256}, &err),
                     -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "ice-ecb=on"));
    ice_destroy(strict);
}
END_TEST

START_TEST(windows_do_not_overlap)
{
    struct err err;
    ck_assert_int_eq(ice_assign(ice, 27, 2, 2, true, &err), -EEXIST);
    ck_assert_ptr_nonnull(strstr(err.text, "keyslot 27"));
    ck_assert_int_eq(ice_assign(ice, 250, 7, 2, true, &err), -EINVAL);
    ck_assert_int_eq(ice_assign(ice, 256, 1, 2, true, &err), -EINVAL);
    ck_assert_int_eq(ice_assign(ice, 5, 0, 2, true, &err), -EINVAL);
    ck_assert_int_eq(ice_assign(ice, 249, 7, 2, true, &err), 0);
    bool guest;
    ck_assert_int_eq(ice_slot_owner(ice, 255, &guest), 2);
    ck_assert(guest);
    ck_assert_int_eq(ice_slot_owner(ice, 60, &guest), 0);
    ck_assert(!guest);
    ck_assert_int_eq(ice_slot_owner(ice, 61, &guest), ICE_OWNER_NONE);
}
END_TEST

START_TEST(vm_reset_evicts_guest_keys_only)
{
    struct ice_spec spec;
    set_xts(21, 1);
    set_xts(29, 1);
    set_xts(60, 1);
    ck_assert_int_eq(ice_evict_guest_keys(ice, 100), 0);
    ck_assert(!ice_slot_programmed(ice, 21, &spec));
    ck_assert(!ice_slot_programmed(ice, 29, &spec));
    ck_assert(ice_slot_programmed(ice, 60, &spec));
}
END_TEST

/* A wiped key leaves no copy in the arena: neither raw nor as the first round key of OpenSSL's schedule,
 * which is raw. */
START_TEST(evicted_keys_leave_nothing_in_the_arena)
{
    uint8_t key[ICE_RAW_KEY_MAX];
    struct err err;
    fill_key(key, 0xc3);
    set_xts(20, 0xc3);
    crypt_flat(20, true, 0, plain, out, 512);
    crypt_flat(20, false, 0, out, out, 512);
    ck_assert(arena_search(key, 16) > 1); /* ours, and libcrypto's: its copies are in the arena too */
    ck_assert_int_eq(ice_slot_evict(ice, 20, 100, &err), 0);
    ck_assert_uint_eq(arena_search(key, 16), 0);
    ck_assert_uint_eq(arena_search(key + 32, 16), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ice");
    TCase *t = tcase_create("engine");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, vectors_made_with_nettle);
    tcase_add_test(t, vectors_of_ieee_1619);
    tcase_add_test(t, in_place_and_wrong_dun_or_key);
    tcase_add_test(t, stride_counts_ivs);
    tcase_add_test(t, dun_may_reach_but_not_pass_the_end);
    tcase_add_test(t, length_off_the_unit_is_refused);
    tcase_add_test(t, binding_keeps_to_the_window);
    tcase_add_test(t, eviction_waits_for_requests_and_gives_up_unchanged);
    tcase_add_test(t, reprogramming_under_load);
    tcase_add_test(t, bad_keys_are_refused);
    tcase_add_test(t, capabilities_follow_the_spec_page);
    tcase_add_test(t, windows_do_not_overlap);
    tcase_add_test(t, vm_reset_evicts_guest_keys_only);
    tcase_add_test(t, evicted_keys_leave_nothing_in_the_arena);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
