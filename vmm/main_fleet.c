/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm-fleet: what "minivmm fleet" runs. */
#include "vmm/commands.h"

int main(int argc, char **argv)
{
    static char name[] = "fleet";
    argv[0] = name;
    return fleet_main(argc, argv);
}
