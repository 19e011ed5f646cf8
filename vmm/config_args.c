/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/config_args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config_internal.h"

#define GROWTH 16u

/* The arguments so far; once memory runs out, failed is set and what follows is left out. */
struct args {
    char **list; /* NULL-terminated */
    size_t count;
    bool failed;
};

static void take(struct args *args, char *text)
{
    if (args->count % GROWTH == 0) {
        char **more = realloc(args->list, (args->count + GROWTH + 1) * sizeof(*more));
        if (more)
            args->list = more;
        else
            args->failed = true;
    }
    if (!text || args->failed) {
        args->failed = true;
        free(text);
        return;
    }
    args->list[args->count++] = text;
    args->list[args->count] = NULL;
}

static void __attribute__((format(printf, 2, 3))) add(struct args *args, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    take(args, text);
}

static void add_text(struct args *args, const char *flag, const char *value, const char *standard)
{
    if (value && (!standard || strcmp(value, standard) != 0))
        add(args, "--%s=%s", flag, value);
}

static void add_number(struct args *args, const char *flag, uint64_t value, uint64_t standard)
{
    if (value != standard)
        add(args, "--%s=%llu", flag, (unsigned long long)value);
}

static void add_fd(struct args *args, const char *flag, int fd)
{
    if (fd >= 0)
        add(args, "--%s=%d", flag, fd);
}

static void add_switch(struct args *args, const char *flag, bool given)
{
    if (given)
        add(args, "--%s", flag);
}

/* A part of a list, whose commas are doubled. */
static void put(FILE *out, const char *key, const char *value)
{
    fputs(key, out);
    for (; *value; value++) {
        fputc(*value, out);
        if (*value == ',')
            fputc(',', out);
    }
}

static void put_given(FILE *out, const char *key, const char *value)
{
    if (value)
        put(out, key, value);
}

static void put_switch(FILE *out, const char *key, bool value, bool standard)
{
    if (value != standard)
        fprintf(out, ",%s=%s", key, value ? "on" : "off");
}

static void put_number(FILE *out, const char *key, unsigned value, unsigned standard)
{
    if (value != standard)
        fprintf(out, ",%s=%u", key, value);
}

/* standard: a disk of which nothing but the path is told. */
static void put_disk(FILE *out, const struct config_disk *disk, const struct config_disk *standard)
{
    static const char *const engines[] = {
        [DISK_ENGINE_AUTO] = NULL, [DISK_ENGINE_IO_URING] = "io_uring", [DISK_ENGINE_SYNC] = "sync"};
    static const char *const ice[] = {[CONFIG_ICE_DEFAULT] = NULL,
                                      [CONFIG_ICE_ON] = "on",
                                      [CONFIG_ICE_OFF] = "off",
                                      [CONFIG_ICE_REQUIRED] = "required"};
    put(out, "--disk=", disk->path);
    put_switch(out, "ro", disk->readonly, standard->readonly);
    put_switch(out, "direct", disk->direct, standard->direct);
    if (!disk->writeback)
        fputs(",cache=writethrough", out);
    /* Asked for is more than the default: it is refused where the image can't. */
    put_switch(out, "discard", disk->discard, disk->discard_asked ? !disk->discard : standard->discard);
    put_switch(out, "write-zeroes", disk->write_zeroes, standard->write_zeroes);
    put_given(out, ",engine=", engines[disk->engine]);
    put_number(out, "queues", disk->queues, standard->queues);
    put_number(out, "queue-size", disk->queue_size, standard->queue_size);
    put_given(out, ",id=", disk->id);
    put_given(out, ",serial=", disk->serial);
    put_given(out, ",ice=", ice[disk->ice]);
    put_number(out, "ice-slots", disk->ice_slots, standard->ice_slots);
    put_given(out, ",encrypt=", disk->luks ? "luks" : disk->encrypt);
    put_given(out, ",key=", disk->passphrase);
    put_number(out, "unit", disk->unit, standard->unit);
    put_switch(out, "iv-large-sectors", disk->iv_large, standard->iv_large);
}

static void put_key(FILE *out, const struct config_key *key)
{
    fprintf(out, "--ice-key=slot=%u,disk=%s,alg=%s,unit=%u", key->slot, key->disk, ice_alg_name(key->alg),
            key->unit);
    put_given(out, ",file=", key->file);
    if (!key->file)
        fprintf(out, ",fd=%d", key->fd);
}

static void add_disk(struct args *args, const struct config_disk *disk, const struct config_disk *standard)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (out) {
        put_disk(out, disk, standard);
        args->failed |= fclose(out) != 0;
    }
    take(args, text);
}

static void add_key(struct args *args, const struct config_key *key)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (out) {
        put_key(out, key);
        args->failed |= fclose(out) != 0;
    }
    take(args, text);
}

static void add_window(struct args *args, const struct config_engine *ice)
{
    if (!ice->slots)
        return;
    if (ice->offset < 0)
        add(args, "--ice-slots=%u", ice->slots);
    else if (ice->window_fd < 0)
        add(args, "--ice-slots=%u@%d", ice->slots, ice->offset);
    else
        add(args, "--ice-slots=%u@%d,fd=%d", ice->slots, ice->offset, ice->window_fd);
}

static void add_uuid(struct args *args, const struct config_engine *ice)
{
    const uint8_t *u = ice->uuid;
    if (ice->has_uuid)
        add(args, "--uuid=%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
            u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static void add_engine(struct args *args, const struct config_engine *ice,
                       const struct config_engine *standard)
{
    add_window(args, ice);
    add_number(args, "ice-total", ice->total, standard->total);
    add_text(args, "ice-map", ice->map, NULL);
    add_text(args, "ice-kek", ice->kek, NULL);
    add_fd(args, "ice-vm-key", ice->vm_key_fd);
    add_switch(args, "ice-ecb", ice->allow_ecb);
    for (unsigned i = 0; i < ice->keys; i++)
        add_key(args, &ice->key[i]);
    add_uuid(args, ice);
}

static void add_console(struct args *args, const struct config *config)
{
    if (config->console == CONSOLE_FILE)
        add(args, "--console=file:%s", config->console_path);
    else if (config->console != CONSOLE_STDIO)
        add(args, "--console=%s", config->console == CONSOLE_PTY ? "pty" : "none");
}

static void add_boot(struct args *args, const struct config *config)
{
    struct config one = {0};
    const struct config_disk *standard = config_disk_add(&one, NULL);
    add_text(args, "kernel", config->kernel, NULL);
    add_text(args, "initrd", config->initrd, NULL);
    add_text(args, "cmdline", config->cmdline, NULL);
    for (unsigned i = 0; i < config->disks; i++)
        add_disk(args, &config->disk[i], standard);
}

static void add_all(struct args *args, const struct config *config, const struct config *standard)
{
    add_boot(args, config);
    add_number(args, "memory", config->memory, standard->memory);
    add_number(args, "cpus", config->cpus, standard->cpus);
    add_text(args, "cpu", config->cpu, standard->cpu);
    add_switch(args, "hugepages", config->hugepages);
    add_console(args, config);
    add_switch(args, "no-rng", !config->rng);
    add_switch(args, "no-acpi", !config->acpi);
    add_switch(args, "debug-exit", config->debug_exit);
    add_text(args, "kvm", config->kvm, standard->kvm);
    add_engine(args, &config->ice, &standard->ice);
    add_text(args, "name", config->name, NULL);
    add_number(args, "timeout", config->timeout_s, standard->timeout_s);
    add_switch(args, "no-control", !config->control);
    add_fd(args, "ready-fd", config->ready_fd);
    add_number(args, "cpu-limit", config->cpu_limit, standard->cpu_limit);
    add_number(args, "memory-limit", config->memory_limit, standard->memory_limit);
    add_switch(args, "no-sandbox", !config->sandbox);
    add_switch(args, "verbose", config->verbose);
    add_switch(args, "quiet", config->quiet);
}

int config_args(const struct config *config, const char *program, char ***argv)
{
    struct args args = {0};
    struct config standard;
    config_init(&standard);
    add(&args, "%s", program);
    add_all(&args, config, &standard);
    config_free(&standard);
    if (args.failed) {
        config_args_free(args.list);
        return -ENOMEM;
    }
    *argv = args.list;
    return 0;
}

void config_args_free(char **argv)
{
    for (size_t i = 0; argv && argv[i]; i++)
        free(argv[i]);
    free(argv);
}
