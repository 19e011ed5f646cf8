/* SPDX-License-Identifier: Apache-2.0 */
/* The user's end of a supervisor's socket, for the vmm/fleet_*.c files of the commands. */
#ifndef MINIVMM_VMM_FLEET_CLIENT_H
#define MINIVMM_VMM_FLEET_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/control_internal.h"

/* What the user typed behind "minivmm fleet". */
struct fleet_wish {
    const char *command;
    const char *fleet; /* a fleet's name or file; NULL: the only one that runs */
    char **name;       /* VMs */
    unsigned names;
    bool all, json, follow, help;
    uint64_t lines;    /* logs: last lines to begin with */
    uint64_t turns;    /* top: tables to print, 0: no end */
    unsigned delay_ms; /* top: between them */
};

/* One running fleet. */
struct fleet_link {
    int dir_fd; /* the run directory */
    char file[FLEET_FILE_MAX];
    char name[CONFIG_NAME_MAX + 1];
};

/*
 * Finds the fleet that the wish means. -ENOENT with a sentence that names those there are. fleet_link_close()
 * after success.
 */
int fleet_link_open(const struct fleet_wish *wish, struct fleet_link *link, struct err *err);
void fleet_link_close(struct fleet_link *link);

/* Gets one line of an answer, without its newline, which it may cut up. */
typedef void fleet_line_fn(void *ctx, char *line);

/*
 * Sends a request (without its newline) and hands out each line of the answer as it comes. patience: seconds
 * to wait for the next line, 0: without end. -EREMOTEIO: the supervisor's refusal, with its sentence.
 */
int fleet_ask(const struct fleet_link *link, const char *request, unsigned patience, fleet_line_fn *fn,
              void *ctx, struct err *err);

/* As fleet_ask(), for a request that is answered by a stream of bytes: returns the socket behind "stream". */
int fleet_ask_stream(const struct fleet_link *link, const char *request, struct err *err);

/* Sends a request and returns the socket, or -errno with a sentence. */
int fleet_send(const struct fleet_link *link, const char *request, struct err *err);

/*
 * Cuts the next "key=value" word off a line of "ps"; false at its end. Words that are none are passed over.
 */
bool fleet_next_fact(char **line, const char **key, const char **value);

/* Copies a name into a column of so many characters; one that is too long ends in '~'. */
void fleet_fit(char *out, unsigned width, const char *name);

/* 75.3 s: "1m15s", at most 7 characters; negative: "-". */
#define FLEET_UPTIME_MAX 8u
void fleet_format_uptime(char out[FLEET_UPTIME_MAX], double seconds);

/* The commands. Each returns the exit code. */
int fleet_ps(const struct fleet_wish *wish);
int fleet_order(const struct fleet_wish *wish); /* start, stop, restart, reload, down */
int fleet_logs(const struct fleet_wish *wish);
int fleet_console(const struct fleet_wish *wish);
int fleet_top(const struct fleet_wish *wish);

/* Prints the sentence and returns the exit code of failures. */
int fleet_fail(const struct fleet_wish *wish, const struct err *err);

#endif
