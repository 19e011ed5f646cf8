/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet top: the turns, and the terminal. */
#include "vmm/fleet_top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/exit_codes.h"

#define ENTER_SCREEN "\033[?1049h\033[?25l"
#define LEAVE_SCREEN "\033[?25h\033[?1049l"
#define HOME         "\033[H"
#define CLEAR_REST   "\033[K" /* before a line: behind its last column it would take that away */
#define CLEAR_BELOW  "\033[J"
#define CTRL_C       3

/* The screen of a live table. */
struct screen {
    bool live;
    bool keys; /* standard input is a terminal, and was set to give single keys */
    struct termios saved;
    int signal_fd;
};

static void screen_open(struct screen *screen, const struct fleet_wish *wish)
{
    sigset_t signals;
    *screen = (struct screen){.signal_fd = -1};
    screen->live = !wish->json && isatty(STDOUT_FILENO);
    if (!screen->live)
        return;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGWINCH);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    screen->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() &&
        tcgetattr(STDIN_FILENO, &screen->saved) == 0) {
        struct termios single = screen->saved;
        single.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        screen->keys = tcsetattr(STDIN_FILENO, TCSANOW, &single) == 0;
    }
    fputs(ENTER_SCREEN, stdout);
}

static void screen_close(const struct screen *screen)
{
    if (!screen->live)
        return;
    fputs(LEAVE_SCREEN, stdout);
    fflush(stdout);
    if (screen->keys)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &screen->saved);
    if (screen->signal_fd >= 0)
        close(screen->signal_fd);
}

static void show_live(const struct top_fleet *fleet)
{
    struct winsize size = {0};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return;
    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    /* Heading, totals, and the line on which the cursor ends. */
    unsigned rows = size.ws_row > 4 ? size.ws_row - 3U : size.ws_row ? 1 : 0;
    fputs(HOME CLEAR_REST, out);
    top_print(fleet, size.ws_col, rows, "\r\n" CLEAR_REST, out);
    fputs(CLEAR_BELOW, out);
    if (fclose(out) == 0)
        fwrite(text, 1, len, stdout);
    free(text);
}

static void show(const struct screen *screen, const struct fleet_wish *wish, const char *name,
                 struct top_fleet *fleet, bool again)
{
    top_sort(fleet);
    if (screen->live) {
        show_live(fleet);
    } else if (wish->json) {
        top_print_json(fleet, name, stdout);
    } else {
        if (again)
            putchar('\n');
        top_print(fleet, 0, 0, "\n", stdout);
    }
    fflush(stdout);
}

/* What came from the user: 1 to leave, 0 to go on. */
static int hear(struct screen *screen, struct pollfd ready[2], bool *redraw)
{
    struct signalfd_siginfo info;
    char key = 0;
    if (ready[0].revents) {
        ssize_t n = read(STDIN_FILENO, &key, 1);
        if (n <= 0)
            screen->keys = false;
        if (key == 'q' || key == 'Q' || key == CTRL_C)
            return 1;
    }
    if (ready[1].revents && read(screen->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        *redraw = info.ssi_signo == SIGWINCH;
        return info.ssi_signo != SIGWINCH;
    }
    return 0;
}

/* Waits for the next turn; 1: the user wants to leave. */
static int pause_for(struct screen *screen, unsigned delay_ms, const struct top_fleet *fleet)
{
    int64_t end = top_clock_ms() + delay_ms;
    for (;;) {
        struct pollfd ready[2] = {{.fd = screen->keys ? STDIN_FILENO : -1, .events = POLLIN},
                                  {.fd = screen->signal_fd, .events = POLLIN}};
        bool redraw = false;
        int64_t left = end - top_clock_ms();
        if (left <= 0)
            return 0;
        int n = poll(ready, 2, (int)left);
        if (n < 0 && errno != EINTR)
            return 1;
        if (n > 0 && hear(screen, ready, &redraw))
            return 1;
        if (redraw) {
            show_live(fleet);
            fflush(stdout);
        }
    }
}

static void on_line(void *ctx, char *line)
{
    struct top_fleet *fleet = ctx;
    struct top_vm vm;
    if (!top_parse_ps(&vm, line))
        return;
    /* Room grows by doubling, whenever count is a power of two. */
    if ((fleet->count & (fleet->count - 1)) == 0) {
        size_t room = fleet->count ? fleet->count * 2U : 1;
        struct top_vm *more = realloc(fleet->vm, room * sizeof(*more));
        if (!more)
            return;
        fleet->vm = more;
    }
    fleet->vm[fleet->count++] = vm;
}

/* Replaces what the last turn found. */
static int look(const struct fleet_link *link, struct top_fleet *fleet, struct err *err)
{
    struct top_fleet now = {0};
    int code = fleet_ask(link, "ps", CONTROL_PATIENCE, on_line, &now, err);
    if (code == 0) {
        top_follow(&now, fleet);
        top_ask(link->dir_fd, &now);
    }
    free(fleet->vm);
    *fleet = now;
    return code;
}

/* A table that can't be redrawn has no turn without rates. */
static int turns(const struct fleet_wish *wish, const struct fleet_link *link, struct screen *screen,
                 struct top_fleet *fleet, struct err *err)
{
    uint64_t turn = 0;
    int code = look(link, fleet, err);
    bool leave = code == 0 && !screen->live && pause_for(screen, wish->delay_ms, fleet);
    while (code == 0 && !leave) {
        if (turn || !screen->live)
            code = look(link, fleet, err);
        if (code < 0)
            break;
        show(screen, wish, link->name, fleet, turn > 0);
        if (ferror(stdout))
            return err_set(err, -EIO, "the table could not be written");
        turn++;
        leave = turn == wish->turns || pause_for(screen, wish->delay_ms, fleet);
    }
    return code;
}

int fleet_top(const struct fleet_wish *wish)
{
    struct err err = {{0}};
    struct fleet_link link;
    struct screen screen;
    struct top_fleet fleet = {0};
    if (fleet_link_open(wish, &link, &err) < 0)
        return fleet_fail(wish, &err);
    screen_open(&screen, wish);
    int code = turns(wish, &link, &screen, &fleet, &err);
    screen_close(&screen);
    free(fleet.vm);
    fleet_link_close(&link);
    return code < 0 ? fleet_fail(wish, &err) : EXIT_CODE_OK;
}
