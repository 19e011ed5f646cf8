/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that a VM's process is started with: those that its configuration names, and no other. */
#include <stdlib.h>
#include <unistd.h>

#include "vmm/cell.h"
#include "vmm/config_internal.h"

#define NAMED_MAX (4U * CONFIG_DISKS_MAX + 8U)

struct named {
    int fd[NAMED_MAX];
    unsigned count;
};

static void add(struct named *named, int fd)
{
    if (fd > STDERR_FILENO)
        named->fd[named->count++] = fd;
}

static void add_path(struct named *named, const char *path)
{
    int fd;
    if (path && config_names_descriptor(path, &fd))
        add(named, fd);
}

static void collect(const struct config *config, struct named *named)
{
    add(named, config->ready_fd);
    add(named, config->ice.window_fd);
    add(named, config->ice.vm_key_fd);
    add_path(named, config->kernel);
    add_path(named, config->initrd);
    add_path(named, config->console_path);
    add_path(named, config->ice.kek);
    for (unsigned i = 0; i < config->disks; i++) {
        add_path(named, config->disk[i].path);
        add_path(named, config->disk[i].encrypt);
        add_path(named, config->disk[i].passphrase);
    }
    for (unsigned i = 0; i < config->ice.keys; i++) {
        add(named, config->ice.key[i].fd);
        add_path(named, config->ice.key[i].file);
    }
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

void cell_close_strays(const struct config *config)
{
    struct named named = {.count = 0};
    collect(config, &named);
    qsort(named.fd, named.count, sizeof(named.fd[0]), ascending);
    unsigned from = STDERR_FILENO + 1;
    for (unsigned i = 0; i < named.count; i++) {
        if ((unsigned)named.fd[i] > from)
            (void)close_range(from, (unsigned)named.fd[i] - 1, 0);
        from = (unsigned)named.fd[i] + 1;
    }
    (void)close_range(from, ~0U, 0);
}
