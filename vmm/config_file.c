/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files, read with libinih. Lines are handed to it one by one from a copy in memory, so that
 * each sentence can tell its line, and so that what libinih would cut in silence is refused: overlong lines
 * and section names.
 */
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/config_internal.h"

#define FILE_MAX    (1U << 20)
#define LINE_SIZE   4096 /* bytes, line end included; the kernel reads command lines of half of that */
#define SECTION_MAX 49u  /* libinih cuts section names here */

struct reader {
    struct config *config;
    struct err *err;
    const char *path; /* for sentences */
    char *folder;     /* where relative paths start */
    char *text;       /* the whole file */
    size_t len, at;
    unsigned line; /* the one that libinih has now, from 1 */
    bool indented; /* it begins with a blank */
    bool
        has_key; /* a key came before it in its section, so that libinih takes indented lines as more of it */
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
        r->code = err_prefix(r->err, code, "%s:%u", r->path, r->line);
        r->code_line = r->line;
    }
    return code;
}

/* 0 when libinih can take the line whole. */
static int check_line(struct reader *r, const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)line[i] < ' ' && !strchr("\t\r\n", line[i])) || line[i] == '\0')
            return err_set(r->err, -EINVAL, "byte %zu is a control character: this is not a text file",
                           i + 1);
    if (r->line == 1 && strncmp(line, "\xEF\xBB\xBF", 3) == 0)
        line += 3; /* the byte order mark, which libinih skips */
    const char *start = line + strspn(line, " \t");
    r->indented = start != line;
    if (*start != '[' || (r->indented && r->has_key))
        return 0;
    r->has_key = false;
    if (strcspn(start + 1, "]\n") > SECTION_MAX)
        return err_set(r->err, -EINVAL, "the section's name is longer than %u bytes", SECTION_MAX);
    return 0;
}

/* libinih's fgets(): one line, or NULL at the end and after the first failure. */
static char *read_line(char *to, int size, void *arg)
{
    struct reader *r = arg;
    if (r->code < 0 || r->at == r->len)
        return NULL;
    char *line = r->text + r->at;
    char *end = memchr(line, '\n', r->len - r->at);
    size_t len = end ? (size_t)(end - line) + 1 : r->len - r->at;
    r->line++;
    r->at += len;
    int code = 0;
    if (len >= (size_t)size)
        code = err_set(r->err, -EINVAL,
                       "the line is longer than %d bytes: a cmdline may go on on indented lines", size - 1);
    else
        code = check_line(r, line, len);
    if (code < 0) {
        fail(r, code);
        return NULL;
    }
    memcpy(to, line, len);
    to[len] = '\0';
    return to;
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
    r->disk_line[*index] = r->line;
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
    if (r->indented && r->has_key)
        code = continue_value(r, name, value);
    else if (*section == '\0' || strcmp(section, "vm") == 0)
        code = set_option(r, name, value);
    else if (strncmp(section, disk, sizeof(disk) - 1) == 0)
        code = set_disk_key(r, section + sizeof(disk) - 1, name, value);
    else
        code = err_set(r->err, -EINVAL, "unknown section [%s]: expected [vm] or [disk ID]", section);
    r->has_key = true;
    if (code < 0)
        fail(r, code);
    return code == 0;
}

static int parse(struct reader *r)
{
    ini_max_line = LINE_SIZE;
    ini_allow_inline_comments = false; /* a kernel's command line may hold a ';' */
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

/* Reads to the end or to one byte over the limit, into memory that the caller frees; -errno. */
static int read_all(int fd, char **text, size_t *len)
{
    char *buf = malloc(FILE_MAX + 2);
    if (!buf)
        return -ENOMEM;
    size_t have = 0;
    ssize_t n = 1;
    while (n > 0 && have <= FILE_MAX) {
        n = read(fd, buf + have, FILE_MAX + 1 - have);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            have += (size_t)n;
    }
    if (n < 0) {
        int code = -errno;
        free(buf);
        return code;
    }
    buf[have] = '\0'; /* so that looking for the first character of a line stops */
    *text = buf;
    *len = have;
    return 0;
}

static int load(const char *path, char **text, size_t *len, struct err *err)
{
    /* Not blocking: a pipe without a writer must not hold the program up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, -errno, "--config: %s cannot be opened: %s", path, strerror(errno));
    int code = read_all(fd, text, len);
    close(fd);
    if (code < 0)
        return err_set(err, code, "--config: %s cannot be read: %s", path, strerror(-code));
    if (*len > 0 && *len <= FILE_MAX)
        return 0;
    code = err_set(err, -EINVAL,
                   *len ? "--config: %s is larger than 1 MiB: this is not a configuration"
                        : "--config: %s is empty",
                   path);
    free(*text);
    return code;
}

int config_parse_file(struct config *config, const char *path, struct err *err)
{
    struct err local;
    struct reader r = {
        .config = config, .err = err ? err : &local, .path = path, .first_disk = config->disks};
    const char *slash = strrchr(path, '/');
    if (slash && !(r.folder = strndup(path, slash == path ? 1 : (size_t)(slash - path))))
        return err_set(err, -ENOMEM, "out of memory");
    int code = load(path, &r.text, &r.len, r.err);
    if (code == 0) {
        code = parse(&r);
        free(r.text);
    }
    free(r.folder);
    return code;
}
