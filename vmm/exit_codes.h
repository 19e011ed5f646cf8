/* SPDX-License-Identifier: Apache-2.0 */
/* The exit codes of minivmm: documented in README and minivmm(1), stable. */
#ifndef MINIVMM_VMM_EXIT_CODES_H
#define MINIVMM_VMM_EXIT_CODES_H

enum exit_code {
    EXIT_CODE_OK = 0,          /* the guest powered off; or the command did what was asked */
    EXIT_CODE_FAILURE = 1,     /* minivmm or the host failed; boot-test: a test failed */
    EXIT_CODE_USAGE = 2,       /* bad flags, bad configuration, unusable kernel, initrd or disk */
    EXIT_CODE_PANIC = 3,       /* the guest kernel panicked (pvpanic) */
    EXIT_CODE_RESET = 4,       /* the guest asked for a reset */
    EXIT_CODE_CRASH = 5,       /* triple fault, or KVM could not go on with the guest */
    EXIT_CODE_STOPPED = 6,     /* stopped by the user: minivmm stop --force, ctrl-a x, SIGTERM, SIGINT */
    EXIT_CODE_DEBUG_EXIT = 32, /* debug exit port: 0 for value 0, else 32 + (value & 31) */
    EXIT_CODE_TIMEOUT = 124,   /* --timeout passed */
    EXIT_CODE_SIGNAL = 128,    /* + N: the VM's process was killed by signal N */
};

/* What a VM's exit code tells, as the beginning or end of a sentence. */
const char *exit_code_meaning(int code);

#endif
