/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration's files share: the table of options and the parsers of values. */
#ifndef MINIVMM_VMM_CONFIG_INTERNAL_H
#define MINIVMM_VMM_CONFIG_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "minivmm/config.h"

/*
 * Stores value (NULL: a switch without one). base: the folder in which relative paths start, NULL for the
 * current one. Sentences say what is wrong and allowed; the caller puts the flag or line in front.
 */
typedef int config_set_fn(struct config *config, const char *value, const char *base, struct err *err);
typedef int config_disk_set_fn(struct config_disk *disk, const char *value, const char *base,
                               struct err *err);

enum option_group { GROUP_BOOT, GROUP_MACHINE, GROUP_ICE, GROUP_RUN, GROUP_CELL, GROUP_OTHER, GROUP_COUNT };

#define OPTION_SWITCH  1u  /* needs no value; takes =on or =off */
#define OPTION_REPEAT  2u  /* may be given again */
#define OPTION_CLI     4u  /* not a key of a file */
#define OPTION_JOINS   8u  /* a file may continue its value on indented lines */
#define OPTION_ANSWERS 16u /* --help and --version: answered before parsing, without a value */

/* One flag of the command line, which is also a key of a file. */
struct option_def {
    const char *name; /* without the dashes */
    const char *arg;  /* the value's name in help; NULL for switches */
    enum option_group group;
    unsigned flags;
    const char *help;     /* one sentence, without a full stop */
    const char *standard; /* the default in words; NULL: none */
    config_set_fn *set;
};

/* One key of a disk: in --disk PATH,key=value and in a [disk ID] section. */
struct disk_key_def {
    const char *name, *arg, *help, *standard;
    bool bare; /* may stand without a value, meaning on */
    config_disk_set_fn *set;
};

extern const struct option_def config_options[];
extern const unsigned config_options_count;
extern const struct disk_key_def config_disk_keys[];
extern const unsigned config_disk_keys_count;

/* The option of this name, or NULL. */
const struct option_def *config_option_find(const char *name, size_t len);

/* -EINVAL with "unknown <what> '<name>'", and the nearest name in the table where there is one. */
int config_unknown_option(const char *prefix, const char *name, bool in_file, struct err *err);
int config_unknown_disk_key(const char *name, struct err *err);

/* A new disk with defaults, the configuration's own; NULL (and a sentence) when there are CONFIG_DISKS_MAX.
 */
struct config_disk *config_disk_add(struct config *config, struct err *err);

/* --disk PATH[,key=value...] */
config_set_fn config_set_disk;

/* Sets one key of a disk; seen: bit i is set when key i was given before. value NULL: none was given. */
int config_disk_set(struct config_disk *disk, const char *key, const char *value, const char *base,
                    uint32_t *seen, struct err *err);

/* Options and disk keys of the inline crypto engine (vmm/config_ice.c). */
config_set_fn config_set_ice_slots, config_set_ice_total, config_set_ice_map, config_set_ice_kek,
    config_set_ice_ecb, config_set_ice_vm_key, config_set_ice_key, config_set_uuid;
config_disk_set_fn config_disk_set_ice, config_disk_set_ice_slots, config_disk_set_encrypt,
    config_disk_set_key, config_disk_set_unit, config_disk_set_iv_large;

/* What must hold between the settings of the engine, and between them and the disks. */
int config_check_ice(const struct config *config, struct err *err);
void config_free_ice(struct config_engine *ice);

/*
 * Cuts the part in front of the first single comma off *rest, in place, turning each ",," into ','. *rest
 * then is what follows, NULL at the end.
 */
char *config_cut_part(char **rest);

/* Parsers of values: 0, -EINVAL with a sentence, -ENOMEM. */
int config_value_number(const char *text, uint64_t least, uint64_t most, uint64_t *out, struct err *err);
int config_value_size(const char *text, uint64_t *out, struct err *err);
int config_value_bool(const char *text, bool *out, struct err *err);
int config_value_choice(const char *text, const char *const *names, unsigned *out, struct err *err);
int config_value_string(const char *text, char **out, struct err *err); /* copies; frees what was there */
int config_value_path(const char *text, const char *base, char **out, struct err *err);
int config_value_name(const char *text, char **out, struct err *err);
int config_value_fd(const char *text, int *out, struct err *err); /* of an inherited descriptor, 3 or more */

/* True for "/dev/fd/N", which stands for the inherited descriptor N itself; *fd is N. */
bool config_names_descriptor(const char *path, int *fd);

#endif
