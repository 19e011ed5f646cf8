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
#include "minivmm/ice.h"

#define CONFIG_DISKS_MAX 14u
#define CONFIG_NAME_MAX  64u

enum config_console { CONSOLE_STDIO, CONSOLE_FILE, CONSOLE_PTY, CONSOLE_NONE };
enum config_tristate { CONFIG_DEFAULT, CONFIG_ON, CONFIG_OFF };
enum config_ice { CONFIG_ICE_DEFAULT, CONFIG_ICE_ON, CONFIG_ICE_OFF, CONFIG_ICE_REQUIRED };

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
    bool discard_asked;  /* discard=on was said, not just the default */
    enum config_ice ice; /* default: on where the VM has a window and the disk no key of the operator's */
    unsigned ice_slots;  /* keyslots of the VM's window; 0: an equal part */
    char *encrypt;       /* file of an AES-XTS key (transparent mode), or NULL */
    bool luks;           /* encrypt=luks */
    char *passphrase;    /* file of the passphrase, with luks */
    unsigned unit;       /* data unit of transparent mode in bytes; 0: 512, or what else is known */
    bool iv_large;       /* IVs count data units, not 512-byte sectors */
};

/* --ice-key: a key of the operator's, which makes its disk a transparent one. */
struct config_key {
    unsigned slot; /* physical */
    char *disk;    /* the disk's id */
    unsigned alg;  /* enum ice_alg */
    unsigned unit; /* bytes */
    char *file;    /* NULL: fd */
    int fd;
};

/* The inline crypto engine (docs/ice-spec.md). */
struct config_engine {
    unsigned slots; /* the VM's window; 0: none */
    int offset;     /* its first physical slot, -1: first fit */
    unsigned total; /* of the host */
    char *map;      /* slot-map file; NULL: slotmap_default_path() */
    char *kek;      /* file of the key-encryption key; NULL: random per boot */
    bool allow_ecb;
    int window_fd; /* the map, inherited with the window's lock on it, or -1 */
    int vm_key_fd; /* the VM's own wrapping key, inherited instead of a key-encryption key, or -1 */
    bool has_uuid; /* else it is derived from the name */
    uint8_t uuid[16];
    struct config_key key[CONFIG_DISKS_MAX];
    unsigned keys;
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
    char *kvm;             /* path of the KVM device, default /dev/kvm */
    bool control;          /* a control socket for stop|pause|resume|status; default on */
    bool sandbox;          /* the cell, see sandbox.h; default on */
    unsigned cpu_limit;    /* cgroup limit in percent of one CPU; 0: none */
    uint64_t memory_limit; /* cgroup limit in bytes; 0: none */
    int ready_fd;          /* inherited; told when the guest is about to run, or -1 */
    struct config_engine ice;
};

/* The index of the disk with this id ("disk0" and so on for those without one), or -1. */
int config_disk_find(const struct config *config, const char *id);

/* Whether disk i is encrypted unseen by its guest: by encrypt= or an --ice-key. */
bool config_disk_hidden(const struct config *config, unsigned i);

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
