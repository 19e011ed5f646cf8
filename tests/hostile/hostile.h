/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's process whose code was taken over: minivmm itself, linked with hooks that, once the cell is closed,
 * let one of its threads try one thing that must be refused. The driver starts such VMs and judges.
 */
#ifndef MINIVMM_TESTS_HOSTILE_H
#define MINIVMM_TESTS_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <liburing.h>

#include "vmm/seccomp.h"

#define KEK_BYTES 32u

/* What the attempt's process knows: set by the driver before it runs, so more than a real intruder would. */
struct hostile {
    const struct attempt *attempt; /* NULL: try the call of this number */
    unsigned number;
    enum seccomp_role role;
    bool filters; /* put up, as always; false: the other walls alone */
    bool armed;   /* false: a VM that does nothing of the kind */

    pid_t keeper, driver, victim; /* victim: another VM's process */
    const char *kvm, *disk, *victim_disk, *slot_map, *key_file, *control_socket;
    char abstract[32];  /* a socket that the driver listens on */
    uint16_t tcp_port;  /* likewise, on 127.0.0.1 */
    uint64_t disk_size; /* bytes; no other file in the test has as many */
    int shm_key;        /* of shared memory that all may use */
    uint8_t kek_inverted[KEK_BYTES];

    struct io_uring *ring; /* the disk's, as its queue thread made it */
    int maps_fd;           /* the process's own /proc/self/maps, opened before the cell closed, or -1 */
};

extern struct hostile hostile;

/*
 * Tries something. Gives -errno when it was refused, 0 or more when it was obtained. KEPT_IN: the call went
 * through and reached nothing outside; the driver looks at what it could have reached.
 */
struct attempt {
    const char *name;
    long (*fn)(void);
    /* The filter alone refuses it, and why that is no matter: it gives nothing by itself. Else NULL. */
    const char *filter_only;
    bool passes_filter; /* in some role it makes no call that the filter forbids */
    bool wants_maps;
};

#define KEPT_IN (-4095L)

extern const struct attempt file_attempts[], process_attempts[], ring_attempts[], memory_attempts[];
extern const unsigned file_attempts_count, process_attempts_count, ring_attempts_count, memory_attempts_count;

/* Tries what hostile says, tells the driver on standard error, and ends the process. */
void hostile_attack(void);

/* A system call that gives its result or -errno. */
long try_call(long number, long a, long b, long c, long d, long e, long f);
#define TRY(number, ...) TRY_(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define TRY_(number, a, b, c, d, e, f, ...)                                                                  \
    try_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* The signal of attempts on others; the driver has it blocked and looks whether it came. */
#define HOSTILE_SIGNAL SIGUSR2

#endif
