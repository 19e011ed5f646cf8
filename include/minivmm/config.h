/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM's configuration. Flags, INI keys and --help come from one table (vmm/options.c), so that each
 * setting has one name, one parser and one sentence of help.
 */
#ifndef MINIVMM_CONFIG_H
#define MINIVMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/disk.h"
#include "minivmm/errors.h"

#define CONFIG_DISKS_MAX 14u
#define CONFIG_NAME_MAX  64u

enum config_console { CONSOLE_STDIO, CONSOLE_FILE, CONSOLE_PTY, CONSOLE_NONE };
enum config_tristate { CONFIG_DEFAULT, CONFIG_ON, CONFIG_OFF };

struct config_disk {
    char *path;
    bool readonly;
    bool direct;
    bool writeback; /* cache=writeback (default) or writethrough */
    bool discard;   /* default on where the image can */
    bool write_zeroes;
    enum disk_engine engine;
    unsigned queues;     /* 0: min(cpus, 4) */
    unsigned queue_size; /* default 256 */
    char *id;            /* names the disk for people and other flags; NULL: "diskN" */
    char *serial;        /* GET_ID; NULL: the id */
};

struct config {
    char *name; /* default "vm-PID" */
    char *kernel, *initrd, *cmdline;
    struct config_disk disk[CONFIG_DISKS_MAX];
    unsigned disks;
    uint64_t memory; /* bytes; default 128 MiB */
    unsigned cpus;
    char *cpu; /* CPUID policy name */
    bool hugepages;
    enum config_console console;
    char *console_path;
    unsigned timeout_s; /* 0: none */
    bool rng;           /* default on */
    bool acpi;          /* default on; off: discovery by command line and MP table */
    bool debug_exit;
    bool verbose, quiet;
    char *kvm;    /* path of the KVM device, default /dev/kvm */
    bool control; /* a control socket for stop|pause|resume|status; default on */
};

/* Sets defaults; config_free() releases every string. */
void config_init(struct config *config);
void config_free(struct config *config);

/*
 * Parses argv[1 ..] (flags as in "minivmm --help"). -EINVAL with a sentence that names the flag, what was
 * wrong and what is allowed, with a near-miss suggestion for unknown names. --config FILE is read before the
 * other flags, so that these win over the file wherever they stand; disks add up. Ask options_action() of
 * vmm/options.h first: --help and --version are not served here.
 */
int config_parse_args(struct config *config, int argc, char **argv, struct err *err);

/* Reads an INI file; sentences begin "FILE:LINE: ". */
int config_parse_file(struct config *config, const char *path, struct err *err);

/* Cross-checks a whole configuration (a kernel is named, disks differ, line budget ...). */
int config_check(const struct config *config, struct err *err);

#endif
