/* SPDX-License-Identifier: Apache-2.0 */
/* Port I/O exits. */
#include <linux/kvm.h>

#include "minivmm/arch.h"

bool arch_vcpu_exit(struct kvm_run *run, const struct bus *ports, uint64_t *unclaimed)
{
    if (run->exit_reason != KVM_EXIT_IO)
        return false;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    /* String instructions come with a count and one buffer for all their items. */
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        bool claimed = run->io.direction == KVM_EXIT_IO_IN
                           ? bus_read(ports, run->io.port, data, run->io.size)
                           : bus_write(ports, run->io.port, data, run->io.size);
        if (!claimed)
            ++*unclaimed;
    }
    return true;
}
