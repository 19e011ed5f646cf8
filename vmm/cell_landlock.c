/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: a ruleset without a rule, so that nothing is allowed. By number where this system's headers are
 * older than the kernel.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "vmm/cell_internal.h"

#define CREATE_RULESET_VERSION 1U

/* struct landlock_ruleset_attr as of ABI 6; older kernels take a part of it, or zeroes behind it. */
struct ruleset {
    uint64_t fs;     /* actions on files */
    uint64_t net;    /* ABI 4: bind and connect of TCP */
    uint64_t scoped; /* ABI 6: abstract sockets and signals beyond the domain */
};

/* How many actions on files an ABI version knows: EXECUTE .. MAKE_SYM, then REFER, TRUNCATE and IOCTL_DEV. */
static unsigned fs_actions(int abi)
{
    static const unsigned known[] = {0, 13, 14, 15, 15, 16};
    return known[(unsigned)abi < ARRAY_SIZE(known) ? (unsigned)abi : ARRAY_SIZE(known) - 1];
}

int cell_landlock(struct err *err)
{
    int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    if (abi <= 0)
        return 0;
    const struct ruleset rules = {
        .fs = (1ULL << fs_actions(abi)) - 1, .net = abi >= 4 ? 3 : 0, .scoped = abi >= 6 ? 3 : 0};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
    if (fd < 0)
        return err_set(err, -errno, "the Landlock ruleset could not be made: %s", strerror(errno));
    int code = syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
    close(fd);
    return code < 0 ? err_set(err, code, "Landlock could not be put into force: %s", strerror(-code)) : 0;
}
