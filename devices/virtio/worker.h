/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's thread and how it is handed its queue and asked for it back. The thread is created parked, runs
 * between worker_run() and worker_park(), and blocks however its body likes: the body only has to wake when
 * `control` becomes readable and to return once worker_stopping() says so.
 *
 *     PARKED --worker_run()--> RUNNING --worker_park()--> STOPPING --body returned--> PARKED
 *
 * worker_run(), worker_park() and worker_destroy() come from one thread at a time (the transport's lock, or
 * the main thread with no vCPU running). What their caller wrote before worker_run() the body sees, and what
 * the body wrote the caller of worker_park() sees.
 */
#ifndef DEVICES_VIRTIO_WORKER_H
#define DEVICES_VIRTIO_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "minivmm/errors.h"

enum worker_state { WORKER_PARKED, WORKER_RUNNING, WORKER_STOPPING, WORKER_ENDING };

struct worker_ops {
    /* Once, on the new thread, before worker_create() returns: 0, or -errno to refuse. May be NULL. */
    int (*prepare)(void *arg);
    /*
     * The body: serves the queue until worker_stopping(), drains what is in flight, returns. It may return
     * earlier (a broken queue): the thread then parks by itself.
     */
    void (*body)(void *arg);
};

struct worker {
    const struct worker_ops *ops;
    void *arg;
    int control; /* eventfd, readable when the body should look at worker_stopping() */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic enum worker_state state; /* written under lock */
    bool prepared;
    int prepare_rc;
    char name[16]; /* as ps and top show the thread */
};

/*
 * Creates the control eventfd and the thread, parked. name is copied and cut at 15 bytes. -errno with a
 * sentence and nothing left behind on failure. w must not move until worker_destroy().
 */
int worker_create(struct worker *w, const char *name, const struct worker_ops *ops, void *arg,
                  struct err *err);

/* Lets the body run. Only when parked (asks nothing when it runs already). */
void worker_run(struct worker *w);

/* Returns when the body has returned; at once when it does not run. The control eventfd is clear again then.
 */
void worker_park(struct worker *w);

/* Parks, ends and joins the thread; closes the control eventfd. */
void worker_destroy(struct worker *w);

/* For the body: time to drain and return. */
bool worker_stopping(const struct worker *w);

#endif
