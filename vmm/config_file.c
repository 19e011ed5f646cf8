/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files of one VM, read with libinih. */
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config_internal.h"
#include "vmm/config_lines.h"

struct reader {
    struct config *config;
    struct err *err;
    const char *path; /* for sentences */
    char *folder;     /* where relative paths start */
    struct lines lines;
    uint64_t seen; /* options by their index */
    unsigned first_disk;
    uint32_t disk_seen[CONFIG_DISKS_MAX];
    unsigned disk_line[CONFIG_DISKS_MAX];
    int code; /* the first failure, its sentence in err */
    unsigned code_line;
};

/* Notes the first failure; its sentence, without the place, is in err. */
static int fail(struct reader *r, int code)
{
    if (r->code == 0) {
        r->code = err_prefix(r->err, code, "%s:%u", r->path, r->lines.line);
        r->code_line = r->lines.line;
    }
    return code;
}

/* libinih's fgets(): one line, or NULL at the end and after the first failure. */
static char *read_line(char *to, int size, void *arg)
{
    struct reader *r = arg;
    int code = r->code < 0 ? 0 : lines_next(&r->lines, to, (size_t)size, r->err);
    if (code < 0)
        fail(r, code);
    return code > 0 ? to : NULL;
}

/* One more line of a value that began above. */
static int continue_value(struct reader *r, const char *name, const char *value)
{
    const struct option_def *option = config_option_find(name, strlen(name));
    if (!option || !(option->flags & OPTION_JOINS))
        return err_set(
            r->err, -EINVAL,
            "an indented line goes on with the value above, which only cmdline can: begin '%s' at the "
            "margin",
            value);
    char *joined = NULL;
    const char *before = r->config->cmdline;
    if (asprintf(&joined, "%s%s%s", before, *before ? " " : "", value) < 0)
        return err_set(r->err, -ENOMEM, "out of memory");
    free(r->config->cmdline);
    r->config->cmdline = joined;
    return 0;
}

static int set_option(struct reader *r, const char *name, const char *value)
{
    const struct option_def *option = config_option_find(name, strlen(name));
    if (!option || (option->flags & OPTION_CLI))
        return config_unknown_option("", name, true, r->err);
    uint64_t bit = 1ULL << (option - config_options);
    if ((r->seen & bit) && !(option->flags & OPTION_REPEAT))
        return err_set(r->err, -EINVAL, "%s is given twice: give it once", name);
    r->seen |= bit;
    int code = option->set(r->config, value, r->folder, r->err);
    return code < 0 ? err_prefix(r->err, code, "%s", name) : 0;
}

/* The disk of section [disk ID], made when it is new. */
static int section_disk(struct reader *r, const char *id, unsigned *index)
{
    struct config *config = r->config;
    for (unsigned i = r->first_disk; i < config->disks; i++) {
        if (r->disk_line[i] && strcmp(config->disk[i].id, id) == 0) {
            *index = i;
            return 0;
        }
    }
    char *name = NULL;
    int code = config_value_name(id, &name, r->err);
    if (code < 0)
        return err_prefix(r->err, code, "[disk %s]", id);
    struct config_disk *disk = config_disk_add(config, r->err);
    if (!disk) {
        free(name);
        return err_prefix(r->err, -E2BIG, "[disk %s]", id);
    }
    disk->id = name;
    *index = config->disks - 1;
    r->disk_line[*index] = r->lines.line;
    return 0;
}

static int set_disk_key(struct reader *r, const char *id, const char *name, const char *value)
{
    unsigned i = 0;
    int code = section_disk(r, id, &i);
    if (code < 0)
        return code;
    if (strcmp(name, "id") == 0)
        return err_set(r->err, -EINVAL, "the id of this disk is in its section's name, [disk %s]", id);
    return config_disk_set(&r->config->disk[i], name, value, r->folder, &r->disk_seen[i], r->err);
}

/* libinih calls it for each key; nonzero to go on. */
static int on_key(void *arg, const char *section, const char *name, const char *value)
{
    static const char disk[] = "disk ";
    struct reader *r = arg;
    int code;
    if (r->lines.indented && r->lines.has_key)
        code = continue_value(r, name, value);
    else if (*section == '\0' || strcmp(section, "vm") == 0)
        code = set_option(r, name, value);
    else if (strncmp(section, disk, sizeof(disk) - 1) == 0)
        code = set_disk_key(r, section + sizeof(disk) - 1, name, value);
    else
        code = err_set(r->err, -EINVAL, "unknown section [%s]: expected [vm] or [disk ID]", section);
    r->lines.has_key = true;
    if (code < 0)
        fail(r, code);
    return code == 0;
}

static int parse(struct reader *r)
{
    lines_set_up_libinih();
    int wrong = ini_parse_stream(read_line, r, on_key, r);
    if (wrong > 0 && (r->code == 0 || (unsigned)wrong < r->code_line))
        return err_set(r->err, -EINVAL, "%s:%d: expected key = value, [section] or a comment", r->path,
                       wrong);
    if (r->code < 0)
        return r->code;
    if (wrong < 0)
        return err_set(r->err, -ENOMEM, "%s: out of memory", r->path);
    for (unsigned i = r->first_disk; i < r->config->disks; i++)
        if (!r->config->disk[i].path)
            return err_set(r->err, -EINVAL, "%s:%u: [disk %s] has no path: add path = FILE", r->path,
                           r->disk_line[i], r->config->disk[i].id);
    return 0;
}

int config_parse_file(struct config *config, const char *path, struct err *err)
{
    struct err local;
    struct reader r = {
        .config = config, .err = err ? err : &local, .path = path, .first_disk = config->disks};
    const char *slash = strrchr(path, '/');
    if (slash && !(r.folder = strndup(path, slash == path ? 1 : (size_t)(slash - path))))
        return err_set(err, -ENOMEM, "out of memory");
    int code = lines_load(&r.lines, path, NULL, r.err);
    code = code < 0 ? err_prefix(r.err, code, "--config") : parse(&r);
    free(r.lines.text);
    free(r.folder);
    return code;
}
