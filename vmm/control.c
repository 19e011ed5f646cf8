/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM's end of the control socket. A connection carries one request and its answer. All is done by the
 * main thread without waiting: a client that stalls costs its buffer, and when there are too many clients the
 * oldest goes.
 */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/log.h"
#include "vmm/control_internal.h"

#define CLIENTS_MAX 16u
#define BACKLOG     16

struct client {
    struct control *control;
    struct client *next; /* newer */
    int fd;
    char request[CONTROL_LINE_MAX + 1];
    size_t len;
    int passed_fd; /* came along with the request, or -1 */
    char *answer;  /* NULL while the request is incomplete */
    size_t answer_len, sent;
};

struct control {
    struct loop *loop;
    control_fn *fn;
    void *ctx;
    int dir_fd, fd;
    char file[CONTROL_FILE_MAX];
    dev_t dev; /* dev and ino: our socket, in case that the file was replaced */
    ino_t ino;
    struct client *oldest;
    struct client *asking; /* whose request fn is answering */
    unsigned clients;
    struct log_limit refused;
};

static void drop(struct client *client)
{
    struct control *control = client->control;
    struct client **at = &control->oldest;
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    control->clients--;
    loop_remove(control->loop, client->fd);
    close(client->fd);
    if (client->passed_fd >= 0)
        close(client->passed_fd);
    free(client->answer);
    free(client);
}

/* Sends what the client takes now; drops it when it has all, or is gone. */
static void send_answer(struct client *client)
{
    while (client->sent < client->answer_len) {
        ssize_t n = send(client->fd, client->answer + client->sent, client->answer_len - client->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            client->sent += (size_t)n;
        else if (errno == EAGAIN && loop_modify(client->control->loop, client->fd, EPOLLOUT) == 0)
            return;
        else if (errno != EINTR)
            break;
    }
    drop(client);
}

/* A sentence is one line, whatever it quotes. */
static void print_end(FILE *out, int code, struct err *err)
{
    if (code == 0) {
        fputs("ok\n", out);
        return;
    }
    if (!err->text[0])
        err_set(err, code, "%s", strerror(-code));
    for (char *c = err->text; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    fprintf(out, "error: %s\n", err->text);
}

/* Requests are text: what can't be printed is refused before anybody quotes it. */
static int check(const struct client *client, struct err *err)
{
    for (size_t i = 0; i < client->len; i++)
        if ((unsigned char)client->request[i] < ' ' || client->request[i] == 0x7f)
            return err_set(err, -EINVAL, "byte %zu of the request is a control character", i + 1);
    return 0;
}

/* Answers with fn's lines, or with the refusal when code is negative. */
static void answer(struct client *client, int code, struct err *err)
{
    struct control *control = client->control;
    FILE *out = open_memstream(&client->answer, &client->answer_len);
    if (!out) {
        drop(client);
        return;
    }
    if (code == 0)
        code = check(client, err);
    control->asking = client;
    if (code == 0)
        code = control->fn(control->ctx, client->request, out, err);
    control->asking = NULL;
    print_end(out, code, err);
    if (fclose(out) != 0) {
        drop(client);
        return;
    }
    send_answer(client);
}

int control_take_fd(struct control *control)
{
    struct client *client = control->asking;
    if (!client)
        return -1;
    int fd = client->passed_fd;
    client->passed_fd = -1;
    return fd;
}

/* As recv(), but keeps the last descriptor that came along; the kernel closes those for which there is no
 * room. */
static ssize_t receive(struct client *client)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = client->request + client->len,
                         .iov_len = sizeof(client->request) - client->len};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t n = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len < CMSG_LEN(sizeof(int)))
        return n;
    if (client->passed_fd >= 0)
        close(client->passed_fd);
    memcpy(&client->passed_fd, CMSG_DATA(c), sizeof(int));
    return n;
}

static void read_request(struct client *client)
{
    struct err err = {{0}};
    ssize_t n = receive(client);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(client);
        return;
    }
    char *end = memchr(client->request + client->len, '\n', (size_t)n);
    client->len += (size_t)n;
    if (end) {
        client->len = (size_t)(end - client->request);
        *end = '\0';
        answer(client, 0, &err);
    } else if (client->len == sizeof(client->request)) {
        answer(client, err_set(&err, -E2BIG, "the request is longer than %u bytes", CONTROL_LINE_MAX), &err);
    }
}

static void on_client(void *arg, uint32_t events)
{
    struct client *client = arg;
    if (client->answer)
        send_answer(client);
    else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_request(client);
}

static void add_client(struct control *control, int fd)
{
    if (control->clients == CLIENTS_MAX)
        drop(control->oldest);
    struct client *client = calloc(1, sizeof(*client));
    if (!client || loop_add(control->loop, fd, EPOLLIN, on_client, client) < 0) {
        free(client);
        close(fd);
        return;
    }
    client->control = control;
    client->fd = fd;
    client->passed_fd = -1;
    struct client **at = &control->oldest;
    while (*at)
        at = &(*at)->next;
    *at = client;
    control->clients++;
}

static void on_connection(void *arg, uint32_t events)
{
    struct control *control = arg;
    (void)events;
    int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (control_peer_allowed(fd, "control", &control->refused))
        add_client(control, fd);
    else
        close(fd);
}

/*
 * Removes the file when nobody listens there. Under the directory's lock, where each socket is bound and
 * listening before the lock is left: one that refuses connections is a dead VM's.
 */
static int remove_stale(struct control *control, const char *name, struct err *err)
{
    int code = control_remove_dead(control->dir_fd, control->file);
    if (code == -EBUSY)
        return err_set(err, -EBUSY, "--name: a VM named %s is running already: names are one VM's each",
                       name);
    return code < 0 ? code : 0;
}

static int listen_locked(struct control *control, const char *name, struct err *err)
{
    struct stat st;
    int code = remove_stale(control, name, err);
    if (code < 0)
        return code;
    control->fd = control_bind(control->dir_fd, control->file, SOCK_NONBLOCK);
    if (control->fd < 0)
        return control->fd;
    if (fstatat(control->dir_fd, control->file, &st, 0) < 0)
        return -errno;
    control->dev = st.st_dev;
    control->ino = st.st_ino;
    if (listen(control->fd, BACKLOG) < 0)
        return -errno;
    control_remove_numbered(control->dir_fd);
    return 0;
}

static int create(struct control *control, const char *name, struct err *err)
{
    int code = control_file_name(name, control->file, err);
    if (code < 0)
        return err_prefix(err, code, "--name");
    control->dir_fd = control_dir_open(true, err);
    if (control->dir_fd < 0)
        return control->dir_fd;
    struct err why = {{0}};
    code = control_dir_lock(control->dir_fd, CONTROL_PATIENCE);
    if (code == -ETIMEDOUT)
        return err_set(err, code,
                       "the run directory is locked by another minivmm that does not go on (fuser -v tells "
                       "which): end that one, or run with --no-control");
    if (code == 0) {
        code = listen_locked(control, name, &why);
        control_dir_unlock(control->dir_fd);
    }
    if (code < 0 && why.text[0])
        return err_set(err, code, "%s", why.text);
    if (code < 0)
        return err_set(err, code, "the control socket %s could not be made: %s (--no-control runs without)",
                       control->file, strerror(-code));
    return 0;
}

int control_listen(const char *name, struct control **out, struct err *err)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control)
        return err_set(err, -ENOMEM, "out of memory for the control socket");
    *control = (struct control){.dir_fd = -1, .fd = -1};
    int code = create(control, name, err);
    if (code < 0) {
        control_close(control);
        return code;
    }
    *out = control;
    return 0;
}

int control_serve(struct control *control, struct loop *loop, control_fn *fn, void *ctx, struct err *err)
{
    control->loop = loop;
    control->fn = fn;
    control->ctx = ctx;
    int code = loop_add(loop, control->fd, EPOLLIN, on_connection, control);
    return code < 0
               ? err_set(err, code, "the event loop did not take the control socket: %s", strerror(-code))
               : 0;
}

void control_leave_dir(struct control *control)
{
    close(control->dir_fd);
    control->dir_fd = -1;
}

/* Takes the file away while we still listen, so that nobody takes it for a dead VM's and replaces it first.
 * Where the lock is not to be had, it stays, and is removed as a dead VM's later. */
static void remove_own(struct control *control)
{
    struct stat st;
    if (control_dir_lock(control->dir_fd, CONTROL_PATIENCE) < 0)
        return;
    if (fstatat(control->dir_fd, control->file, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == control->dev &&
        st.st_ino == control->ino)
        (void)unlinkat(control->dir_fd, control->file, 0);
    control_dir_unlock(control->dir_fd);
}

void control_close(struct control *control)
{
    while (control->oldest)    // NOLINT(clang-analyzer-unix.Malloc): drop() takes it off the list
        drop(control->oldest); // NOLINT(clang-analyzer-unix.Malloc)
    if (control->fd >= 0) {
        if (control->ino && control->dir_fd >= 0)
            remove_own(control);
        if (control->loop)
            loop_remove(control->loop, control->fd);
        close(control->fd);
    }
    if (control->dir_fd >= 0)
        close(control->dir_fd);
    free(control);
}
