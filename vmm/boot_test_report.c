/* SPDX-License-Identifier: Apache-2.0 */
/* The reports of boot-test: text and TAP 13 as runs end, JUnit XML and JSON when all have. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/boot_test.h"
#include "vmm/json.h"

static const char *const kinds[] = {
    [REPORT_TEXT] = "text", [REPORT_TAP] = "tap", [REPORT_JUNIT] = "junit", [REPORT_JSON] = "json"};

int boot_report_open(const char *text, struct boot_report *report, struct err *err)
{
    size_t len = strcspn(text, ":");
    unsigned kind = 0;
    while (kind < ARRAY_SIZE(kinds) && (strlen(kinds[kind]) != len || strncmp(text, kinds[kind], len) != 0))
        kind++;
    if (kind == ARRAY_SIZE(kinds))
        return err_set(err, -EINVAL,
                       "--report: '%s' is no kind of report: text, tap, junit or json, with :FILE "
                       "behind it for a file",
                       text);
    *report = (struct boot_report){.kind = (enum boot_report_kind)kind, .out = stdout};
    if (!text[len])
        return 0;
    report->path = text + len + 1;
    if (!*report->path)
        return err_set(err, -EINVAL, "--report: '%s' names no file behind the colon", text);
    report->out = fopen(report->path, "we");
    if (!report->out)
        return err_set(err, -errno, "--report: %s could not be written: %s", report->path, strerror(errno));
    return 0;
}

static void print_seconds(FILE *out, int64_t ms)
{
    fprintf(out, "%" PRId64 ".%03" PRId64, ms / 1000, ms % 1000);
}

/* What a console said may hold anything; here it must not upset the reader's terminal or parser. */
static void print_clean(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f ? '?' : *text, out);
}

static void print_tail(FILE *out, const struct boot_run *run, const char *indent)
{
    for (unsigned i = 0; boot_tail(run, i); i++) {
        fputs(indent, out);
        print_clean(out, boot_tail(run, i));
        fputc('\n', out);
    }
}

static void text_run(FILE *out, const struct boot_run *run, unsigned i)
{
    fprintf(out, "run %u: %s in ", i + 1, boot_outcome_name(run->outcome));
    print_seconds(out, run->ms);
    fputs(" s: ", out);
    print_clean(out, run->reason);
    fputc('\n', out);
    if (run->outcome != BOOT_PASS && run->lines) {
        fputs("  the console's last lines:\n", out);
        print_tail(out, run, "  | ");
    }
}

static void tap_run(FILE *out, const struct boot_run *run, unsigned i)
{
    if (i == 0)
        fputs("TAP version 13\n", out);
    fprintf(out,
            "%s %u - boot\n  ---\n  outcome: %s\n  seconds: ", run->outcome == BOOT_PASS ? "ok" : "not ok",
            i + 1, boot_outcome_name(run->outcome));
    print_seconds(out, run->ms);
    /* A block scalar: its text needs no quoting. */
    fputs("\n  reason: |\n    ", out);
    print_clean(out, run->reason);
    fputc('\n', out);
    if (run->outcome != BOOT_PASS && run->lines) {
        fputs("  console: |2\n", out);
        print_tail(out, run, "    ");
    }
    fputs("  ...\n", out);
}

void boot_report_run(const struct boot_report *report, const struct boot_run *run, unsigned i)
{
    if (report->kind == REPORT_TEXT)
        text_run(report->out, run, i);
    else if (report->kind == REPORT_TAP)
        tap_run(report->out, run, i);
    (void)fflush(report->out);
}

static unsigned passed(const struct boot_run *runs, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        n += runs[i].outcome == BOOT_PASS;
    return n;
}

/* XML 1.0 allows no control characters but tab and line ends, not even as references, and not U+FFFE/F. */
static void print_xml(FILE *out, const char *text)
{
    while (*text) {
        unsigned len = utf8_length(text);
        bool allowed = len && ((unsigned char)*text >= ' ' || *text == '\t') && *text != 0x7f &&
                       strncmp(text, "\xef\xbf\xbe", 3) != 0 && strncmp(text, "\xef\xbf\xbf", 3) != 0;
        if (!allowed)
            fputc('?', out);
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else
            fwrite(text, 1, len, out);
        text += len ? len : 1;
    }
}

static void junit_case(FILE *out, const char *name, const struct boot_run *run, unsigned i)
{
    fputs("    <testcase classname=\"minivmm.boot-test\" name=\"", out);
    print_xml(out, name);
    fprintf(out, " run %u\" time=\"", i + 1);
    print_seconds(out, run->ms);
    if (run->outcome == BOOT_PASS) {
        fputs("\"/>\n", out);
        return;
    }
    fprintf(out, "\">\n      <failure type=\"%s\" message=\"", boot_outcome_name(run->outcome));
    print_xml(out, run->reason);
    fputs("\">", out);
    for (unsigned n = 0; boot_tail(run, n); n++) {
        print_xml(out, boot_tail(run, n));
        fputc('\n', out);
    }
    fputs("</failure>\n    </testcase>\n", out);
}

static void junit_all(FILE *out, const char *name, const struct boot_run *runs, unsigned count)
{
    int64_t ms = 0;
    for (unsigned i = 0; i < count; i++)
        ms += runs[i].ms;
    unsigned failures = count - passed(runs, count);
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"boot-test\" "
            "tests=\"%u\" failures=\"%u\" errors=\"0\" skipped=\"0\" time=\"",
            count, failures);
    print_seconds(out, ms);
    fputs("\">\n", out);
    for (unsigned i = 0; i < count; i++)
        junit_case(out, name, &runs[i], i);
    fputs("  </testsuite>\n</testsuites>\n", out);
}

static void json_run(struct json *json, const struct boot_run *run, unsigned i)
{
    char seconds[32];
    snprintf(seconds, sizeof(seconds), "%" PRId64 ".%03" PRId64, run->ms / 1000, run->ms % 1000);
    json_open(json, NULL, '{');
    json_integer(json, "run", i + 1);
    json_string(json, "outcome", boot_outcome_name(run->outcome));
    json_integer(json, "exit_code", boot_exit_code(run->outcome));
    json_raw(json, "seconds", seconds);
    json_string(json, "reason", run->reason);
    json_open(json, "console", '[');
    for (unsigned n = 0; boot_tail(run, n); n++)
        json_string(json, NULL, boot_tail(run, n));
    json_close(json, ']');
    json_close(json, '}');
}

static void json_all(FILE *out, const char *name, const struct boot_run *runs, unsigned count)
{
    struct json json = {.out = out};
    json_open(&json, NULL, '{');
    json_string(&json, "name", name);
    json_integer(&json, "passed", passed(runs, count));
    json_integer(&json, "failed", count - passed(runs, count));
    json_open(&json, "runs", '[');
    for (unsigned i = 0; i < count; i++)
        json_run(&json, &runs[i], i);
    json_close(&json, ']');
    json_close(&json, '}');
}

int boot_report_end(struct boot_report *report, const char *name, const struct boot_run *runs, unsigned count,
                    struct err *err)
{
    FILE *out = report->out;
    switch (report->kind) {
    case REPORT_TEXT:
        fprintf(out, "%u of %u passed\n", passed(runs, count), count);
        break;
    case REPORT_TAP:
        fprintf(out, "1..%u\n", count);
        break;
    case REPORT_JUNIT:
        junit_all(out, name, runs, count);
        break;
    case REPORT_JSON:
        json_all(out, name, runs, count);
        break;
    }
    bool bad = fflush(out) != 0 || ferror(out);
    int code = bad ? (errno ? -errno : -EIO) : 0;
    if (report->path && fclose(out) != 0 && code == 0)
        code = -errno;
    report->out = NULL;
    if (code < 0)
        return err_set(err, code, "--report: %s could not be written: %s",
                       report->path ? report->path : "standard output", strerror(-code));
    return 0;
}
