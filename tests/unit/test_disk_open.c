/* SPDX-License-Identifier: Apache-2.0 */
/* What disk images are refused and why, and the locks: between minivmms, and with QEMU where it's installed.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_rig.h"

static char scratch[128];

static int open_disk(const char *path, bool readonly, enum disk_engine engine, struct disk **disk,
                     struct err *err)
{
    struct disk_config config = {
        .path = path, .fd = -1, .readonly = readonly, .lock = true, .engine = engine};

    *disk = NULL;
    err->text[0] = 0;
    return disk_open(&config, disk, err);
}

/* Refused with code, in a sentence that names the path and holds word. */
static void refused(const char *path, int code, const char *word)
{
    struct disk *disk;
    struct err err;

    ck_assert_int_eq(open_disk(path, false, DISK_ENGINE_AUTO, &disk, &err), code);
    ck_assert_ptr_null(disk);
    ck_assert_msg(strstr(err.text, path) == err.text, "%s", err.text);
    ck_assert_msg(strstr(err.text, word) != NULL, "%s", err.text);
}

static const char *made(off_t size)
{
    (void)strcpy(scratch, "/tmp/minivmm-open-XXXXXX");
    int fd = mkstemp(scratch);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    (void)close(fd);
    return scratch;
}

START_TEST(test_refused_kinds)
{
    refused("/tmp", -EISDIR, "directory");
    refused("/dev/zero", -EINVAL, "character device");
    refused("/nonexistent/image", -ENOENT, "No such file");
    refused("/dev/null/image", -ENOTDIR, "Not a directory");
    (void)unlink(made(0));
    ck_assert_int_eq(mkfifo(scratch, 0600), 0);
    refused(scratch, -EINVAL, "FIFO"); /* and doesn't block */
    (void)unlink(scratch);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strcpy(address.sun_path, scratch);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    refused(scratch, -EINVAL, "socket");
    (void)close(fd);
    (void)unlink(scratch);
}
END_TEST

START_TEST(test_refused_sizes)
{
    static const off_t wrong[] = {1, 511, 513, 1048577};

    refused(made(0), -EINVAL, "empty");
    (void)unlink(scratch);
    for (unsigned i = 0; i < 4; i++) {
        refused(made(wrong[i]), -EINVAL, "multiple of 512");
        (void)unlink(scratch);
    }
}
END_TEST

/* As somebody whom permissions bind. */
START_TEST(test_refused_permission)
{
    (void)made(4096);
    ck_assert_int_eq(chmod(scratch, 0444), 0);
    pid_t pid = fork();
    if (!pid) {
        struct disk *disk;
        struct err err;
        if (!getuid() && (setgid(65534) || setuid(65534)))
            _exit(2);
        if (open_disk(scratch, false, DISK_ENGINE_AUTO, &disk, &err) != -EACCES ||
            !strstr(err.text, "ro=on") || !strstr(err.text, scratch))
            _exit(3);
        _exit(open_disk(scratch, true, DISK_ENGINE_AUTO, &disk, &err) ? 4 : 0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    (void)unlink(scratch);
}
END_TEST

START_TEST(test_geometry)
{
    struct disk *disk;
    struct err err;

    ck_assert_int_eq(open_disk(made(513 * 512), false, DISK_ENGINE_AUTO, &disk, &err), 0);
    const struct disk_geometry *g = disk_geometry(disk);
    ck_assert_uint_eq(g->capacity, 513 * 512);
    ck_assert_uint_eq(g->logical_block, 512);
    ck_assert_uint_ge(g->physical_block, 512);
    ck_assert(!g->readonly && !g->is_block_device && !g->can_secure_erase);
    ck_assert(disk_range_ok(disk, 0, 513 * 512));
    ck_assert(disk_range_ok(disk, 513 * 512, 0));
    ck_assert(!disk_range_ok(disk, 512, 513 * 512));
    ck_assert(!disk_range_ok(disk, UINT64_MAX, 2));
    ck_assert(!disk_range_ok(disk, 2, UINT64_MAX));
    disk_close(disk);
    disk_close(NULL);
    (void)unlink(scratch);
}
END_TEST

START_TEST(test_descriptor)
{
    struct disk *disk = NULL;
    struct err err;
    int fd = open(made(4096), O_RDONLY | O_CLOEXEC);
    struct disk_config config = {.path = scratch, .fd = fd, .lock = true};

    ck_assert_int_eq(disk_open(&config, &disk, &err), -EACCES);
    ck_assert_ptr_nonnull(strstr(err.text, "ro=on"));
    ck_assert_int_ge(fcntl(fd, F_GETFL), 0); /* still the caller's */
    config.readonly = true;
    ck_assert_int_eq(disk_open(&config, &disk, &err), 0);
    disk_close(disk);
    ck_assert_int_eq(fcntl(fd, F_GETFL), -1);
    (void)unlink(scratch);
}
END_TEST

START_TEST(test_same)
{
    struct disk *a, *b, *c;
    struct err err;
    char link_path[160], other[128];

    (void)strcpy(other, made(4096));
    (void)made(4096);
    (void)snprintf(link_path, sizeof(link_path), "%s-link", scratch);
    ck_assert_int_eq(open_disk(scratch, true, DISK_ENGINE_AUTO, &a, &err), 0);
    ck_assert_int_eq(open_disk(other, true, DISK_ENGINE_AUTO, &c, &err), 0);
    ck_assert(!disk_same(a, c));
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(i ? link(scratch, link_path) : symlink(scratch, link_path), 0);
        ck_assert_int_eq(open_disk(link_path, true, DISK_ENGINE_AUTO, &b, &err), 0);
        ck_assert(disk_same(a, b));
        disk_close(b);
        (void)unlink(link_path);
    }
    disk_close(a);
    disk_close(c);
    (void)unlink(scratch);
    (void)unlink(other);
}
END_TEST

/* A process that holds the image, with a ring over it, until killed. */
static pid_t holder(bool readonly)
{
    int ready[2];
    char byte;

    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (!pid) {
        struct disk *disk;
        struct disk_queue *queue;
        struct err err;
        if (open_disk(scratch, readonly, DISK_ENGINE_IO_URING, &disk, &err) ||
            disk_queue_open(disk, 4, &queue, &err) || disk_queue_attach(queue) || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    int status;
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(WTERMSIG(status), SIGKILL);
}

START_TEST(test_locks)
{
    struct disk *disk;
    struct err err;
    char number[32];

    (void)made(4096);
    for (unsigned i = 0; i < 4; i++) {
        bool theirs = i & 1, ours = i & 2;
        pid_t pid = holder(theirs);
        int rc = open_disk(scratch, ours, DISK_ENGINE_AUTO, &disk, &err);
        ck_assert_int_eq(rc, theirs && ours ? 0 : -EBUSY);
        if (rc) {
            (void)snprintf(number, sizeof(number), "process %ld;", (long)pid);
            ck_assert_msg(strstr(err.text, number) && strstr(err.text, scratch), "%s", err.text);
        }
        disk_close(disk);
        end(pid);
        /* The dead hold nothing, not for a moment, though their ring may linger. */
        ck_assert_msg(!open_disk(scratch, false, DISK_ENGINE_AUTO, &disk, &err), "%s", err.text);
        struct disk *again;
        ck_assert_int_eq(open_disk(scratch, false, DISK_ENGINE_AUTO, &again, &err), -EBUSY);
        ck_assert_ptr_nonnull(strstr(err.text, "this process"));
        disk_close(disk);
    }
    (void)unlink(scratch);
}
END_TEST

static int without_io_uring(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = 4, .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

START_TEST(test_io_uring_forbidden)
{
    (void)made(4096);
    pid_t pid = fork();
    if (!pid) {
        struct disk *disk;
        struct err err;
        if (without_io_uring())
            _exit(2);
        if (open_disk(scratch, false, DISK_ENGINE_IO_URING, &disk, &err) != -EPERM ||
            !strstr(err.text, "engine=sync"))
            _exit(3);
        if (open_disk(scratch, false, DISK_ENGINE_AUTO, &disk, &err))
            _exit(4);
        _exit(strcmp(disk_engine_name(disk), "sync") ? 5 : 0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    (void)unlink(scratch);
}
END_TEST

static bool qemu_io_opens(bool readonly)
{
    char command[512];

    (void)snprintf(command, sizeof(command), "qemu-io %s -f raw -c 'read 0 512' %s >/dev/null 2>&1",
                   readonly ? "-r" : "", scratch);
    return system(command) == 0; // NOLINT(cert-env33-c,concurrency-mt-unsafe)
}

/* qemu-io as the holder: its prompt tells that it has the image. */
static FILE *qemu_io_holds(bool readonly)
{
    char command[512];

    /* Or the words of the one before would be taken for its own. */
    (void)snprintf(command, sizeof(command), "%s.log", scratch);
    (void)unlink(command);
    (void)snprintf(command, sizeof(command), "qemu-io %s -f raw %s >%s.log 2>&1", readonly ? "-r" : "",
                   scratch, scratch);
    FILE *pipe_to = popen(command, "we"); // NOLINT(cert-env33-c)
    ck_assert_ptr_nonnull(pipe_to);
    (void)fputs("read 0 512\n", pipe_to);
    (void)fflush(pipe_to);
    (void)snprintf(command, sizeof(command), "until grep -qs 'read 512' %s.log; do sleep 0.02; done",
                   scratch);
    ck_assert_int_eq(system(command), 0); // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    return pipe_to;
}

START_TEST(test_qemu)
{
    struct disk *disk;
    struct err err;
    char log[160];

    if (system("qemu-io --version >/dev/null 2>&1")) { // NOLINT(cert-env33-c,concurrency-mt-unsafe)
        printf("# SKIP test_qemu: qemu-io is not installed\n");
        return;
    }
    (void)made(4096);
    for (unsigned i = 0; i < 4; i++) {
        bool theirs = i & 1, ours = i & 2, both = theirs && ours;
        ck_assert_int_eq(open_disk(scratch, ours, DISK_ENGINE_AUTO, &disk, &err), 0);
        ck_assert_int_eq(qemu_io_opens(theirs), both);
        disk_close(disk);
        ck_assert(qemu_io_opens(theirs));
        FILE *qemu = qemu_io_holds(theirs);
        ck_assert_int_eq(open_disk(scratch, ours, DISK_ENGINE_AUTO, &disk, &err), both ? 0 : -EBUSY);
        disk_close(disk);
        ck_assert_int_eq(pclose(qemu), 0);
    }
    (void)snprintf(log, sizeof(log), "%s.log", scratch);
    (void)unlink(log);
    (void)unlink(scratch);
}
END_TEST

static int loop_device(char *node, size_t size)
{
    char command[512];

    (void)snprintf(command, sizeof(command), "losetup -f --show %s 2>/dev/null", scratch);
    FILE *f = popen(command, "re"); // NOLINT(cert-env33-c)
    bool got = f && fgets(node, (int)size, f);
    if (f && pclose(f))
        got = false;
    node[strcspn(node, "\n")] = 0;
    return got ? 0 : -1;
}

START_TEST(test_block_device)
{
    char node[64] = "", command[128];
    struct disk_rig rig = {0};
    unsigned char in[4096], out[4096], zero[4096] = {0};

    (void)made(1 << 20);
    if (loop_device(node, sizeof(node))) {
        printf("# SKIP test_block_device: no loop device can be had here\n");
        (void)unlink(scratch);
        return;
    }
    (void)snprintf(rig.path, sizeof(rig.path), "%s", node);
    disk_rig_open(&rig, _i ? DISK_ENGINE_SYNC : DISK_ENGINE_IO_URING, 4, false, false);
    const struct disk_geometry *g = disk_geometry(rig.disk);
    ck_assert(g->is_block_device && g->can_discard && g->discard_granularity);
    ck_assert_uint_eq(g->capacity, 1u << 20);
    disk_rig_pattern(in, sizeof(in), 9);
    static const struct {
        enum disk_op op;
        unsigned flags;
    } ways[] = {{DISK_DISCARD, 0}, {DISK_WRITE_ZEROES, DISK_FUA}, {DISK_WRITE_ZEROES, DISK_UNMAP}};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(disk_rig_do(&rig, DISK_WRITE, DISK_FUA, 8192, 4096, in), 0);
        ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 8192, 4096, out), 0);
        ck_assert_mem_eq(in, out, 4096);
        ck_assert_int_eq(disk_rig_do(&rig, ways[i].op, ways[i].flags, 8192, 4096, NULL), 0);
        ck_assert_int_eq(disk_rig_do(&rig, DISK_READ, 0, 8192, 4096, out), 0);
        ck_assert_mem_eq(zero, out, 4096);
    }
    ck_assert_int_eq(disk_rig_do(&rig, DISK_FLUSH, 0, 0, 0, NULL), 0);
    struct disk *again;
    struct err err;
    ck_assert_int_eq(open_disk(node, false, DISK_ENGINE_AUTO, &again, &err), -EBUSY);
    rig.path[0] = 0; /* the node stays */
    disk_rig_close(&rig);
    (void)snprintf(command, sizeof(command), "losetup -d %s", node);
    ck_assert_int_eq(system(command), 0); // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    (void)unlink(scratch);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_refused_kinds, test_refused_sizes, test_refused_permission,
                                  test_geometry,      test_descriptor,    test_same,
                                  test_locks,         test_qemu,          test_io_uring_forbidden};
    Suite *s = suite_create("disk_open");
    TCase *t = tcase_create("images");

    tcase_set_timeout(t, 60);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(t, tests[i]);
    tcase_add_loop_test(t, test_block_device, 0, 2);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
