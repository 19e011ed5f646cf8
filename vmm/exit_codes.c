/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/exit_codes.h"

const char *exit_code_meaning(int code)
{
    switch (code) {
    case EXIT_CODE_OK:
        return "the guest powered off";
    case EXIT_CODE_USAGE:
        return "bad flags, or an unusable kernel, initrd, disk or key";
    case EXIT_CODE_PANIC:
        return "the guest panicked";
    case EXIT_CODE_RESET:
        return "the guest asked for a reset";
    case EXIT_CODE_CRASH:
        return "the guest crashed";
    case EXIT_CODE_STOPPED:
        return "the VM was stopped from outside";
    case EXIT_CODE_TIMEOUT:
        return "the VM's own --timeout passed";
    default:
        break;
    }
    if (code > EXIT_CODE_DEBUG_EXIT && code < EXIT_CODE_DEBUG_EXIT + 32)
        return "the guest wrote to the debug exit port";
    return code > EXIT_CODE_SIGNAL ? "the VM's process was killed" : "minivmm or the host failed";
}
