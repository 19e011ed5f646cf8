/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hand-assembled kernels of a few instructions: an ELF file whose one segment starts at TINY_KERNEL_ENTRY and
 * is entered in 64-bit mode with memory mapped one to one.
 */
#ifndef MINIVMM_TESTS_TINY_KERNEL_H
#define MINIVMM_TESTS_TINY_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define TINY_KERNEL_ENTRY 0x200000ULL

/* Writes the ELF into a new file under /tmp; returns its malloc'ed path, which the caller unlinks and frees.
 */
char *tiny_kernel_make(const void *code, size_t len);

/* The same for any bytes: a file that should be no kernel. */
char *tiny_file_make(const void *bytes, size_t len);

#endif
