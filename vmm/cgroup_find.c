/* SPDX-License-Identifier: Apache-2.0 */
/* Where this process may make control groups: read out of /proc/self/mountinfo and /proc/self/cgroup. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cgroup_internal.h"

const char *const cgroup_controller_names[CGROUP_CONTROLLERS] = {"cpu", "memory"};

bool cgroup_path(char path[CGROUP_PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(path, CGROUP_PATH_MAX, "%s/%s", dir, name);
    return n >= 0 && (unsigned)n < CGROUP_PATH_MAX;
}

bool cgroup_has_word(const char *list, const char *word, const char *by)
{
    size_t len = strlen(word);
    for (const char *at = list + strspn(list, by); *at; at += strspn(at, by)) {
        size_t n = strcspn(at, by);
        if (n == len && memcmp(at, word, n) == 0)
            return true;
        at += n;
    }
    return false;
}

int cgroup_read(const char *dir, const char *name, char *text, size_t size)
{
    char path[CGROUP_PATH_MAX];
    if (!cgroup_path(path, dir, name))
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, text, size - 1);
    int code = got < 0 ? -errno : 0;
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return code;
}

/* Calls fn for each line of root + path until it gives true; whether it did. */
static bool any_line(const char *root, const char *path, bool (*fn)(char *line, void *arg), void *arg)
{
    char name[CGROUP_PATH_MAX];
    FILE *file = cgroup_path(name, root, path) ? fopen(name, "re") : NULL;
    if (!file)
        return false;
    char *line = NULL;
    size_t size = 0;
    bool done = false;
    while (!done && getline(&line, &size, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        done = fn(line, arg);
    }
    free(line);
    fclose(file);
    return done;
}

struct search {
    unsigned version;
    const char *controller;
    char top[PATH_MAX];   /* the group that is mounted, as this process sees the tree of groups */
    char mount[PATH_MAX]; /* where */
    char own[PATH_MAX];   /* the group of this process in that tree */
};

/* "36 35 98:0 /top /mount options [more] - type source super-options" */
static bool is_mount(char *line, void *arg)
{
    struct search *s = arg;
    char options[512];
    const char *tail = strstr(line, " - ");
    if (!tail)
        return false;
    if (s->version == 2 ? strncmp(tail, " - cgroup2 ", 11) != 0
                        : sscanf(tail, " - cgroup %*s %511s", options) != 1 ||
                              !cgroup_has_word(options, s->controller, ","))
        return false;
    return sscanf(line, "%*s %*s %*s %4095s %4095s", s->top, s->mount) == 2;
}

/* "4:cpu,cpuacct:/path", of v2 "0::/path" */
static bool is_own_group(char *line, void *arg)
{
    struct search *s = arg;
    char *names = strchr(line, ':');
    char *path = names ? strchr(names + 1, ':') : NULL;
    if (!path)
        return false;
    *path++ = '\0';
    *names++ = '\0';
    if (s->version == 2 ? strcmp(line, "0") != 0 || *names : !cgroup_has_word(names, s->controller, ","))
        return false;
    snprintf(s->own, sizeof(s->own), "%s", path);
    return true;
}

/* The group of this process in the file system; false when what is mounted does not reach it. */
static bool own_folder(const char *root, const struct search *s, char path[CGROUP_PATH_MAX])
{
    const char *own = s->own;
    size_t top = strcmp(s->top, "/") == 0 ? 0 : strlen(s->top);
    /* A process outside of its cgroup namespace's tree sees itself in "/../..". */
    if (strncmp(own, "/..", 3) == 0 || strncmp(own, s->top, top) != 0 || (own[top] && own[top] != '/'))
        return false;
    own += top;
    int n = snprintf(path, CGROUP_PATH_MAX, "%s%s%s", root, s->mount, strcmp(own, "/") == 0 ? "" : own);
    return n >= 0 && (unsigned)n < CGROUP_PATH_MAX;
}

static bool offers(const char *dir, const char *controller)
{
    char list[512];
    return cgroup_read(dir, "cgroup.controllers", list, sizeof(list)) == 0 &&
           cgroup_has_word(list, controller, " \n");
}

/* VMs' groups are made beside the supervisor's, else within the own one. */
static bool choose_parent(struct cgroup_place *place, const char *controller)
{
    memcpy(place->dir, place->self, sizeof(place->dir));
    if (place->version != 2)
        return true;
    char *slash = strrchr(place->dir, '/');
    if (slash && strcmp(slash + 1, CGROUP_LEAF) == 0) {
        *slash = '\0';
        if (offers(place->dir, controller))
            return true;
        *slash = '/';
    }
    return offers(place->dir, controller);
}

static bool find_version(const char *root, struct search *s, struct cgroup_place *place)
{
    place->version = s->version;
    return any_line(root, "proc/self/mountinfo", is_mount, s) &&
           any_line(root, "proc/self/cgroup", is_own_group, s) && own_folder(root, s, place->self) &&
           choose_parent(place, s->controller);
}

int cgroup_find(const char *root, enum cgroup_controller which, struct cgroup_place *place, struct err *err)
{
    struct search s = {.version = 2, .controller = cgroup_controller_names[which]};
    if (!find_version(root, &s, place)) {
        s.version = 1;
        if (!find_version(root, &s, place))
            return err_set(err, -ENOTSUP, "no control group that this process sees has the %s controller",
                           s.controller);
    }
    if (access(place->dir, W_OK | X_OK) < 0)
        return err_set(err, -ENOTSUP, "the control group %s (v%u) does not let this user make groups: %s",
                       place->dir, place->version, strerror(errno));
    return 0;
}
