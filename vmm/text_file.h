/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's one-line files, in /proc and in control groups. */
#ifndef MINIVMM_VMM_TEXT_FILE_H
#define MINIVMM_VMM_TEXT_FILE_H

/* Writes text to an existing file by a single write(2), as such files want it. 0 or -errno. */
int text_file_write(const char *path, const char *text);

#endif
