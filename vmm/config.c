/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as a whole: defaults, release, and what must hold between its parts. */
#include "minivmm/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/arch.h"
#include "minivmm/guest_memory.h"
#include "minivmm/slotmap.h"
#include "vmm/config_internal.h"

#define MEMORY_DEFAULT (128ULL << 20)
#define HUGE_PAGE      (2ULL << 20)
#define CMDLINE_MAX    2047u /* Linux's COMMAND_LINE_SIZE on x86, without its NUL */

/* Each disk, the random number device, the event device and the key service have an interrupt line each. */
_Static_assert(CONFIG_DISKS_MAX + 3 <= ARCH_GSI_LAST - ARCH_GSI_FIRST + 1,
               "more devices than interrupt lines");

void config_init(struct config *config)
{
    *config = (struct config){
        .memory = MEMORY_DEFAULT,
        .cpus = 1,
        .console = CONSOLE_STDIO,
        .rng = true,
        .acpi = true,
        .control = true,
        .sandbox = true,
        .ready_fd = -1,
        .ice = {.offset = SLOTMAP_ANYWHERE, .total = SLOTMAP_TOTAL_DEFAULT, .window_fd = -1, .vm_key_fd = -1},
        .cpu = strdup("host"),
        .kvm = strdup("/dev/kvm"),
    };
    if (asprintf(&config->name, "vm-%ld", (long)getpid()) < 0)
        config->name = NULL;
}

void config_free(struct config *config)
{
    for (unsigned i = 0; i < config->disks; i++) {
        free(config->disk[i].path);
        free(config->disk[i].id);
        free(config->disk[i].serial);
        free(config->disk[i].encrypt);
        free(config->disk[i].passphrase);
    }
    free(config->name);
    free(config->kernel);
    free(config->initrd);
    free(config->cmdline);
    free(config->cpu);
    free(config->console_path);
    free(config->kvm);
    config_free_ice(&config->ice);
    *config = (struct config){0};
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    if (strcmp(a, b) == 0)
        return true;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* The name that disk i goes by; the default one is written into buf. */
static const char *disk_id(const struct config *config, unsigned i, char *buf, size_t size)
{
    if (config->disk[i].id)
        return config->disk[i].id;
    snprintf(buf, size, "disk%u", i);
    return buf;
}

int config_disk_find(const struct config *config, const char *id)
{
    char buf[16];
    for (unsigned i = 0; i < config->disks; i++)
        if (strcmp(disk_id(config, i, buf, sizeof(buf)), id) == 0)
            return (int)i;
    return -1;
}

static int check_pair(const struct config *config, unsigned i, unsigned j, struct err *err)
{
    const struct config_disk *a = &config->disk[j], *b = &config->disk[i];
    char abuf[16], bbuf[16];
    const char *aid = disk_id(config, j, abuf, sizeof(abuf)), *bid = disk_id(config, i, bbuf, sizeof(bbuf));
    if (strcmp(aid, bid) == 0)
        return err_set(err, -EINVAL, "--disk: %s and %s both have the id '%s': give one another id=NAME",
                       a->path, b->path, aid);
    if (!same_file(a->path, b->path))
        return 0;
    if (strcmp(a->path, b->path) == 0)
        return err_set(err, -EINVAL, "--disk: %s is named twice: each disk of a VM needs an image of its own",
                       a->path);
    return err_set(err, -EINVAL,
                   "--disk: %s and %s are one file: each disk of a VM needs an image of its own", a->path,
                   b->path);
}

static int check_disks(const struct config *config, struct err *err)
{
    for (unsigned i = 0; i < config->disks; i++) {
        if (!config->disk[i].path)
            return err_set(err, -EINVAL, "disk '%s' has no path", config->disk[i].id);
        for (unsigned j = 0; j < i; j++)
            if (check_pair(config, i, j, err) < 0)
                return -EINVAL;
    }
    return 0;
}

static int check_cmdline(const char *text, struct err *err)
{
    size_t len = strlen(text);
    if (len > CMDLINE_MAX)
        return err_set(err, -EINVAL, "--cmdline: %zu bytes are more than the %u that Linux reads", len,
                       CMDLINE_MAX);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < ' ')
            return err_set(
                err, -EINVAL,
                "--cmdline: byte %zu is a line break or another control character: write the command "
                "line as one line",
                i + 1);
    return 0;
}

int config_check(const struct config *config, struct err *err)
{
    if (!config->name || !config->cpu || !config->kvm)
        return err_set(err, -ENOMEM, "out of memory");
    if (!config->kernel)
        return err_set(err, -EINVAL,
                       "--kernel is missing: name the kernel to boot, such as --kernel vmlinuz");
    if (config->verbose && config->quiet)
        return err_set(err, -EINVAL, "--verbose and --quiet exclude each other: give one of them");
    if (config->hugepages && config->memory % HUGE_PAGE != 0)
        return err_set(err, -EINVAL, "--memory: %llu bytes are not a multiple of 2M, which --hugepages needs",
                       (unsigned long long)config->memory);
    if (config->cmdline && check_cmdline(config->cmdline, err) < 0)
        return -EINVAL;
    if (check_disks(config, err) < 0)
        return -EINVAL;
    return config_check_ice(config, err);
}
