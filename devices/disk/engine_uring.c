/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine: one ring a queue, all files registered, one io_uring_enter() a turn. seccomp does not
 * see what a ring does, so the ring itself is told before it is enabled which operations it may carry out,
 * and that it may name no file but the registered ones.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "devices/disk/internal.h"
#include "minivmm/bytes.h"

/* The table of registered files. */
enum { FILE_IMAGE, FILE_BUFFERED, FILE_WATCH };

#define WATCH_TAG    1u /* in user_data, where requests have a pointer's even value */
#define TAG_OF(w)    (((uint64_t)(w) << 1) | WATCH_TAG)
#define CQES_A_BATCH 64u
#define SQES_MAX     128u /* more in one turn cost a system call each time it's full, fewer pages always */

struct uring {
    struct io_uring ring;
    unsigned unarmed;      /* watches without a poll: a bit each */
    struct disk_list over; /* done without the ring, e.g. refused: waiting for this turn's dispatch */
};

static const uint8_t opcodes[] = {IORING_OP_READ,  IORING_OP_WRITE,     IORING_OP_READV,   IORING_OP_WRITEV,
                                  IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_POLL_ADD};

static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction rule[ARRAY_SIZE(opcodes) + 2];
    unsigned n = 0;

    memset(rule, 0, sizeof(rule));
    for (; n < ARRAY_SIZE(opcodes); n++) {
        rule[n].opcode = IORING_RESTRICTION_SQE_OP;
        rule[n].sqe_op = opcodes[n];
    }
    rule[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    rule[n++].sqe_flags = IOSQE_FIXED_FILE;
    rule[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
    rule[n++].sqe_flags = IOSQE_FIXED_FILE;
    return io_uring_register_restrictions(ring, rule, n);
}

static int open_ring(struct io_uring *ring, unsigned depth)
{
    /* Best first; a kernel refuses flags that it doesn't know with EINVAL. */
    static const unsigned wanted[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                      IORING_SETUP_COOP_TASKRUN, 0};
    int rc = -EINVAL;

    for (unsigned i = 0; rc == -EINVAL && i < ARRAY_SIZE(wanted); i++) {
        struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP |
                                             IORING_SETUP_CQSIZE | wanted[i],
                                    .cq_entries = 2 * (depth + DISK_WATCHES_MAX)};
        rc = io_uring_queue_init_params(depth < SQES_MAX ? depth : SQES_MAX, ring, &p);
    }
    return rc;
}

static int uring_open(struct disk_queue *q, struct err *err)
{
    const char *path = q->disk->path;
    struct uring *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, -ENOMEM, "%s: no memory for an io_uring", path);
    disk_list_init(&u->over);
    int rc = open_ring(&u->ring, q->depth);
    if (rc) {
        free(u);
        return err_set(err, rc,
                       "%s: this host gives no io_uring (%s): allow it (sysctl kernel.io_uring_disabled, "
                       "seccomp, ulimit -l) or use engine=sync",
                       path, strerror(-rc));
    }
    rc = restrict_ring(&u->ring);
    if (rc) {
        io_uring_queue_exit(&u->ring);
        free(u);
        return err_set(err, rc,
                       "%s: this kernel can't restrict an io_uring to the operations of a disk (%s): use "
                       "engine=sync or Linux 5.10 or newer",
                       path, strerror(-rc));
    }
    q->engine = u;
    return 0;
}

static int uring_attach(struct disk_queue *q)
{
    struct uring *u = q->engine;
    int files[FILE_WATCH + DISK_WATCHES_MAX] = {
        [FILE_IMAGE] = q->disk->fd, [FILE_BUFFERED] = q->disk->buffered_fd};

    for (unsigned i = 0; i < q->watches; i++)
        files[FILE_WATCH + i] = q->watch[i].fd;
    u->unarmed = (1u << q->watches) - 1;
    int rc = io_uring_register_files(&u->ring, files, FILE_WATCH + q->watches);
    return rc ? rc : io_uring_enable_rings(&u->ring);
}

static void uring_close(struct disk_queue *q)
{
    struct uring *u = q->engine;

    io_uring_queue_exit(&u->ring);
    free(u);
}

static void prepare(struct io_uring_sqe *sqe, const struct disk_step *s)
{
    int file = s->buffered ? FILE_BUFFERED : FILE_IMAGE;
    bool one = s->iovcnt == 1;
    /* More than a gigabyte moves in several steps, as a short transfer. */
    unsigned len = one ? (unsigned)(s->iov->iov_len < 1u << 30 ? s->iov->iov_len : 1u << 30) : 0;

    switch (s->kind) {
    case STEP_READ:
        if (one)
            io_uring_prep_read(sqe, file, s->iov->iov_base, len, s->offset);
        else
            io_uring_prep_readv(sqe, file, s->iov, s->iovcnt, s->offset);
        break;
    case STEP_WRITE:
        if (one)
            io_uring_prep_write(sqe, file, s->iov->iov_base, len, s->offset);
        else
            io_uring_prep_writev(sqe, file, s->iov, s->iovcnt, s->offset);
        break;
    case STEP_FALLOCATE:
        io_uring_prep_fallocate(sqe, FILE_IMAGE, s->mode, (off_t)s->offset, (off_t)s->length);
        break;
    case STEP_SYNC:
    case STEP_IOCTL:
        io_uring_prep_fsync(sqe, FILE_IMAGE, IORING_FSYNC_DATASYNC);
        break;
    }
    if (s->kind == STEP_READ || s->kind == STEP_WRITE)
        sqe->rw_flags = s->mode;
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

/* NULL only when the kernel takes no submissions until completions have been reaped. */
static struct io_uring_sqe *get_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (!sqe && io_uring_submit(&u->ring) > 0)
        sqe = io_uring_get_sqe(&u->ring);
    return sqe;
}

/*
 * The ring has no ioctl. And tmpfs knows no IOCB_NOWAIT, so the ring would hand each transfer to a worker
 * thread only to copy memory there, at twice the CPU time.
 */
static bool better_here(const struct disk *disk, const struct disk_step *step)
{
    return step->kind == STEP_IOCTL || disk->in_memory;
}

/* Brings what waits into the ring, in order; the rest keeps waiting when the ring takes no more. */
static void start_waiting(struct disk_queue *q)
{
    struct uring *u = q->engine;
    struct disk_step step;
    struct disk_io *io;

    while ((io = q->waiting.head)) {
        if (!disk_step_next(q, io, &step)) {
            disk_list_add(&u->over, disk_list_take(&q->waiting));
            continue;
        }
        if (better_here(q->disk, &step)) {
            disk_step_result(q, io, disk_step_execute(q->disk, &step));
            continue;
        }
        struct io_uring_sqe *sqe = get_sqe(u);
        if (!sqe)
            return;
        prepare(sqe, &step);
        io_uring_sqe_set_data(sqe, io);
        (void)disk_list_take(&q->waiting);
    }
}

static void arm_watches(struct disk_queue *q)
{
    struct uring *u = q->engine;

    for (unsigned i = 0; i < q->watches; i++) {
        struct io_uring_sqe *sqe;
        if (!(u->unarmed & 1u << i) || !(sqe = get_sqe(u)))
            continue;
        io_uring_prep_poll_multishot(sqe, FILE_WATCH + (int)i, POLLIN);
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
        io_uring_sqe_set_data64(sqe, TAG_OF(i));
        u->unarmed &= ~(1u << i);
    }
}

static void completed(struct disk_queue *q, uint64_t data, int result, unsigned flags)
{
    if (data & WATCH_TAG) {
        struct uring *u = q->engine;
        unsigned i = (unsigned)(data >> 1);
        if (!(flags & IORING_CQE_F_MORE))
            u->unarmed |= 1u << i;
        disk_queue_woken(q, i);
        return;
    }
    struct disk_io *io = (struct disk_io *)(uintptr_t)data; // NOLINT(performance-no-int-to-ptr)
    disk_step_result(q, io, result);
    if (disk_step_more(io))
        disk_list_add(&q->waiting, io);
    else
        disk_queue_finish(q, io);
}

/* Calls done and ready for all that is in. What they submit only joins the waiting list. */
static bool dispatch(struct disk_queue *q)
{
    struct uring *u = q->engine;
    struct io_uring_cqe *cqe[CQES_A_BATCH];
    unsigned n = io_uring_peek_batch_cqe(&u->ring, cqe, CQES_A_BATCH);
    bool any = n > 0;

    while (n) {
        for (unsigned i = 0; i < n; i++)
            completed(q, cqe[i]->user_data, cqe[i]->res, cqe[i]->flags);
        io_uring_cq_advance(&u->ring, n);
        n = n == CQES_A_BATCH ? io_uring_peek_batch_cqe(&u->ring, cqe, CQES_A_BATCH) : 0;
    }
    return any;
}

static bool dispatch_over(struct disk_queue *q)
{
    struct uring *u = q->engine;
    struct disk_list over = u->over;
    struct disk_io *io;

    if (!over.head)
        return false;
    disk_list_init(&u->over);
    while ((io = over.head)) {
        over.head = io->next;
        disk_queue_finish(q, io);
    }
    return true;
}

static int uring_run(struct disk_queue *q, bool wait)
{
    struct uring *u = q->engine;

    for (;;) {
        int rc;
        if (u->unarmed)
            arm_watches(q);
        start_waiting(q);
        if (wait && !u->over.head && !q->waiting.head && !u->unarmed && !io_uring_cq_ready(&u->ring))
            rc = io_uring_submit_and_wait(&u->ring, 1);
        else
            rc = io_uring_submit_and_get_events(&u->ring);
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY && rc != -ETIME)
            return rc;
        bool any = dispatch_over(q);
        any |= dispatch(q);
        if (any || !wait || rc == -EINTR)
            return 0;
    }
}

const struct disk_engine_ops disk_engine_uring = {
    .open = uring_open, .attach = uring_attach, .run = uring_run, .close = uring_close};
