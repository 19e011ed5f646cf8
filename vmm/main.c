/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/commands.h"
#include "vmm/control.h"
#include "vmm/sibling.h"

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} commands[] = {
    {"doctor", doctor_main},  {"boot-test", boot_test_main}, {"stop", control_main}, {"pause", control_main},
    {"resume", control_main}, {"status", control_main},      {"slots", slots_main},  {"key", key_main},
    {"stats", stats_main},    {"fleet", fleet_exec},
};

int main(int argc, char **argv)
{
    for (unsigned i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].main(argc - 1, argv + 1);
    return run_main(argc, argv);
}
