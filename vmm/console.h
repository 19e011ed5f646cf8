/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's serial console on the host: stdio with a raw terminal, a file, a pty, or nothing. */
#ifndef MINIVMM_VMM_CONSOLE_H
#define MINIVMM_VMM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#include "minivmm/config.h"
#include "minivmm/errors.h"
#include "minivmm/serial.h"
#include "vmm/loop.h"

struct console;

struct console_hooks {
    void (*quit)(void *ctx); /* ctrl-a x; main thread */
    void *ctx;
};

/* Standard descriptors that are closed are opened as /dev/null: call first. */
void console_hold_standard(void);

/*
 * When standard input is the user's terminal and the console is stdio: keeps the terminal's settings in
 * *saved, and returns true.
 */
bool console_save_terminal(const struct config *config, struct termios *saved);

/* Puts them back, even when the shell took the terminal back; all signals must be blocked. */
void console_restore_terminal(const struct termios *saved);

/*
 * For a VM without a cell: forks; the parent passes signals on, waits for the child, restores the terminal
 * however the child died (kill -9 included) and exits with its code (128 + signal when killed). Returns 0 in
 * the child, or at once where there is no terminal. Call before any thread and before any other file is
 * opened for the VM.
 */
int console_guard_terminal(const struct config *config, struct err *err);

/* Opens the host side and, for a pty, prints its path on standard error. Sentences name --console. */
int console_open(const struct config *config, const struct console_hooks *hooks, struct console **out,
                 struct err *err);

/*
 * The serial device's side of it: pass to serial_config with the console as ctx. Output is written at the end
 * of a line, when 4 KiB are there, and a few milliseconds after the first byte that waits. While the other
 * side takes none, console_output() waits for it; a pty's oldest bytes are dropped instead, since nobody need
 * be there.
 */
void console_output(void *console, const uint8_t *bytes, size_t len);
void console_input_ready(void *console);

/*
 * on: console_output() waits no more, so that a vCPU can be held or ended whatever the other side does; there
 * is room for what the vCPUs are about to say. Any thread, also with console NULL.
 */
void console_hurry(struct console *console, bool on);

/* Starts feeding input into serial from the loop. Main thread, before vm_run()'s loop. */
int console_attach(struct console *console, struct serial *serial, struct loop *loop, struct err *err);

/* Leaves it to somebody else, a cell's keeper, to restore the terminal. */
void console_leave_terminal(struct console *console);

/* Writes out what is buffered (for at most a second while nobody takes it), restores the terminal, closes. */
void console_close(struct console *console);

#endif
