/* SPDX-License-Identifier: Apache-2.0 */
#include "keycalls.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "minivmm/bytes.h"

#define GENERATED_SECRET_BYTES 32u

_Static_assert(WRAP_BLOB_MAX <= ICE_COMMAND_DATA, "a blob fits the command block");
_Static_assert(WRAP_BLOB_MAX - WRAP_SECRET_MAX == ICE_BLOB_OVERHEAD, "the overhead is an ABI");

static uint32_t result_of(int r)
{
    switch (r) {
    case 0:
        return ICE_RESULT_OK;
    case -EINVAL:
        return ICE_RESULT_INVALID;
    case -EBUSY:
        return ICE_RESULT_BUSY;
    case -EBADMSG:
        return ICE_RESULT_BAD_BLOB;
    default:
        return ICE_RESULT_FAILED;
    }
}

/* A slot of this VM's window that some disk of it has, and that is not the operator's. */
static bool may_program(const struct keycalls *c, uint32_t slot)
{
    bool guest = false;
    if (slot < c->first_slot || slot >= (uint32_t)c->first_slot + c->slots)
        return false;
    return ice_slot_owner(c->ice, slot, &guest) != ICE_OWNER_NONE && guest;
}

static int set_wrapped(struct keycalls *c, uint32_t slot, const struct ice_spec *spec,
                       const struct ice_command *cmd, size_t in_len)
{
    uint8_t secret[WRAP_SECRET_MAX], raw[ICE_RAW_KEY_MAX];
    size_t len, raw_len = ice_raw_key_size(spec);
    int r = wrap_open(c->wrap, WRAP_EPHEMERAL, cmd->in, in_len, secret, &len);
    if (r == 0)
        r = wrap_inline_key(c->wrap, secret, len, raw, raw_len);
    if (r == 0)
        r = ice_slot_set(c->ice, slot, spec, raw, raw_len, c->drain_ms, NULL);
    explicit_bzero(secret, sizeof(secret));
    explicit_bzero(raw, sizeof(raw));
    return r;
}

static uint32_t set_key(struct keycalls *c, const struct ice_command *cmd, size_t in_len)
{
    struct ice_spec spec = {cmd->alg, cmd->unit_exp, cmd->key_size};
    uint32_t slot = load_le32(&cmd->slot);
    if (!may_program(c, slot))
        return ICE_RESULT_DENIED;
    if (ice_spec_check(c->ice, &spec, NULL) < 0)
        return ICE_RESULT_INVALID;
    if (cmd->key_kind == ICE_KEY_KIND_WRAPPED)
        return result_of(set_wrapped(c, slot, &spec, cmd, in_len));
    if (cmd->key_kind != ICE_KEY_KIND_RAW)
        return ICE_RESULT_INVALID;
    return result_of(ice_slot_set(c->ice, slot, &spec, cmd->in, in_len, c->drain_ms, NULL));
}

static uint32_t invalidate_key(struct keycalls *c, const struct ice_command *cmd)
{
    uint32_t slot = load_le32(&cmd->slot);
    if (!may_program(c, slot))
        return ICE_RESULT_DENIED;
    return result_of(ice_slot_evict(c->ice, slot, c->drain_ms, NULL));
}

static uint32_t seal(struct keycalls *c, enum wrap_kind kind, const uint8_t *secret, size_t len,
                     struct ice_command *cmd, uint32_t *out_len)
{
    size_t blob_len = 0;
    int r = wrap_seal(c->wrap, kind, secret, len, cmd->out, &blob_len);
    if (r == 0)
        *out_len = (uint32_t)blob_len;
    return result_of(r);
}

static uint32_t derive_sw_secret(struct keycalls *c, struct ice_command *cmd, size_t in_len,
                                 uint32_t *out_len)
{
    uint8_t secret[WRAP_SECRET_MAX];
    size_t len;
    int r = wrap_open(c->wrap, WRAP_EPHEMERAL, cmd->in, in_len, secret, &len);
    if (r == 0)
        r = wrap_software_secret(c->wrap, secret, len, cmd->out);
    if (r == 0)
        *out_len = ICE_SW_SECRET_SIZE;
    explicit_bzero(secret, sizeof(secret));
    return result_of(r);
}

static uint32_t generate_key(struct keycalls *c, struct ice_command *cmd, uint32_t *out_len)
{
    uint8_t secret[GENERATED_SECRET_BYTES];
    if (getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
        return ICE_RESULT_FAILED;
    uint32_t result = seal(c, WRAP_LONG_TERM, secret, sizeof(secret), cmd, out_len);
    explicit_bzero(secret, sizeof(secret));
    return result;
}

static uint32_t prepare_key(struct keycalls *c, struct ice_command *cmd, size_t in_len, uint32_t *out_len)
{
    uint8_t secret[WRAP_SECRET_MAX];
    size_t len;
    int r = wrap_open(c->wrap, WRAP_LONG_TERM, cmd->in, in_len, secret, &len);
    uint32_t result = r == 0 ? seal(c, WRAP_EPHEMERAL, secret, len, cmd, out_len) : result_of(r);
    explicit_bzero(secret, sizeof(secret));
    return result;
}

uint32_t keycalls_run(struct keycalls *c, struct ice_command *cmd, uint32_t *out_len)
{
    uint32_t in_len = load_le32(&cmd->in_len);
    *out_len = 0;
    if (in_len > ICE_COMMAND_DATA)
        return ICE_RESULT_INVALID;
    switch (load_le32(&cmd->call)) {
    case ICE_CALL_SET_KEY:
        return set_key(c, cmd, in_len);
    case ICE_CALL_INVALIDATE_KEY:
        return invalidate_key(c, cmd);
    case ICE_CALL_DERIVE_SW_SECRET:
        return derive_sw_secret(c, cmd, in_len, out_len);
    case ICE_CALL_GENERATE_KEY:
        return generate_key(c, cmd, out_len);
    case ICE_CALL_IMPORT_KEY:
        return seal(c, WRAP_LONG_TERM, cmd->in, in_len, cmd, out_len);
    case ICE_CALL_PREPARE_KEY:
        return prepare_key(c, cmd, in_len, out_len);
    default:
        return ICE_RESULT_INVALID;
    }
}
