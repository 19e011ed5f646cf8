/* SPDX-License-Identifier: Apache-2.0 */
/* The host's keyslots as a fleet's VMs share them. */
#ifndef MINIVMM_VMM_FLEET_SLOTS_H
#define MINIVMM_VMM_FLEET_SLOTS_H

#include "vmm/fleet_config.h"

/* Keyslots that the VMs need: in windows, for --ice-key, and for disks with encrypt=. */
struct fleet_slots_use {
    unsigned windows, keys, hidden;
};
struct fleet_slots_use fleet_slots_use(const struct fleet *fleet);

/* The first of count free slots in a row, which are marked used; -1: there are none. */
int fleet_slots_fit(bool *used, unsigned total, unsigned count);

#endif
