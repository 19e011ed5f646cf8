/* SPDX-License-Identifier: Apache-2.0 */
/* The key service as a guest sees it: registers, command blocks in memory, wrapped keys, and what it must
 * refuse. */
#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/ice_abi.h"
#include "minivmm/keyservice.h"

#define MEMORY_BYTES 65536u
#define MEMORY_BASE  0x100000u

struct vm {
    struct ice *ice;
    struct keyservice *service;
    struct guest_region region;
    struct guest_memory mem;
    uint8_t *ram;
    int irq;
};

static struct vm vm;
static const uint8_t uuid_a[16] = {1, 2, 3}, uuid_b[16] = {9, 9, 9};
static const uint8_t kek[32] = "the host's key-encryption key..";

static void vm_open(struct vm *v, const uint8_t uuid[16], bool with_kek)
{
    struct err err;
    uint8_t vm_key[32];
    memset(v, 0, sizeof(*v));
    v->ram = calloc(1, MEMORY_BYTES);
    v->mem.region[0] = (struct guest_region){MEMORY_BASE, MEMORY_BYTES, v->ram, false};
    v->mem.count = 1;
    v->irq = event_open();
    ck_assert_int_eq(ice_create(&(struct ice_config){0}, &v->ice, &err), 0);
    ck_assert_int_eq(ice_assign(v->ice, 20, 4, 0, true, &err), 0);
    ck_assert_int_eq(ice_assign(v->ice, 24, 4, 1, true, &err), 0);
    ck_assert_int_eq(ice_assign(v->ice, 40, 1, 0, false, &err), 0);
    ck_assert_int_eq(keyservice_derive_vm_key(kek, sizeof(kek), uuid, vm_key, &err), 0);
    struct keyservice_config config = {.ice = v->ice,
                                       .mem = &v->mem,
                                       .irq_fd = v->irq,
                                       .first_slot = 20,
                                       .slots = 8,
                                       .vm_key = with_kek ? vm_key : NULL,
                                       .drain_ms = 50};
    memcpy(config.uuid, uuid, 16);
    int r = keyservice_create(&config, &v->service, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void vm_close(struct vm *v)
{
    keyservice_destroy(v->service);
    ice_destroy(v->ice);
    close(v->irq);
    free(v->ram);
}

static void setup(void)
{
    vm_open(&vm, uuid_a, true);
}

static void teardown(void)
{
    vm_close(&vm);
}

static uint32_t reg(struct vm *v, uint64_t offset)
{
    uint8_t data[4];
    keyservice_bus_ops.read(v->service, offset, data, 4);
    return load_le32(data);
}

static void set_reg(struct vm *v, uint64_t offset, uint32_t value)
{
    uint8_t data[4];
    store_le32(data, value);
    keyservice_bus_ops.write(v->service, offset, data, 4);
}

static uint32_t call_at(struct vm *v, uint64_t gpa)
{
    set_reg(v, ICE_KEYS_BLOCK_LOW, (uint32_t)gpa);
    set_reg(v, ICE_KEYS_BLOCK_HIGH, (uint32_t)(gpa >> 32));
    set_reg(v, ICE_KEYS_DOORBELL, 1);
    struct pollfd p = {.fd = v->irq, .events = POLLIN};
    ck_assert_msg(poll(&p, 1, 10000) == 1, "no interrupt");
    event_clear(v->irq);
    ck_assert_uint_eq(reg(v, ICE_KEYS_STATUS), ICE_KEYS_STATUS_DONE);
    ck_assert_uint_eq(reg(v, ICE_KEYS_INTERRUPT_STATUS), 1);
    set_reg(v, ICE_KEYS_INTERRUPT_ACK, 1);
    ck_assert_uint_eq(reg(v, ICE_KEYS_INTERRUPT_STATUS), 0);
    return reg(v, ICE_KEYS_RESULT);
}

/* Puts the command at the start of memory, calls, and gives the block back as the device left it. */
static uint32_t call(struct vm *v, struct ice_command *cmd)
{
    memcpy(v->ram, cmd, sizeof(*cmd));
    uint32_t result = call_at(v, MEMORY_BASE);
    memcpy(cmd, v->ram, sizeof(*cmd));
    ck_assert_uint_eq(cmd->result, result);
    return result;
}

static struct ice_command set_command(uint32_t slot, uint8_t seed)
{
    struct ice_command c = {.call = ICE_CALL_SET_KEY, .slot = slot, .key_size = ICE_KEY_256, .in_len = 64};
    for (unsigned i = 0; i < 64; i++)
        c.in[i] = (uint8_t)(seed + i * 3);
    return c;
}

START_TEST(registers)
{
    ck_assert_uint_eq(reg(&vm, ICE_KEYS_MAGIC), ICE_KEYS_MAGIC_VALUE);
    ck_assert_uint_eq(reg(&vm, ICE_KEYS_VERSION), 1);
    ck_assert_uint_eq(reg(&vm, ICE_KEYS_WINDOW), 8 << 8 | 20);
    ck_assert_uint_eq(reg(&vm, ICE_KEYS_STATUS), ICE_KEYS_STATUS_IDLE);
    uint8_t data[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    keyservice_bus_ops.read(vm.service, 1, data, 4);
    ck_assert_uint_eq(load_le32(data), 0);
    keyservice_bus_ops.read(vm.service, 0, data, 8);
    ck_assert_uint_eq(load_le64(data), 0);
    set_reg(&vm, ICE_KEYS_MAGIC, 5);
    reg(&vm, 0xffc);
    ck_assert_uint_eq(keyservice_counters(vm.service)->bad_access, 4);
    ck_assert_uint_eq(reg(&vm, ICE_KEYS_MAGIC), ICE_KEYS_MAGIC_VALUE);
}
END_TEST

START_TEST(raw_key_programs_and_is_wiped)
{
    struct ice_command c = set_command(21, 1);
    struct ice_spec spec;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
    ck_assert(ice_slot_programmed(vm.ice, 21, &spec));
    ck_assert_uint_eq(spec.key_size, ICE_KEY_256);
    for (unsigned i = 0; i < ICE_COMMAND_DATA; i++)
        ck_assert_uint_eq(c.in[i], 0);
    c = (struct ice_command){.call = ICE_CALL_INVALIDATE_KEY, .slot = 21};
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
    ck_assert(!ice_slot_programmed(vm.ice, 21, &spec));
}
END_TEST

START_TEST(slots_outside_the_window_are_denied)
{
    static const uint32_t outside[] = {0, 19, 28, 40, 255, 256, 0xffffffff};
    struct ice_spec spec;
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        struct ice_command c = set_command(outside[i], 1);
        ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_DENIED);
        c = (struct ice_command){.call = ICE_CALL_INVALIDATE_KEY, .slot = outside[i]};
        ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_DENIED);
        ck_assert(!ice_slot_programmed(vm.ice, outside[i], &spec));
    }
    ck_assert_uint_eq(keyservice_counters(vm.service)->denied, 2 * ARRAY_SIZE(outside));
    struct ice_command c = set_command(20, 1);
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
    c = set_command(27, 1);
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
}
END_TEST

START_TEST(bad_commands)
{
    struct ice_command c = set_command(20, 1);
    c.in_len = 63;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    c.in_len = ICE_COMMAND_DATA + 1;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    memcpy(c.in + 32, c.in, 32); /* equal halves */
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    c.key_size = ICE_KEY_512;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    c.alg = 9;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    c.unit_exp = 8;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = set_command(20, 1);
    c.key_kind = 2;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = (struct ice_command){.call = 99};
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c = (struct ice_command){.call = ICE_CALL_IMPORT_KEY, .in_len = 15};
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
    c.call = ICE_CALL_IMPORT_KEY;
    c.in_len = 65;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_INVALID);
}
END_TEST

START_TEST(blocks_outside_memory)
{
    static const uint64_t bad[] = {0,
                                   MEMORY_BASE - 1,
                                   MEMORY_BASE + MEMORY_BYTES - ICE_COMMAND_BYTES + 1,
                                   MEMORY_BASE + MEMORY_BYTES,
                                   UINT64_MAX,
                                   UINT64_MAX - 100};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        ck_assert_uint_eq(call_at(&vm, bad[i]), ICE_RESULT_BAD_BLOCK);
    /* Exactly at the end it works. */
    struct ice_command c = set_command(20, 1);
    memcpy(vm.ram + MEMORY_BYTES - sizeof(c), &c, sizeof(c));
    ck_assert_uint_eq(call_at(&vm, MEMORY_BASE + MEMORY_BYTES - sizeof(c)), ICE_RESULT_OK);
}
END_TEST

START_TEST(doorbell_storm)
{
    struct ice_command c = set_command(20, 1);
    memcpy(vm.ram, &c, sizeof(c));
    set_reg(&vm, ICE_KEYS_BLOCK_LOW, MEMORY_BASE);
    for (unsigned i = 0; i < 10000; i++)
        set_reg(&vm, ICE_KEYS_DOORBELL, i);
    struct pollfd p = {.fd = vm.irq, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, 10000), 1);
    while (reg(&vm, ICE_KEYS_STATUS) == ICE_KEYS_STATUS_BUSY)
        usleep(100);
    const struct keyservice_counters *n = keyservice_counters(vm.service);
    ck_assert_uint_eq(n->busy_doorbells + n->calls, 10000);
    event_clear(vm.irq);
    c = set_command(21, 1);
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
}
END_TEST

static void generate(struct vm *v, struct ice_command *c)
{
    *c = (struct ice_command){.call = ICE_CALL_GENERATE_KEY};
    ck_assert_uint_eq(call(v, c), ICE_RESULT_OK);
    ck_assert_uint_eq(c->out_len, 32 + ICE_BLOB_OVERHEAD);
}

/* Feeds the out bytes of one call into the next. */
static uint32_t feed(struct vm *v, struct ice_command *c, uint32_t next)
{
    struct ice_command n = {.call = next, .in_len = c->out_len};
    memcpy(n.in, c->out, sizeof(n.in));
    uint32_t result = call(v, &n);
    *c = n;
    return result;
}

static uint32_t set_wrapped(struct vm *v, const struct ice_command *blob, uint32_t slot)
{
    struct ice_command n = {.call = ICE_CALL_SET_KEY,
                            .slot = slot,
                            .key_size = ICE_KEY_256,
                            .key_kind = ICE_KEY_KIND_WRAPPED,
                            .in_len = blob->out_len};
    memcpy(n.in, blob->out, sizeof(n.in));
    return call(v, &n);
}

static void encrypt_zeroes(struct vm *v, unsigned slot, uint8_t out[512])
{
    static uint8_t zero[512];
    struct ice_binding b;
    struct iovec src = {zero, 512}, dst = {out, 512};
    ck_assert_int_eq(ice_bind(v->ice, 0, slot, false, &b), 0);
    ck_assert_int_eq(ice_crypt(&b, 0, true, 7, 1, &src, 1, &dst, 1, 512), 0);
    ice_release(&b);
}

START_TEST(wrapped_keys_go_their_way)
{
    struct ice_command c, long_term, secret;
    uint8_t one[512], two[512];
    generate(&vm, &c);
    long_term = c;
    ck_assert_uint_eq(set_wrapped(&vm, &long_term, 20), ICE_RESULT_BAD_BLOB); /* long-term, not ephemeral */
    ck_assert_uint_eq(feed(&vm, &c, ICE_CALL_PREPARE_KEY), ICE_RESULT_OK);
    ck_assert_mem_ne(c.out, long_term.out, c.out_len);
    ck_assert_uint_eq(set_wrapped(&vm, &c, 20), ICE_RESULT_OK);
    secret = c;
    ck_assert_uint_eq(feed(&vm, &secret, ICE_CALL_DERIVE_SW_SECRET), ICE_RESULT_OK);
    ck_assert_uint_eq(secret.out_len, ICE_SW_SECRET_SIZE);
    encrypt_zeroes(&vm, 20, one);
    /* Another preparation of the same key gives the same inline key and software secret. */
    struct ice_command again = long_term, secret2;
    ck_assert_uint_eq(feed(&vm, &again, ICE_CALL_PREPARE_KEY), ICE_RESULT_OK);
    ck_assert_mem_ne(again.out, c.out, c.out_len);
    ck_assert_uint_eq(set_wrapped(&vm, &again, 21), ICE_RESULT_OK);
    encrypt_zeroes(&vm, 21, two);
    ck_assert_mem_eq(one, two, 512);
    secret2 = again;
    ck_assert_uint_eq(feed(&vm, &secret2, ICE_CALL_DERIVE_SW_SECRET), ICE_RESULT_OK);
    ck_assert_mem_eq(secret.out, secret2.out, ICE_SW_SECRET_SIZE);
    /* The wrong kind for each call. */
    struct ice_command wrong = c;
    ck_assert_uint_eq(feed(&vm, &wrong, ICE_CALL_PREPARE_KEY), ICE_RESULT_BAD_BLOB);
    wrong = long_term;
    ck_assert_uint_eq(feed(&vm, &wrong, ICE_CALL_DERIVE_SW_SECRET), ICE_RESULT_BAD_BLOB);
}
END_TEST

/*
 * Were the KDF labels one, the secret would be the inline key, or begin with it: a guest that is told the
 * secret would have the key.
 */
START_TEST(the_software_secret_is_not_the_inline_key)
{
    struct ice_command c, secret;
    uint8_t inline_key[512], as_key[512];
    generate(&vm, &c);
    ck_assert_uint_eq(feed(&vm, &c, ICE_CALL_PREPARE_KEY), ICE_RESULT_OK);
    secret = c;
    ck_assert_uint_eq(feed(&vm, &secret, ICE_CALL_DERIVE_SW_SECRET), ICE_RESULT_OK);
    struct ice_command n = {.call = ICE_CALL_SET_KEY,
                            .slot = 20,
                            .key_size = ICE_KEY_128,
                            .key_kind = ICE_KEY_KIND_WRAPPED,
                            .in_len = c.out_len};
    memcpy(n.in, c.out, sizeof(n.in));
    ck_assert_uint_eq(call(&vm, &n), ICE_RESULT_OK);
    n = (struct ice_command){
        .call = ICE_CALL_SET_KEY, .slot = 21, .key_size = ICE_KEY_128, .in_len = ICE_SW_SECRET_SIZE};
    memcpy(n.in, secret.out, ICE_SW_SECRET_SIZE);
    ck_assert_uint_eq(call(&vm, &n), ICE_RESULT_OK);
    encrypt_zeroes(&vm, 20, inline_key);
    encrypt_zeroes(&vm, 21, as_key);
    ck_assert_mem_ne(inline_key, as_key, 512);
}
END_TEST

START_TEST(blobs_of_others_and_altered_ones)
{
    struct ice_command long_term, ephemeral, c;
    struct vm other;
    generate(&vm, &long_term);
    ephemeral = long_term;
    ck_assert_uint_eq(feed(&vm, &ephemeral, ICE_CALL_PREPARE_KEY), ICE_RESULT_OK);

    vm_open(&other, uuid_b, true); /* another VM of the same host */
    c = long_term;
    ck_assert_uint_eq(feed(&other, &c, ICE_CALL_PREPARE_KEY), ICE_RESULT_BAD_BLOB);
    ck_assert_uint_eq(set_wrapped(&other, &ephemeral, 20), ICE_RESULT_BAD_BLOB);
    vm_close(&other);

    vm_open(&other, uuid_a, true); /* the same VM after a reboot: long-term opens, ephemeral does not */
    c = long_term;
    ck_assert_uint_eq(feed(&other, &c, ICE_CALL_PREPARE_KEY), ICE_RESULT_OK);
    ck_assert_uint_eq(set_wrapped(&other, &c, 20), ICE_RESULT_OK);
    ck_assert_uint_eq(set_wrapped(&other, &ephemeral, 20), ICE_RESULT_BAD_BLOB);
    vm_close(&other);

    vm_open(&other, uuid_a, false); /* no key-encryption key: random per boot */
    c = long_term;
    ck_assert_uint_eq(feed(&other, &c, ICE_CALL_PREPARE_KEY), ICE_RESULT_BAD_BLOB);
    vm_close(&other);

    for (unsigned i = 0; i < ephemeral.out_len; i++) {
        c = ephemeral;
        c.out[i] ^= 0x40;
        ck_assert_uint_eq(set_wrapped(&vm, &c, 20), ICE_RESULT_BAD_BLOB);
    }
    for (unsigned len = 0; len < ephemeral.out_len; len++) {
        c = ephemeral;
        c.out_len = len;
        ck_assert_uint_eq(set_wrapped(&vm, &c, 20), ICE_RESULT_BAD_BLOB);
    }
    c = ephemeral;
    c.out_len++;
    ck_assert_uint_eq(set_wrapped(&vm, &c, 20), ICE_RESULT_BAD_BLOB);
}
END_TEST

START_TEST(a_slot_in_use_is_busy_and_unchanged)
{
    struct ice_command c = set_command(20, 1);
    struct ice_binding b;
    struct ice_spec spec;
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
    ck_assert_int_eq(ice_bind(vm.ice, 0, 20, false, &b), 0);
    c = (struct ice_command){.call = ICE_CALL_INVALIDATE_KEY, .slot = 20};
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_BUSY);
    ck_assert(ice_slot_programmed(vm.ice, 20, &spec));
    ice_release(&b);
    c = (struct ice_command){.call = ICE_CALL_INVALIDATE_KEY, .slot = 20};
    ck_assert_uint_eq(call(&vm, &c), ICE_RESULT_OK);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("keyservice");
    TCase *t = tcase_create("calls");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, registers);
    tcase_add_test(t, raw_key_programs_and_is_wiped);
    tcase_add_test(t, slots_outside_the_window_are_denied);
    tcase_add_test(t, bad_commands);
    tcase_add_test(t, blocks_outside_memory);
    tcase_add_test(t, doorbell_storm);
    tcase_add_test(t, wrapped_keys_go_their_way);
    tcase_add_test(t, the_software_secret_is_not_the_inline_key);
    tcase_add_test(t, blobs_of_others_and_altered_ones);
    tcase_add_test(t, a_slot_in_use_is_busy_and_unchanged);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
