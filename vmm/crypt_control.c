/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket may ask of the engine: the operator's keys, and counters. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "devices/ice/arena.h"
#include "vmm/config_internal.h"
#include "vmm/crypt.h"
#include "vmm/keyfile.h"

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* The operator's slot that words name, or -errno: the guest's slots are the guest's. */
static int find_slot(const struct crypt *crypt, const char *text, struct err *err)
{
    uint64_t slot = 0;
    bool guest = false;
    int code = text ? config_value_number(text, 0, ICE_SLOTS_MAX - 1, &slot, err)
                    : err_set(err, -EINVAL, "a number of a keyslot is missing");
    if (code < 0)
        return err_prefix(err, code, "--slot");
    int owner = ice_slot_owner(crypt->ice, (unsigned)slot, &guest);
    if (owner == ICE_OWNER_NONE)
        return err_set(err, -EPERM, "--slot: keyslot %u is not this VM's", (unsigned)slot);
    if (guest)
        return err_set(err, -EPERM, "--slot: keyslot %u is the guest's own, which only the guest programs",
                       (unsigned)slot);
    return (int)slot;
}

/* The disk keeps the unit that its guest has seen. */
static int set_key(struct crypt *crypt, unsigned slot, const char *alg_name, int fd, struct err *err)
{
    const char *names[ICE_ALG_COUNT + 1] = {NULL};
    unsigned alg = 0;
    bool guest = false;
    struct stat st;
    for (unsigned i = 0; i < ICE_ALG_COUNT; i++)
        names[i] = ice_alg_name(i);
    int code = alg_name ? config_value_choice(alg_name, names, &alg, err)
                        : err_set(err, -EINVAL, "an algorithm is missing");
    if (code < 0)
        return err_prefix(err, code, "--alg");
    /* A pipe would make the VM's main thread wait for its writer. */
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "no file with a key came along");
    uint8_t *scratch = arena_alloc(KEYFILE_SCRATCH);
    if (!scratch)
        return err_set(err, -ENOMEM, "no locked memory is left for a key");
    unsigned unit = crypt->disk[ice_slot_owner(crypt->ice, slot, &guest)].transparent.unit;
    struct ice_spec spec;
    int len = keyfile_read(fd, "the key file", scratch, err);
    code = len < 0 ? len : keyfile_spec("the key file", alg, unit, (size_t)len, &spec, err);
    if (code == 0)
        code = ice_slot_set(crypt->ice, slot, &spec, scratch, (size_t)len, CRYPT_DRAIN_MS, err);
    arena_free(scratch);
    return code;
}

static void list_slots(const struct crypt *crypt, FILE *out)
{
    for (unsigned i = 0; i < ICE_SLOTS_MAX; i++) {
        bool guest = false;
        int disk = ice_slot_owner(crypt->ice, i, &guest);
        struct ice_spec spec;
        if (disk == ICE_OWNER_NONE)
            continue;
        fprintf(out, "slot=%u disk=%d by=%s", i, disk, guest ? "guest" : "operator");
        if (ice_slot_programmed(crypt->ice, i, &spec))
            fprintf(out, " alg=%s bits=%u unit=%u\n", ice_alg_name(spec.alg),
                    spec.key_size == ICE_KEY_128 ? 128U : 256U, ice_unit_size(&spec));
        else
            fputs(" empty\n", out);
    }
}

int crypt_control_key(struct crypt *crypt, const char *request, int key_fd, FILE *out, struct err *err)
{
    char words[128];
    if (!crypt->ice)
        return err_set(err, -EINVAL, "this VM has no keyslots");
    if (strlen(request) >= sizeof(words))
        return err_set(err, -E2BIG, "key: the request is too long");
    memcpy(words, request, strlen(request) + 1);
    char *rest = words;
    const char *what = strsep(&rest, " ");
    const char *number = strsep(&rest, " ");
    const char *alg = strsep(&rest, " ");
    if (strcmp(what, "list") == 0 && !number) {
        list_slots(crypt, out);
        return 0;
    }
    bool set = strcmp(what, "set") == 0;
    if ((!set && strcmp(what, "evict") != 0) || rest || (!set && alg))
        return err_set(err, -EINVAL, "key: \"%s\" is none of set SLOT ALG, evict SLOT and list", request);
    int slot = find_slot(crypt, number, err);
    if (slot < 0)
        return slot;
    return set ? set_key(crypt, (unsigned)slot, alg, key_fd, err)
               : ice_slot_evict(crypt->ice, (unsigned)slot, CRYPT_DRAIN_MS, err);
}

static void describe_slot(const struct crypt *crypt, unsigned slot, FILE *out)
{
    const struct ice_slot_counters *c = ice_slot_counters(crypt->ice, slot);
    bool guest = false;
    int disk = ice_slot_owner(crypt->ice, slot, &guest);
    if (disk == ICE_OWNER_NONE)
        return;
    const struct {
        const char *name;
        const _Atomic uint64_t *value;
    } lines[] = {
        {"requests", &c->requests}, {"bytes", &c->bytes}, {"units", &c->units},
        {"denied", &c->denied},     {"empty", &c->empty}, {"errors", &c->errors},
    };
    fprintf(out, "slot%u.disk=%d\nslot%u.by=%s\n", slot, disk, slot, guest ? "guest" : "operator");
    for (unsigned n = 0; n < sizeof(lines) / sizeof(lines[0]); n++)
        fprintf(out, "slot%u.%s=%" PRIu64 "\n", slot, lines[n].name, get(lines[n].value));
}

void crypt_describe(const struct crypt *crypt, struct block *const *block, FILE *out)
{
    for (unsigned i = 0; i < crypt->disks; i++) {
        const struct block_counters *c = block_counters(block[i]);
        const struct crypt_disk *d = &crypt->disk[i];
        if (!d->count && !d->transparent.unit)
            continue;
        if (d->count)
            fprintf(out, "disk%u.window=%u-%u\n", i, d->first, d->first + d->count - 1);
        else
            fprintf(out, "disk%u.slot=%u\ndisk%u.unit=%u\n", i, d->transparent.slot, i, d->transparent.unit);
        fprintf(out, "disk%u.ice_requests=%" PRIu64 "\n", i, get(&c->ice_requests));
        fprintf(out, "disk%u.ice_denied=%" PRIu64 "\n", i, get(&c->ice_denied));
        fprintf(out, "disk%u.ice_empty=%" PRIu64 "\n", i, get(&c->ice_empty));
        fprintf(out, "disk%u.ice_errors=%" PRIu64 "\n", i, get(&c->ice_errors));
    }
    for (unsigned i = 0; crypt->ice && i < ICE_SLOTS_MAX; i++)
        describe_slot(crypt, i, out);
    if (crypt->keys) {
        const struct keyservice_counters *c = keyservice_counters(crypt->keys);
        fprintf(out, "keys.calls=%" PRIu64 "\nkeys.denied=%" PRIu64 "\nkeys.failed=%" PRIu64 "\n",
                get(&c->calls), get(&c->denied), get(&c->failed));
        fprintf(out, "keys.busy_doorbells=%" PRIu64 "\nkeys.bad_access=%" PRIu64 "\n",
                get(&c->busy_doorbells), get(&c->bad_access));
    }
}
