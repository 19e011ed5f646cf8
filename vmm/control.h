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

/* -EBUSY when a live VM already has this name; a dead one's socket is replaced. */
int control_listen(const char *name, struct loop *loop, control_fn *fn, void *ctx, struct control **out,
                   struct err *err);
void control_close(struct control *control);

/* minivmm stop|pause|resume|status ...: argv[0] is the command's name. Returns the exit code. */
int control_main(int argc, char **argv);

#endif
