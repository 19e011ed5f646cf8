/* SPDX-License-Identifier: Apache-2.0 */
/* The console between the serial device and the host: buffered output, fed input, ctrl-a. */
#include "vmm/console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/log.h"
#include "vmm/console_internal.h"

#define OUT_BYTES    65536u
#define OUT_WAIT     32768u /* a vCPU waits from here on; the rest is for those that must not wait */
#define OUT_FLUSH    4096u
#define IN_BYTES     1024u
#define FLUSH_NS     5000000
#define CLOSE_MS     1000
#define CTRL_A       0x01u
#define CTRL_A_LEAVE 'x'
#define CTRL_A_HELP  'h'

struct console {
    struct console_hooks hooks;
    struct console_host host;
    struct loop *loop;
    struct serial *serial;
    bool drop_oldest;

    pthread_mutex_t lock; /* of the output side */
    pthread_cond_t room;
    uint8_t out[OUT_BYTES];
    size_t out_start, out_len;
    bool hurry, broken, timer_set;
    uint64_t dropped;
    int timer_fd;
    bool out_watched; /* main thread */

    /* Input side: main thread. */
    uint8_t in[IN_BYTES];
    size_t in_len;
    bool in_watched, in_file, in_end, escape;
    int room_fd;             /* eventfd: the receive FIFO has room again */
    _Atomic bool wants_room; /* only then is room_fd signalled */
};

/* Takes the first len bytes out of the output buffer. Under the lock. */
static void out_take(struct console *c, size_t len)
{
    c->out_len -= len;
    c->out_start = c->out_len ? c->out_start + len : 0;
    pthread_cond_broadcast(&c->room);
}

/* Writes what the other side takes without waiting. Under the lock. */
static void out_flush(struct console *c)
{
    while (c->out_len) {
        if (c->broken) {
            out_take(c, c->out_len);
            return;
        }
        ssize_t n = console_host_write(&c->host, c->out + c->out_start, c->out_len);
        if (n > 0) {
            out_take(c, (size_t)n);
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n == 0 || errno != EINTR) {
            /* The run goes on without its console: the guest's work may matter more than what it says. */
            log_warn("the console's output is lost from here on: %s",
                     n < 0 ? strerror(errno) : "end of file");
            c->broken = true;
        }
    }
}

/* Makes the loop look at the output soon. Under the lock. */
static void out_soon(struct console *c)
{
    if (c->timer_set)
        return;
    const struct itimerspec when = {.it_value.tv_nsec = FLUSH_NS};
    c->timer_set = timerfd_settime(c->timer_fd, 0, &when, NULL) == 0;
}

/* Room for one byte more. Under the lock, which is dropped while waiting. */
static bool out_make_room(struct console *c)
{
    while (c->out_len >= OUT_WAIT && !c->drop_oldest && !c->hurry && !c->broken) {
        out_soon(c);
        pthread_cond_wait(&c->room, &c->lock);
    }
    if (c->out_len == OUT_BYTES && c->drop_oldest) {
        out_take(c, OUT_FLUSH);
        c->dropped += OUT_FLUSH;
    }
    if (c->out_len == OUT_BYTES)
        return false;
    if (c->out_start + c->out_len == OUT_BYTES) {
        memmove(c->out, c->out + c->out_start, c->out_len);
        c->out_start = 0;
    }
    return true;
}

void console_output(void *console, const uint8_t *bytes, size_t len)
{
    struct console *c = console;
    if (c->host.out_fd < 0)
        return;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < len; i++) {
        if (!out_make_room(c)) {
            c->dropped += len - i;
            break;
        }
        c->out[c->out_start + c->out_len++] = bytes[i];
        /* Beyond the first 4 KiB the other side is slow: the loop sees when it takes more. */
        if (bytes[i] == '\n' ? c->out_len <= OUT_FLUSH : c->out_len == OUT_FLUSH)
            out_flush(c);
    }
    if (c->out_len)
        out_soon(c);
    pthread_mutex_unlock(&c->lock);
}

void console_hurry(struct console *c, bool on)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->hurry = on;
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
}

static void watch_out(struct console *c, bool on);

/* Main thread: writes, and has the loop call again when the other side takes more. */
static void serve_out(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    out_flush(c);
    bool blocked = c->out_len > 0;
    pthread_mutex_unlock(&c->lock);
    watch_out(c, blocked);
}

static void on_out(void *arg, uint32_t events)
{
    (void)events;
    serve_out(arg);
}

static void watch_out(struct console *c, bool on)
{
    if (on && !c->out_watched) {
        c->out_watched = loop_add(c->loop, c->host.out_fd, EPOLLOUT, on_out, c) == 0;
    } else if (!on && c->out_watched) {
        loop_remove(c->loop, c->host.out_fd);
        c->out_watched = false;
    }
}

static void on_timer(void *arg, uint32_t events)
{
    struct console *c = arg;
    uint64_t fired;
    (void)events;
    (void)!read(c->timer_fd, &fired, sizeof(fired));
    pthread_mutex_lock(&c->lock);
    c->timer_set = false;
    pthread_mutex_unlock(&c->lock);
    serve_out(c);
}

void console_input_ready(void *console)
{
    struct console *c = console;
    if (atomic_exchange(&c->wants_room, false))
        event_signal(c->room_fd);
}

static size_t in_feed_once(struct console *c)
{
    size_t n = serial_feed(c->serial, c->in, c->in_len);
    c->in_len -= n;
    memmove(c->in, c->in + n, c->in_len);
    return n;
}

/* Gives the guest what it takes; what is left goes when it has read some. */
static void in_feed(struct console *c)
{
    while (c->in_len) {
        if (in_feed_once(c))
            continue;
        /* The wish first, then another look: room made in between is either seen or signalled. */
        atomic_store(&c->wants_room, true);
        if (!in_feed_once(c))
            return;
    }
}

static void on_escape(struct console *c, uint8_t key)
{
    static const char help[] = "\r\nctrl-a x  leave: ends the VM at once\r\nctrl-a a  send ctrl-a\r\n"
                               "ctrl-a h  this help\r\n";
    if (key == CTRL_A_LEAVE)
        c->hooks.quit(c->hooks.ctx);
    else if (key == CTRL_A_HELP)
        (void)!write(STDERR_FILENO, help, sizeof(help) - 1);
    else if ((key == 'a' || key == CTRL_A) && c->in_len < IN_BYTES)
        c->in[c->in_len++] = CTRL_A;
}

/* A person's keys. Those that do not fit are dropped, so that ctrl-a x works with a guest that reads none. */
static void take_keys(struct console *c, const uint8_t *keys, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (c->escape) {
            c->escape = false;
            on_escape(c, keys[i]);
        } else if (keys[i] == CTRL_A) {
            c->escape = true;
        } else if (c->in_len < IN_BYTES) {
            c->in[c->in_len++] = keys[i];
        }
    }
}

static void on_in(void *arg, uint32_t events);

static void watch_in(struct console *c, bool on)
{
    if (on && !c->in_watched) {
        int code = loop_add(c->loop, c->host.in_fd, EPOLLIN, on_in, c);
        c->in_watched = code == 0;
        c->in_file = code == -EPERM; /* a plain file or /dev/null: always ready, never watched */
        c->in_end = code < 0 && code != -EPERM;
    } else if (!on && c->in_watched) {
        loop_remove(c->loop, c->host.in_fd);
        c->in_watched = false;
    }
}

/* Reads once. False when there is nothing more for now. */
static bool in_read(struct console *c)
{
    uint8_t keys[IN_BYTES];
    size_t room = c->host.keys ? sizeof(keys) : IN_BYTES - c->in_len;
    ssize_t n = room ? read(c->host.in_fd, keys, room) : -1;
    if (n > 0 && c->host.keys) {
        take_keys(c, keys, (size_t)n);
    } else if (n > 0) {
        memcpy(c->in + c->in_len, keys, (size_t)n);
        c->in_len += (size_t)n;
    } else if (n == 0 || (room && errno != EAGAIN && errno != EINTR)) {
        c->in_end = true; /* the guest runs on without input */
        if (n < 0 && errno == EIO && c->host.keys)
            log_info("the console takes no more input: the terminal is gone, or was left to another job");
    }
    return n > 0;
}

/* Reads while the guest takes it; a pipe or file waits for the guest, a person's keys are always read. */
static void serve_in(struct console *c)
{
    in_feed(c);
    if (c->in_file)
        while (!c->in_end && !c->in_len && in_read(c))
            in_feed(c);
    if (!c->in_file)
        watch_in(c, !c->in_end && (c->host.keys || !c->in_len));
}

static void on_in(void *arg, uint32_t events)
{
    struct console *c = arg;
    (void)events;
    (void)in_read(c);
    serve_in(c);
}

static void on_room(void *arg, uint32_t events)
{
    struct console *c = arg;
    (void)events;
    event_clear(c->room_fd);
    serve_in(c);
}

static void discard(struct console *c)
{
    console_host_close(&c->host);
    if (c->timer_fd >= 0)
        close(c->timer_fd);
    if (c->room_fd >= 0)
        close(c->room_fd);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->room);
    free(c);
}

int console_open(const struct config *config, const struct console_hooks *hooks, struct console **out,
                 struct err *err)
{
    struct console *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, -ENOMEM, "out of memory for the console");
    c->hooks = *hooks;
    c->drop_oldest = config->console == CONSOLE_PTY;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->room, NULL);
    c->room_fd = event_open();
    c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int code = console_host_open(config, &c->host, err);
    if (code == 0 && (c->room_fd < 0 || c->timer_fd < 0))
        code = err_set(err, -EMFILE, "--console: no descriptors are left for its timer and its input");
    if (code < 0) {
        discard(c);
        return code;
    }
    *out = c;
    return 0;
}

int console_attach(struct console *c, struct serial *serial, struct loop *loop, struct err *err)
{
    c->serial = serial;
    c->loop = loop;
    int code = loop_add(loop, c->timer_fd, EPOLLIN, on_timer, c);
    if (code == 0)
        code = loop_add(loop, c->room_fd, EPOLLIN, on_room, c);
    if (code < 0)
        return err_set(err, code, "the event loop did not take the console: %s", strerror(-code));
    if (c->host.in_fd >= 0) {
        watch_in(c, true);
        serve_in(c);
    }
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A pty's reader may not exist, so nothing waits for it. */
static void last_flush(struct console *c)
{
    int64_t until = now_ms() + CLOSE_MS;
    pthread_mutex_lock(&c->lock);
    out_flush(c);
    while (c->out_len && !c->drop_oldest) {
        int64_t left = until - now_ms();
        struct pollfd room = {.fd = c->host.out_fd, .events = POLLOUT};
        if (left <= 0 || (poll(&room, 1, (int)left) < 0 && errno != EINTR))
            break;
        out_flush(c);
    }
    c->dropped += c->drop_oldest ? 0 : c->out_len;
    pthread_mutex_unlock(&c->lock);
    if (c->dropped)
        log_warn("the console's other side did not take %llu bytes of output",
                 (unsigned long long)c->dropped);
}

void console_leave_terminal(struct console *c)
{
    c->host.raw = false;
}

void console_close(struct console *c)
{
    last_flush(c);
    if (c->loop) {
        watch_out(c, false);
        watch_in(c, false);
        loop_remove(c->loop, c->timer_fd);
        loop_remove(c->loop, c->room_fd);
    }
    discard(c);
}
