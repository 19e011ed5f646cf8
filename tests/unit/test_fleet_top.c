/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet's answers and table: what is read of them, and how it is shown. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/fleet_top.h"

#define VMS 5u

static struct top_vm vms[VMS];
static struct top_fleet fleet;

static void parse(struct top_vm *vm, const char *text)
{
    char *line = strdup(text);
    ck_assert(top_parse_ps(vm, line));
    free(line);
}

static void facts(struct top_sample *sample, int64_t at_ms, const char *text)
{
    char *copy = strdup(text);
    top_parse_facts(sample, copy);
    sample->at_ms = at_ms;
    free(copy);
}

/* One of each kind: two that work, one that waits after a failure, one that is stopped, one that is mute. */
static void setup(void)
{
    parse(&vms[0], "vm=web state=running pid=10 uptime=75.250 restarts=0 first=0 slots=4");
    parse(&vms[1], "vm=a-name-that-is-much-longer-than-its-column state=running pid=11 uptime=3.000");
    parse(&vms[2], "vm=zero state=backoff restarts=4 exit=3 next=8");
    parse(&vms[3], "vm=idle state=stopped restarts=0");
    parse(&vms[4], "vm=mute state=running pid=12 uptime=100000.5 restarts=1");
    facts(&vms[0].before, 1000, "vcpu.time_ms=500\nmemory.resident=1000\ndisk0.read_bytes=0\n");
    facts(&vms[0].now, 3000,
          "vcpu.time_ms=3500\nmemory.resident=157286400\ndisk0.read_bytes=4000000\ndisk0.written_bytes=1\n"
          "disk1.read_bytes=96000\n");
    facts(&vms[0].now, 3000, "slot3.bytes=77\nslot3.denied=5\ndisk0.ice_denied=2\nkeys.denied=1\nok\n");
    facts(&vms[1].before, 1000, "vcpu.time_ms=0\n");
    facts(&vms[1].now, 2000, "vcpu.time_ms=1999\nmemory.resident=1024\n");
    fleet = (struct top_fleet){.vm = vms, .count = VMS};
}

static char *table(unsigned width, unsigned most)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    top_print(&fleet, width, most, "\n", out);
    fclose(out);
    return text;
}

static unsigned lines_of(char *text, size_t width)
{
    unsigned lines = 0;
    for (char *line; (line = strsep(&text, "\n")) && *line; lines++)
        ck_assert_msg(strlen(line) <= width, "%zu columns: %s", strlen(line), line);
    return lines;
}

START_TEST(facts_of_ps_are_read_in_any_order)
{
    struct top_vm vm;
    char odd[] = "uptime=1.5 nonsense since=now vm=007 pid=3 state=a-state-of-too-many-letters";
    char none[] = "state=running pid=3";
    ck_assert(top_parse_ps(&vm, odd));
    ck_assert_str_eq(vm.name, "007");
    ck_assert_int_eq(vm.pid, 3);
    ck_assert(vm.uptime > 1.4 && vm.uptime < 1.6);
    ck_assert_uint_lt(strlen(vm.state), sizeof(vm.state));
    ck_assert(!top_parse_ps(&vm, none));
    ck_assert_int_eq(vms[3].pid, TOP_UNKNOWN);
    ck_assert(vms[3].uptime < 0);
}
END_TEST

START_TEST(counters_of_disks_and_slots_are_summed)
{
    const int64_t *item = vms[0].now.item;
    ck_assert_int_eq(item[TOP_READ], 4096000);
    ck_assert_int_eq(item[TOP_WRITTEN], 1);
    ck_assert_int_eq(item[TOP_ICE], 77);
    /* slot3.denied tells of the same requests as disk0.ice_denied. */
    ck_assert_int_eq(item[TOP_DENIED], 3);
    ck_assert_int_eq(vms[1].now.item[TOP_READ], TOP_UNKNOWN);
}
END_TEST

START_TEST(odd_counters_do_no_harm)
{
    struct top_sample sample;
    for (unsigned i = 0; i < TOP_ITEMS; i++)
        sample.item[i] = TOP_UNKNOWN;
    facts(&sample, 0,
          "disk0.read_bytes=9223372036854775807\ndisk1.read_bytes=9223372036854775807\ndisk.written_bytes=4\n"
          "diskx.written_bytes=4\ndisk0.written_bytesx=4\nslot0.bytes=-5\nmemory.resident=abc\n=\nx\n\n");
    ck_assert_int_eq(sample.item[TOP_READ], INT64_MAX);
    ck_assert_int_eq(sample.item[TOP_WRITTEN], TOP_UNKNOWN);
    ck_assert_int_eq(sample.item[TOP_ICE], TOP_UNKNOWN);
    ck_assert_int_eq(sample.item[TOP_MEMORY], TOP_UNKNOWN);
}
END_TEST

START_TEST(rates_are_of_a_second)
{
    struct top_figures f;
    top_figures(&vms[0], &f);
    ck_assert(f.vcpu > 149.9 && f.vcpu < 150.1);
    ck_assert_int_eq(f.read, 2048000);
    ck_assert_int_eq(f.written, TOP_UNKNOWN);
    ck_assert_int_eq(f.memory, 157286400);
    vms[0].before.item[TOP_READ] = 9000000;
    vms[0].now.item[TOP_VCPU_MS] = 400; /* a counter that went back is another process's */
    top_figures(&vms[0], &f);
    ck_assert(f.vcpu < 0);
    ck_assert_int_eq(f.read, TOP_UNKNOWN);
    vms[1].now.at_ms = vms[1].before.at_ms;
    top_figures(&vms[1], &f);
    ck_assert(f.vcpu < 0);
}
END_TEST

START_TEST(only_the_same_process_is_followed)
{
    struct top_vm next[3];
    struct top_fleet now = {.vm = next, .count = 3};
    parse(&next[0], "vm=web state=running pid=10");
    parse(&next[1], "vm=mute state=running pid=13");
    parse(&next[2], "vm=idle state=stopped");
    vms[4].now.item[TOP_VCPU_MS] = 5;
    vms[3].now.item[TOP_VCPU_MS] = 5;
    top_follow(&now, &fleet);
    ck_assert_int_eq(next[0].before.item[TOP_VCPU_MS], 3500);
    ck_assert_int_eq(next[0].before.at_ms, 3000);
    ck_assert_int_eq(next[1].before.item[TOP_VCPU_MS], TOP_UNKNOWN);
    ck_assert_int_eq(next[2].before.item[TOP_VCPU_MS], TOP_UNKNOWN);
    top_follow(&now, &(struct top_fleet){0});
}
END_TEST

START_TEST(the_table_fits_its_width)
{
    char *text = table(80, 0);
    top_sort(&fleet);
    ck_assert_ptr_nonnull(strstr(text, "a-name-that-is-muc~ running"));
    ck_assert_ptr_nonnull(strstr(text, "web                 running    1m15s 150.0  150M"));
    ck_assert_ptr_nonnull(strstr(text, "    2.0M        -      -      3\n"));
    ck_assert_ptr_nonnull(strstr(text, "mute                running    1d03h     -     -"));
    ck_assert_ptr_nonnull(strstr(text, "total of 5          3 up           - 349.9"));
    ck_assert_uint_eq(lines_of(text, 80), VMS + 2);
    free(text);
    text = table(110, 0);
    ck_assert_ptr_nonnull(strstr(text, "a-name-that-is-much-longer-than-its-column"));
    ck_assert_uint_eq(lines_of(text, 110), VMS + 2);
    free(text);
    text = table(4000, 0);
    ck_assert_uint_eq(lines_of(text, 130), VMS + 2);
    free(text);
}
END_TEST

START_TEST(extreme_figures_fit_their_columns)
{
    for (unsigned i = 0; i < VMS; i++) {
        vms[i].uptime = 1e18;
        snprintf(vms[i].state, sizeof(vms[i].state), "0123456789abcde");
        vms[i].before.at_ms = 0;
        vms[i].now.at_ms = 1;
        for (unsigned n = 0; n < TOP_ITEMS; n++) {
            vms[i].before.item[n] = 0;
            vms[i].now.item[n] = INT64_MAX;
        }
    }
    char *text = table(80, 0);
    ck_assert_uint_eq(lines_of(text, 80), VMS + 2);
    free(text);
}
END_TEST

START_TEST(rows_that_do_not_fit_are_counted)
{
    top_sort(&fleet);
    char *text = table(80, 3);
    ck_assert_ptr_nonnull(strstr(text, "\n... 3 more\ntotal of 5"));
    ck_assert_uint_eq(lines_of(text, 80), 5);
    free(text);
    text = table(80, VMS);
    ck_assert_ptr_null(strstr(text, "more"));
    free(text);
    text = table(80, 1);
    ck_assert_ptr_nonnull(strstr(text, "\n... 5 more\n"));
    free(text);
}
END_TEST

START_TEST(trouble_comes_first_then_the_busiest)
{
    top_sort(&fleet);
    ck_assert_str_eq(vms[0].name, "zero");
    ck_assert_str_eq(vms[1].name, "a-name-that-is-much-longer-than-its-column");
    ck_assert_str_eq(vms[2].name, "web");
    ck_assert_str_eq(vms[3].name, "idle");
    ck_assert_str_eq(vms[4].name, "mute");
}
END_TEST

START_TEST(numbers_have_units)
{
    static const struct {
        int64_t n;
        const char *bytes, *count;
    } rows[] = {
        {-1, "-", "-"},
        {0, "0", "0"},
        {999, "999B", "999"},
        {1000, "1000B", "1.0k"},
        {1023, "1023B", "1.0k"},
        {1024, "1.0K", "1.0k"},
        {10188, "9.9K", "10k"},
        {10189, "10K", "10k"},
        {1048575, "1.0M", "1.0M"},
        {1536 * 1024, "1.5M", "1.6M"},
        {INT64_MAX, "8.0E", "9.2E"},
    };
    char text[TOP_NUMBER_MAX];
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        top_format_bytes(text, rows[i].n);
        ck_assert_str_eq(text, rows[i].bytes);
        top_format_count(text, rows[i].n);
        ck_assert_str_eq(text, rows[i].count);
    }
}
END_TEST

START_TEST(uptimes_are_short)
{
    static const struct {
        double seconds;
        const char *text;
    } rows[] = {{-1, "-"},           {0, "0s"},        {59.9, "59s"},
                {60, "1m00s"},       {3599, "59m59s"}, {3600, "1h00m"},
                {86399, "23h59m"},   {86400, "1d00h"}, {86399999, "999d23h"},
                {86400000, "1000d"}, {1e300, "99999d"}};
    char text[FLEET_UPTIME_MAX];
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fleet_format_uptime(text, rows[i].seconds);
        ck_assert_str_eq(text, rows[i].text);
    }
}
END_TEST

START_TEST(json_is_one_line_with_raw_numbers)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    top_print_json(&fleet, "my fleet", out);
    fclose(out);
    ck_assert_ptr_eq(strchr(text, '\n'), text + len - 1);
    ck_assert_ptr_nonnull(
        strstr(text, "{\"fleet\": \"my fleet\",\"vms\": [{\"name\": \"web\",\"state\": \"running\","
                     "\"pid\": 10,\"uptime\": 75.250,\"vcpu_percent\": 150.0,"
                     "\"memory\": 157286400,\"disk_read_per_s\": 2048000,"
                     "\"disk_written_per_s\": null,\"ice_per_s\": null,\"denied\": 3},"));
    ck_assert_ptr_nonnull(strstr(text, "\"total\": {\"running\": 3,\"vcpu_percent\": 349.9,"));
    free(text);
}
END_TEST

START_TEST(an_empty_fleet_is_shown)
{
    fleet.count = 0;
    top_sort(&fleet);
    char *text = table(80, 10);
    ck_assert_ptr_nonnull(strstr(text, "\ntotal of 0"));
    free(text);
    char *json = NULL;
    size_t len;
    FILE *out = open_memstream(&json, &len);
    top_print_json(&fleet, "none", out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(json, "\"vms\": []"));
    free(json);
}
END_TEST

START_TEST(words_that_are_no_facts_are_passed_over)
{
    char text[] = "a=1  b c= =d e=f=g";
    char *line = text;
    const char *key;
    const char *value;
    ck_assert(fleet_next_fact(&line, &key, &value));
    ck_assert(strcmp(key, "a") == 0 && strcmp(value, "1") == 0);
    ck_assert(fleet_next_fact(&line, &key, &value));
    ck_assert(strcmp(key, "c") == 0 && strcmp(value, "") == 0);
    ck_assert(fleet_next_fact(&line, &key, &value));
    ck_assert(strcmp(key, "") == 0 && strcmp(value, "d") == 0);
    ck_assert(fleet_next_fact(&line, &key, &value));
    ck_assert(strcmp(key, "e") == 0 && strcmp(value, "f=g") == 0);
    ck_assert(!fleet_next_fact(&line, &key, &value));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("top");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, facts_of_ps_are_read_in_any_order);
    tcase_add_test(tests, counters_of_disks_and_slots_are_summed);
    tcase_add_test(tests, odd_counters_do_no_harm);
    tcase_add_test(tests, rates_are_of_a_second);
    tcase_add_test(tests, only_the_same_process_is_followed);
    tcase_add_test(tests, the_table_fits_its_width);
    tcase_add_test(tests, extreme_figures_fit_their_columns);
    tcase_add_test(tests, rows_that_do_not_fit_are_counted);
    tcase_add_test(tests, trouble_comes_first_then_the_busiest);
    tcase_add_test(tests, numbers_have_units);
    tcase_add_test(tests, uptimes_are_short);
    tcase_add_test(tests, json_is_one_line_with_raw_numbers);
    tcase_add_test(tests, an_empty_fleet_is_shown);
    tcase_add_test(tests, words_that_are_no_facts_are_passed_over);
    Suite *suite = suite_create("fleet_top");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
