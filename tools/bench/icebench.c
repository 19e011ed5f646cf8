/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inline encryption against its budgets (docs/bench.md): one ring driver plays the guest against our device,
 * with and without ICE, and against qemu-storage-daemon's vhost-user-blk over a LUKS node; all images lie in
 * one tmpfs folder.
 *
 * usage: icebench FOLDER ROUNDS MILLISECONDS [SOCKET PID]
 *        icebench engine MILLISECONDS        the engine alone over one 4096-byte buffer, MiB/s
 */
#include <linux/virtio_blk.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "minivmm/block.h"
#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/ice.h"
#include "vhostuser.h"

#define IMAGE_BYTES  (64u << 20)
#define RAM_BYTES    (16u << 20)
#define DEPTH_MAX    32u
#define BIG          65536u
#define SMALL        4096u
#define SLOT         0u
#define UNIT_EXP     3u /* 4096 bytes */
#define ROUNDS_MAX   50u
#define RING_ENTRIES 128u

enum { BIG_WRITE, BIG_READ, SMALL_READ, SMALL_WRITE, LOADS };
static const char *const load_names[LOADS] = {"64 KiB write", "64 KiB read", "4 KiB read", "4 KiB write"};

/* One server and the driver's way to it. */
struct side {
    const char *name;
    struct guest g;
    struct ring ring;
    int call_fd, socket;
    uint32_t header_bytes; /* 16, or 32 with ICE */
    clockid_t clock;       /* CPU time of the peer's process; ours: see server_cpu() */
    bool own;
    struct disk *disk;
    struct block *block;
    struct virtio_mmio *mmio;
    uint64_t header[DEPTH_MAX], status[DEPTH_MAX], data[DEPTH_MAX];
    uint32_t owner[RING_ENTRIES]; /* chain head -> request */
};

struct result {
    double mib_s, iops_cpu;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "icebench: %s\n", what);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double server_cpu(const struct side *s)
{
    return s->own ? seconds(CLOCK_PROCESS_CPUTIME_ID) - seconds(CLOCK_THREAD_CPUTIME_ID) : seconds(s->clock);
}

static int open_guest(struct side *s)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);
    must(fd >= 0 && ftruncate(fd, RAM_BYTES) == 0, "no memory for the guest");
    void *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    must(ram != MAP_FAILED, "no memory for the guest");
    s->g.mem = (struct guest_memory){.region = {{GUEST_RAM_GPA, RAM_BYTES, ram, false}}, .count = 1};
    s->g.next = GUEST_RAM_GPA;
    ring_init(&s->ring, &s->g, RING_ENTRIES, true);
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        s->header[i] = guest_alloc(&s->g, 64, 64);
        s->status[i] = guest_alloc(&s->g, 64, 64);
        s->data[i] = guest_alloc(&s->g, BIG, 4096);
    }
    return fd;
}

static void open_own(struct side *s, const char *path, struct ice *ice)
{
    struct err err = {""};
    close(open_guest(s));
    s->own = true;
    s->header_bytes = ice ? 32 : 16;
    must(disk_open(&(struct disk_config){.path = path, .fd = -1, .lock = true}, &s->disk, &err) == 0,
         err.text);
    struct block_config config = {.disk = s->disk,
                                  .queues = 1,
                                  .queue_size = RING_ENTRIES,
                                  .writeback = true,
                                  .ice = ice,
                                  .ice_first = SLOT,
                                  .ice_count = ice ? 1 : 0};
    must(block_create(&config, &s->g.mem, &s->block, &err) == 0, err.text);
    s->call_fd = event_open();
    must(virtio_mmio_create(block_device(s->block), s->call_fd, &s->mmio, &err) == 0, err.text);
    s->ring.kick_fd = block_device(s->block)->queue[0].kick_fd;
    must(mmio_negotiate(s->mmio, mmio_offered(s->mmio)) && mmio_queue(s->mmio, 0, &s->ring),
         "the device refused");
    mmio_driver_ok(s->mmio);
}

static void open_peer(struct side *s, const char *socket, const char *pid)
{
    int fd = open_guest(s);
    s->header_bytes = 16;
    must(clock_getcpuclockid((pid_t)strtol(pid, NULL, 10), &s->clock) == 0, "no CPU clock of the peer");
    s->socket = vhostuser_connect(socket, &s->g, fd, &s->ring, &s->call_fd);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Puts request i on the ring, at the next place of the stream. */
static void send_one(struct side *s, unsigned load, unsigned i, uint64_t n, uint64_t *random)
{
    uint32_t bytes = load <= BIG_READ ? BIG : SMALL;
    bool write = load == BIG_WRITE || load == SMALL_WRITE;
    uint64_t at = (load <= BIG_READ ? n : next_random(random)) % (IMAGE_BYTES / bytes) * bytes;
    uint8_t *h = guest_ptr(&s->g, s->header[i]);
    memset(h, 0, 32);
    store_le32(h, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
    store_le64(h + 8, at / 512);
    h[16] = SLOT;
    h[17] = s->header_bytes == 32;
    store_le64(h + 24, at >> (9 + UNIT_EXP));
    *(uint8_t *)guest_ptr(&s->g, s->status[i]) = 0xff;
    struct ring_buffer buf[] = {
        {s->header[i], s->header_bytes, false}, {s->data[i], bytes, !write}, {s->status[i], 1, true}};
    int head = ring_add(&s->ring, buf, 3, RING_DIRECT);
    must(head >= 0, "the ring is full");
    s->owner[head] = i;
}

/* Collects what is done, sleeping while nothing is; true when a request may follow each. */
static unsigned collect(struct side *s, uint32_t *done)
{
    unsigned n = 0;
    uint32_t head;
    while (n == 0) {
        ring_want_interrupts(&s->ring, false);
        while (ring_take(&s->ring, &head, NULL)) {
            uint32_t i = s->owner[head];
            must(*(uint8_t *)guest_ptr(&s->g, s->status[i]) == 0, "a request failed");
            done[n++] = i;
        }
        if (n)
            break;
        ring_want_interrupts(&s->ring, true);
        if (ring_used_idx(&s->ring) != s->ring.seen)
            continue;
        struct pollfd p = {.fd = s->call_fd, .events = POLLIN};
        must(poll(&p, 1, 10000) == 1, "no answer for 10 s");
        event_clear(s->call_fd);
    }
    return n;
}

static struct result run(struct side *s, unsigned load, double limit)
{
    unsigned depth = load <= BIG_READ ? 8 : DEPTH_MAX, flying = 0;
    uint32_t done[RING_ENTRIES], bytes = load <= BIG_READ ? BIG : SMALL;
    uint64_t n = 0, finished = 0, random = 88172645463325252ULL;
    double start = seconds(CLOCK_MONOTONIC), cpu = server_cpu(s), now = start;
    for (unsigned i = 0; i < depth; i++, flying++)
        send_one(s, load, i, n++, &random);
    ring_publish(&s->ring);
    ring_kick(&s->ring);
    while (flying) {
        unsigned got = collect(s, done);
        finished += got;
        flying -= got;
        now = seconds(CLOCK_MONOTONIC);
        for (unsigned i = 0; now - start < limit && i < got; i++, flying++)
            send_one(s, load, done[i], n++, &random);
        ring_publish(&s->ring);
        ring_kick(&s->ring);
    }
    cpu = server_cpu(s) - cpu;
    return (struct result){(double)finished * bytes / (1 << 20) / (now - start), (double)finished / cpu};
}

/* The engine's own loop over equal buffers, MiB/s. */
static double run_engine(struct ice *ice, bool encrypt, uint32_t bytes, double limit)
{
    static uint8_t src[BIG], dst[BIG];
    struct ice_binding b;
    struct iovec from = {src, bytes}, to = {dst, bytes};
    uint64_t n = 0;
    must(ice_bind(ice, 0, SLOT, false, &b) == 0, "no key");
    double start = seconds(CLOCK_MONOTONIC), now;
    do {
        for (unsigned i = 0; i < 64; i++, n++)
            must(ice_crypt(&b, 1, encrypt, n, 1, &from, 1, &to, 1, bytes) == 0, "the engine failed");
        now = seconds(CLOCK_MONOTONIC);
    } while (now - start < limit);
    ice_release(&b);
    return (double)n * bytes / (1 << 20) / (now - start);
}

static struct ice *open_ice(void)
{
    struct ice *ice;
    struct err err;
    uint8_t key[64];
    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 11 + 5);
    must(ice_create(&(struct ice_config){0}, &ice, &err) == 0 &&
             ice_assign(ice, SLOT, 1, 0, true, &err) == 0 &&
             ice_slot_set(ice, SLOT, &(struct ice_spec){ICE_ALG_AES_XTS, UNIT_EXP, ICE_KEY_256}, key,
                          sizeof(key), 0, &err) == 0,
         err.text);
    return ice;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof(*v), by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static bool line(const char *what, double *ratio, unsigned n, double budget, double ours, double other)
{
    double r = median(ratio, n);
    printf("%-58s %10.0f %10.0f %8.2f %8.2f  %s\n", what, ours, other, r, budget,
           r >= budget ? "ok" : "MISS");
    return r >= budget;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "engine") == 0) {
        printf("%.0f\n", run_engine(open_ice(), true, SMALL, strtod(argv[2], NULL) / 1000));
        return 0;
    }
    must(argc == 4 || argc == 6, "usage: icebench FOLDER ROUNDS MILLISECONDS [SOCKET PID]");
    unsigned rounds = (unsigned)strtoul(argv[2], NULL, 10);
    double limit = strtod(argv[3], NULL) / 1000, ratio[ROUNDS_MAX];
    must(rounds > 0 && rounds <= ROUNDS_MAX, "ROUNDS: 1 to 50");
    static struct side plain, ice_side, peer;
    static struct result p[LOADS][ROUNDS_MAX], c[LOADS][ROUNDS_MAX], q[LOADS][ROUNDS_MAX];
    static double engine[2][ROUNDS_MAX];
    char path[4096];
    struct ice *ice = open_ice();
    snprintf(path, sizeof(path), "%s/plain.img", argv[1]);
    open_own(&plain, path, NULL);
    snprintf(path, sizeof(path), "%s/ice.img", argv[1]);
    open_own(&ice_side, path, ice);
    if (argc == 6)
        open_peer(&peer, argv[4], argv[5]);
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned load = 0; load < LOADS; load++) {
            p[load][r] = run(&plain, load, limit);
            c[load][r] = run(&ice_side, load, limit);
            if (argc == 6)
                q[load][r] = run(&peer, load, limit);
        }
        for (unsigned encrypt = 0; encrypt < 2; encrypt++)
            engine[encrypt][r] = run_engine(ice, encrypt, BIG, limit);
    }
    bool ok = true;
    double a[ROUNDS_MAX], b[ROUNDS_MAX];
    char what[80];
    printf("%-58s %10s %10s %8s %8s\n", "figure", "ours", "other", "ratio", "at least");
    for (unsigned load = BIG_WRITE; load <= BIG_READ; load++) {
        for (unsigned r = 0; r < rounds; r++) {
            b[r] = 1 / (1 / engine[load == BIG_WRITE][r] + 1 / p[load][r].mib_s);
            a[r] = c[load][r].mib_s;
            ratio[r] = a[r] / b[r];
        }
        snprintf(what, sizeof(what), "%s, MiB/s against the harmonic sum", load_names[load]);
        ok &= line(what, ratio, rounds, 0.9, median(a, rounds), median(b, rounds));
    }
    for (unsigned load = 0; load < LOADS && argc == 6; load++) {
        bool big = load <= BIG_READ;
        for (unsigned r = 0; r < rounds; r++) {
            a[r] = big ? c[load][r].mib_s : c[load][r].iops_cpu;
            b[r] = big ? q[load][r].mib_s : q[load][r].iops_cpu;
            ratio[r] = a[r] / b[r];
        }
        snprintf(what, sizeof(what), "%s, %s against qemu-storage-daemon", load_names[load],
                 big ? "MiB/s" : "IOPS a CPU second");
        ok &= line(what, ratio, rounds, big ? 1.5 : 2.0, median(a, rounds), median(b, rounds));
    }
    return ok ? 0 : 1;
}
