/* SPDX-License-Identifier: Apache-2.0 */
/* The least of a vhost-user front-end: enough to drive one queue of a server that was not written by us. */
#include "vhostuser.h"

#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "minivmm/event.h"

#define GET_FEATURES          1u
#define SET_FEATURES          2u
#define SET_OWNER             3u
#define SET_MEM_TABLE         5u
#define SET_VRING_NUM         8u
#define SET_VRING_ADDR        9u
#define SET_VRING_BASE        10u
#define SET_VRING_KICK        12u
#define SET_VRING_CALL        13u
#define GET_PROTOCOL_FEATURES 15u
#define SET_PROTOCOL_FEATURES 16u
#define SET_VRING_ENABLE      18u
#define PROTOCOL_BIT          (1ULL << 30)
#define CONNECT_TRIES         500

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t number;
        struct {
            uint32_t index, value;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } address;
        struct {
            uint32_t count, padding;
            uint64_t gpa, size, user, offset;
        } memory;
    } u;
} __attribute__((packed));

#define HEADER_BYTES 12u

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench: vhost-user: %s failed\n", what);
    exit(1);
}

static void put(int s, struct message *m, uint32_t request, uint32_t size, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {m, HEADER_BYTES + size};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    m->request = request;
    m->flags = 1; /* version */
    m->size = size;
    if (fd >= 0) {
        h.msg_control = control;
        h.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    must(sendmsg(s, &h, 0) == (ssize_t)iov.iov_len, "a message");
}

static uint64_t ask(int s, uint32_t request)
{
    struct message m = {0};
    put(s, &m, request, 0, -1);
    must(recv(s, &m, HEADER_BYTES, MSG_WAITALL) == (ssize_t)HEADER_BYTES && m.size == 8 &&
             recv(s, &m.u, 8, MSG_WAITALL) == 8,
         "an answer");
    return m.u.number;
}

static void put_number(int s, uint32_t request, uint64_t number, int fd)
{
    struct message m = {.u.number = number};
    put(s, &m, request, 8, fd);
}

static void put_state(int s, uint32_t request, uint32_t value)
{
    struct message m = {.u.state = {0, value}};
    put(s, &m, request, 8, -1);
}

static int open_socket(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < CONNECT_TRIES; i++) {
        if (connect(s, (struct sockaddr *)&a, sizeof(a)) == 0)
            return s;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    must(false, "the connection to qemu-storage-daemon");
    return -1;
}

int vhostuser_connect(const char *path, struct guest *g, int memory_fd, struct ring *ring, int *call_fd)
{
    int s = open_socket(path);
    const struct guest_region *ram = &g->mem.region[0];
    uint64_t want =
        VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_EVENT_IDX | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | PROTOCOL_BIT;
    put_number(s, SET_FEATURES, ask(s, GET_FEATURES) & want, -1);
    ask(s, GET_PROTOCOL_FEATURES);
    put_number(s, SET_PROTOCOL_FEATURES, 0, -1);
    struct message m = {0};
    put(s, &m, SET_OWNER, 0, -1);
    m.u.memory.count = 1;
    m.u.memory.gpa = ram->gpa;
    m.u.memory.size = ram->size;
    m.u.memory.user = (uintptr_t)ram->hva;
    put(s, &m, SET_MEM_TABLE, sizeof(m.u.memory), memory_fd);
    put_state(s, SET_VRING_NUM, ring->size);
    put_state(s, SET_VRING_BASE, 0);
    m = (struct message){.u.address = {.desc = (uintptr_t)ring->desc,
                                       .used = (uintptr_t)ring->used,
                                       .avail = (uintptr_t)ring->avail}};
    put(s, &m, SET_VRING_ADDR, sizeof(m.u.address), -1);
    ring->kick_fd = event_open();
    *call_fd = event_open();
    put_number(s, SET_VRING_CALL, 0, *call_fd);
    put_number(s, SET_VRING_KICK, 0, ring->kick_fd);
    put_state(s, SET_VRING_ENABLE, 1);
    return s;
}
