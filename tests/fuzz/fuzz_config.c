/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the input is a configuration file, and then, up to its first NUL, a --disk value.
 * Whatever parses must also stand the check of the whole, and be freed without a leak.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm/config.h"

#define INPUT_MAX 16384u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A refusal without a sentence is a bug. */
static void judge(int code, const struct config *config)
{
    struct err err = {{0}};
    if (code == 0 && config_check(config, &err) < 0 && !*err.text)
        abort();
}

static void as_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("vm.conf", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct config config;
    struct err err = {{0}};
    config_init(&config);
    int code = config_parse_file(&config, path, &err);
    /* Each refusal names the file; a line is named too, unless the file as a whole is refused. */
    if (code < 0 && !strstr(err.text, path))
        abort();
    judge(code, &config);
    config_free(&config);
    close(fd);
}

static void as_disk(const char *text)
{
    char program[] = "minivmm", flag[] = "--disk", *value = strdup(text);
    if (!value)
        abort();
    char *argv[] = {program, flag, value, NULL};
    struct config config;
    struct err err = {{0}};
    config_init(&config);
    int code = config_parse_args(&config, 3, argv, &err);
    if (code < 0 && strncmp(err.text, "--disk", 6) != 0)
        abort();
    if (code == 0 && (config.disks != 1 || !config.disk[0].path || !*config.disk[0].path ||
                      config.disk[0].queues > 32 || config.disk[0].queue_size > 1024))
        abort();
    judge(code, &config);
    config_free(&config);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_MAX)
        return 0;
    char *text = malloc(size + 1);
    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    as_file(data, size);
    as_disk(text);
    free(text);
    return 0;
}
