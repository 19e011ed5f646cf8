/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "minivmm/sandbox.h"

#define WORKER_STACK ((size_t)128 * 1024) /* and a guard page below it */

/* Under the lock. */
static void set_state(struct worker *w, enum worker_state state)
{
    atomic_store_explicit(&w->state, state, memory_order_release);
    pthread_cond_broadcast(&w->changed);
}

static enum worker_state get_state(const struct worker *w)
{
    return atomic_load_explicit(&w->state, memory_order_acquire);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    /* Here, because a thread names itself by one system call, and another only through /proc. */
    pthread_setname_np(pthread_self(), w->name);
    int rc = w->ops->prepare ? w->ops->prepare(w->arg) : 0;
    if (!rc)
        rc = sandbox_thread(SANDBOX_QUEUE, NULL);

    pthread_mutex_lock(&w->lock);
    w->prepare_rc = rc;
    w->prepared = true;
    pthread_cond_broadcast(&w->changed);
    for (;;) {
        while (get_state(w) == WORKER_PARKED)
            pthread_cond_wait(&w->changed, &w->lock);
        if (get_state(w) == WORKER_ENDING)
            break;
        pthread_mutex_unlock(&w->lock);
        w->ops->body(w->arg);
        pthread_mutex_lock(&w->lock);
        set_state(w, WORKER_PARKED);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void worker_end(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    set_state(w, WORKER_ENDING);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
}

static void worker_release(struct worker *w)
{
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    close(w->control);
}

/*
 * The default stack, 8 MiB of address space a thread, counts against limits on it; a queue needs some 20 KiB
 * (messages, a cipher). Sanitizers make frames many times larger, and bring their own.
 */
static int start_thread(struct worker *w)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);

    if (rc)
        return rc;
#ifndef MINIVMM_SANITIZED
    rc = pthread_attr_setstacksize(&attr, WORKER_STACK);
#endif
    if (!rc)
        rc = pthread_create(&w->thread, &attr, worker_main, w);
    pthread_attr_destroy(&attr);
    return rc;
}

int worker_create(struct worker *w, const char *name, const struct worker_ops *ops, void *arg,
                  struct err *err)
{
    *w = (struct worker){.ops = ops, .arg = arg};
    snprintf(w->name, sizeof(w->name), "%s", name);
    w->control = event_open();
    if (w->control < 0)
        return err_set(err, w->control, "%s: can't create an eventfd: %s", name, strerror(-w->control));
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int rc = start_thread(w);
    if (rc) {
        worker_release(w);
        return err_set(err, -rc, "%s: can't start the queue's thread: %s", name, strerror(rc));
    }
    pthread_mutex_lock(&w->lock);
    while (!w->prepared)
        pthread_cond_wait(&w->changed, &w->lock);
    rc = w->prepare_rc;
    pthread_mutex_unlock(&w->lock);
    if (rc) {
        worker_end(w);
        worker_release(w);
        return err_set(err, rc, "%s: the queue's thread can't be prepared: %s", name, strerror(-rc));
    }
    return 0;
}

void worker_run(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    if (get_state(w) == WORKER_PARKED)
        set_state(w, WORKER_RUNNING);
    pthread_mutex_unlock(&w->lock);
}

void worker_park(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    if (get_state(w) == WORKER_RUNNING) {
        set_state(w, WORKER_STOPPING);
        event_signal(w->control);
    }
    while (get_state(w) != WORKER_PARKED)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    event_clear(w->control);
}

void worker_destroy(struct worker *w)
{
    worker_park(w);
    worker_end(w);
    worker_release(w);
}

bool worker_stopping(const struct worker *w)
{
    return get_state(w) == WORKER_STOPPING;
}
