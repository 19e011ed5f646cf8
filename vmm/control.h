/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a running VM: a UNIX stream socket NAME.sock in the run directory (/run/minivmm for
 * root, $XDG_RUNTIME_DIR/minivmm otherwise, or $MINIVMM_RUN_DIR). One request line, then answer lines; the
 * last is "ok" or "error: ...". Peers must be root or the VM's own user.
 */
#ifndef MINIVMM_VMM_CONTROL_H
#define MINIVMM_VMM_CONTROL_H

#include <stdio.h>

#include "minivmm/errors.h"
#include "vmm/loop.h"

struct control;

/* Answers one request: writes answer lines to out; 0, or -errno with a sentence. Main thread. */
typedef int control_fn(void *ctx, const char *request, FILE *out, struct err *err);

/*
 * Makes the socket, on which nobody answers yet. -EBUSY when a live VM already has this name; a dead one's
 * socket is replaced.
 */
int control_listen(const char *name, struct control **out, struct err *err);

/* Answers from the loop. */
int control_serve(struct control *control, struct loop *loop, control_fn *fn, void *ctx, struct err *err);

/* In the cell: gives up the run directory; the socket's file is the keeper's to remove. */
void control_leave_dir(struct control *control);

void control_close(struct control *control);

/* Inside a control_fn: the descriptor that came with the request, then the caller's; -1: none. */
int control_take_fd(struct control *control);

/*
 * Asks a running VM: request is a line without its newline; fd: a descriptor to go along, or -1. *text: all
 * answer lines, to be freed, NULL after failure. -ENOENT: no VM of this name; -errno with a sentence.
 */
int control_ask(const char *name, const char *request, int fd, char **text, struct err *err);

/* Prints "key=value" lines as a JSON object with numbers as such. text is cut up. */
void control_print_json(FILE *out, char *text);

/* minivmm stop|pause|resume|status ...: argv[0] is the command's name. Returns the exit code. */
int control_main(int argc, char **argv);

#endif
