/* SPDX-License-Identifier: Apache-2.0 */
/* The power ports: which writes end a run and how, which do not; the event device and its button. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/power.h"

static struct {
    unsigned requests, code, panics, flags;
    enum vm_end how;
} seen;

static void on_request(void *ctx, enum vm_end how, unsigned code)
{
    ck_assert_ptr_eq(ctx, &seen);
    seen.requests++;
    seen.how = how;
    seen.code = code;
}

static void on_panicked(void *ctx, unsigned flags)
{
    ck_assert_ptr_eq(ctx, &seen);
    seen.panics++;
    seen.flags = flags;
}

static struct power_sink sink = {.request = on_request, .panicked = on_panicked, .ctx = &seen};

static void setup(void)
{
    memset(&seen, 0, sizeof(seen));
}

static void out(const struct bus_ops *ops, uint64_t offset, uint8_t value)
{
    ops->write(&sink, offset, &value, 1);
}

static uint8_t in(const struct bus_ops *ops, uint64_t offset)
{
    uint8_t value = 0xa5;
    ops->read(&sink, offset, &value, 1);
    return value;
}

/* Of all 256 values of SLEEP_CONTROL, those with SLP_EN and the type of S5 power off. */
START_TEST(sleep_control_powers_off_for_s5_alone)
{
    for (unsigned value = 0; value < 256; value++) {
        setup();
        out(&power_sleep_ops, 0, (uint8_t)value);
        bool wanted = (value & 0x20) && ((value >> 2) & 7) == POWER_SLEEP_TYPE_S5;
        ck_assert_msg(seen.requests == (wanted ? 1 : 0), "value %#x: %u requests", value, seen.requests);
        ck_assert(!wanted || seen.how == VM_END_POWEROFF);
        setup();
        out(&power_sleep_ops, 1, (uint8_t)value);
        ck_assert_uint_eq(seen.requests, 0);
    }
    ck_assert_uint_eq(in(&power_sleep_ops, 0), 0);
    ck_assert_uint_eq(in(&power_sleep_ops, 1), 0);
}
END_TEST

START_TEST(resets_take_their_value_alone)
{
    for (unsigned value = 0; value < 256; value++) {
        setup();
        out(&power_reset_ops, 0, (uint8_t)value);
        ck_assert_uint_eq(seen.requests, value == POWER_RESET_VALUE);
        ck_assert(!seen.requests || seen.how == VM_END_RESET);
        setup();
        out(&power_keyboard_ops, 0, (uint8_t)value);
        ck_assert_uint_eq(seen.requests, value == 0xfe);
        ck_assert(!seen.requests || seen.how == VM_END_RESET);
    }
    ck_assert_uint_eq(in(&power_keyboard_ops, 0), 0); /* input buffer empty: a driver may write */
}
END_TEST

START_TEST(pvpanic_ends_a_panicked_guest_and_spares_one_with_a_crash_kernel)
{
    ck_assert_uint_eq(in(&power_pvpanic_ops, 0), 3);
    out(&power_pvpanic_ops, 0, 0);
    out(&power_pvpanic_ops, 0, 0xfc);
    ck_assert_uint_eq(seen.panics + seen.requests, 0);
    out(&power_pvpanic_ops, 0, 2);
    ck_assert_uint_eq(seen.panics, 1);
    ck_assert_uint_eq(seen.flags, 2);
    ck_assert_uint_eq(seen.requests, 0);
    out(&power_pvpanic_ops, 0, 1);
    ck_assert_uint_eq(seen.panics, 2);
    ck_assert_uint_eq(seen.flags, 1);
    ck_assert_uint_eq(seen.requests, 1);
    ck_assert_int_eq(seen.how, VM_END_PANIC);
}
END_TEST

START_TEST(debug_exit_tells_the_value)
{
    for (unsigned value = 0; value < 256; value += 51) {
        setup();
        out(&power_debug_exit_ops, 0, (uint8_t)value);
        ck_assert_uint_eq(seen.requests, 1);
        ck_assert_int_eq(seen.how, VM_END_DEBUG_EXIT);
        ck_assert_uint_eq(seen.code, value);
    }
}
END_TEST

static uint32_t selector(struct power_ged *ged, uint64_t offset, uint32_t len)
{
    uint8_t data[8];
    memset(data, 0xee, sizeof(data));
    power_ged_ops.read(ged, offset, data, len);
    for (uint32_t i = len; i < sizeof(data); i++)
        ck_assert_uint_eq(data[i], 0xee);
    return len == 4 ? load_le32(data) : data[0];
}

START_TEST(the_button_is_told_once_and_by_a_whole_read)
{
    int irq_fd = event_open();
    struct power_ged *ged;
    ck_assert_int_eq(power_ged_create(irq_fd, &ged), 0);
    ck_assert_uint_eq(selector(ged, 0, 4), 0);
    ck_assert_uint_eq(event_clear(irq_fd), 0);
    power_ged_press_button(ged);
    ck_assert_uint_eq(event_clear(irq_fd), 1);
    ck_assert_uint_eq(selector(ged, 1, 1), 0);
    ck_assert_uint_eq(selector(ged, 0, 1), 0);
    ck_assert_uint_eq(selector(ged, 0, 4), 1);
    ck_assert_uint_eq(selector(ged, 0, 4), 0);
    /* Each press is an edge, also when the last one was not looked at yet. */
    power_ged_press_button(ged);
    power_ged_press_button(ged);
    ck_assert_uint_eq(event_clear(irq_fd), 2);
    const uint32_t junk = 0xffffffff;
    power_ged_ops.write(ged, 0, &junk, 4);
    ck_assert_uint_eq(selector(ged, 0, 4), 1);
    power_ged_destroy(ged);
    close(irq_fd);
}
END_TEST

static void *press(void *ged)
{
    power_ged_press_button(ged);
    return NULL;
}

/* The bit is there whenever the line has risen. */
START_TEST(the_edge_comes_after_the_bit)
{
    int irq_fd = event_open();
    struct power_ged *ged;
    ck_assert_int_eq(power_ged_create(irq_fd, &ged), 0);
    for (unsigned round = 0; round < 200; round++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, press, ged), 0);
        while (!event_clear(irq_fd))
            ;
        ck_assert_uint_eq(selector(ged, 0, 4), 1);
        pthread_join(thread, NULL);
    }
    power_ged_destroy(ged);
    close(irq_fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("power");
    TCase *tc = tcase_create("power");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, sleep_control_powers_off_for_s5_alone);
    tcase_add_test(tc, resets_take_their_value_alone);
    tcase_add_test(tc, pvpanic_ends_a_panicked_guest_and_spares_one_with_a_crash_kernel);
    tcase_add_test(tc, debug_exit_tells_the_value);
    tcase_add_test(tc, the_button_is_told_once_and_by_a_whole_read);
    tcase_add_test(tc, the_edge_comes_after_the_bit);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
