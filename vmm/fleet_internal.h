/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's socket from inside, for vmm/fleet_server.c and vmm/fleet_requests.c alone. */
#ifndef MINIVMM_VMM_FLEET_INTERNAL_H
#define MINIVMM_VMM_FLEET_INTERNAL_H

#include "vmm/fleet.h"

enum client_mode {
    CLIENT_READING, /* its request */
    CLIENT_WAITING, /* for VMs to get where it wants them */
    CLIENT_STREAM,  /* reads a console */
    CLIENT_ENDING,  /* goes when it has its answer */
};

/* A VM that a client waits for. */
struct want {
    struct unit *unit; /* NULL: it is gone */
    bool up, done;     /* up: running; else without a process */
};

struct client {
    struct fleet_server *server;
    struct client *next; /* newer */
    int fd;
    enum client_mode mode;
    char in[CONTROL_LINE_MAX + 1]; /* the request, then what is typed on a console */
    size_t in_len;
    char *out;
    size_t out_len, out_sent;
    struct want *want;
    unsigned wants, failed;
    bool down; /* hears of the end when the supervisor ends */
    struct unit *stream;
    uint64_t at, until; /* of the stream's bytes */
    bool both;          /* ways: a console */
    bool half_closed;   /* will say nothing more */
};

struct fleet_server {
    struct supervisor *up;
    int fd;
    char file[FLEET_FILE_MAX];
    dev_t dev;
    ino_t ino;
    struct client *oldest;
    unsigned clients;
    struct log_limit refused;
};

/* Adds a line to what is sent; one who does not take his answers loses them. */
void client_say(struct client *client, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Sends what is there; the client may be gone afterwards. */
void client_pump(struct client *client);

/* Answers the request in client->in. */
void client_request(struct client *client);

/* Looks whether all VMs are where the client wants them, and says so. */
void client_settle(struct client *client);

#endif
