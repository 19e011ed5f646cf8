/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's socket, FLEET.fleet in the run directory (docs/fleet.md). Nothing here waits for a client:
 * answers lie in its buffer, consoles in their VM's ring, and who is too slow loses the oldest bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/fleet_internal.h"

#define CLIENTS_MAX 64u
#define BACKLOG     64
#define OUT_MAX     (4U << 20)
#define PUMP_BYTES  (256U << 10) /* to one client in one turn */

static void drop(struct client *client)
{
    struct fleet_server *server = client->server;
    struct client **at = &server->oldest;
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    server->clients--;
    loop_remove(server->up->loop, client->fd);
    close(client->fd);
    free(client->out);
    free(client->want);
    free(client);
}

void client_say(struct client *client, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int len = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (len < 0)
        return;
    if (client->out_len + (size_t)len <= OUT_MAX) {
        char *more = realloc(client->out, client->out_len + (size_t)len);
        if (more) {
            memcpy(more + client->out_len, text, (size_t)len);
            client->out = more;
            client->out_len += (size_t)len;
        }
    }
    free(text);
}

/* Sent, 0: not now, -1: the client is gone. */
static ssize_t give(struct client *client, const char *bytes, size_t len)
{
    for (;;) {
        ssize_t n = send(client->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            return n;
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return -1;
    }
}

/* What to send next; 0: nothing is there. */
static size_t next_piece(struct client *client, const char **piece)
{
    uint64_t lost;
    if (client->out_sent == client->out_len) {
        free(client->out);
        client->out = NULL;
        client->out_len = client->out_sent = 0;
    }
    if (!client->out_len && client->mode == CLIENT_STREAM && client->stream) {
        size_t len = ring_piece(&client->stream->ring, &client->at, piece, &lost);
        if (!lost)
            return len < client->until - client->at ? len : (size_t)(client->until - client->at);
        client_say(client, "\n[%llu bytes are lost]\n", (unsigned long long)lost);
    }
    *piece = client->out + client->out_sent;
    return client->out_len - client->out_sent;
}

static void set_events(struct client *client, bool blocked)
{
    /* A console's client is not read while the console does not take what it typed before. */
    bool hears = !client->half_closed && (client->mode != CLIENT_STREAM || client->in_len == 0);
    (void)loop_modify(client->server->up->loop, client->fd,
                      (hears ? (uint32_t)EPOLLIN : 0U) | (blocked ? (uint32_t)EPOLLOUT : 0U));
}

static bool has_all(const struct client *client)
{
    return client->mode == CLIENT_ENDING ||
           (client->mode == CLIENT_STREAM && (!client->stream || client->at >= client->until));
}

void client_pump(struct client *client)
{
    const char *piece = NULL;
    size_t len;
    size_t given = 0;
    while ((len = next_piece(client, &piece)) > 0) {
        bool from_ring = client->out_len == 0;
        ssize_t n = given < PUMP_BYTES ? give(client, piece, len) : 0;
        if (n < 0) {
            drop(client);
            return;
        }
        if (n == 0) {
            set_events(client, true);
            return;
        }
        given += (size_t)n;
        if (from_ring)
            client->at += (size_t)n;
        else
            client->out_sent += (size_t)n;
    }
    if (has_all(client))
        drop(client);
    else
        set_events(client, false);
}

/* Typed bytes on their way to the VM. */
static void type(struct client *client)
{
    struct unit *unit = client->stream;
    size_t sent = 0;
    while (unit && unit->console_fd >= 0 && sent < client->in_len) {
        ssize_t n =
            send(unit->console_fd, client->in + sent, client->in_len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0 && errno != EINTR)
            sent = client->in_len;
        else if (n > 0)
            sent += (size_t)n;
    }
    /* What is typed while the VM is down is typed into the void. */
    if (!unit || unit->console_fd < 0)
        sent = client->in_len;
    memmove(client->in, client->in + sent, client->in_len - sent);
    client->in_len -= sent;
    if (client->in_len)
        (void)loop_modify(client->server->up->loop, unit->console_fd, EPOLLIN | EPOLLOUT);
}

void server_console_writable(struct unit *unit)
{
    (void)loop_modify(unit->up->loop, unit->console_fd, EPOLLIN);
    for (struct client *c = unit->up->server ? unit->up->server->oldest : NULL, *next; c; c = next) {
        next = c->next;
        if (c->stream == unit && c->in_len) {
            type(c);
            client_pump(c);
        }
    }
}

static void read_request(struct client *client, size_t n)
{
    char *end = memchr(client->in + client->in_len, '\n', n);
    client->in_len += n;
    if (end) {
        *end = '\0';
        client->in_len = 0;
        client_request(client);
    } else if (client->in_len == sizeof(client->in)) {
        client->mode = CLIENT_ENDING;
        client_say(client, "error: the request is longer than %u bytes\n", CONTROL_LINE_MAX);
    }
    client_pump(client);
}

/* The client may be gone afterwards. */
static void hear(struct client *client)
{
    ssize_t n =
        recv(client->fd, client->in + client->in_len, sizeof(client->in) - client->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0 || (n == 0 && client->mode == CLIENT_READING)) {
        drop(client);
    } else if (n == 0) {
        client->half_closed = true;
        client_pump(client);
    } else if (client->mode == CLIENT_READING) {
        read_request(client, (size_t)n);
    } else if (client->both) {
        client->in_len += (size_t)n;
        type(client);
        client_pump(client);
    }
}

static void on_client(void *arg, uint32_t events)
{
    struct client *client = arg;
    if ((events & (EPOLLHUP | EPOLLERR)) && client->mode != CLIENT_READING)
        drop(client);
    else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        hear(client);
    else
        client_pump(client);
}

/* Who says nothing makes room for others; false when all are at something. */
static bool make_room(struct fleet_server *server)
{
    struct client *client = server->oldest;
    while (client && client->mode != CLIENT_READING && client->mode != CLIENT_ENDING)
        client = client->next;
    if (client)
        drop(client);
    return client;
}

static void on_connection(void *arg, uint32_t events)
{
    static const char full[] = "error: too many clients: end one of those that follow consoles\n";
    struct fleet_server *server = arg;
    (void)events;
    int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct client *client = NULL;
    if (control_peer_allowed(fd, "fleet's", &server->refused)) {
        if (server->clients < CLIENTS_MAX || make_room(server))
            client = calloc(1, sizeof(*client));
        else
            (void)!send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (!client || loop_add(server->up->loop, fd, EPOLLIN, on_client, client) < 0) {
        free(client);
        close(fd);
        return;
    }
    client->server = server;
    client->fd = fd;
    struct client **at = &server->oldest;
    while (*at)
        at = &(*at)->next;
    *at = client;
    server->clients++;
}

/* The process that listens there, or 0. */
static int pid_of_listener(int dir_fd, const char *file)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    int fd = control_connect(dir_fd, file, SOCK_NONBLOCK);
    if (fd < 0)
        return 0;
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    close(fd);
    return (int)peer.pid;
}

static int listen_locked(struct fleet_server *server, struct err *err)
{
    int dir_fd = server->up->dir_fd;
    struct stat st;
    int code = control_remove_dead(dir_fd, server->file);
    if (code == -EBUSY)
        return err_set(err, code, "fleet %s runs already, under process %d: minivmm fleet reload changes it",
                       server->up->fleet.name, pid_of_listener(dir_fd, server->file));
    if (code < 0)
        return code;
    server->fd = control_bind(dir_fd, server->file, SOCK_NONBLOCK);
    if (server->fd < 0)
        return server->fd;
    if (fstatat(dir_fd, server->file, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    server->dev = st.st_dev;
    server->ino = st.st_ino;
    return listen(server->fd, BACKLOG) < 0 ? -errno : 0;
}

static int create(struct fleet_server *server, struct err *err)
{
    struct err why = {{0}};
    snprintf(server->file, sizeof(server->file), "%s" FLEET_SUFFIX, server->up->fleet.name);
    int code = control_dir_lock(server->up->dir_fd, CONTROL_PATIENCE);
    if (code == 0) {
        code = listen_locked(server, &why);
        control_dir_unlock(server->up->dir_fd);
    }
    if (code == 0)
        code = loop_add(server->up->loop, server->fd, EPOLLIN, on_connection, server);
    if (code < 0 && why.text[0])
        return err_set(err, code, "%s", why.text);
    if (code < 0)
        return err_set(err, code, "the fleet's socket %s could not be made: %s", server->file,
                       strerror(-code));
    return 0;
}

int server_create(struct supervisor *up, struct err *err)
{
    struct fleet_server *server = calloc(1, sizeof(*server));
    if (!server)
        return err_set(err, -ENOMEM, "out of memory");
    server->up = up;
    server->fd = -1;
    int code = create(server, err);
    if (code < 0) {
        server_destroy(server);
        return code;
    }
    up->server = server;
    return 0;
}

/* Takes the file away while we still listen, so that nobody takes it for a dead one's and replaces it. */
static void remove_own(const struct fleet_server *server)
{
    struct stat st;
    int dir_fd = server->up->dir_fd;
    if (!server->ino || control_dir_lock(dir_fd, CONTROL_PATIENCE) < 0)
        return;
    if (fstatat(dir_fd, server->file, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == server->dev &&
        st.st_ino == server->ino)
        (void)unlinkat(dir_fd, server->file, 0);
    control_dir_unlock(dir_fd);
}

void server_destroy(struct fleet_server *server)
{
    if (!server)
        return;
    while (server->oldest)    // NOLINT(clang-analyzer-unix.Malloc): drop() takes it off the list
        drop(server->oldest); // NOLINT(clang-analyzer-unix.Malloc)
    if (server->fd >= 0) {
        remove_own(server);
        loop_remove(server->up->loop, server->fd);
        close(server->fd);
    }
    free(server);
}

void server_advance(struct supervisor *up)
{
    for (struct client *c = up->server->oldest, *next; c; c = next) {
        next = c->next;
        if (c->mode == CLIENT_WAITING)
            client_settle(c);
        if (c->out_len)
            client_pump(c);
    }
}

void server_farewell(struct supervisor *up)
{
    for (struct client *c = up->server->oldest, *next; c; c = next) {
        next = c->next;
        if (c->mode == CLIENT_WAITING) {
            client_say(c, c->failed ? "error: the fleet was stopped\n" : "ok\n");
            c->mode = CLIENT_ENDING;
        }
        client_pump(c);
    }
}

void server_tell(struct unit *unit, const char *what, const char *why)
{
    enum log_level level = strcmp(what, "failed") == 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO;
    log_write(level, "%s: %s%s%s", unit_name(unit), what, why ? ": " : "", why ? why : "");
    if (!unit->up->server)
        return;
    for (struct client *c = unit->up->server->oldest; c; c = c->next)
        for (unsigned i = 0; i < c->wants && c->mode == CLIENT_WAITING; i++)
            if (c->want[i].unit == unit && !c->want[i].done)
                client_say(c, "%s %s%s%s\n", what, unit_name(unit), why ? ": " : "", why ? why : "");
}

void server_forget(struct unit *unit)
{
    for (struct client *c = unit->up->server ? unit->up->server->oldest : NULL, *next; c; c = next) {
        next = c->next;
        for (unsigned i = 0; i < c->wants; i++)
            if (c->want[i].unit == unit)
                c->want[i] = (struct want){.done = true};
        if (c->stream == unit)
            drop(c);
    }
}

void server_new_output(struct unit *unit)
{
    for (struct client *c = unit->up->server ? unit->up->server->oldest : NULL, *next; c; c = next) {
        next = c->next;
        if (c->stream == unit)
            client_pump(c);
    }
}
