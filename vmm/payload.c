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

int machine_open_payload(struct machine *machine, const struct config *config, struct err *err)
{
    machine->kernel_fd = open_file("--kernel", config->kernel, err);
    if (machine->kernel_fd < 0)
        return machine->kernel_fd;
    if (config->initrd)
        machine->initrd_fd = open_file("--initrd", config->initrd, err);
    return config->initrd && machine->initrd_fd < 0 ? machine->initrd_fd : 0;
}

void machine_leave_payload(struct machine *machine)
{
    if (machine->initrd_fd >= 0)
        close(machine->initrd_fd);
    close(machine->kernel_fd);
    machine->kernel_fd = machine->initrd_fd = -1;
}

int machine_load(struct machine *machine, const struct config *config, struct arch_entry *entry,
                 struct err *err)
{
    const struct arch_payload payload = {.kernel_path = config->kernel,
                                         .kernel_fd = machine->kernel_fd,
                                         .initrd_path = config->initrd,
                                         .initrd_fd = machine->initrd_fd};
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
    int code = arch_load(&description, &payload, entry, err);
    machine_leave_payload(machine);
    return code;
}
