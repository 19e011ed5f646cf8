/* SPDX-License-Identifier: Apache-2.0 */
/* The console's host side, for the vmm/console*.c files alone. */
#ifndef MINIVMM_VMM_CONSOLE_INTERNAL_H
#define MINIVMM_VMM_CONSOLE_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"

struct console_host {
    int in_fd;    /* -1: no input */
    int out_fd;   /* -1: output is dropped */
    int slave_fd; /* pty: our own hold on the other side, so that its readers may come and go; else -1 */
    bool in_own, out_own; /* close them */
    bool out_socket;
    bool out_shared; /* a pipe or terminal whose open file others use too: it can't be made non-blocking */
    bool keys;       /* input is a person's terminal: ctrl-a is for us */
    bool raw;        /* the terminal's settings were changed, and saved is what they were */
    struct termios saved;
};

/* Opens what config asks for. Sentences name --console. console_host_close() also after a failure. */
int console_host_open(const struct config *config, struct console_host *host, struct err *err);
void console_host_close(struct console_host *host);

/* As write(2) to out_fd, but never waits: -1 with EAGAIN where that would. */
ssize_t console_host_write(const struct console_host *host, const void *bytes, size_t len);

#endif
