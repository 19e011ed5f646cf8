/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the tests. Command line: test=NAME runs that one; serial=TEXT is what GET_ID must give; cpus=2 says
 * that a second CPU is there; bench=... runs a load instead (bench.c), ice=... the tests of the inline crypto
 * engine (ice_modes.c). Exits by the debug port: 0, or the number of failed tests.
 */
#include "guest.h"

void guest_main(const char *cmdline);

void guest_main(const char *cmdline)
{
    cpu_init();
    report_init(cmdline);
    bench();
    if (ice_mode())
        finish();
    test_transport();
    test_block();
    test_block_queues();
    test_interrupts();
    test_rng();
    test_smp();
    test_hostile();
    finish();
}
