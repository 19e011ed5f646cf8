/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's notebook, for the vmm/doctor*.c files alone. */
#ifndef MINIVMM_VMM_DOCTOR_H
#define MINIVMM_VMM_DOCTOR_H

#include <stdio.h>

#define DOCTOR_FINDINGS_MAX 32u

enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
    enum doctor_level level;
    const char *what; /* static: the short name of what was looked at */
    char found[256];
    const char *mend; /* static; NULL where there is nothing to mend */
};

struct doctor_report {
    struct doctor_finding finding[DOCTOR_FINDINGS_MAX];
    unsigned count;
};

/* Notes a finding; the last row is overwritten when the book is full. */
void doctor_note(struct doctor_report *report, enum doctor_level level, const char *what, const char *mend,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* /dev/kvm or its like at path: there, permitted, capable, native. */
void doctor_look_at_kvm(struct doctor_report *report, const char *path);

/* What the kernel gives processes: io_uring, memfd_secret, limits. */
void doctor_look_at_kernel(struct doctor_report *report);

/* What a VM's cell is made of: namespaces, filters, Landlock, restricted rings, cgroups; each really tried.
 */
void doctor_look_at_cell(struct doctor_report *report);

/* Processor, memory and folders. */
void doctor_look_at_host(struct doctor_report *report);

void doctor_print_text(const struct doctor_report *report, FILE *out);
void doctor_print_json(const struct doctor_report *report, FILE *out);

/* Reads the first line of a small file without its line end; 0, or -1 when it cannot be read. */
int doctor_read_line(const char *path, char *text, size_t size);

#endif
