/* SPDX-License-Identifier: Apache-2.0 */
/* What the two ends of the control socket share, for the vmm/control*.c files alone. */
#ifndef MINIVMM_VMM_CONTROL_INTERNAL_H
#define MINIVMM_VMM_CONTROL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"
#include "minivmm/log.h"

#define CONTROL_SUFFIX   ".sock"
#define CONTROL_FILE_MAX (CONFIG_NAME_MAX + sizeof(CONTROL_SUFFIX))
#define FLEET_SUFFIX     ".fleet" /* of a supervisor's socket */
#define FLEET_FILE_MAX   (CONFIG_NAME_MAX + sizeof(FLEET_SUFFIX))
#define CONTROL_PATIENCE 5u    /* seconds for which a client waits for each step */
#define CONTROL_LINE_MAX 4096u /* a request, without its newline */

/* The run directory's path. -ENAMETOOLONG. */
int control_dir_path(char *path, size_t size, struct err *err);

/*
 * Opens the run directory; create: makes it (mode 0700) where it is missing. Refuses one that is another
 * user's, or that others may write. Returns the descriptor or -errno (-ENOENT: there is none).
 */
int control_dir_open(bool create, struct err *err);

/* The file NAME.sock; -EINVAL with a sentence for a name that no VM can have. */
int control_file_name(const char *name, char file[CONTROL_FILE_MAX], struct err *err);

/* Whether the peer of a connection is root or our own user; a refusal is logged. whose: the socket's,
 * "control". */
bool control_peer_allowed(int fd, const char *whose, struct log_limit *refused);

/*
 * The directory's lock, under which sockets are made and taken away; waits for so many seconds at most.
 * -ETIMEDOUT: somebody holds it, and does not go on.
 */
int control_dir_lock(int dir_fd, unsigned patience);
void control_dir_unlock(int dir_fd);

/* Under the lock: removes a socket on which nobody listens. 1: it did, 0: there is none, -errno otherwise. */
int control_remove_dead(int dir_fd, const char *file);

/* Under the lock: does so for all sockets of VMs without a name of their own whose process is no more. */
void control_remove_numbered(int dir_fd);

/* "web.sock" becomes "web"; false for a file that is no control socket's. */
bool control_strip_suffix(char *file);

/*
 * A stream socket, bound to or connected with the file in the directory, whatever the length of its path.
 * flags: SOCK_NONBLOCK or 0, when it waits for the other side for CONTROL_PATIENCE at most (-EAGAIN).
 * Returns it or -errno.
 */
int control_bind(int dir_fd, const char *file, int flags);
int control_connect(int dir_fd, const char *file, int flags);

/*
 * The same as the user who owns the socket, when root asks: a VM in a user namespace of its own sees root as
 * nobody.
 */
int control_connect_owner(int dir_fd, const char *file, int flags);

/* Sends a text, and a descriptor with its first byte unless passed is -1. 0 or -errno. */
int control_send(int fd, const char *text, int passed);

/* A pidfd of the process that listens at the other end of a connection, or -1. */
int control_peer_pidfd(int fd);

#endif
