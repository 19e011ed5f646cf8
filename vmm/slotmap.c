/* SPDX-License-Identifier: Apache-2.0 */
#include "minivmm/slotmap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * The file: bytes 0 .. 255 stand for the slots and are only ever locked, byte 256 is locked while a window is
 * chosen, and from 4096 on there is one comment record per slot, written by the window that starts there.
 */
#define CHOOSING_BYTE  256
#define RECORDS_OFFSET 4096
#define RECORD_BYTES   128
#define CHOOSING_TRIES 500 /* of 10 ms each */

static const char name_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

struct slotmap {
    int fd;
    unsigned first, count;
};

static int lock_range(int fd, short type, off_t start, off_t len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* The holder of a slot: true and the locked range, false when the slot is free. */
static bool held(int fd, unsigned slot, unsigned *first, unsigned *count)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)slot, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return false;
    /* A foreign lock may be of any shape: clip it to the slots. */
    off_t end = lock.l_len == 0 ? SLOTMAP_SLOTS_MAX : lock.l_start + lock.l_len;
    if (end > (off_t)SLOTMAP_SLOTS_MAX)
        end = SLOTMAP_SLOTS_MAX;
    *first = (unsigned)lock.l_start;
    *count = (unsigned)end - *first;
    return true;
}

static void read_record(int fd, unsigned first, unsigned count, struct slotmap_entry *entry)
{
    char text[RECORD_BYTES + 1];
    *entry = (struct slotmap_entry){.first = first, .count = count, .name = "?"};
    ssize_t n = pread(fd, text, RECORD_BYTES, RECORDS_OFFSET + (off_t)first * RECORD_BYTES);
    if (n <= 0)
        return;
    text[n] = '\0';
    char *rest;
    if (strtoul(text, &rest, 10) != count || *rest != ' ')
        return;
    long pid = strtol(rest, &rest, 10);
    if (*rest != ' ' || pid <= 0 || pid > INT_MAX)
        return;
    size_t len = strspn(++rest, name_characters);
    if (len == 0 || len > SLOTMAP_NAME_MAX)
        return;
    memcpy(entry->name, rest, len);
    entry->name[len] = '\0';
    entry->pid = (int)pid;
}

static void write_record(int fd, unsigned first, unsigned count, const char *name)
{
    char text[RECORD_BYTES] = {0};
    snprintf(text, sizeof(text), "%u %d %.*s\n", count, (int)getpid(), (int)SLOTMAP_NAME_MAX, name);
    /* Only a comment: a full disk must not keep a VM from its slots. */
    ssize_t ignored = pwrite(fd, text, sizeof(text), RECORDS_OFFSET + (off_t)first * RECORD_BYTES);
    (void)ignored;
}

int slotmap_default_path(char *path, size_t size, struct err *err)
{
    const char *dir = getenv("MINIVMM_RUN_DIR"), *tail = "";
    if (!dir || !*dir) {
        dir = "/run/minivmm";
        if (geteuid() != 0) {
            dir = getenv("XDG_RUNTIME_DIR");
            tail = "/minivmm";
        }
    }
    if (!dir || !*dir)
        return err_set(
            err, -ENOENT,
            "there is no place for the keyslot map: set XDG_RUNTIME_DIR, or name one with --ice-map");
    if ((size_t)snprintf(path, size, "%s%s/ice.slots", dir, tail) >= size)
        return err_set(err, -ENAMETOOLONG, "the path of the keyslot map is too long: %s%s", dir, tail);
    return 0;
}

static int open_map(const char *path, int flags, struct err *err)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
        char dir[4096];
        snprintf(dir, sizeof(dir), "%s", path);
        char *slash = strrchr(dir, '/');
        if (slash && slash != dir) {
            *slash = '\0';
            mkdir(dir, 0700); /* the open below tells when that failed */
        }
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (fd < 0)
        return err_set(err, -errno, "%s: can't open the keyslot map: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, -EINVAL, "%s: the keyslot map must be a regular file", path);
    }
    return fd;
}

static int check(const struct slotmap_request *r, struct err *err)
{
    if (r->total == 0 || r->total > SLOTMAP_SLOTS_MAX)
        return err_set(err, -EINVAL, "the host's keyslots are %u: 1 to %u are possible", r->total,
                       SLOTMAP_SLOTS_MAX);
    if (r->slots == 0)
        return err_set(err, -EINVAL, "a window of 0 keyslots makes no sense: ask for at least 1");
    if (r->slots > SLOTMAP_SLOTS_MAX - 1)
        return err_set(err, -EINVAL, "a window of %u keyslots is too large: at most %u", r->slots,
                       SLOTMAP_SLOTS_MAX - 1);
    if (r->slots > r->total)
        return err_set(err, -EINVAL, "a window of %u keyslots exceeds the host's %u (--ice-total)", r->slots,
                       r->total);
    if (r->offset != SLOTMAP_ANYWHERE && (r->offset < 0 || (unsigned)r->offset > r->total - r->slots))
        return err_set(err, -EINVAL,
                       "a window of %u keyslots at %d ends past the host's last, %u (--ice-total %u)",
                       r->slots, r->offset, r->total - 1, r->total);
    return 0;
}

/* One chooser at a time, so that a first-fit search and its claim are one step. Never waits for ever. */
static int begin_choosing(int fd, const char *path, struct err *err)
{
    for (unsigned i = 0; i < CHOOSING_TRIES; i++) {
        int r = lock_range(fd, F_WRLCK, CHOOSING_BYTE, 1);
        if (r == 0)
            return 0;
        if (r != -EAGAIN && r != -EACCES)
            return err_set(err, r, "%s: can't lock the keyslot map: %s", path, strerror(-r));
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return err_set(err, -EBUSY, "%s: another process has been choosing keyslots for too long", path);
}

static int claim_at(int fd, const struct slotmap_request *r, unsigned first, struct err *err)
{
    int e = lock_range(fd, F_WRLCK, (off_t)first, (off_t)r->slots);
    if (e == 0)
        return 0;
    if (e != -EAGAIN && e != -EACCES)
        return err_set(err, e, "%s: can't lock keyslots: %s", r->path, strerror(-e));
    unsigned from = first, count = 0, slot = first;
    while (slot < first + r->slots && !held(fd, slot, &from, &count))
        slot++;
    struct slotmap_entry other = {.first = first, .count = r->slots, .name = "?"};
    if (slot < first + r->slots)
        read_record(fd, from, count, &other);
    return err_set(err, -EBUSY,
                   "keyslots %u to %u overlap those of VM '%s' (pid %d, slots %u to %u); see 'minivmm slots'",
                   first, first + r->slots - 1, other.name, (int)other.pid, other.first,
                   other.first + other.count - 1);
}

static int claim_first_fit(int fd, const struct slotmap_request *r, unsigned *first, struct err *err)
{
    unsigned at = 0, from, count;
    while (at + r->slots <= r->total) {
        unsigned slot = at;
        while (slot < at + r->slots && !held(fd, slot, &from, &count))
            slot++;
        if (slot == at + r->slots) {
            *first = at;
            return claim_at(fd, r, at, err);
        }
        at = from + count;
    }
    return err_set(err, -EBUSY, "no %u keyslots in a row are free of the host's %u; see 'minivmm slots'",
                   r->slots, r->total);
}

int slotmap_claim(const struct slotmap_request *request, struct slotmap **out, unsigned *offset,
                  struct err *err)
{
    char path[4096];
    struct slotmap_request r = *request;
    int e = check(&r, err);
    if (e == 0 && !r.path) {
        e = slotmap_default_path(path, sizeof(path), err);
        r.path = path;
    }
    if (e < 0)
        return e;
    struct slotmap *map = calloc(1, sizeof(*map));
    if (!map)
        return err_set(err, -ENOMEM, "no memory for the keyslot map");
    map->fd = open_map(r.path, O_RDWR | O_CREAT, err);
    e = map->fd < 0 ? map->fd : begin_choosing(map->fd, r.path, err);
    if (e == 0) {
        map->count = r.slots;
        map->first = (unsigned)r.offset;
        e = r.offset == SLOTMAP_ANYWHERE ? claim_first_fit(map->fd, &r, &map->first, err)
                                         : claim_at(map->fd, &r, map->first, err);
        if (e == 0)
            write_record(map->fd, map->first, map->count, r.name);
        lock_range(map->fd, F_UNLCK, CHOOSING_BYTE, 1);
    }
    if (e < 0) {
        slotmap_release(map);
        return e;
    }
    *offset = map->first;
    *out = map;
    return 0;
}

int slotmap_adopt(const struct slotmap_request *request, int fd, struct slotmap **out, struct err *err)
{
    struct slotmap_request r = *request;
    struct stat st;
    int e = check(&r, err);
    if (e < 0)
        return e;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_set(err, -EBADF, "descriptor %d is not the keyslot map that was to be handed down", fd);
    r.path = "the map that was handed down";
    /* Where this open file description has the lock already, nothing changes. */
    e = claim_at(fd, &r, (unsigned)r.offset, err);
    if (e < 0)
        return e;
    struct slotmap *map = calloc(1, sizeof(*map));
    if (!map)
        return err_set(err, -ENOMEM, "no memory for the keyslot map");
    *map = (struct slotmap){.fd = fd, .first = (unsigned)r.offset, .count = r.slots};
    write_record(fd, map->first, map->count, r.name);
    *out = map;
    return 0;
}

int slotmap_fd(const struct slotmap *map)
{
    return map->fd;
}

void slotmap_release(struct slotmap *map)
{
    if (!map)
        return;
    if (map->fd >= 0)
        close(map->fd); /* drops the locks: no other descriptor of this open file exists */
    free(map);
}

int slotmap_list(const char *path, struct slotmap_entry *entries, struct err *err)
{
    char fallback[4096];
    if (!path) {
        int r = slotmap_default_path(fallback, sizeof(fallback), err);
        if (r < 0)
            return r;
        path = fallback;
    }
    int fd = open_map(path, O_RDONLY, err);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return fd;
    int n = 0;
    for (unsigned slot = 0; slot < SLOTMAP_SLOTS_MAX;) {
        unsigned first, count;
        if (!held(fd, slot, &first, &count)) {
            slot++;
            continue;
        }
        read_record(fd, first, count, &entries[n++]);
        slot = first + count;
    }
    close(fd);
    return n;
}
