/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet top: reading answers, and the table. No descriptor is touched here. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/fleet_top.h"
#include "vmm/json.h"

#define NARROW     80u
#define NAME_WIDTH 19u  /* of NARROW columns; a wider screen gives the rest to names */
#define RATE_MOST  9e18 /* what an int64_t holds */

bool top_parse_ps(struct top_vm *vm, char *line)
{
    const char *key;
    const char *value;
    *vm = (struct top_vm){.pid = TOP_UNKNOWN, .uptime = -1, .state = "?"};
    for (unsigned i = 0; i < TOP_ITEMS; i++)
        vm->now.item[i] = vm->before.item[i] = TOP_UNKNOWN;
    while (fleet_next_fact(&line, &key, &value)) {
        if (strcmp(key, "vm") == 0)
            snprintf(vm->name, sizeof(vm->name), "%s", value);
        else if (strcmp(key, "state") == 0)
            snprintf(vm->state, sizeof(vm->state), "%s", value);
        else if (strcmp(key, "pid") == 0)
            vm->pid = strtoll(value, NULL, 10);
        else if (strcmp(key, "uptime") == 0)
            vm->uptime = strtod(value, NULL);
    }
    return vm->name[0] != '\0';
}

/* Whether key is PREFIX, digits and SUFFIX, such as disk0.read_bytes. */
static bool is_numbered(const char *key, const char *prefix, const char *suffix)
{
    size_t len = strlen(prefix);
    if (strncmp(key, prefix, len) != 0)
        return false;
    size_t digits = strspn(key + len, "0123456789");
    return digits && strcmp(key + len + digits, suffix) == 0;
}

static void add_fact(struct top_sample *sample, const char *key, const char *value)
{
    /* Of a slot's denials, its disk counts those that are its guest's doing too. */
    static const struct {
        const char *prefix, *suffix; /* suffix NULL: prefix is the whole key */
        enum top_item item;
    } facts[] = {
        {"vcpu.time_ms", NULL, TOP_VCPU_MS}, {"memory.resident", NULL, TOP_MEMORY},
        {"disk", ".read_bytes", TOP_READ},   {"disk", ".written_bytes", TOP_WRITTEN},
        {"slot", ".bytes", TOP_ICE},         {"disk", ".ice_denied", TOP_DENIED},
        {"keys.denied", NULL, TOP_DENIED},
    };
    if (!json_is_number(value))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(facts); i++) {
        bool same = facts[i].suffix ? is_numbered(key, facts[i].prefix, facts[i].suffix)
                                    : strcmp(key, facts[i].prefix) == 0;
        int64_t *sum = &sample->item[facts[i].item];
        int64_t n = same ? strtoll(value, NULL, 10) : TOP_UNKNOWN;
        /* A counter that is no sum with others any more is shown as the most there can be. */
        if (n >= 0 && __builtin_add_overflow(*sum == TOP_UNKNOWN ? 0 : *sum, n, sum))
            *sum = INT64_MAX;
    }
}

void top_parse_facts(struct top_sample *sample, char *text)
{
    char *line;
    while ((line = strsep(&text, "\n"))) {
        char *equals = strchr(line, '=');
        if (!equals)
            continue;
        *equals = '\0';
        add_fact(sample, line, equals + 1);
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct top_vm *)a)->name, ((const struct top_vm *)b)->name);
}

void top_follow(struct top_fleet *now, const struct top_fleet *last)
{
    struct top_fleet sorted = {.count = last->count};
    sorted.vm = last->count ? malloc(last->count * sizeof(*last->vm)) : NULL;
    if (!sorted.vm)
        return;
    memcpy(sorted.vm, last->vm, last->count * sizeof(*last->vm));
    qsort(sorted.vm, sorted.count, sizeof(*sorted.vm), compare_names);
    for (unsigned i = 0; i < now->count; i++) {
        const struct top_vm *old =
            bsearch(&now->vm[i], sorted.vm, sorted.count, sizeof(*sorted.vm), compare_names);
        if (old && old->pid == now->vm[i].pid && old->pid != TOP_UNKNOWN)
            now->vm[i].before = old->now;
    }
    free(sorted.vm);
}

/* What an item grew by in a second, or TOP_UNKNOWN. */
static double rate(const struct top_vm *vm, enum top_item item)
{
    int64_t ms = vm->now.at_ms - vm->before.at_ms;
    int64_t now = vm->now.item[item];
    int64_t before = vm->before.item[item];
    if (now < 0 || before < 0 || now < before || ms <= 0)
        return TOP_UNKNOWN;
    double grown = (double)(now - before) * 1000 / (double)ms;
    return grown < RATE_MOST ? grown : RATE_MOST;
}

void top_figures(const struct top_vm *vm, struct top_figures *out)
{
    double vcpu = rate(vm, TOP_VCPU_MS);
    *out = (struct top_figures){
        .vcpu = vcpu < 0 ? vcpu : vcpu / 10, /* ms in a second, in percent */
        .memory = vm->now.item[TOP_MEMORY],
        .read = (int64_t)rate(vm, TOP_READ),
        .written = (int64_t)rate(vm, TOP_WRITTEN),
        .ice = (int64_t)rate(vm, TOP_ICE),
        .denied = vm->now.item[TOP_DENIED],
    };
}

static bool needs_a_look(const struct top_vm *vm)
{
    return strcmp(vm->state, "failed") == 0 || strcmp(vm->state, "backoff") == 0;
}

static int compare_rows(const void *a, const void *b)
{
    const struct top_vm *one = a;
    const struct top_vm *other = b;
    double difference = rate(other, TOP_VCPU_MS) - rate(one, TOP_VCPU_MS);
    if (needs_a_look(one) != needs_a_look(other))
        return needs_a_look(one) ? -1 : 1;
    if (difference > 0 || difference < 0)
        return difference > 0 ? 1 : -1;
    return compare_names(a, b);
}

void top_sort(struct top_fleet *fleet)
{
    if (fleet->count)
        qsort(fleet->vm, fleet->count, sizeof(*fleet->vm), compare_rows);
}

/* In at most 5 characters, by steps of base. */
static void format_number(char out[TOP_NUMBER_MAX], double n, double base, const char *units)
{
    unsigned unit = 0;
    while (n + 0.5 >= base && units[unit + 1]) {
        n /= base;
        unit++;
    }
    int mark = units[unit] != ' ';
    snprintf(out, TOP_NUMBER_MAX, unit && n < 9.95 ? "%.1f%.*s" : "%.0f%.*s", n, mark, units + unit);
}

void top_format_bytes(char out[TOP_NUMBER_MAX], int64_t bytes)
{
    if (bytes < 0)
        snprintf(out, TOP_NUMBER_MAX, "-");
    else if (bytes == 0)
        snprintf(out, TOP_NUMBER_MAX, "0");
    else
        format_number(out, (double)bytes, 1024, "BKMGTPE");
}

void top_format_count(char out[TOP_NUMBER_MAX], int64_t count)
{
    if (count < 0)
        snprintf(out, TOP_NUMBER_MAX, "-");
    else
        format_number(out, (double)count, 1000, " kMGTPE");
}

/* Percent of one CPU: one digit behind the point where that fits. */
static void format_percent(char out[TOP_NUMBER_MAX], double percent)
{
    if (percent < 0)
        snprintf(out, TOP_NUMBER_MAX, "-");
    else
        snprintf(out, TOP_NUMBER_MAX, percent < 999.95 ? "%.1f" : "%.0f",
                 percent < 99999 ? percent : 99999.0);
}

static void print_row(const char *name, const char *state, double uptime, const struct top_figures *f,
                      unsigned name_width, const char *end, FILE *out)
{
    char fitted[CONFIG_NAME_MAX + 1];
    char up[FLEET_UPTIME_MAX];
    char cell[6][TOP_NUMBER_MAX];
    fleet_fit(fitted, name_width, name);
    fleet_format_uptime(up, uptime);
    format_percent(cell[0], f->vcpu);
    top_format_bytes(cell[1], f->memory);
    top_format_bytes(cell[2], f->read);
    top_format_bytes(cell[3], f->written);
    top_format_bytes(cell[4], f->ice);
    top_format_count(cell[5], f->denied);
    fprintf(out, "%-*s %-8.8s %7s %5s %5s %8s %8s %6s %6s%s", (int)name_width, fitted, state, up, cell[0],
            cell[1], cell[2], cell[3], cell[4], cell[5], end);
}

static void add(int64_t *sum, int64_t n)
{
    if (n < 0)
        return;
    if (__builtin_add_overflow(*sum < 0 ? 0 : *sum, n, sum))
        *sum = INT64_MAX;
}

/* Returns how many run. */
static unsigned add_up(const struct top_fleet *fleet, struct top_figures *sum)
{
    unsigned running = 0;
    *sum = (struct top_figures){-1, -1, -1, -1, -1, -1};
    for (unsigned i = 0; i < fleet->count; i++) {
        struct top_figures f;
        top_figures(&fleet->vm[i], &f);
        running += strcmp(fleet->vm[i].state, "running") == 0;
        if (f.vcpu >= 0)
            sum->vcpu = (sum->vcpu < 0 ? 0 : sum->vcpu) + f.vcpu;
        add(&sum->memory, f.memory);
        add(&sum->read, f.read);
        add(&sum->written, f.written);
        add(&sum->ice, f.ice);
        add(&sum->denied, f.denied);
    }
    return running;
}

void top_print(const struct top_fleet *fleet, unsigned width, unsigned most, const char *end, FILE *out)
{
    unsigned name_width = NAME_WIDTH + (width > NARROW ? width - NARROW : 0);
    unsigned shown = fleet->count;
    char label[CONFIG_NAME_MAX + 1];
    char running[16];
    struct top_figures f;
    if (name_width > CONFIG_NAME_MAX)
        name_width = CONFIG_NAME_MAX;
    if (most && shown > most)
        shown = most - 1;
    fprintf(out, "%-*s %-8s %7s %5s %5s %8s %8s %6s %6s%s", (int)name_width, "NAME", "STATE", "UPTIME",
            "VCPU%", "MEM", "DISK-R/s", "DISK-W/s", "ICE/s", "DENIED", end);
    for (unsigned i = 0; i < shown; i++) {
        const struct top_vm *vm = &fleet->vm[i];
        top_figures(vm, &f);
        print_row(vm->name, vm->state, vm->uptime, &f, name_width, end, out);
    }
    if (shown < fleet->count)
        fprintf(out, "... %u more%s", fleet->count - shown, end);
    snprintf(running, sizeof(running), "%u up", add_up(fleet, &f));
    snprintf(label, sizeof(label), "total of %u", fleet->count);
    print_row(label, running, -1, &f, name_width, end, out);
}

static void json_known(struct json *json, const char *key, int64_t value)
{
    if (value < 0)
        json_string(json, key, NULL);
    else
        json_integer(json, key, value);
}

static void print_figures(struct json *json, const struct top_figures *f)
{
    char percent[32];
    snprintf(percent, sizeof(percent), "%.1f", f->vcpu);
    json_raw(json, "vcpu_percent", f->vcpu < 0 ? "null" : percent);
    json_known(json, "memory", f->memory);
    json_known(json, "disk_read_per_s", f->read);
    json_known(json, "disk_written_per_s", f->written);
    json_known(json, "ice_per_s", f->ice);
    json_known(json, "denied", f->denied);
}

static void print_objects(const struct top_fleet *fleet, const char *name, FILE *out)
{
    struct json json = {.out = out};
    struct top_figures f;
    json_open(&json, NULL, '{');
    json_string(&json, "fleet", name);
    json_open(&json, "vms", '[');
    for (unsigned i = 0; i < fleet->count; i++) {
        const struct top_vm *vm = &fleet->vm[i];
        char uptime[32];
        snprintf(uptime, sizeof(uptime), "%.3f", vm->uptime);
        json_open(&json, NULL, '{');
        json_string(&json, "name", vm->name);
        json_string(&json, "state", vm->state);
        json_known(&json, "pid", vm->pid);
        json_raw(&json, "uptime", vm->uptime < 0 ? "null" : uptime);
        top_figures(vm, &f);
        print_figures(&json, &f);
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_open(&json, "total", '{');
    json_integer(&json, "running", add_up(fleet, &f));
    print_figures(&json, &f);
    json_close(&json, '}');
    json_close(&json, '}');
}

void top_print_json(const struct top_fleet *fleet, const char *name, FILE *out)
{
    char *text = NULL;
    size_t len = 0;
    FILE *buffer = open_memstream(&text, &len);
    if (!buffer)
        return;
    print_objects(fleet, name, buffer);
    if (fclose(buffer) == 0) {
        /* Strings have their newlines escaped: these are between values. */
        for (const char *c = text; *c; c++) {
            if (*c == '\n')
                c += strspn(c, "\n ") - 1;
            else
                fputc(*c, out);
        }
        fputc('\n', out);
    }
    free(text);
}
