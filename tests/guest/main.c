/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the tests. Command line: test=NAME runs that one; serial=TEXT is what GET_ID must give; cpus=2 says
 * that a second CPU is there. Exits by the debug port: 0, or the number of failed tests.
 */
#include "guest.h"

/* boot_params: command-line pointer of the setup header (Documentation/arch/x86/boot, "cmd_line_ptr"). */
#define BOOT_PARAMS_CMDLINE 0x228

void guest_main(const uint8_t *boot_params);

void guest_main(const uint8_t *boot_params)
{
    uint32_t cmdline = *(const uint32_t *)(const void *)(boot_params + BOOT_PARAMS_CMDLINE);

    cpu_init();
    report_init((const char *)(uint64_t)cmdline);
    test_transport();
    test_block();
    test_block_queues();
    test_interrupts();
    test_rng();
    test_smp();
    test_hostile();
    finish();
}
