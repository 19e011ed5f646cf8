/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the fleet's configuration share: sections as they were read, and the loader at work. */
#ifndef MINIVMM_VMM_FLEET_CONFIG_INTERNAL_H
#define MINIVMM_VMM_FLEET_CONFIG_INTERNAL_H

#include <sys/stat.h>

#include "minivmm/slotmap.h"
#include "vmm/config_internal.h"
#include "vmm/fleet_config.h"

#define FLEET_VALUE_MAX 4096u /* bytes of a value, NUL included, also with %i and %n filled in */

/* Kinds of sections, as bits. NONE: unknown; its keys are passed over. */
enum section_kind {
    SECTION_NONE = 0,
    SECTION_FLEET = 1,
    SECTION_DEFAULTS = 2,
    SECTION_TEMPLATE = 4,
    SECTION_VM = 8,
};

/* A key that no single VM knows as a flag, or that has another place here. */
struct fleet_key {
    const char *name;
    unsigned where; /* sections in which it may stand */
    bool repeat;
    int (*set)(struct fleet_vm *vm, const char *value, const char *base, struct err *err); /* or NULL */
};
extern const struct fleet_key fleet_keys[];
extern const unsigned fleet_keys_count;

struct setting {
    const struct option_def *option; /* a VM's flag, or NULL: */
    const struct fleet_key *key;
    char *value;
    unsigned line, source;
};

struct section {
    enum section_kind kind;
    char *name;
    struct setting *setting;
    unsigned settings, source, line;
    uint64_t seen_options, seen_keys;
    bool judged; /* a VM of it was found wrong as a whole: its copies are no news */
};

/* What a name, a path or a file stands for. */
struct known {
    char *key;
    char *text;             /* paths: what is wrong, or NULL */
    char *file_key;         /* paths: that of the file behind it, or NULL */
    unsigned source, line;  /* where it stands */
    unsigned owner, reader; /* images: VM that writes, VM that reads; counted from 1 */
    unsigned reader_source, reader_line;
};

struct loader {
    struct fleet *fleet;
    struct fleet_problems *problems;
    unsigned *order; /* of each problem: its source */
    char **folder;   /* of each source: where its relative paths start */
    struct section *section;
    unsigned sections, fleet_line;
    struct setting **window;                                        /* of each VM: its ice-slots */
    size_t bytes;                                                   /* read so far, or filled into values */
    void *names, *templates, *files, *paths, *images, *logs, *told; /* trees of struct known */
    bool full, no_memory;
};

/* The entry of this key, made when it is new (*is_new, which may be NULL); NULL: no memory. */
struct known *fleet_entry(struct loader *l, void **tree, const char *key, bool *is_new);

void fleet_problem(struct loader *l, unsigned source, unsigned line, bool warning, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Reads the fleet's file and what it includes into sections. */
void fleet_read(struct loader *l, const char *path);

/* Makes fleet and VMs out of the sections. */
void fleet_build(struct loader *l);

/* Whether what a VM names is there and its own. origin tells where a setting stands. */
struct origin {
    const struct setting *last[64]; /* by option */
    const struct setting *disk[CONFIG_DISKS_MAX], *key[CONFIG_DISKS_MAX], *log;
    const struct section *section;
};
void fleet_check_files(struct loader *l, unsigned vm, const struct origin *origin);
void fleet_check_secret(struct loader *l, const struct setting *at, const char *path);

/* Gives each VM its window. */
void fleet_plan_slots(struct loader *l);

#endif
