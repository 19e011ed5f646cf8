/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a fleet's supervisor and talking to it. */
#include "vmm/fleet_client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "vmm/exit_codes.h"
#include "vmm/fleet_config.h"
#include "vmm/suggest.h"

#define LIST_MAX 400u

int fleet_fail(const struct fleet_wish *wish, const struct err *err)
{
    fprintf(stderr, "minivmm: error: fleet %s: %s\n", wish->command, err->text);
    return EXIT_CODE_FAILURE;
}

/* "web.fleet" becomes "web" in name. */
static bool is_fleet_file(const char *file, char name[CONFIG_NAME_MAX + 1])
{
    size_t len = strlen(file);
    size_t suffix = sizeof(FLEET_SUFFIX) - 1;
    if (len <= suffix || len - suffix > CONFIG_NAME_MAX || strcmp(file + len - suffix, FLEET_SUFFIX) != 0)
        return false;
    memcpy(name, file, len - suffix);
    name[len - suffix] = '\0';
    return true;
}

/* The fleets that run, for choosing one and for sentences. */
struct fleets {
    unsigned count;
    char first[CONFIG_NAME_MAX + 1];
    char nearest[CONFIG_NAME_MAX + 1]; /* to the one that was typed; empty: none is near */
    char list[LIST_MAX];
};

static void add_fleet(struct fleets *fleets, const char *typed, const char *name)
{
    struct suggestion near = {.typed = typed ? typed : ""};
    size_t at = strlen(fleets->list);
    suggest_offer(&near, name);
    if (near.best)
        snprintf(fleets->nearest, sizeof(fleets->nearest), "%s", name);
    if (fleets->count++ == 0)
        snprintf(fleets->first, sizeof(fleets->first), "%s", name);
    if (at + strlen(name) + sizeof(", ...") < sizeof(fleets->list))
        snprintf(fleets->list + at, sizeof(fleets->list) - at, "%s%s", at ? ", " : "", name);
}

/* What a supervisor that was killed left does not count. */
static void list_fleets(int dir_fd, const char *typed, struct fleets *fleets)
{
    int again = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    const struct dirent *entry;
    char name[CONFIG_NAME_MAX + 1];
    *fleets = (struct fleets){0};
    if (!dir) {
        if (again >= 0)
            close(again);
        return;
    }
    while ((entry = readdir(dir))) { // NOLINT(concurrency-mt-unsafe)
        if (!is_fleet_file(entry->d_name, name))
            continue;
        int fd = control_connect_owner(dir_fd, entry->d_name, SOCK_NONBLOCK);
        if (fd >= 0)
            close(fd);
        if (fd >= 0 || fd == -EAGAIN)
            add_fleet(fleets, typed, name);
    }
    closedir(dir);
}

static int no_such_fleet(int dir_fd, const char *name, struct err *err)
{
    struct fleets fleets;
    list_fleets(dir_fd, name, &fleets);
    if (fleets.nearest[0])
        return err_set(err, -ENOENT, "no fleet named %s is running; did you mean %s?", name, fleets.nearest);
    if (fleets.count)
        return err_set(err, -ENOENT, "no fleet named %s is running; these are: %s", name, fleets.list);
    return err_set(err, -ENOENT, "no fleet named %s is running, nor any other of yours", name);
}

/* The name of the fleet whose file this is; the file need not be without errors. */
static int name_of_file(const char *path, char name[CONFIG_NAME_MAX + 1], struct err *err)
{
    struct fleet fleet;
    struct fleet_problems problems;
    int code = fleet_load(path, &fleet, &problems);
    if (fleet.name && strlen(fleet.name) <= CONFIG_NAME_MAX && access(path, R_OK) == 0) {
        snprintf(name, CONFIG_NAME_MAX + 1, "%s", fleet.name);
        code = 0;
    } else {
        code = err_set(err, code < 0 ? code : -EINVAL, "%s can't be read as a fleet's file%s%s", path,
                       problems.count ? ": " : "", problems.count ? problems.list[0].text : "");
    }
    fleet_problems_free(&problems);
    fleet_free(&fleet);
    return code;
}

static bool is_path(const char *text)
{
    static const char suffix[] = ".conf";
    size_t len = strlen(text);
    return strchr(text, '/') ||
           (len >= sizeof(suffix) && strcmp(text + len + 1 - sizeof(suffix), suffix) == 0);
}

static int choose(const struct fleet_wish *wish, struct fleet_link *link, struct err *err)
{
    char file[CONTROL_FILE_MAX];
    struct fleets fleets;
    if (wish->fleet && is_path(wish->fleet))
        return name_of_file(wish->fleet, link->name, err);
    if (wish->fleet && control_file_name(wish->fleet, file, err) < 0)
        return err_prefix(err, -EINVAL, "--fleet");
    if (!wish->fleet) {
        list_fleets(link->dir_fd, NULL, &fleets);
        if (fleets.count == 0)
            return err_set(err, -ENOENT, "no fleet of yours is running; minivmm fleet up FILE starts one");
        if (fleets.count > 1)
            return err_set(err, -EINVAL, "more than one fleet is running (%s): choose one with --fleet NAME",
                           fleets.list);
    }
    snprintf(link->name, sizeof(link->name), "%s", wish->fleet ? wish->fleet : fleets.first);
    return 0;
}

int fleet_link_open(const struct fleet_wish *wish, struct fleet_link *link, struct err *err)
{
    link->dir_fd = control_dir_open(false, err);
    if (link->dir_fd == -ENOENT)
        return err_set(err, -ENOENT, "no fleet of yours is running; minivmm fleet up FILE starts one");
    if (link->dir_fd < 0)
        return link->dir_fd;
    int code = choose(wish, link, err);
    if (code < 0) {
        fleet_link_close(link);
        return code;
    }
    snprintf(link->file, sizeof(link->file), "%s" FLEET_SUFFIX, link->name);
    return 0;
}

void fleet_link_close(struct fleet_link *link)
{
    close(link->dir_fd);
}

static void set_patience(int fd, unsigned seconds)
{
    const struct timeval patience = {.tv_sec = seconds};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

int fleet_send(const struct fleet_link *link, const char *request, struct err *err)
{
    char line[CONTROL_LINE_MAX + 1];
    if (snprintf(line, sizeof(line), "%s\n", request) >= (int)sizeof(line))
        return err_set(err, -E2BIG, "these are too many names for one request: name fewer, or --all");
    int fd = control_connect_owner(link->dir_fd, link->file, 0);
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        return no_such_fleet(link->dir_fd, link->name, err);
    int code = fd < 0 ? fd : control_send(fd, line, -1);
    if (code == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, code, "the connection to the supervisor of %s failed: %s", link->name,
                   strerror(-code));
}

static int no_answer(const struct fleet_link *link, struct err *err)
{
    if (errno == EAGAIN)
        return err_set(err, -ETIMEDOUT, "the supervisor of %s does not answer: its process may be stopped",
                       link->name);
    return err_set(err, -EPROTO, "the supervisor of %s ended within its answer", link->name);
}

/* The last line of an answer: 1, and *code is the request's; else 0. */
static int is_verdict(const char *line, int *code, struct err *err)
{
    static const char error[] = "error: ";
    *code = 0;
    if (strncmp(line, error, sizeof(error) - 1) == 0)
        *code = err_set(err, -EREMOTEIO, "%s", line + sizeof(error) - 1);
    return *code < 0 || strcmp(line, "ok") == 0;
}

static int read_lines(FILE *in, fleet_line_fn *fn, void *ctx, const struct fleet_link *link, struct err *err)
{
    char *line = NULL;
    size_t size = 0;
    int code = 0;
    for (;;) {
        errno = 0;
        ssize_t len = getline(&line, &size, in);
        if (len <= 0 || line[len - 1] != '\n') {
            code = no_answer(link, err);
            break;
        }
        line[len - 1] = '\0';
        if (is_verdict(line, &code, err))
            break;
        fn(ctx, line);
    }
    free(line);
    return code;
}

int fleet_ask(const struct fleet_link *link, const char *request, unsigned patience, fleet_line_fn *fn,
              void *ctx, struct err *err)
{
    int fd = fleet_send(link, request, err);
    if (fd < 0)
        return fd;
    set_patience(fd, patience);
    FILE *in = fdopen(fd, "r");
    if (!in) {
        close(fd);
        return err_set(err, -ENOMEM, "out of memory");
    }
    int code = read_lines(in, fn, ctx, link, err);
    fclose(in);
    return code;
}

/* A byte at a time, since what follows the first line is no longer lines. */
static int read_line(int fd, char *line, size_t size)
{
    for (size_t len = 0; len + 1 < size; len++) {
        ssize_t n;
        do
            n = recv(fd, line + len, 1, 0);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            return -1;
        if (line[len] == '\n') {
            line[len] = '\0';
            return 0;
        }
    }
    return -1;
}

int fleet_ask_stream(const struct fleet_link *link, const char *request, struct err *err)
{
    char line[sizeof(err->text)];
    int code;
    int fd = fleet_send(link, request, err);
    if (fd < 0)
        return fd;
    errno = 0;
    if (read_line(fd, line, sizeof(line)) < 0)
        code = no_answer(link, err);
    else if (strcmp(line, "stream") == 0)
        code = 1;
    else if (!is_verdict(line, &code, err) || code == 0)
        code = err_set(err, -EPROTO, "the supervisor's answer is not a stream");
    if (code == 1) {
        set_patience(fd, 0);
        return fd;
    }
    close(fd);
    return code;
}

bool fleet_next_fact(char **line, const char **key, const char **value)
{
    for (;;) {
        char *word = strsep(line, " ");
        if (!word)
            return false;
        char *equals = strchr(word, '=');
        if (!equals)
            continue;
        *equals = '\0';
        *key = word;
        *value = equals + 1;
        return true;
    }
}

void fleet_fit(char *out, unsigned width, const char *name)
{
    if (snprintf(out, width + 1, "%s", name) > (int)width)
        out[width - 1] = '~';
}

void fleet_format_uptime(char out[FLEET_UPTIME_MAX], double seconds)
{
    static const unsigned long most = 99999UL * 86400;
    unsigned long s = !(seconds >= 0) ? 0 : seconds > (double)most ? most : (unsigned long)seconds;
    if (seconds < 0)
        snprintf(out, FLEET_UPTIME_MAX, "-");
    else if (s < 60)
        snprintf(out, FLEET_UPTIME_MAX, "%lus", s);
    else if (s < 3600)
        snprintf(out, FLEET_UPTIME_MAX, "%lum%02lus", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, FLEET_UPTIME_MAX, "%luh%02lum", s / 3600, s / 60 % 60);
    else if (s < 1000UL * 86400)
        snprintf(out, FLEET_UPTIME_MAX, "%lud%02luh", s / 86400, s / 3600 % 24);
    else
        snprintf(out, FLEET_UPTIME_MAX, "%lud", s / 86400 % 100000);
}
