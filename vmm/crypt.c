/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/crypt.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices/ice/arena.h"
#include "devices/ice/libcrypto.h"
#include "vmm/keyfile.h"
#include "vmm/luks.h"

#define KEK_MIN 16

static bool has_own_key(const struct config_disk *disk)
{
    return disk->encrypt || disk->luks;
}

bool crypt_wanted(const struct config *config)
{
    bool wanted = config->ice.slots || config->ice.keys;
    for (unsigned i = 0; i < config->disks; i++)
        wanted |= has_own_key(&config->disk[i]);
    return wanted;
}

void crypt_harden(void)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)prctl(PR_SET_DUMPABLE, 0);
}

int crypt_split(unsigned slots, const unsigned *wanted, unsigned disks, unsigned *count, struct err *err)
{
    unsigned named = 0, open = 0;
    for (unsigned i = 0; i < disks; i++) {
        named += wanted[i];
        open += wanted[i] == 0;
    }
    if (disks == 0)
        return err_set(err, -EINVAL, "--ice-slots: %u keyslots, but no disk to use them (--disk ...,ice=on)",
                       slots);
    if (named > slots || open > slots - named)
        return err_set(err, -EINVAL,
                       "--ice-slots: %u keyslots are too few: ice-slots= of the disks sum to %u, and %u more "
                       "disks need at least one each",
                       slots, named, open);
    if (open == 0 && named != slots)
        return err_set(err, -EINVAL,
                       "--ice-slots: %u keyslots, but ice-slots= of the disks sum to %u: make them equal",
                       slots, named);
    unsigned left = slots - named;
    for (unsigned i = 0; i < disks; i++) {
        count[i] = wanted[i];
        if (wanted[i])
            continue;
        count[i] = (left + open - 1) / open;
        left -= count[i];
        open--;
    }
    return 0;
}

static int claim(const struct config *config, unsigned slots, int offset, struct slotmap **map,
                 unsigned *first, struct err *err)
{
    const struct slotmap_request request = {
        .path = config->ice.map,
        .total = config->ice.total,
        .slots = slots,
        .offset = offset,
        .name = config->name,
    };
    return slotmap_claim(&request, map, first, err);
}

static int split_window(struct crypt *crypt, const struct config *config, struct err *err)
{
    unsigned wanted[CONFIG_DISKS_MAX] = {0}, count[CONFIG_DISKS_MAX] = {0}, index[CONFIG_DISKS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < config->disks; i++) {
        const struct config_disk *d = &config->disk[i];
        if (config_disk_hidden(config, i) || d->ice == CONFIG_ICE_OFF)
            continue;
        wanted[n] = d->ice_slots;
        index[n++] = i;
    }
    int code = crypt_split(crypt->slots, wanted, n, count, err);
    unsigned first = crypt->first;
    for (unsigned i = 0; code == 0 && i < n; i++) {
        struct crypt_disk *d = &crypt->disk[index[i]];
        d->first = first;
        d->count = count[i];
        d->required = config->disk[index[i]].ice == CONFIG_ICE_REQUIRED;
        code = ice_assign(crypt->ice, d->first, d->count, (int)index[i], true, err);
        first += d->count;
    }
    return code;
}

static int create_window(struct crypt *crypt, const struct config *config, struct err *err)
{
    crypt->slots = config->ice.slots;
    int code = claim(config, crypt->slots, config->ice.offset, &crypt->window, &crypt->first, err);
    if (code < 0)
        return err_prefix(err, code, "--ice-slots");
    return split_window(crypt, config, err);
}

/* A keyslot of the operator's for a disk, holding a key; key is wiped by the caller. */
static int program(struct crypt *crypt, unsigned disk, unsigned slot, const struct ice_spec *spec,
                   const uint8_t *key, size_t len, struct err *err)
{
    int code = ice_spec_check(crypt->ice, spec, err);
    if (code == 0)
        code = ice_assign(crypt->ice, slot, 1, (int)disk, false, err);
    if (code == 0)
        code = ice_slot_set(crypt->ice, slot, spec, key, len, CRYPT_DRAIN_MS, err);
    crypt->disk[disk].transparent.unit = 512U << spec->unit_exp;
    crypt->disk[disk].transparent.slot = slot;
    return code;
}

static int program_file(struct crypt *crypt, unsigned disk, unsigned slot, unsigned alg, unsigned unit,
                        const char *path, int fd, struct err *err)
{
    char name[64];
    snprintf(name, sizeof(name), "descriptor %d", fd);
    uint8_t *scratch = arena_alloc(KEYFILE_SCRATCH);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int from = path ? keyfile_open(path, err) : fd;
    int len = from < 0 ? from : keyfile_read(from, path ? path : name, scratch, err);
    if (from >= 0)
        close(from);
    struct ice_spec spec;
    int code = len < 0 ? len : keyfile_spec(path ? path : name, alg, unit, (size_t)len, &spec, err);
    if (code == 0)
        code = program(crypt, disk, slot, &spec, scratch, (size_t)len, err);
    arena_free(scratch);
    return code;
}

static int create_key(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_key *key = &config->ice.key[i];
    int disk = config_disk_find(config, key->disk);
    if (disk < 0)
        return err_set(err, -EINVAL, "--ice-key: there is no disk '%s'", key->disk);
    unsigned slot = 0;
    int code = claim(config, 1, (int)key->slot, &crypt->claim[disk], &slot, err);
    if (code == 0)
        code = program_file(crypt, (unsigned)disk, slot, key->alg, key->unit, key->file, key->fd, err);
    return code < 0 ? err_prefix(err, code, "--ice-key slot=%u", key->slot) : 0;
}

static int program_luks(struct crypt *crypt, const struct config_disk *from, unsigned disk, unsigned slot,
                        struct err *err)
{
    struct luks_volume v;
    struct block_transparent *t = &crypt->disk[disk].transparent;
    /* The passphrase opens the disk as a key does. */
    int fd = keyfile_open(from->passphrase, err);
    if (fd < 0)
        return err_prefix(err, fd, "key");
    close(fd);
    uint8_t *key = arena_alloc(LUKS_KEY_MAX);
    if (!key)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int code = luks_open(from->path, from->passphrase, &v, key, err);
    struct ice_spec spec;
    if (code == 0)
        code = keyfile_spec(from->path, ICE_ALG_AES_XTS, v.sector_size, v.key_size, &spec, err);
    if (code == 0)
        code = program(crypt, disk, slot, &spec, key, v.key_size, err);
    arena_free(key);
    if (code < 0)
        return code;
    t->data_offset = v.data_offset;
    t->data_size = v.data_size;
    t->iv_offset = v.iv_offset;
    return 0;
}

/* encrypt=: any free slot will do. */
static int create_hidden(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *d = &config->disk[i];
    unsigned slot = 0;
    int code = claim(config, 1, SLOTMAP_ANYWHERE, &crypt->claim[i], &slot, err);
    if (code == 0 && d->luks)
        code = program_luks(crypt, d, i, slot, err);
    else if (code == 0)
        code = program_file(crypt, i, slot, ICE_ALG_AES_XTS, d->unit ? d->unit : 512, d->encrypt, -1, err);
    return code < 0 ? err_prefix(err, code, "--disk %s,encrypt", d->path) : 0;
}

/* RFC 9562, version 8 (custom): the first half of SHA-256 of the name, so that a VM keeps its own. */
static int make_uuid(struct crypt *crypt, const struct config *config, struct err *err)
{
    if (config->ice.has_uuid) {
        memcpy(crypt->uuid, config->ice.uuid, sizeof(crypt->uuid));
        return 0;
    }
    static const char salt[] = "minivmm uuid ";
    const struct libcrypto *lib;
    char text[sizeof(salt) + CONFIG_NAME_MAX];
    uint8_t digest[32];
    size_t len = 0;
    int code = libcrypto_load(&lib, err);
    if (code < 0)
        return code;
    snprintf(text, sizeof(text), "%s%s", salt, config->name);
    if (lib->EVP_Q_digest(NULL, "SHA256", NULL, text, strlen(text), digest, &len) != 1)
        return err_set(err, -EIO, "--uuid: none could be made of the name");
    memcpy(crypt->uuid, digest, sizeof(crypt->uuid));
    crypt->uuid[6] = (uint8_t)((crypt->uuid[6] & 0x0f) | 0x80);
    crypt->uuid[8] = (uint8_t)((crypt->uuid[8] & 0x3f) | 0x80);
    return 0;
}

int crypt_create(struct crypt *crypt, const struct config *config, struct err *err)
{
    const struct ice_config engine = {.allow_ecb = config->ice.allow_ecb};
    crypt->disks = config->disks;
    int code = ice_create(&engine, &crypt->ice, err);
    /* What has a place of its own first, so that a first fit does not take it. */
    if (code == 0 && config->ice.offset >= 0)
        code = create_window(crypt, config, err);
    for (unsigned i = 0; code == 0 && i < config->ice.keys; i++)
        code = create_key(crypt, config, i, err);
    if (code == 0 && config->ice.slots && !crypt->window)
        code = create_window(crypt, config, err);
    for (unsigned i = 0; code == 0 && i < config->disks; i++) {
        if (has_own_key(&config->disk[i]))
            code = create_hidden(crypt, config, i, err);
        crypt->disk[i].transparent.iv_large = config->disk[i].iv_large;
        crypt->disk[i].transparent.discard = config->disk[i].discard_asked;
    }
    return code == 0 && crypt->slots ? make_uuid(crypt, config, err) : code;
}

void crypt_fill(const struct crypt *crypt, unsigned disk, struct block_config *block)
{
    const struct crypt_disk *d = &crypt->disk[disk];
    if (!d->count && !d->transparent.unit)
        return;
    block->ice = crypt->ice;
    block->ice_first = d->first;
    block->ice_count = d->count;
    block->ice_required = d->required;
    if (d->transparent.unit)
        block->transparent = d->transparent;
}

/* What the VM wraps keys by; the host's key-encryption key is gone when this returns. */
static int derive_key(const struct crypt *crypt, const char *path, uint8_t *vm_key, struct err *err)
{
    uint8_t *scratch = arena_alloc(KEYFILE_SCRATCH);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int fd = keyfile_open(path, err);
    int len = fd < 0 ? fd : keyfile_read(fd, path, scratch, err);
    if (fd >= 0)
        close(fd);
    int code = len;
    if (len >= 0 && len < KEK_MIN)
        code = err_set(err, -EINVAL, "%s holds %d bytes: a key-encryption key has %d to %u", path, len,
                       KEK_MIN, KEYFILE_KEY_MAX);
    else if (len >= 0)
        code = keyservice_derive_vm_key(scratch, (size_t)len, crypt->uuid, vm_key, err);
    arena_free(scratch);
    return code;
}

int crypt_create_keys(struct crypt *crypt, const struct config *config, const struct guest_memory *mem,
                      int irq_fd, struct err *err)
{
    uint8_t *vm_key = NULL;
    int code = 0;
    if (config->ice.kek) {
        vm_key = arena_alloc(32);
        code = vm_key ? derive_key(crypt, config->ice.kek, vm_key, err)
                      : err_set(err, -ENOMEM, "no locked memory is left for a key");
        if (code < 0)
            code = err_prefix(err, code, "--ice-kek");
    }
    struct keyservice_config service = {
        .ice = crypt->ice,
        .mem = mem,
        .irq_fd = irq_fd,
        .first_slot = (uint8_t)crypt->first,
        .slots = (uint8_t)crypt->slots,
        .vm_key = vm_key,
        .drain_ms = CRYPT_DRAIN_MS,
    };
    memcpy(service.uuid, crypt->uuid, sizeof(service.uuid));
    if (code == 0)
        code = keyservice_create(&service, &crypt->keys, err);
    arena_free(vm_key);
    return code;
}

void crypt_destroy(struct crypt *crypt)
{
    keyservice_destroy(crypt->keys);
    ice_destroy(crypt->ice);
    slotmap_release(crypt->window);
    for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
        slotmap_release(crypt->claim[i]);
}
