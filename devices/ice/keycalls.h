/* SPDX-License-Identifier: Apache-2.0 */
/* The six calls of the key service, on a private copy of the command block. */
#ifndef MINIVMM_ICE_KEYCALLS_H
#define MINIVMM_ICE_KEYCALLS_H

#include "minivmm/ice.h"
#include "minivmm/ice_abi.h"
#include "wrap.h"

struct keycalls {
    struct ice *ice;
    struct wrap *wrap;
    uint8_t first_slot, slots;
    unsigned drain_ms;
};

/* Runs the call; fills cmd->out and *out_len on success. Returns an ICE_RESULT_*. */
uint32_t keycalls_run(struct keycalls *calls, struct ice_command *cmd, uint32_t *out_len);

#endif
