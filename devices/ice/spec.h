/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_ICE_SPEC_H
#define MINIVMM_ICE_SPEC_H

#include <stdbool.h>

#include "minivmm/ice.h"

/* Whether the operator allowed AES-ECB for this engine. */
bool ice_allows_ecb(const struct ice *ice);

#endif
