/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/config_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX    (1U << 20)
#define SECTION_MAX 49u /* libinih cuts section names here */

/* 0 when libinih can take the line whole. */
static int check_line(struct lines *l, const char *line, size_t len, struct err *err)
{
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)line[i] < ' ' && !strchr("\t\r\n", line[i])) || line[i] == '\0')
            return err_set(err, -EINVAL, "byte %zu is a control character: this is not a text file", i + 1);
    if (l->line == 1 && strncmp(line, "\xEF\xBB\xBF", 3) == 0)
        line += 3; /* the byte order mark, which libinih skips */
    const char *start = line + strspn(line, " \t");
    l->indented = start != line;
    if (*start != '[' || (l->indented && l->has_key))
        return 0;
    l->has_key = false;
    if (strcspn(start + 1, "]\n") > SECTION_MAX)
        return err_set(err, -EINVAL, "the section's name is longer than %u bytes", SECTION_MAX);
    return 0;
}

int lines_next(struct lines *l, char *to, size_t size, struct err *err)
{
    if (l->at == l->len)
        return 0;
    char *line = l->text + l->at;
    char *end = memchr(line, '\n', l->len - l->at);
    size_t len = end ? (size_t)(end - line) + 1 : l->len - l->at;
    l->line++;
    l->at += len;
    if (len >= size)
        return err_set(err, -EINVAL,
                       "the line is longer than %zu bytes: a cmdline may go on on indented lines", size - 1);
    int code = check_line(l, line, len, err);
    if (code < 0)
        return code;
    memcpy(to, line, len);
    to[len] = '\0';
    return 1;
}

/* Reads to the end or to one byte over the limit. */
static int read_all(int fd, char *buf, size_t *len)
{
    size_t have = 0;
    ssize_t n = 1;
    while (n > 0 && have <= FILE_MAX) {
        n = read(fd, buf + have, FILE_MAX + 1 - have);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            have += (size_t)n;
    }
    if (n < 0)
        return -errno;
    buf[have] = '\0'; /* so that looking for the first character of a line stops */
    *len = have;
    return 0;
}

int lines_load(struct lines *l, const char *path, struct stat *st, struct err *err)
{
    *l = (struct lines){0};
    /* Not blocking: a pipe without a writer must not hold the program up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, -errno, "%s cannot be opened: %s", path, strerror(errno));
    char *buf = malloc(FILE_MAX + 2);
    int code = buf ? 0 : -ENOMEM;
    if (code == 0 && st && fstat(fd, st) < 0)
        code = -errno;
    if (code == 0)
        code = read_all(fd, buf, &l->len);
    close(fd);
    if (code < 0)
        err_set(err, code, "%s cannot be read: %s", path, strerror(-code));
    else if (l->len == 0)
        code = err_set(err, -EINVAL, "%s is empty", path);
    else if (l->len > FILE_MAX)
        code = err_set(err, -EINVAL, "%s is larger than 1 MiB: this is not a configuration", path);
    if (code < 0) {
        free(buf);
        return code;
    }
    char *fit = realloc(buf, l->len + 1);
    l->text = fit ? fit : buf;
    return 0;
}

void lines_set_up_libinih(void)
{
    ini_max_line = LINES_LINE_SIZE;
    ini_allow_inline_comments = false; /* a kernel's command line may hold a ';' */
}
