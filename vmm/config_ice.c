/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of the inline crypto engine: windows, operator's keys, transparent disks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "minivmm/slotmap.h"
#include "vmm/config_internal.h"

#define TRANSPARENT_UNIT_MAX 4096u /* docs/ice-spec.md, 9 */

int config_set_ice_slots(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char lock[] = ",fd=";
    char text[32];
    if (strlen(value) >= sizeof(text))
        return err_set(err, -EINVAL, "'%s' is not N, N@FIRST or N@FIRST,fd=M", value);
    snprintf(text, sizeof(text), "%s", value);
    char *fd = strstr(text, lock), *at = strchr(text, '@');
    uint64_t slots = 0, first = 0;
    config->ice.window_fd = -1;
    if (fd && !at)
        return err_set(err, -EINVAL, "'%s': fd= goes with N@FIRST: which slots are locked must be known",
                       value);
    int code = fd ? config_value_fd(fd + sizeof(lock) - 1, &config->ice.window_fd, err) : 0;
    if (fd)
        *fd = '\0';
    if (at)
        *at = '\0';
    if (code == 0)
        code = config_value_number(text, 1, ICE_WINDOW_MAX, &slots, err);
    if (code == 0 && at)
        code = config_value_number(at + 1, 0, ICE_SLOTS_MAX - 1, &first, err);
    if (code < 0)
        return code;
    config->ice.slots = (unsigned)slots;
    config->ice.offset = at ? (int)first : SLOTMAP_ANYWHERE;
    return 0;
}

int config_set_ice_total(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n;
    int code = config_value_number(value, 1, SLOTMAP_SLOTS_MAX, &n, err);
    if (code == 0)
        config->ice.total = (unsigned)n;
    return code;
}

int config_set_ice_map(struct config *config, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &config->ice.map, err);
}

int config_set_ice_kek(struct config *config, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &config->ice.kek, err);
}

int config_set_ice_vm_key(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_fd(value, &config->ice.vm_key_fd, err);
}

int config_set_ice_ecb(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &config->ice.allow_ecb, err);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int config_set_uuid(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned digits = 0;
    bool good = strlen(value) == sizeof(shape) - 1;
    uint8_t uuid[16] = {0};
    for (size_t i = 0; good && shape[i]; i++) {
        int digit = hex_digit(value[i]);
        good = shape[i] == '-' ? value[i] == '-' : digit >= 0;
        if (shape[i] == '-' || !good)
            continue;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | digit);
        digits++;
    }
    if (!good)
        return err_set(err, -EINVAL, "'%s' is not a UUID: expected %s in hexadecimal digits", value, shape);
    memcpy(config->ice.uuid, uuid, sizeof(uuid));
    config->ice.has_uuid = true;
    return 0;
}

static int value_unit(const char *value, unsigned *out, struct err *err)
{
    uint64_t n;
    if (config_value_number(value, ICE_UNIT_MIN, ICE_UNIT_MAX, &n, err) < 0 || (n & (n - 1)) != 0)
        return err_set(err, -EINVAL, "'%s' is not a data unit: a power of two from %u to %u", value,
                       ICE_UNIT_MIN, ICE_UNIT_MAX);
    if (n > TRANSPARENT_UNIT_MAX)
        return err_set(err, -EINVAL,
                       "'%s' is too much: a disk that is encrypted unseen by its guest has units of 512, "
                       "1024, 2048 or 4096 bytes",
                       value);
    *out = (unsigned)n;
    return 0;
}

static int value_alg(const char *value, unsigned *out, struct err *err)
{
    const char *names[ICE_ALG_COUNT + 1] = {NULL};
    for (unsigned i = 0; i < ICE_ALG_COUNT; i++)
        names[i] = ice_alg_name(i);
    return config_value_choice(value, names, out, err);
}

enum { KEY_SLOT, KEY_DISK, KEY_ALG, KEY_UNIT, KEY_FILE, KEY_FD, KEY_PARTS };

static int set_key_part(struct config_key *key, unsigned which, const char *value, const char *base,
                        struct err *err)
{
    uint64_t n = 0;
    int code = 0;
    switch (which) {
    case KEY_SLOT:
        code = config_value_number(value, 0, ICE_SLOTS_MAX - 1, &n, err);
        key->slot = (unsigned)n;
        return code;
    case KEY_DISK:
        return config_value_name(value, &key->disk, err);
    case KEY_ALG:
        return value_alg(value, &key->alg, err);
    case KEY_UNIT:
        return value_unit(value, &key->unit, err);
    case KEY_FILE:
        return config_value_path(value, base, &key->file, err);
    default:
        return config_value_fd(value, &key->fd, err);
    }
}

static int set_key_parts(struct config_key *key, char *text, const char *base, struct err *err)
{
    static const char *const names[] = {"slot", "disk", "alg", "unit", "file", "fd", NULL};
    unsigned seen = 0;
    char *rest = text;
    while (rest) {
        char *name = config_cut_part(&rest);
        char *value = strchr(name, '=');
        unsigned which = 0;
        if (!value)
            return err_set(err, -EINVAL, "'%s' is not KEY=VALUE", name);
        *value++ = '\0';
        int code = config_value_choice(name, names, &which, err);
        if (code == 0 && (seen & 1U << which))
            code = err_set(err, -EINVAL, "%s is given twice", name);
        if (code == 0) {
            code = set_key_part(key, which, value, base, err);
            if (code < 0)
                return err_prefix(err, code, "%s", name);
        }
        if (code < 0)
            return code;
        seen |= 1U << which;
    }
    for (unsigned i = KEY_SLOT; i <= KEY_UNIT; i++)
        if (!(seen & 1U << i))
            return err_set(err, -EINVAL, "%s= is missing: slot, disk, alg, unit and file or fd are needed",
                           names[i]);
    if (!(seen & 1U << KEY_FILE) == !(seen & 1U << KEY_FD))
        return err_set(err, -EINVAL, "exactly one of file=PATH and fd=N must tell where the key is");
    return 0;
}

int config_set_ice_key(struct config *config, const char *value, const char *base, struct err *err)
{
    struct config_engine *ice = &config->ice;
    if (ice->keys == CONFIG_DISKS_MAX)
        return err_set(err, -E2BIG, "a VM takes at most %u keys, one a disk", CONFIG_DISKS_MAX);
    char *text = strdup(value);
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    struct config_key *key = &ice->key[ice->keys++];
    *key = (struct config_key){.fd = -1};
    int code = set_key_parts(key, text, base, err);
    free(text);
    return code;
}

int config_disk_set_ice(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char *const names[] = {"on", "off", "required", NULL};
    unsigned which = 0;
    int code = config_value_choice(value, names, &which, err);
    if (code == 0)
        disk->ice = (enum config_ice)(CONFIG_ICE_ON + which);
    return code;
}

int config_disk_set_ice_slots(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n = 0;
    int code = config_value_number(value, 1, ICE_WINDOW_MAX, &n, err);
    disk->ice_slots = (unsigned)n;
    return code;
}

int config_disk_set_encrypt(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    if (strcmp(value, "luks") == 0) {
        disk->luks = true;
        return 0;
    }
    return config_value_path(value, base, &disk->encrypt, err);
}

int config_disk_set_key(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &disk->passphrase, err);
}

int config_disk_set_unit(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return value_unit(value, &disk->unit, err);
}

int config_disk_set_iv_large(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &disk->iv_large, err);
}

void config_free_ice(struct config_engine *ice)
{
    for (unsigned i = 0; i < ice->keys; i++) {
        free(ice->key[i].disk);
        free(ice->key[i].file);
    }
    free(ice->map);
    free(ice->kek);
}

static bool has_operator_key(const struct config *config, unsigned disk)
{
    for (unsigned i = 0; i < config->ice.keys; i++)
        if (config_disk_find(config, config->ice.key[i].disk) == (int)disk)
            return true;
    return false;
}

bool config_disk_hidden(const struct config *config, unsigned i)
{
    return config->disk[i].encrypt || config->disk[i].luks || has_operator_key(config, i);
}

static int check_disk(const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *d = &config->disk[i];
    bool keyed = has_operator_key(config, i), hidden = config_disk_hidden(config, i);
    if (keyed && (d->encrypt || d->luks))
        return err_set(err, -EINVAL, "--disk: %s has encrypt= and an --ice-key: one key a disk", d->path);
    if (d->luks && !d->passphrase)
        return err_set(err, -EINVAL, "--disk: %s: encrypt=luks needs key=FILE with the passphrase", d->path);
    if (d->passphrase && !d->luks)
        return err_set(err, -EINVAL, "--disk: %s: key= is the passphrase of encrypt=luks, which is missing",
                       d->path);
    if (d->unit && !d->encrypt)
        return err_set(
            err, -EINVAL,
            "--disk: %s: unit= goes with encrypt=KEYFILE; LUKS headers and --ice-key name their own",
            d->path);
    if (d->iv_large && (!hidden || d->luks))
        return err_set(err, -EINVAL, "--disk: %s: iv-large-sectors goes with encrypt=KEYFILE or an --ice-key",
                       d->path);
    bool wanted = d->ice == CONFIG_ICE_ON || d->ice == CONFIG_ICE_REQUIRED || d->ice_slots;
    if (wanted && hidden)
        return err_set(err, -EINVAL,
                       "--disk: %s: a disk is encrypted either by its guest (ice, ice-slots) or unseen by it "
                       "(encrypt, --ice-key), not both",
                       d->path);
    if (d->ice == CONFIG_ICE_OFF && d->ice_slots)
        return err_set(err, -EINVAL, "--disk: %s: ice=off and ice-slots exclude each other", d->path);
    if (wanted && !config->ice.slots)
        return err_set(err, -EINVAL, "--disk: %s: %s needs keyslots: give the VM some with --ice-slots N",
                       d->path, d->ice_slots ? "ice-slots" : "ice");
    return 0;
}

static int check_key(const struct config *config, unsigned i, struct err *err)
{
    const struct config_engine *ice = &config->ice;
    const struct config_key *key = &ice->key[i];
    if (config_disk_find(config, key->disk) < 0)
        return err_set(err, -EINVAL, "--ice-key: slot=%u: there is no disk '%s': disk= names a --disk's id",
                       key->slot, key->disk);
    if (key->slot >= ice->total)
        return err_set(err, -EINVAL, "--ice-key: slot=%u is past the host's last, %u (--ice-total %u)",
                       key->slot, ice->total - 1, ice->total);
    if (ice->offset >= 0 && key->slot >= (unsigned)ice->offset &&
        key->slot < (unsigned)ice->offset + ice->slots)
        return err_set(err, -EINVAL,
                       "--ice-key: slot=%u lies in the guest's window, %u to %u (--ice-slots): choose one "
                       "outside",
                       key->slot, (unsigned)ice->offset, (unsigned)ice->offset + ice->slots - 1);
    if (key->alg == ICE_ALG_AES_ECB && !ice->allow_ecb)
        return err_set(err, -EINVAL,
                       "--ice-key: slot=%u: aes-ecb shows what data is equal: allow it with "
                       "--ice-ecb, or choose aes-xts",
                       key->slot);
    for (unsigned j = 0; j < i; j++) {
        if (ice->key[j].slot == key->slot)
            return err_set(err, -EINVAL, "--ice-key: slot=%u is given two keys", key->slot);
        if (strcmp(ice->key[j].disk, key->disk) == 0)
            return err_set(err, -EINVAL, "--ice-key: disk=%s is given two keys", key->disk);
    }
    return 0;
}

int config_check_ice(const struct config *config, struct err *err)
{
    const struct config_engine *ice = &config->ice;
    if (ice->kek && ice->vm_key_fd >= 0)
        return err_set(
            err, -EINVAL,
            "--ice-kek and --ice-vm-key exclude each other: the VM's key is derived from the other");
    if (ice->slots > ice->total)
        return err_set(err, -EINVAL, "--ice-slots: %u are more than the host's %u (--ice-total)", ice->slots,
                       ice->total);
    if (ice->offset >= 0 && (unsigned)ice->offset > ice->total - ice->slots)
        return err_set(err, -EINVAL,
                       "--ice-slots: %u from %d on end past the host's last, %u (--ice-total %u)", ice->slots,
                       ice->offset, ice->total - 1, ice->total);
    for (unsigned i = 0; i < ice->keys; i++)
        if (check_key(config, i, err) < 0)
            return -EINVAL;
    for (unsigned i = 0; i < config->disks; i++)
        if (check_disk(config, i, err) < 0)
            return -EINVAL;
    return 0;
}
