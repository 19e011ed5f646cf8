/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 8

struct watch {
    struct watch *next;
    int fd; /* -1: removed, freed after the dispatch that may still point to it */
    loop_fn *fn;
    void *arg;
};

struct loop {
    int epoll_fd;
    struct watch *watches;
    struct watch *removed;
};

int loop_create(struct loop **out, struct err *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return err_set(err, -ENOMEM, "out of memory for the event loop");
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        int code = -errno;
        free(loop);
        return err_set(err, code, "the event loop could not be created: %s", strerror(-code));
    }
    *out = loop;
    return 0;
}

static void free_list(struct watch **list)
{
    while (*list) {
        struct watch *w = *list;
        *list = w->next;
        free(w);
    }
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    free_list(&loop->watches);
    free_list(&loop->removed);
    close(loop->epoll_fd);
    free(loop);
}

static struct watch **find(struct loop *loop, int fd)
{
    struct watch **at = &loop->watches;
    while (*at && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

int loop_add(struct loop *loop, int fd, uint32_t events, loop_fn *fn, void *arg)
{
    struct watch *w = malloc(sizeof(*w));
    if (!w)
        return -ENOMEM;
    *w = (struct watch){.next = loop->watches, .fd = fd, .fn = fn, .arg = arg};
    struct epoll_event event = {.events = events, .data.ptr = w};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int code = -errno;
        free(w);
        return code;
    }
    loop->watches = w;
    return 0;
}

int loop_modify(struct loop *loop, int fd, uint32_t events)
{
    struct watch *w = *find(loop, fd);
    if (!w)
        return -ENOENT;
    struct epoll_event event = {.events = events, .data.ptr = w};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, int fd)
{
    struct watch **at = find(loop, fd);
    struct watch *w = *at;
    if (!w)
        return;
    /* Fails only where the descriptor was closed already, which took it out of the set. */
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    *at = w->next;
    /* The batch being dispatched may still hold this watch: it is freed when no batch can. */
    w->fd = -1;
    w->next = loop->removed;
    loop->removed = w;
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event ready[BATCH];
    int n = epoll_wait(loop->epoll_fd, ready, BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        const struct watch *w = ready[i].data.ptr;
        if (w->fd >= 0)
            w->fn(w->arg, ready[i].events);
    }
    free_list(&loop->removed);
    return 0;
}
