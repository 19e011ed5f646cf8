/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/sibling.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/log.h"
#include "vmm/exit_codes.h"

int sibling_path(const char *name, char *path, size_t size, struct err *err)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len < 0)
        return err_set(err, -errno, "this program's own path is not known: /proc/self/exe: %s",
                       strerror(errno));
    self[len] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if ((size_t)snprintf(path, size, "%s/%s", self, name) >= size)
        return err_set(err, -ENAMETOOLONG, "the path of %s is too long: %s", name, self);
    if (access(path, X_OK) < 0)
        return err_set(err, -errno,
                       "%s is not to be had: %s (the programs minivmm and minivmm-fleet belong into one "
                       "folder)",
                       path, strerror(errno));
    return 0;
}

int fleet_exec(int argc, char **argv)
{
    char path[4096];
    struct err err;
    (void)argc;
    if (sibling_path("minivmm-fleet", path, sizeof(path), &err) == 0) {
        argv[0] = path;
        execv(path, argv);
        err_set(&err, -errno, "%s could not be started: %s", path, strerror(errno));
    }
    log_error("fleet: %s", err.text);
    return EXIT_CODE_FAILURE;
}
