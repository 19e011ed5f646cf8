/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that a VM's process is started with: those that its configuration names, and no other. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cell.h"
#include "vmm/config_internal.h"

#define NAMED_MAX (4U * CONFIG_DISKS_MAX + 8U)

struct named {
    int fd[NAMED_MAX];
    unsigned count;
    bool input; /* standard input as well */
};

static void add(struct named *named, int fd)
{
    if (fd > STDERR_FILENO)
        named->fd[named->count++] = fd;
}

static void add_path(struct named *named, const char *path)
{
    int fd;
    if (!path || !config_names_descriptor(path, &fd))
        return;
    named->input |= fd == STDIN_FILENO;
    add(named, fd);
}

/* Those that are named as paths, of which the VM opens descriptors of its own. */
static void collect_paths(const struct config *config, struct named *named)
{
    add_path(named, config->kernel);
    add_path(named, config->initrd);
    add_path(named, config->ice.kek);
    for (unsigned i = 0; i < config->disks; i++) {
        add_path(named, config->disk[i].path);
        add_path(named, config->disk[i].encrypt);
        add_path(named, config->disk[i].passphrase);
    }
    for (unsigned i = 0; i < config->ice.keys; i++)
        add_path(named, config->ice.key[i].file);
}

/* Those that are used as they are. */
static void collect_own(const struct config *config, struct named *named)
{
    add(named, config->ready_fd);
    add(named, config->ice.window_fd);
    add(named, config->ice.vm_key_fd);
    add_path(named, config->console_path);
    for (unsigned i = 0; i < config->ice.keys; i++)
        add(named, config->ice.key[i].fd);
}

static bool has(const struct named *named, int fd)
{
    for (unsigned i = 0; i < named->count; i++)
        if (named->fd[i] == fd)
            return true;
    return false;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

void cell_close_strays(const struct config *config)
{
    struct named named = {.count = 0};
    collect_own(config, &named);
    collect_paths(config, &named);
    qsort(named.fd, named.count, sizeof(named.fd[0]), ascending);
    unsigned from = STDERR_FILENO + 1;
    for (unsigned i = 0; i < named.count; i++) {
        if ((unsigned)named.fd[i] > from)
            (void)close_range(from, (unsigned)named.fd[i] - 1, 0);
        from = (unsigned)named.fd[i] + 1;
    }
    (void)close_range(from, ~0U, 0);
}

/* A file can be read again from its beginning; what came through a pipe is gone. */
static void leave_input(void)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        close(STDIN_FILENO);
    if (fd >= 0)
        close(fd);
}

void cell_close_copied(const struct config *config)
{
    struct named paths = {.count = 0};
    struct named own = {.count = 0};
    collect_paths(config, &paths);
    collect_own(config, &own);
    for (unsigned i = 0; i < paths.count; i++)
        if (!has(&own, paths.fd[i]))
            close(paths.fd[i]);
    if (paths.input)
        leave_input();
}
