/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet top: what is known of each VM, and the table of it. For the vmm/fleet_top*.c files. */
#ifndef MINIVMM_VMM_FLEET_TOP_H
#define MINIVMM_VMM_FLEET_TOP_H

#include <stdint.h>
#include <stdio.h>

#include "vmm/fleet_client.h"

/* Counters of a VM that answered; those that only grow give rates. */
enum top_item { TOP_VCPU_MS, TOP_MEMORY, TOP_READ, TOP_WRITTEN, TOP_ICE, TOP_DENIED, TOP_ITEMS };
#define TOP_UNKNOWN (-1)

struct top_sample {
    int64_t at_ms; /* on the monotonic clock */
    int64_t item[TOP_ITEMS];
};

struct top_vm {
    char name[CONFIG_NAME_MAX + 1];
    char state[16];
    int64_t pid;   /* TOP_UNKNOWN: none */
    double uptime; /* seconds; negative: none */
    struct top_sample now, before;
};

/* All VMs of a fleet at one time. */
struct top_fleet {
    struct top_vm *vm;
    unsigned count;
};

/* What the table shows of a VM, or of all. */
struct top_figures {
    double vcpu; /* percent of one CPU; negative: unknown */
    int64_t memory, read, written, ice, denied;
};

/* A line of "ps"; it is cut up. False when it names no VM. */
bool top_parse_ps(struct top_vm *vm, char *line);

/* The answer to "status" or "stats": adds what it tells to the sample, of which all items were TOP_UNKNOWN.
 */
void top_parse_facts(struct top_sample *sample, char *text);

/* Takes over what the last turn knew of each VM that still is the same process. */
void top_follow(struct top_fleet *now, const struct top_fleet *last);

void top_figures(const struct top_vm *vm, struct top_figures *out);

/* Those that need a look come first, then the busiest. */
void top_sort(struct top_fleet *fleet);

/*
 * Heading, rows and totals in lines of width columns, 80 at least. most: rows to show, of which the last may
 * tell how many more there are; 0: all. end: of each line.
 */
void top_print(const struct top_fleet *fleet, unsigned width, unsigned most, const char *end, FILE *out);

/* One line of JSON. */
void top_print_json(const struct top_fleet *fleet, const char *name, FILE *out);

/* 1536: "1.5K", at most 5 characters; negative: "-". */
#define TOP_NUMBER_MAX 6u
void top_format_bytes(char out[TOP_NUMBER_MAX], int64_t bytes);
void top_format_count(char out[TOP_NUMBER_MAX], int64_t count); /* by thousands */

/* Asks all running VMs at once, and waits a second at most for who has not answered. */
void top_ask(int dir_fd, struct top_fleet *fleet);

int64_t top_clock_ms(void);

#endif
