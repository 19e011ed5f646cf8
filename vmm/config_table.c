/* SPDX-License-Identifier: Apache-2.0 */
/* The table of options: one row a setting, from which flags, file keys and help come. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/arch.h"
#include "minivmm/bytes.h"
#include "vmm/config_internal.h"
#include "vmm/suggest.h"

#define TIMEOUT_MAX   (365ULL * 24 * 3600)
#define CPU_LIMIT_MAX (100ULL * ARCH_VCPUS_MAX) /* percent */

static int set_kernel(struct config *config, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &config->kernel, err);
}

static int set_initrd(struct config *config, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &config->initrd, err);
}

static int set_cmdline(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_string(value, &config->cmdline, err);
}

static int set_memory(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t size;
    int code = config_value_size(value, &size, err);
    if (code < 0)
        return code;
    if (size < GUEST_MEMORY_MIN)
        return err_set(err, -EINVAL, "'%s' is less than 16M, the least a VM can have%s", value,
                       value[strspn(value, "0123456789")] ? "" : " (a number alone is bytes; add K, M or G)");
    if (size % 4096 != 0)
        return err_set(err, -EINVAL, "'%s' is not a multiple of 4K", value);
    config->memory = size;
    return 0;
}

static int set_cpus(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n;
    int code = config_value_number(value, 1, ARCH_VCPUS_MAX, &n, err);
    if (code == 0)
        config->cpus = (unsigned)n;
    return code;
}

static int set_cpu(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    unsigned which;
    int code = config_value_choice(value, arch_cpu_names(), &which, err);
    return code < 0 ? code : config_value_string(value, &config->cpu, err);
}

static int set_hugepages(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &config->hugepages, err);
}

static int set_console(struct config *config, const char *value, const char *base, struct err *err)
{
    static const char file[] = "file:";
    static const char *const names[] = {"stdio", "pty", "none", "file:PATH", NULL};
    static const enum config_console kinds[] = {CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_NONE};
    if (strncmp(value, file, sizeof(file) - 1) == 0) {
        int code = config_value_path(value + sizeof(file) - 1, base, &config->console_path, err);
        if (code < 0)
            return err_prefix(err, code, "file");
        config->console = CONSOLE_FILE;
        return 0;
    }
    unsigned which;
    int code = config_value_choice(value, names, &which, err);
    if (code < 0)
        return code;
    if (which == ARRAY_SIZE(kinds))
        return err_set(err, -EINVAL, "'file:PATH' stands for a real path, such as file:console.log");
    free(config->console_path);
    config->console_path = NULL;
    config->console = kinds[which];
    return 0;
}

static int set_name(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_name(value, &config->name, err);
}

static int set_timeout(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n;
    int code = config_value_number(value, 0, TIMEOUT_MAX, &n, err);
    if (code == 0)
        config->timeout_s = (unsigned)n;
    return code;
}

static int set_no_rng(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    bool off;
    int code = config_value_bool(value, &off, err);
    if (code == 0)
        config->rng = !off;
    return code;
}

static int set_no_acpi(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    bool off;
    int code = config_value_bool(value, &off, err);
    if (code == 0)
        config->acpi = !off;
    return code;
}

static int set_debug_exit(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &config->debug_exit, err);
}

static int set_kvm(struct config *config, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &config->kvm, err);
}

static int set_no_control(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    bool off;
    int code = config_value_bool(value, &off, err);
    if (code == 0)
        config->control = !off;
    return code;
}

static int set_no_sandbox(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    bool off;
    int code = config_value_bool(value, &off, err);
    if (code == 0)
        config->sandbox = !off;
    return code;
}

static int set_cpu_limit(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t percent = 0;
    int code = config_value_number(value, 1, CPU_LIMIT_MAX, &percent, err);
    config->cpu_limit = (unsigned)percent;
    return code;
}

static int set_memory_limit(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_size(value, &config->memory_limit, err);
}

static int set_ready_fd(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_fd(value, &config->ready_fd, err);
}

static int set_verbose(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &config->verbose, err);
}

static int set_quiet(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &config->quiet, err);
}

static int set_config(struct config *config, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_parse_file(config, value, err);
}

const struct option_def config_options[] = {
    {"kernel", "FILE", GROUP_BOOT, 0, "the guest's kernel: a bzImage, or an ELF vmlinux; needed", NULL,
     set_kernel},
    {"initrd", "FILE", GROUP_BOOT, 0, "initial RAM disk for the kernel", NULL, set_initrd},
    {"cmdline", "TEXT", GROUP_BOOT, OPTION_JOINS, "the kernel's command line", NULL, set_cmdline},
    {"disk", "PATH[,KEY=VALUE...]", GROUP_BOOT, OPTION_REPEAT,
     "a virtio disk, with the keys below; up to 14, the first is vda; a comma in PATH is written ',,'", NULL,
     config_set_disk},
    {"memory", "SIZE", GROUP_MACHINE, 0, "guest RAM, 16M or more; K, M or G behind a number multiply it",
     "128M", set_memory},
    {"cpus", "N", GROUP_MACHINE, 0, "number of vCPUs, 1 to 32", "1", set_cpus},
    {"cpu", "NAME", GROUP_MACHINE, 0, "CPU features to show: host, or a model's name", "host", set_cpu},
    {"hugepages", NULL, GROUP_MACHINE, OPTION_SWITCH, "back guest RAM with reserved 2 MiB pages", "off",
     set_hugepages},
    {"console", "KIND", GROUP_MACHINE, 0,
     "where the serial console goes: stdio (ctrl-a x leaves), file:PATH, pty or none", "stdio", set_console},
    {"no-rng", NULL, GROUP_MACHINE, OPTION_SWITCH, "no random number device", "off", set_no_rng},
    {"no-acpi", NULL, GROUP_MACHINE, OPTION_SWITCH,
     "no ACPI tables: devices are named on the kernel's command line, interrupts by an MP table", "off",
     set_no_acpi},
    {"debug-exit", NULL, GROUP_MACHINE, OPTION_SWITCH,
     "a write to I/O port 0xf4 ends the VM; the value sets the exit code", "off", set_debug_exit},
    {"kvm", "PATH", GROUP_MACHINE, 0, "the KVM device", "/dev/kvm", set_kvm},
    {"ice-slots", "N[@FIRST][,fd=M]", GROUP_ICE, 0,
     "keyslots that the guest may program, out of the host's; @: which; fd: an inherited descriptor of the "
     "map "
     "that holds their lock",
     NULL, config_set_ice_slots},
    {"ice-total", "N", GROUP_ICE, 0, "keyslots of the host, 1 to 256", "64", config_set_ice_total},
    {"ice-map", "PATH", GROUP_ICE, 0, "the host's keyslot map", "ice.slots in the run directory",
     config_set_ice_map},
    {"ice-kek", "FILE", GROUP_ICE, 0, "key-encryption key of wrapped keys, 16 to 64 bytes", "random per boot",
     config_set_ice_kek},
    {"ice-vm-key", "FD", GROUP_ICE, OPTION_CLI,
     "inherited descriptor with the VM's own key for wrapped keys, 32 bytes, instead of --ice-kek", NULL,
     config_set_ice_vm_key},
    {"ice-ecb", NULL, GROUP_ICE, OPTION_SWITCH, "allow AES-ECB, which shows what data is equal", "off",
     config_set_ice_ecb},
    {"ice-key", "KEY=VALUE...", GROUP_ICE, OPTION_REPEAT,
     "encrypt a disk, unseen by the guest: slot=N,disk=ID,alg=NAME,unit=BYTES and file=PATH or fd=N; alg: "
     "aes-xts, essiv-aes-cbc, bitlocker-aes-cbc, aes-ecb",
     NULL, config_set_ice_key},
    {"uuid", "UUID", GROUP_ICE, 0, "the VM's; wrapped keys are bound to it", "from the name",
     config_set_uuid},
    {"name", "NAME", GROUP_RUN, 0, "the VM's name, for stop, pause, resume and status", "vm-PID", set_name},
    {"timeout", "SECONDS", GROUP_RUN, 0, "end the VM after so long, with exit code 124; 0: never", "0",
     set_timeout},
    {"no-control", NULL, GROUP_RUN, OPTION_SWITCH, "no control socket", "off", set_no_control},
    {"ready-fd", "N", GROUP_RUN, OPTION_CLI,
     "write 'ready' to this inherited descriptor when the guest is to run", NULL, set_ready_fd},
    {"cpu-limit", "PERCENT", GROUP_CELL, 0, "most CPU time that the VM gets, by its cgroup; 100 is one CPU",
     "none", set_cpu_limit},
    {"memory-limit", "SIZE", GROUP_CELL, 0,
     "most memory of the VM's process, guest RAM included, by its cgroup", "none", set_memory_limit},
    {"no-sandbox", NULL, GROUP_CELL, OPTION_SWITCH, "run outside the cell; for debugging minivmm only", "off",
     set_no_sandbox},
    {"verbose", NULL, GROUP_RUN, OPTION_SWITCH, "say more on standard error", "off", set_verbose},
    {"quiet", NULL, GROUP_RUN, OPTION_SWITCH, "say errors only", "off", set_quiet},
    {"config", "FILE", GROUP_OTHER, OPTION_CLI,
     "read settings from an INI file: these flags without dashes are its keys; flags beside --config win",
     NULL, set_config},
    {"help", NULL, GROUP_OTHER, OPTION_CLI | OPTION_ANSWERS, "print this help", NULL, NULL},
    {"version", NULL, GROUP_OTHER, OPTION_CLI | OPTION_ANSWERS, "print the version", NULL, NULL},
};
const unsigned config_options_count = ARRAY_SIZE(config_options);

const struct option_def *config_option_find(const char *name, size_t len)
{
    for (unsigned i = 0; i < config_options_count; i++)
        if (strlen(config_options[i].name) == len && memcmp(config_options[i].name, name, len) == 0)
            return &config_options[i];
    return NULL;
}

int config_unknown_option(const char *prefix, const char *name, bool in_file, struct err *err)
{
    struct suggestion near = {.typed = name};
    for (unsigned i = 0; i < config_options_count; i++)
        if (!in_file || !(config_options[i].flags & OPTION_CLI))
            suggest_offer(&near, config_options[i].name);
    const char *what = in_file ? "key" : "flag";
    if (near.best)
        return err_set(err, -EINVAL, "unknown %s '%s%s'; did you mean '%s%s'?", what, prefix, name, prefix,
                       near.best);
    return err_set(err, -EINVAL, "unknown %s '%s%s': minivmm --help lists them", what, prefix, name);
}
