/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm doctor: what this host can and can't do, a line each, and how to mend it. */
#include "vmm/doctor.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/arch.h"
#include "vmm/commands.h"
#include "vmm/exit_codes.h"
#include "vmm/json.h"

static const char usage[] =
    "usage: minivmm doctor [--json] [--kvm PATH] [--probe native]\n"
    "\n"
    "Says what this host can and can't do for minivmm, a line each, with the mend.\n"
    "\n"
    "  --json          the findings as a JSON array\n"
    "  --kvm PATH      the KVM device (default: /dev/kvm)\n"
    "  --probe native  print nothing; exit code 0 when this KVM runs guest kernel code\n"
    "                  natively, 1 when it doesn't or there is none\n"
    "  --help          print this help\n"
    "\n"
    "Exit codes: 0 nothing failed, 1 something that minivmm needs is missing,\n"
    "2 bad flags.\n";

static const char *const level_name[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};

void doctor_note(struct doctor_report *report, enum doctor_level level, const char *what, const char *mend,
                 const char *fmt, ...)
{
    unsigned at = report->count < DOCTOR_FINDINGS_MAX ? report->count++ : DOCTOR_FINDINGS_MAX - 1;
    struct doctor_finding *f = &report->finding[at];
    f->level = level;
    f->what = what;
    f->mend = mend;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->found, sizeof(f->found), fmt, ap);
    va_end(ap);
}

int doctor_read_line(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(text, (int)size, file);
    if (file)
        fclose(file);
    if (!ok)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

void doctor_print_text(const struct doctor_report *report, FILE *out)
{
    for (unsigned i = 0; i < report->count; i++) {
        const struct doctor_finding *f = &report->finding[i];
        fprintf(out, "%-4s  %s: %s", level_name[f->level], f->what, f->found);
        if (f->mend && f->level != DOCTOR_OK)
            fprintf(out, " \xE2\x80\x94 %s", f->mend);
        fputc('\n', out);
    }
}

void doctor_print_json(const struct doctor_report *report, FILE *out)
{
    struct json json = {.out = out};
    json_open(&json, NULL, '[');
    for (unsigned i = 0; i < report->count; i++) {
        const struct doctor_finding *f = &report->finding[i];
        json_open(&json, NULL, '{');
        json_string(&json, "level", level_name[f->level]);
        json_string(&json, "what", f->what);
        json_string(&json, "found", f->found);
        json_string(&json, "mend", f->level == DOCTOR_OK ? NULL : f->mend);
        json_close(&json, '}');
    }
    json_close(&json, ']');
}

struct wish {
    const char *kvm;
    bool json, help, probe;
};

static bool parse(int argc, char **argv, struct wish *wish)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--json") == 0) {
            wish->json = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            wish->help = true;
        } else if (strncmp(argv[i], "--kvm=", 6) == 0) {
            wish->kvm = argv[i] + 6;
        } else if (strcmp(argv[i], "--probe=native") == 0) {
            wish->probe = true;
        } else if (strcmp(argv[i], "--kvm") == 0 && value) {
            wish->kvm = value;
            i++;
        } else if (strcmp(argv[i], "--probe") == 0 && value && strcmp(value, "native") == 0) {
            wish->probe = true;
            i++;
        } else {
            fprintf(stderr, "minivmm doctor: '%s' is not understood here\n%s", argv[i], usage);
            return false;
        }
    }
    return true;
}

static int probe_native(const char *path)
{
    char why[128];
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return EXIT_CODE_FAILURE;
    int code = arch_probe_native(fd, why, sizeof(why));
    close(fd);
    return code == 0 ? EXIT_CODE_OK : EXIT_CODE_FAILURE;
}

int doctor_main(int argc, char **argv)
{
    struct wish wish = {.kvm = "/dev/kvm"};
    if (!parse(argc, argv, &wish))
        return EXIT_CODE_USAGE;
    if (wish.help) {
        fputs(usage, stdout);
        return EXIT_CODE_OK;
    }
    if (wish.probe)
        return probe_native(wish.kvm);
    struct doctor_report report = {.count = 0};
    doctor_look_at_kvm(&report, wish.kvm);
    doctor_look_at_kernel(&report);
    doctor_look_at_cell(&report);
    doctor_look_at_host(&report);
    (wish.json ? doctor_print_json : doctor_print_text)(&report, stdout);
    for (unsigned i = 0; i < report.count; i++)
        if (report.finding[i].level == DOCTOR_FAIL)
            return EXIT_CODE_FAILURE;
    return EXIT_CODE_OK;
}
