/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet top: asks many VMs at once over their own control sockets. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/fleet_top.h"

#define PATIENCE_MS 1000
#define OPEN_MAX_AT 128u /* connections at a time */
#define ANSWER_MAX  (1U << 17)
#define CHUNK       8192u

int64_t top_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A connection carries one request: a VM needs two of them. */
static const char *const requests[] = {"status\n", "stats\n"};
#define REQUESTS 2u

struct asking {
    struct top_vm *vm;
    char *text;
    size_t len;
};

struct round {
    int dir_fd;
    struct top_fleet *fleet;
    unsigned next; /* VM and request to ask next */
    struct pollfd ready[OPEN_MAX_AT];
    struct asking asking[OPEN_MAX_AT];
    unsigned open;
};

static void close_one(struct round *round, unsigned i)
{
    close(round->ready[i].fd);
    free(round->asking[i].text);
    round->open--;
    round->ready[i] = round->ready[round->open];
    round->asking[i] = round->asking[round->open];
}

/* Who can't be asked without waiting is not asked in this turn. */
static void open_one(struct round *round, struct top_vm *vm, const char *request)
{
    char file[CONTROL_FILE_MAX];
    struct err err;
    if (vm->pid == TOP_UNKNOWN || control_file_name(vm->name, file, &err) < 0)
        return;
    int fd = control_connect_owner(round->dir_fd, file, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (control_send(fd, request, -1) < 0) {
        close(fd);
        return;
    }
    round->ready[round->open] = (struct pollfd){.fd = fd, .events = POLLIN};
    round->asking[round->open++] = (struct asking){.vm = vm};
}

/* "ok" is the last line: an answer that lacks it is a refusal or only half. */
static void take_answer(const struct asking *asking)
{
    static const char ok[] = "\nok\n";
    size_t end = sizeof(ok) - 1;
    if (asking->len < end || strcmp(asking->text + asking->len - end, ok) != 0)
        return;
    asking->vm->now.at_ms = top_clock_ms();
    top_parse_facts(&asking->vm->now, asking->text);
}

/* False when that one is done. */
static bool read_one(int fd, struct asking *asking)
{
    char *more = asking->len < ANSWER_MAX ? realloc(asking->text, asking->len + CHUNK + 1) : NULL;
    if (!more)
        return false;
    asking->text = more;
    ssize_t n = recv(fd, asking->text + asking->len, CHUNK, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    asking->len += (size_t)n;
    asking->text[asking->len] = '\0';
    if (n > 0)
        return true;
    take_answer(asking);
    return false;
}

static void fill(struct round *round)
{
    while (round->open < OPEN_MAX_AT && round->next < round->fleet->count * REQUESTS) {
        struct top_vm *vm = &round->fleet->vm[round->next / REQUESTS];
        open_one(round, vm, requests[round->next % REQUESTS]);
        round->next++;
    }
}

void top_ask(int dir_fd, struct top_fleet *fleet)
{
    struct round round = {.dir_fd = dir_fd, .fleet = fleet};
    int64_t end = top_clock_ms() + PATIENCE_MS;
    for (fill(&round); round.open; fill(&round)) {
        int64_t left = end - top_clock_ms();
        if (left <= 0 || (poll(round.ready, round.open, (int)left) < 0 && errno != EINTR))
            break;
        for (unsigned i = round.open; i-- > 0;)
            if (round.ready[i].revents && !read_one(round.ready[i].fd, &round.asking[i]))
                close_one(&round, i);
    }
    while (round.open)
        close_one(&round, round.open - 1);
}
