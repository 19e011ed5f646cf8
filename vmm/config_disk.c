/* SPDX-License-Identifier: Apache-2.0 */
/* Disks: the table of their keys, and --disk PATH[,key=value...]. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/block.h"
#include "minivmm/bytes.h"
#include "minivmm/virtio.h"
#include "minivmm/virtqueue.h"
#include "vmm/config_internal.h"
#include "vmm/suggest.h"

#define QUEUE_SIZE_DEFAULT 256u

static int set_path(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &disk->path, err);
}

static int set_ro(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &disk->readonly, err);
}

static int set_direct(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &disk->direct, err);
}

static int set_cache(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char *const names[] = {"writeback", "writethrough", NULL};
    unsigned which;
    int code = config_value_choice(value, names, &which, err);
    if (code == 0)
        disk->writeback = which == 0;
    return code;
}

static int set_discard(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    int code = config_value_bool(value, &disk->discard, err);
    disk->discard_asked = code == 0 && disk->discard;
    return code;
}

static int set_write_zeroes(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &disk->write_zeroes, err);
}

static int set_engine(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char *const names[] = {
        [DISK_ENGINE_AUTO] = "auto", [DISK_ENGINE_IO_URING] = "io_uring", [DISK_ENGINE_SYNC] = "sync", NULL};
    unsigned which;
    int code = config_value_choice(value, names, &which, err);
    if (code == 0)
        disk->engine = (enum disk_engine)which;
    return code;
}

static int set_queues(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n;
    int code = config_value_number(value, 1, VIRTIO_QUEUES_MAX, &n, err);
    if (code == 0)
        disk->queues = (unsigned)n;
    return code;
}

static int set_queue_size(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n;
    int code = config_value_number(value, 2, VIRTQUEUE_SIZE_MAX, &n, err);
    if (code < 0 || (n & (n - 1)) != 0)
        return err_set(err, -EINVAL, "'%s' is not a power of two from 2 to %u", value, VIRTQUEUE_SIZE_MAX);
    disk->queue_size = (unsigned)n;
    return 0;
}

static int set_id(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_name(value, &disk->id, err);
}

static int set_serial(struct config_disk *disk, const char *value, const char *base, struct err *err)
{
    (void)base;
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++)
        if (value[i] < ' ' || value[i] > '~')
            len = 0;
    if (len == 0 || len > BLOCK_SERIAL_MAX)
        return err_set(err, -EINVAL,
                       "'%s' is not a serial number: expected 1 to %u printable ASCII characters", value,
                       BLOCK_SERIAL_MAX);
    return config_value_string(value, &disk->serial, err);
}

const struct disk_key_def config_disk_keys[] = {
    {"path", "PATH", "the image: a raw file or a block device", NULL, false, set_path},
    {"ro", "on|off", "read-only", "off", true, set_ro},
    {"direct", "on|off", "bypass the host's page cache (O_DIRECT)", "off", true, set_direct},
    {"cache", "writeback|writethrough", "when a write counts as done: at once, or on stable storage",
     "writeback", false, set_cache},
    {"discard", "on|off", "offer discard where the image can", "on", true, set_discard},
    {"write-zeroes", "on|off", "offer write-zeroes where the image can", "on", true, set_write_zeroes},
    {"engine", "auto|io_uring|sync", "how the host does I/O", "auto", false, set_engine},
    {"queues", "N", "request queues, 1 to 32", "the number of vCPUs, at most 4", false, set_queues},
    {"queue-size", "N", "requests a queue holds, a power of two, 2 to 1024", "256", false, set_queue_size},
    {"id", "NAME", "what messages and other commands call the disk", "disk0, disk1, ...", false, set_id},
    {"serial", "TEXT", "serial number that the guest sees, up to 20 characters", "the id", false, set_serial},
    {"ice", "on|off|required", "offer the inline crypto engine; required: refuse plaintext",
     "on with --ice-slots", true, config_disk_set_ice},
    {"ice-slots", "N", "this disk's part of --ice-slots", "an equal part", false, config_disk_set_ice_slots},
    {"encrypt", "KEYFILE|luks",
     "encrypt all data by AES-XTS, unseen by the guest, with the key in a file or that of a LUKS2 volume",
     NULL, false, config_disk_set_encrypt},
    {"key", "FILE", "with encrypt=luks: the passphrase", NULL, false, config_disk_set_key},
    {"unit", "BYTES", "with encrypt=KEYFILE: data unit, 512, 1024, 2048 or 4096", "512", false,
     config_disk_set_unit},
    {"iv-large-sectors", "on|off", "IVs count data units, not 512-byte sectors", "off", true,
     config_disk_set_iv_large},
};
const unsigned config_disk_keys_count = ARRAY_SIZE(config_disk_keys);

int config_unknown_disk_key(const char *name, struct err *err)
{
    struct suggestion near = {.typed = name};
    for (unsigned i = 0; i < config_disk_keys_count; i++)
        suggest_offer(&near, config_disk_keys[i].name);
    if (near.best)
        return err_set(err, -EINVAL, "unknown key '%s'; did you mean '%s'?", name, near.best);
    return err_set(err, -EINVAL,
                   "unknown key '%s': minivmm --help lists the keys (a comma in a path is "
                   "written ',,')",
                   name);
}

struct config_disk *config_disk_add(struct config *config, struct err *err)
{
    if (config->disks == CONFIG_DISKS_MAX) {
        err_set(err, -E2BIG, "a VM takes at most %u disks: each needs one of the machine's interrupt lines",
                CONFIG_DISKS_MAX);
        return NULL;
    }
    struct config_disk *disk = &config->disk[config->disks];
    *disk = (struct config_disk){
        .writeback = true, .discard = true, .write_zeroes = true, .queue_size = QUEUE_SIZE_DEFAULT};
    config->disks++;
    return disk;
}

int config_disk_set(struct config_disk *disk, const char *key, const char *value, const char *base,
                    uint32_t *seen, struct err *err)
{
    unsigned i = 0;
    while (i < config_disk_keys_count && strcmp(key, config_disk_keys[i].name) != 0)
        i++;
    if (i == config_disk_keys_count)
        return config_unknown_disk_key(key, err);
    const struct disk_key_def *def = &config_disk_keys[i];
    if (*seen & (1U << i))
        return err_set(err, -EINVAL, "%s is given twice", key);
    *seen |= 1U << i;
    if (!value && !def->bare)
        return err_set(err, -EINVAL, "%s needs a value: %s=%s", key, key, def->arg);
    int code = def->set(disk, value ? value : "on", base, err);
    return code < 0 ? err_prefix(err, code, "%s", key) : 0;
}

char *config_cut_part(char **rest)
{
    char *start = *rest, *to = start;
    for (char *from = start; *from; from++) {
        if (*from == ',' && from[1] != ',') {
            *to = '\0';
            *rest = from + 1;
            return start;
        }
        if (*from == ',')
            from++;
        *to++ = *from;
    }
    *to = '\0';
    *rest = NULL;
    return start;
}

static int set_parts(struct config_disk *disk, char *text, const char *base, struct err *err)
{
    char *rest = text;
    uint32_t seen = 0;
    int code = config_disk_set(disk, "path", config_cut_part(&rest), base, &seen, err);
    while (code == 0 && rest) {
        char *key = config_cut_part(&rest);
        char *value = strchr(key, '=');
        if (value)
            *value++ = '\0';
        code = config_disk_set(disk, key, value, base, &seen, err);
    }
    return code;
}

int config_set_disk(struct config *config, const char *value, const char *base, struct err *err)
{
    struct config_disk *disk = config_disk_add(config, err);
    if (!disk)
        return -E2BIG;
    char *text = strdup(value);
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    int code = set_parts(disk, text, base, err);
    free(text);
    return code;
}
