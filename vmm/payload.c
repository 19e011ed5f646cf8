/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what the guest boots from and hands it to the architecture. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine.h"

/* Opens a regular, non-empty file. Returns the descriptor or -errno with a sentence that names the flag. */
static int open_file(const char *flag, const char *path, struct err *err)
{
    /* Non-blocking: a FIFO by mistake must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, -errno, "%s: %s could not be opened: %s", flag, path, strerror(errno));
    struct stat st;
    int code = 0;
    if (fstat(fd, &st) < 0)
        code = err_set(err, -errno, "%s: %s could not be examined: %s", flag, path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        code = err_set(err, -EISDIR, "%s: %s is a directory, a file is needed", flag, path);
    else if (!S_ISREG(st.st_mode))
        code = err_set(err, -EINVAL, "%s: %s is not a regular file", flag, path);
    else if (st.st_size == 0)
        code = err_set(err, -EINVAL, "%s: %s is empty", flag, path);
    if (code < 0) {
        close(fd);
        return code;
    }
    return fd;
}

int machine_load(struct machine *machine, const struct config *config, struct arch_entry *entry,
                 struct err *err)
{
    struct arch_payload payload = {
        .kernel_path = config->kernel, .kernel_fd = -1, .initrd_path = config->initrd, .initrd_fd = -1};
    payload.kernel_fd = open_file("--kernel", config->kernel, err);
    if (payload.kernel_fd < 0)
        return payload.kernel_fd;
    int code = 0;
    if (config->initrd) {
        payload.initrd_fd = open_file("--initrd", config->initrd, err);
        code = payload.initrd_fd < 0 ? payload.initrd_fd : 0;
    }
    const struct arch_machine description = {
        .mem = &machine->mem,
        .cpus = config->cpus,
        .device = machine->device,
        .device_count = machine->devices,
        .serial = true,
        .pvpanic = true,
        .debug_exit = config->debug_exit,
        .acpi = config->acpi,
        .cmdline = config->cmdline,
    };
    if (code == 0)
        code = arch_load(&description, &payload, entry, err);
    if (payload.initrd_fd >= 0)
        close(payload.initrd_fd);
    close(payload.kernel_fd);
    return code;
}
