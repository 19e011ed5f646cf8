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

static struct slotmap_request slots_of(const struct config *config, unsigned slots, int offset)
{
    return (struct slotmap_request){
        .path = config->ice.map,
        .total = config->ice.total,
        .slots = slots,
        .offset = offset,
        .name = config->name,
    };
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
        first += d->count;
    }
    return code;
}

static int open_window(struct crypt *crypt, const struct config *config, struct err *err)
{
    crypt->slots = config->ice.slots;
    const struct slotmap_request request = slots_of(config, crypt->slots, config->ice.offset);
    int code;
    crypt->first = (unsigned)config->ice.offset;
    if (config->ice.window_fd >= 0)
        code = slotmap_adopt(&request, config->ice.window_fd, &crypt->window, err);
    else
        code = slotmap_claim(&request, &crypt->window, &crypt->first, err);
    if (code < 0)
        return err_prefix(err, code, "--ice-slots");
    return split_window(crypt, config, err);
}

static int open_key(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_key *key = &config->ice.key[i];
    int disk = config_disk_find(config, key->disk);
    if (disk < 0)
        return err_set(err, -EINVAL, "--ice-key: there is no disk '%s'", key->disk);
    struct crypt_disk *d = &crypt->disk[disk];
    const struct slotmap_request request = slots_of(config, 1, (int)key->slot);
    int code = slotmap_claim(&request, &d->claim, &d->slot, err);
    if (code == 0) {
        d->key_fd = key->file ? keyfile_open(key->file, err) : key->fd;
        code = d->key_fd < 0 ? d->key_fd : 0;
    }
    return code < 0 ? err_prefix(err, code, "--ice-key slot=%u", key->slot) : 0;
}

/* encrypt=: any free slot will do. */
static int open_hidden(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *from = &config->disk[i];
    struct crypt_disk *d = &crypt->disk[i];
    const struct slotmap_request request = slots_of(config, 1, SLOTMAP_ANYWHERE);
    int code = slotmap_claim(&request, &d->claim, &d->slot, err);
    if (code == 0) {
        d->key_fd = keyfile_open(from->luks ? from->passphrase : from->encrypt, err);
        code = d->key_fd;
        if (code < 0 && from->luks)
            code = err_prefix(err, code, "key");
    }
    if (code >= 0 && from->luks)
        code = luks_start(from->path, d->key_fd, from->passphrase, &d->luks, err);
    return code < 0 ? err_prefix(err, code, "--disk %s,encrypt", from->path) : 0;
}

static int open_kek(struct crypt *crypt, const struct config *config, struct err *err)
{
    if (!config->ice.slots || !config->ice.kek) {
        crypt->kek_fd = config->ice.vm_key_fd >= 0 ? config->ice.vm_key_fd : 0;
        return 0;
    }
    crypt->kek_fd = keyfile_open(config->ice.kek, err);
    return crypt->kek_fd < 0 ? err_prefix(err, crypt->kek_fd, "--ice-kek") : 0;
}

int crypt_open(struct crypt *crypt, const struct config *config, struct err *err)
{
    int code = 0;
    crypt->disks = config->disks;
    /* What has a place of its own first, so that a first fit does not take it. */
    if (config->ice.offset >= 0)
        code = open_window(crypt, config, err);
    for (unsigned i = 0; code == 0 && i < config->ice.keys; i++)
        code = open_key(crypt, config, i, err);
    if (code == 0 && config->ice.slots && !crypt->window)
        code = open_window(crypt, config, err);
    for (unsigned i = 0; code == 0 && i < config->disks; i++)
        if (has_own_key(&config->disk[i]))
            code = open_hidden(crypt, config, i, err);
    return code == 0 ? open_kek(crypt, config, err) : code;
}

int crypt_load(struct crypt *crypt, const struct config *config, struct err *err)
{
    const struct ice_config engine = {.allow_ecb = config->ice.allow_ecb};
    return ice_create(&engine, &crypt->ice, err);
}

/* A keyslot of the operator's for a disk, holding a key; key is wiped by the caller. */
static int program(struct crypt *crypt, unsigned disk, const struct ice_spec *spec, const uint8_t *key,
                   size_t len, struct err *err)
{
    struct crypt_disk *d = &crypt->disk[disk];
    int code = ice_spec_check(crypt->ice, spec, err);
    if (code == 0)
        code = ice_assign(crypt->ice, d->slot, 1, (int)disk, false, err);
    if (code == 0)
        code = ice_slot_set(crypt->ice, d->slot, spec, key, len, CRYPT_DRAIN_MS, err);
    d->transparent.unit = 512U << spec->unit_exp;
    d->transparent.slot = d->slot;
    return code;
}

/* name: of the key, for sentences. */
static int program_file(struct crypt *crypt, unsigned disk, unsigned alg, unsigned unit, const char *name,
                        struct err *err)
{
    uint8_t *scratch = arena_alloc(KEYFILE_SCRATCH);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int len = keyfile_read(crypt->disk[disk].key_fd, name, scratch, err);
    struct ice_spec spec;
    int code = len < 0 ? len : keyfile_spec(name, alg, unit, (size_t)len, &spec, err);
    if (code == 0)
        code = program(crypt, disk, &spec, scratch, (size_t)len, err);
    arena_free(scratch);
    return code;
}

static int create_key(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_key *key = &config->ice.key[i];
    unsigned disk = (unsigned)config_disk_find(config, key->disk);
    char name[64];
    snprintf(name, sizeof(name), "descriptor %d", key->fd);
    int code = program_file(crypt, disk, key->alg, key->unit, key->file ? key->file : name, err);
    return code < 0 ? err_prefix(err, code, "--ice-key slot=%u", key->slot) : 0;
}

static int program_luks(struct crypt *crypt, const char *path, unsigned disk, struct err *err)
{
    struct luks_volume v;
    struct crypt_disk *d = &crypt->disk[disk];
    uint8_t *key = arena_alloc(LUKS_KEY_MAX);
    if (!key)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int code = luks_finish(&d->luks, path, &v, key, err);
    struct ice_spec spec;
    if (code == 0)
        code = keyfile_spec(path, ICE_ALG_AES_XTS, v.sector_size, v.key_size, &spec, err);
    if (code == 0)
        code = program(crypt, disk, &spec, key, v.key_size, err);
    arena_free(key);
    if (code < 0)
        return code;
    d->transparent.data_offset = v.data_offset;
    d->transparent.data_size = v.data_size;
    d->transparent.iv_offset = v.iv_offset;
    return 0;
}

static int create_hidden(struct crypt *crypt, const struct config *config, unsigned i, struct err *err)
{
    const struct config_disk *d = &config->disk[i];
    int code = d->luks ? program_luks(crypt, d->path, i, err)
                       : program_file(crypt, i, ICE_ALG_AES_XTS, d->unit ? d->unit : 512, d->encrypt, err);
    return code < 0 ? err_prefix(err, code, "--disk %s,encrypt", d->path) : 0;
}

/* RFC 9562, version 8 (custom): the first half of SHA-256 of the name, so that a VM keeps its own. */
int crypt_uuid(const struct config *config, uint8_t uuid[16], struct err *err)
{
    if (config->ice.has_uuid) {
        memcpy(uuid, config->ice.uuid, 16);
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
    memcpy(uuid, digest, 16);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return 0;
}

static void close_key(int *fd)
{
    if (*fd > 0)
        close(*fd);
    *fd = 0;
}

static void close_disk_keys(struct crypt *crypt)
{
    for (unsigned i = 0; i < crypt->disks; i++) {
        close_key(&crypt->disk[i].key_fd);
        luks_drop(&crypt->disk[i].luks);
    }
}

void crypt_leave_keys(struct crypt *crypt)
{
    close_disk_keys(crypt);
    close_key(&crypt->kek_fd);
}

int crypt_create(struct crypt *crypt, const struct config *config, struct err *err)
{
    int code = 0;
    for (unsigned i = 0; code == 0 && i < config->disks; i++)
        if (crypt->disk[i].count)
            code = ice_assign(crypt->ice, crypt->disk[i].first, crypt->disk[i].count, (int)i, true, err);
    for (unsigned i = 0; code == 0 && i < config->ice.keys; i++)
        code = create_key(crypt, config, i, err);
    for (unsigned i = 0; code == 0 && i < config->disks; i++) {
        if (has_own_key(&config->disk[i]))
            code = create_hidden(crypt, config, i, err);
        crypt->disk[i].transparent.iv_large = config->disk[i].iv_large;
        crypt->disk[i].transparent.discard = config->disk[i].discard_asked;
    }
    close_disk_keys(crypt);
    return code == 0 && crypt->slots ? crypt_uuid(config, crypt->uuid, err) : code;
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

int crypt_derive(int fd, const char *name, const uint8_t uuid[16], uint8_t vm_key[CRYPT_VM_KEY],
                 struct err *err)
{
    uint8_t *scratch = arena_alloc(KEYFILE_SCRATCH);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    int len = keyfile_read(fd, name, scratch, err);
    int code = len;
    if (len >= 0 && len < KEK_MIN)
        code = err_set(err, -EINVAL, "%s holds %d bytes: a key-encryption key has %d to %u", name, len,
                       KEK_MIN, KEYFILE_KEY_MAX);
    else if (len >= 0)
        code = keyservice_derive_vm_key(scratch, (size_t)len, uuid, vm_key, err);
    arena_free(scratch);
    return code;
}

/* A key that was derived by who handed it down: 32 bytes as they are. */
static int take_vm_key(int fd, uint8_t *vm_key, struct err *err)
{
    uint8_t *scratch = arena_alloc(CRYPT_VM_KEY + 1);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    ssize_t len = keyfile_take(fd, scratch, CRYPT_VM_KEY + 1);
    if (len == CRYPT_VM_KEY)
        memcpy(vm_key, scratch, CRYPT_VM_KEY);
    arena_free(scratch);
    if (len != CRYPT_VM_KEY)
        return err_set(err, -EINVAL, "--ice-vm-key: descriptor %d does not hold a key of %u bytes", fd,
                       CRYPT_VM_KEY);
    return 0;
}

/* What the VM wraps keys by; the host's key-encryption key is gone when this returns. */
static int create_vm_key(const struct crypt *crypt, const struct config *config, uint8_t *vm_key,
                         struct err *err)
{
    if (!config->ice.kek)
        return take_vm_key(crypt->kek_fd, vm_key, err);
    int code = crypt_derive(crypt->kek_fd, config->ice.kek, crypt->uuid, vm_key, err);
    return code < 0 ? err_prefix(err, code, "--ice-kek") : 0;
}

int crypt_create_keys(struct crypt *crypt, const struct config *config, const struct guest_memory *mem,
                      int irq_fd, struct err *err)
{
    uint8_t *vm_key = NULL;
    int code = 0;
    if (crypt->kek_fd) {
        vm_key = arena_alloc(CRYPT_VM_KEY);
        code = vm_key ? create_vm_key(crypt, config, vm_key, err)
                      : err_set(err, -ENOMEM, "no locked memory is left for a key");
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
    close_key(&crypt->kek_fd);
    return code;
}

void crypt_leave_locks(struct crypt *crypt)
{
    slotmap_release(crypt->window);
    crypt->window = NULL;
    for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++) {
        slotmap_release(crypt->disk[i].claim);
        crypt->disk[i].claim = NULL;
    }
}

void crypt_destroy(struct crypt *crypt)
{
    keyservice_destroy(crypt->keys);
    ice_destroy(crypt->ice);
    crypt_leave_keys(crypt);
    crypt_leave_locks(crypt);
}
