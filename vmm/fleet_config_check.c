/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the files that a fleet's VMs name are there, and each image has one writer. Files that many VMs
 * share are looked at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/fleet_config_internal.h"
#include "vmm/keyfile.h"

/* What a path is for. */
enum use { USE_BOOT, USE_READ, USE_WRITE, USE_SECRET };

/* What is wrong with a file, without its path; NULL: nothing. st is filled in as far as it is there. */
static const char *find_fault(const char *path, enum use use, struct stat *st)
{
    int fd;
    if (config_names_descriptor(path, &fd))
        return "a descriptor of this command is not one of the VM's: name a file";
    if (stat(path, st) < 0)
        return strerror(errno);
    if (S_ISDIR(st->st_mode))
        return "is a directory, a file is needed";
    if (!S_ISREG(st->st_mode) && (use == USE_BOOT || !S_ISBLK(st->st_mode)))
        return use == USE_BOOT ? "is not a regular file" : "is neither a regular file nor a block device";
    if (use == USE_BOOT && st->st_size == 0)
        return "is empty";
    return faccessat(AT_FDCWD, path, use == USE_WRITE ? R_OK | W_OK : R_OK, AT_EACCESS) < 0 ? strerror(errno)
                                                                                            : NULL;
}

/* Fills in what a path is found to be. */
static void examine(struct loader *l, struct known *known, const char *path, enum use use)
{
    struct stat st = {0};
    struct err err = {{0}};
    int fd, made = 0;
    const char *fault = NULL;
    if (use == USE_SECRET && !config_names_descriptor(path, &fd)) {
        fd = keyfile_open(path, &err);
        if (fd >= 0)
            close(fd);
        else
            made = asprintf(&known->text, "%s", err.text);
    } else {
        fault = find_fault(path, use, &st);
        if (fault)
            made = asprintf(&known->text, "%s: %s", path, fault);
        else
            made = asprintf(&known->file_key, "%llu:%llu", (unsigned long long)st.st_dev,
                            (unsigned long long)st.st_ino);
    }
    l->no_memory |= made < 0;
}

/* Tells what is wrong with a file; what is known of it, or NULL when something is. */
static const struct known *check_file(struct loader *l, const struct setting *at, const char *path,
                                      enum use use)
{
    char *key = NULL;
    bool is_new = false;
    if (asprintf(&key, "%u%s", use, path) < 0) {
        l->no_memory = true;
        return NULL;
    }
    struct known *known = fleet_entry(l, &l->paths, key, &is_new);
    free(key);
    if (known && is_new)
        examine(l, known, path, use);
    if (!known || l->no_memory)
        return NULL;
    if (known->text)
        fleet_problem(l, at->source, at->line, false, "%s: %s", at->option ? at->option->name : at->key->name,
                      known->text);
    return known->text ? NULL : known;
}

void fleet_check_secret(struct loader *l, const struct setting *at, const char *path)
{
    (void)check_file(l, at, path, USE_SECRET);
}

/* An image may have one VM that writes, or any number that read. */
static void check_shared(struct loader *l, unsigned vm, const struct setting *at,
                         const struct config_disk *disk, const struct known *file)
{
    struct known *image = fleet_entry(l, &l->images, file->file_key, NULL);
    if (!image)
        return;
    bool by_reader = !disk->readonly && !image->owner;
    unsigned other = by_reader ? image->reader : image->owner;
    if (other && other != vm + 1)
        fleet_problem(l, at->source, at->line, false,
                      "disk: VM '%s' %s %s, which VM '%s' %s too (%s:%u): give each an image of its own, or "
                      "make it ro for all",
                      l->fleet->vm[vm].config.name, disk->readonly ? "reads" : "writes", disk->path,
                      l->fleet->vm[other - 1].config.name, by_reader ? "reads" : "writes",
                      l->fleet->files[by_reader ? image->reader_source : image->source],
                      by_reader ? image->reader_line : image->line);
    if (disk->readonly && !image->reader) {
        image->reader = vm + 1;
        image->reader_source = at->source;
        image->reader_line = at->line;
    } else if (!disk->readonly && !image->owner) {
        image->owner = vm + 1;
        image->source = at->source;
        image->line = at->line;
    }
}

static void check_disk(struct loader *l, unsigned vm, unsigned i, const struct origin *origin)
{
    const struct config_disk *disk = &l->fleet->vm[vm].config.disk[i];
    const struct setting *at = origin->disk[i];
    if (!disk->path)
        return; /* its setting was refused */
    const struct known *file = check_file(l, at, disk->path, disk->readonly ? USE_READ : USE_WRITE);
    if (file)
        check_shared(l, vm, at, disk, file);
    if (disk->encrypt)
        fleet_check_secret(l, at, disk->encrypt);
    if (disk->passphrase)
        fleet_check_secret(l, at, disk->passphrase);
}

static void check_boot(struct loader *l, const struct origin *origin, const char *option, const char *path)
{
    const struct option_def *def = config_option_find(option, strlen(option));
    if (path)
        (void)check_file(l, origin->last[def - config_options], path, USE_BOOT);
}

static void check_log(struct loader *l, unsigned vm, const struct setting *at)
{
    const struct fleet_vm *v = &l->fleet->vm[vm];
    bool is_new = false;
    struct known *log = v->log ? fleet_entry(l, &l->logs, v->log, &is_new) : NULL;
    if (log && is_new)
        log->owner = vm;
    else if (log)
        fleet_problem(l, at->source, at->line, false,
                      "log: %s is that of VM '%s' too: one file a VM, such as log = %%n.log", v->log,
                      l->fleet->vm[log->owner].config.name);
}

static void check_keys(struct loader *l, const struct config_engine *ice, const struct origin *origin)
{
    for (unsigned i = 0; i < ice->keys; i++) {
        const struct setting *at = origin->key[i];
        if (ice->key[i].file)
            fleet_check_secret(l, at, ice->key[i].file);
        else if (ice->key[i].fd >= 0)
            fleet_problem(l, at->source, at->line, false,
                          "ice-key: fd= is for the command line: a fleet's keys come by file=PATH");
    }
}

void fleet_check_files(struct loader *l, unsigned vm, const struct origin *origin)
{
    const struct config *config = &l->fleet->vm[vm].config;
    check_boot(l, origin, "kernel", config->kernel);
    check_boot(l, origin, "initrd", config->initrd);
    for (unsigned i = 0; i < config->disks; i++)
        check_disk(l, vm, i, origin);
    check_keys(l, &config->ice, origin);
    check_log(l, vm, origin->log);
}
