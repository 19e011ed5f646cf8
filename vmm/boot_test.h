/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm boot-test: what it is asked, one run of it, and its reports; for the vmm/boot_test*.c files. */
#ifndef MINIVMM_VMM_BOOT_TEST_H
#define MINIVMM_VMM_BOOT_TEST_H

#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "minivmm/errors.h"

#define BOOT_TEST_PATTERNS_MAX 64u
#define BOOT_TEST_REPORTS_MAX  8u
#define BOOT_TEST_CONSOLE_FD   3 /* the child's end of the console's pipe */
#define BOOT_TEST_LINE_MAX     4096u
#define BOOT_TEST_TAIL_LINES   20u
#define BOOT_TEST_TAIL_BYTES   512u

/* From best to worst: the worst run decides the exit code. */
enum boot_outcome { BOOT_PASS, BOOT_FAIL, BOOT_TIMEOUT, BOOT_PANIC, BOOT_USAGE };

struct boot_pattern {
    const char *text;
    regex_t regex;
};

struct boot_plan {
    struct boot_pattern expect[BOOT_TEST_PATTERNS_MAX], reject[BOOT_TEST_PATTERNS_MAX];
    unsigned expects, rejects;
    unsigned timeout_s;
    FILE *log;     /* NULL: none */
    int signal_fd; /* a signalfd whose signals end the run early; -1: none */
};

struct boot_run {
    enum boot_outcome outcome;
    bool interrupted; /* by the user: no run after it */
    int64_t ms;
    char reason[ERR_TEXT_MAX];                             /* why; a sentence without a full stop */
    char tail[BOOT_TEST_TAIL_LINES][BOOT_TEST_TAIL_BYTES]; /* the console's last lines, a ring */
    unsigned lines;                                        /* seen; the newest is tail[(lines - 1) % ...] */
};

/*
 * Runs argv (argv[0]: the program's path) with its console on BOOT_TEST_CONSOLE_FD until the plan is
 * fulfilled or broken, and leaves no process behind. Never fails but by the run's outcome.
 */
void boot_run_once(const struct boot_plan *plan, char *const *argv, struct boot_run *run);

/* 0 pass, 1 fail, 3 panic, 124 time-out, 2 bad use */
int boot_exit_code(enum boot_outcome outcome);
const char *boot_outcome_name(enum boot_outcome outcome);

/* The i-th of the console's last lines, the oldest first; NULL behind the last. */
const char *boot_tail(const struct boot_run *run, unsigned i);

enum boot_report_kind { REPORT_TEXT, REPORT_TAP, REPORT_JUNIT, REPORT_JSON };

struct boot_report {
    enum boot_report_kind kind;
    FILE *out;
    const char *path; /* NULL: standard output */
};

/* "text|tap|junit|json[:FILE]"; the file is made. -EINVAL, or why it could not be written. */
int boot_report_open(const char *text, struct boot_report *report, struct err *err);

/* What can be told while runs go on; i: from 0. */
void boot_report_run(const struct boot_report *report, const struct boot_run *run, unsigned i);

/* The rest; name: what was tested. Closes the report; -errno when it could not be written whole. */
int boot_report_end(struct boot_report *report, const char *name, const struct boot_run *runs, unsigned count,
                    struct err *err);

#endif
