/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts through io_uring, which system-call filters do not see. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "hostile.h"
#include "minivmm/bytes.h"

#define OUR_TAG     0xbadULL
#define OPCODES_TO  64 /* more than this kernel's headers know */
#define NEW_ENTRIES 4

static const unsigned char allowed[] = {IORING_OP_READ,    IORING_OP_WRITE, IORING_OP_READV,
                                        IORING_OP_WRITEV,  IORING_OP_FSYNC, IORING_OP_FALLOCATE,
                                        IORING_OP_POLL_ADD};

/* The result of what *what asks of the ring. */
static long submit(struct io_uring *ring, const struct io_uring_sqe *what)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = ring ? io_uring_get_sqe(ring) : NULL;
    if (!sqe)
        return -ENODEV;
    memcpy(sqe, what, sizeof(*sqe));
    sqe->user_data = OUR_TAG;
    int code = io_uring_submit_and_wait(ring, 1);
    if (code < 0)
        return code;
    while (io_uring_peek_cqe(ring, &cqe) == 0) {
        long result = cqe->res;
        bool ours = cqe->user_data == OUR_TAG;
        io_uring_cqe_seen(ring, cqe);
        if (ours)
            return result;
    }
    return -ENODATA;
}

static long ring_openat(void)
{
    struct io_uring_sqe sqe = {0};
    io_uring_prep_openat(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    return submit(hostile.ring, &sqe);
}

static long ring_openat_fixed(void)
{
    struct io_uring_sqe sqe = {0};
    io_uring_prep_openat_direct(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0, 1);
    sqe.flags = IOSQE_FIXED_FILE;
    return submit(hostile.ring, &sqe);
}

static long ring_socket(void)
{
    struct io_uring_sqe sqe = {0};
    io_uring_prep_socket(&sqe, AF_UNIX, SOCK_STREAM, 0, 0);
    return submit(hostile.ring, &sqe);
}

/* A file that is no disk of the queue's. */
static long ring_other_file(void)
{
    static char byte;
    struct io_uring_sqe sqe = {0};
    io_uring_prep_write(&sqe, STDERR_FILENO, &byte, 1, 0);
    return submit(hostile.ring, &sqe);
}

/* All that a disk's ring is not for, with the flag that it asks for; what came nearest to success. */
static long ring_all_opcodes(void)
{
    for (unsigned op = 0; op < OPCODES_TO; op++) {
        if (memchr(allowed, (int)op, sizeof(allowed)))
            continue;
        const struct io_uring_sqe sqe = {.opcode = (unsigned char)op, .flags = IOSQE_FIXED_FILE};
        long result = submit(hostile.ring, &sqe);
        if (result != -EACCES && result != -EINVAL)
            return result < 0 ? result : (long)op;
    }
    return -EACCES;
}

static long ring_register(void)
{
    int fd = STDERR_FILENO;
    struct io_uring_files_update update = {.offset = 0, .fds = (unsigned long)&fd};
    if (!hostile.ring)
        return -ENODEV;
    return TRY(SYS_io_uring_register, hostile.ring->ring_fd, IORING_REGISTER_FILES_UPDATE, &update, 1);
}

static long ring_lift_restrictions(void)
{
    struct io_uring_restriction all = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_OPENAT};
    if (!hostile.ring)
        return -ENODEV;
    return TRY(SYS_io_uring_register, hostile.ring->ring_fd, IORING_REGISTER_RESTRICTIONS, &all, 1);
}

/* A ring without restrictions, where no filter keeps it away: all it leads to is what calls would. */
static long new_ring_openat(void)
{
    struct io_uring ring;
    struct io_uring_sqe sqe = {0};
    int code = io_uring_queue_init(NEW_ENTRIES, &ring, 0);
    if (code < 0)
        return code;
    io_uring_prep_openat(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    return submit(&ring, &sqe);
}

static long new_ring_connect(void)
{
    struct io_uring ring;
    struct io_uring_sqe sqe = {0};
    int code = io_uring_queue_init(NEW_ENTRIES, &ring, 0);
    if (code < 0)
        return code;
    io_uring_prep_socket(&sqe, AF_UNIX, SOCK_STREAM, 0, 0);
    long fd = submit(&ring, &sqe);
    if (fd < 0)
        return fd;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path + 1, hostile.abstract, strlen(hostile.abstract));
    memset(&sqe, 0, sizeof(sqe));
    io_uring_prep_connect(&sqe, (int)fd, (struct sockaddr *)&to,
                          (socklen_t)(sizeof(sa_family_t) + 1 + strlen(hostile.abstract)));
    return submit(&ring, &sqe);
}

const struct attempt ring_attempts[] = {
    {.name = "its disk's io_uring: OPENAT", .fn = ring_openat, .passes_filter = true},
    {.name = "its disk's io_uring: OPENAT into its table", .fn = ring_openat_fixed, .passes_filter = true},
    {.name = "its disk's io_uring: SOCKET", .fn = ring_socket, .passes_filter = true},
    {.name = "its disk's io_uring: a file not in its table", .fn = ring_other_file, .passes_filter = true},
    {.name = "its disk's io_uring: each other operation", .fn = ring_all_opcodes, .passes_filter = true},
    {.name = "its disk's io_uring: register another file", .fn = ring_register},
    {.name = "its disk's io_uring: lift restrictions", .fn = ring_lift_restrictions},
    {.name = "a new io_uring: OPENAT", .fn = new_ring_openat},
    {.name = "a new io_uring: SOCKET, CONNECT", .fn = new_ring_connect},
};
const unsigned ring_attempts_count = ARRAY_SIZE(ring_attempts);
