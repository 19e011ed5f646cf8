/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket from both ends: framing, hostile clients, dead VMs' sockets, the user's commands. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/control.h"

#define BIG 4000000u

static char dir[64];
static struct loop *loop;
static struct control *control;
static struct err err;
static char asked[5000];
static unsigned requests;
static bool stopped;
static int taken_fd;

static int on_request(void *ctx, const char *request, FILE *out, struct err *e)
{
    ck_assert_ptr_eq(ctx, &requests);
    requests++;
    snprintf(asked, sizeof(asked), "%s", request);
    if (strcmp(request, "big") == 0)
        for (unsigned i = 0; i < BIG; i++)
            fputc('b', out);
    if (strcmp(request, "bad") == 0)
        return err_set(e, -EINVAL, "two\nlines");
    if (strncmp(request, "stop", 4) == 0)
        stopped = true;
    if (strcmp(request, "take") == 0)
        taken_fd = control_take_fd(control);
    if (strcmp(request, "status") == 0)
        fprintf(out, "state=running\nname=007\npid=42\ncpus=2\nmemory=134217728\nuptime=1.500\n"
                     "disk0.path=a\"b\ndisk0.flags=0xf\n");
    return 0;
}

static int serve(const char *name, struct loop *on, struct control **out)
{
    int code = control_listen(name, out, &err);
    return code < 0 ? code : control_serve(*out, on, on_request, &requests, &err);
}

static void setup(void)
{
    strcpy(dir, "/tmp/minivmm-control-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    strcat(dir, "/run");
    setenv("MINIVMM_RUN_DIR", dir, 1);
    requests = 0;
    stopped = false;
    taken_fd = -2;
    ck_assert_int_eq(loop_create(&loop, &err), 0);
    int code = serve("web", loop, &control);
    ck_assert_msg(code == 0, "%s", err.text);
}

static void teardown(void)
{
    char command[128];
    if (control)
        control_close(control);
    loop_destroy(loop);
    *strrchr(dir, '/') = '\0';
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/web.sock", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int code = -errno;
    close(fd);
    return code;
}

static void pump(void)
{
    for (unsigned i = 0; i < 20; i++)
        ck_assert_int_eq(loop_run_once(loop, 0), 0);
}

static void say(int fd, const char *text, size_t len)
{
    ck_assert_int_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
    pump();
}

/* All that comes until the connection ends. */
static size_t hear(int fd, char *text, size_t size)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, text + len, size - 1 - len, 0);
        if (n > 0)
            len += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            ck_assert_int_eq(loop_run_once(loop, 1000), 0);
        else
            break;
    }
    text[len] = '\0';
    close(fd);
    return len;
}

START_TEST(answers_one_request_and_hangs_up)
{
    char text[256];
    int fd = dial();
    say(fd, "pau", 3);
    ck_assert_uint_eq(requests, 0);
    say(fd, "se\nresume\n", 10);
    ck_assert_str_eq(asked, "pause");
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
    ck_assert_uint_eq(requests, 1);
}
END_TEST

/* Sends text with count descriptors of the same file. */
static void pass(int fd, const char *text, int file, unsigned count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } room = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &room,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    room.header.cmsg_len = CMSG_LEN(count * sizeof(int));
    for (unsigned i = 0; i < count; i++)
        memcpy(CMSG_DATA(&room.header) + i * sizeof(int), &file, sizeof(int));
    ck_assert_int_eq(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)strlen(text));
    pump();
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

START_TEST(a_descriptor_comes_along)
{
    char text[256], word[8] = "";
    int pipes[2];
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    int fd = dial();
    pass(fd, "ta", pipes[1], 1);
    pass(fd, "ke\n", pipes[1], 1); /* the last one counts */
    hear(fd, text, sizeof(text));
    ck_assert_int_ge(taken_fd, 0);
    ck_assert_int_eq(fcntl(taken_fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(write(taken_fd, "key", 3), 3);
    ck_assert_int_eq(read(pipes[0], word, sizeof(word)), 3);
    close(taken_fd);
    fd = dial();
    say(fd, "take\n", 5);
    hear(fd, text, sizeof(text));
    ck_assert_int_eq(taken_fd, -1);
    ck_assert_int_eq(control_take_fd(control), -1);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(descriptors_that_nobody_takes_are_closed)
{
    char text[256];
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    unsigned before = open_fds();
    for (unsigned i = 0; i < 8; i++) {
        int fd = dial();
        pass(fd, "pa", file, 1 + i % 4);
        if (i % 2) {
            pass(fd, "use\n", file, 1 + i / 2);
            hear(fd, text, sizeof(text));
            ck_assert_str_eq(text, "ok\n");
        } else {
            close(fd);
        }
        pump();
        ck_assert_uint_eq(open_fds(), before);
    }
    close(file);
}
END_TEST

START_TEST(a_refusal_is_one_line)
{
    char text[256];
    int fd = dial();
    say(fd, "bad\n", 4);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "error: two lines\n");
}
END_TEST

START_TEST(long_requests_and_control_characters_are_refused)
{
    char text[256];
    char line[4098];
    memset(line, 'a', sizeof(line));
    int fd = dial();
    line[4096] = '\n';
    say(fd, line, 4097); /* the longest */
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
    ck_assert_uint_eq(strlen(asked), 4096);
    fd = dial();
    line[4096] = 'a';
    say(fd, line, 4097);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "error: the request is longer than 4096 bytes\n");
    fd = dial();
    say(fd, "st\0op\n", 6);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "error: byte 3 of the request is a control character\n");
    fd = dial();
    say(fd, "\033[2J\n", 5);
    hear(fd, text, sizeof(text));
    ck_assert_int_eq(strncmp(text, "error: byte 1 ", 14), 0);
    ck_assert_uint_eq(requests, 1);
}
END_TEST

START_TEST(a_client_that_reads_nothing_holds_up_nobody)
{
    char text[64];
    int slow = dial();
    say(slow, "big\n", 4);
    ck_assert_uint_eq(requests, 1);
    int fd = dial();
    say(fd, "pause\n", 6);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
    char *big = malloc(BIG + 64);
    ck_assert_uint_eq(hear(slow, big, BIG + 64), BIG + 3);
    ck_assert_str_eq(big + BIG, "ok\n");
    free(big);
}
END_TEST

START_TEST(clients_that_leave_at_any_point_are_forgotten)
{
    char text[64];
    int fd = dial();
    pump();
    close(fd);
    fd = dial();
    say(fd, "pau", 3);
    close(fd);
    fd = dial();
    say(fd, "big\n", 4);
    close(fd);
    fd = dial();
    ck_assert_int_eq(send(fd, "big\n", 4, 0), 4); /* gone before it is even heard */
    close(fd);
    pump();
    fd = dial();
    say(fd, "pause\n", 6);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
}
END_TEST

START_TEST(silent_clients_make_room_for_new_ones)
{
    int silent[64];
    char text[64];
    for (unsigned i = 0; i < 64; i++) {
        silent[i] = dial();
        ck_assert_int_ge(silent[i], 0);
        pump();
    }
    int fd = dial();
    say(fd, "pause\n", 6);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
    ck_assert_int_eq(recv(silent[0], text, 1, 0), 0); /* the oldest went */
    ck_assert_int_eq(recv(silent[63], text, 1, 0), -1);
    for (unsigned i = 0; i < 64; i++)
        close(silent[i]);
}
END_TEST

START_TEST(modes_keep_others_out)
{
    struct stat st;
    char path[96];
    ck_assert_int_eq(stat(dir, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    snprintf(path, sizeof(path), "%s/web.sock", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(another_users_process_gets_no_answer)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/web.sock", dir);
    if (geteuid() != 0) /* only root can become someone else; then the modes are all there is */
        return;
    chmod(dir, 0755);
    chmod(path, 0777);
    *strrchr(dir, '/') = '\0';
    chmod(dir, 0755);
    dir[strlen(dir)] = '/';
    fflush(NULL);
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        char text[64];
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(9);
        int fd = dial();
        ssize_t sent = fd < 0 ? -1 : send(fd, "pause\n", 6, MSG_NOSIGNAL);
        if (sent != 6 || write(ready[1], "r", 1) != 1)
            _exit(8);
        struct pollfd end = {.fd = fd, .events = POLLIN};
        poll(&end, 1, 10000);
        _exit(recv(fd, text, sizeof(text), 0) > 0);
    }
    char byte;
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    pump();
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(requests, 0);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

START_TEST(a_living_name_is_refused_even_when_it_is_busy)
{
    struct control *second = NULL;
    ck_assert_int_eq(serve("web", loop, &second), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "web"));
    int fds[64];
    unsigned n = 0;
    while (n < 64 && (fds[n] = dial()) >= 0)
        n++;
    ck_assert_uint_lt(n, 64);
    ck_assert_int_eq(fds[n], -EAGAIN); /* the queue of connections is full, and nobody accepts */
    ck_assert_int_eq(serve("web", loop, &second), -EBUSY);
    while (n > 0)
        close(fds[--n]);
}
END_TEST

START_TEST(a_dead_vms_socket_is_replaced)
{
    char text[64];
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct control *mine;
        _exit(serve("web2", loop, &mine) < 0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    char path[96];
    snprintf(path, sizeof(path), "%s/web2.sock", dir);
    ck_assert_int_eq(access(path, F_OK), 0);
    struct control *second;
    ck_assert_int_eq(serve("web2", loop, &second), 0);
    control_close(second);
    ck_assert_int_eq(access(path, F_OK), -1);
    int fd = dial();
    say(fd, "pause\n", 6);
    hear(fd, text, sizeof(text));
    ck_assert_str_eq(text, "ok\n");
}
END_TEST

START_TEST(a_socket_that_another_took_over_is_not_removed)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/web.sock", dir);
    ck_assert_int_eq(unlink(path), 0);
    struct control *second;
    ck_assert_int_eq(serve("web", loop, &second), 0);
    control_close(control);
    control = NULL;
    ck_assert_int_eq(access(path, F_OK), 0);
    control_close(second);
}
END_TEST

START_TEST(names_and_folders_are_checked)
{
    struct control *bad = NULL;
    ck_assert_int_eq(serve("../web", loop, &bad), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "--name"));
    chmod(dir, 0777);
    ck_assert_int_eq(serve("other", loop, &bad), -EPERM);
    ck_assert_ptr_nonnull(strstr(err.text, dir));
    chmod(dir, 0700);
    setenv("MINIVMM_RUN_DIR", "/proc/nowhere/run", 1);
    ck_assert_int_eq(serve("other", loop, &bad), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "--no-control"));
}
END_TEST

/* Runs the user's command in a child while the loop serves; its exit code, and both outputs in text. */
static int command(char *text, size_t size, const char *line)
{
    char copy[256];
    char *argv[16];
    int argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    int out[2];
    ck_assert_int_eq(pipe(out), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        int code = control_main(argc, argv);
        fflush(NULL);
        _exit(code);
    }
    close(out[1]);
    int status;
    while (waitpid(child, &status, WNOHANG) == 0)
        ck_assert_int_eq(loop_run_once(loop, 10), 0);
    ssize_t n = read(out[0], text, size - 1);
    text[n < 0 ? 0 : n] = '\0';
    close(out[0]);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(the_users_commands)
{
    char text[4096];
    ck_assert_int_eq(command(text, sizeof(text), "pause web"), 0);
    ck_assert_str_eq(text, "");
    ck_assert_str_eq(asked, "pause");
    ck_assert_int_eq(command(text, sizeof(text), "resume web"), 0);
    ck_assert_str_eq(asked, "resume");
    ck_assert_int_eq(command(text, sizeof(text), "stop web --force --timeout=0"), 0);
    ck_assert_str_eq(asked, "stop force");
    ck_assert_int_eq(command(text, sizeof(text), "status web"), 0);
    ck_assert_int_eq(strncmp(text, "state=running\nname=007\n", 23), 0);
    ck_assert_ptr_null(strstr(text, "ok"));
    ck_assert_int_eq(command(text, sizeof(text), "status"), 0);
    ck_assert_ptr_nonnull(strstr(text, "\nweb  "));
    ck_assert_ptr_nonnull(strstr(text, " 128M "));
    ck_assert_int_eq(command(text, sizeof(text), "status --json"), 0);
    ck_assert_ptr_nonnull(strstr(text, "\"name\": \"007\""));
    ck_assert_ptr_nonnull(strstr(text, "\"pid\": 42"));
    ck_assert_ptr_nonnull(strstr(text, "\"uptime\": 1.500"));
    ck_assert_ptr_nonnull(strstr(text, "\"disk0.path\": \"a\\\"b\""));
    ck_assert_ptr_nonnull(strstr(text, "\"disk0.flags\": \"0xf\""));
    ck_assert_int_eq(text[0], '[');
    ck_assert_int_eq(command(text, sizeof(text), "status web --json"), 0);
    ck_assert_int_eq(text[0], '{');
}
END_TEST

/* A socket as a killed VM leaves it. */
static void leave_dead(const char *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.60s/%s", dir, file);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static bool is_there(const char *file)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    return access(path, F_OK) == 0;
}

START_TEST(a_start_removes_the_sockets_of_dead_processes)
{
    char mine[32];
    struct control *second;
    snprintf(mine, sizeof(mine), "vm-%d.sock", (int)getpid());
    leave_dead("vm-1999999999.sock"); /* above any pid_max */
    leave_dead(mine);
    leave_dead("vm-19999999999999999999.sock");
    leave_dead("named.sock");
    ck_assert_int_eq(serve("web2", loop, &second), 0);
    ck_assert(!is_there("vm-1999999999.sock"));
    ck_assert(is_there(mine)); /* its process lives, and may be about to listen */
    ck_assert(is_there("named.sock"));
    ck_assert(is_there("web.sock"));
    control_close(second);
}
END_TEST

START_TEST(a_listing_removes_what_the_dead_left)
{
    char text[4096];
    char path[128];
    leave_dead("named.sock");
    snprintf(path, sizeof(path), "%s/notes.sock", dir);
    FILE *file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    fclose(file);
    ck_assert_int_eq(command(text, sizeof(text), "status"), 0);
    ck_assert_ptr_nonnull(strstr(text, "\nweb  "));
    ck_assert(!is_there("named.sock"));
    ck_assert(is_there("web.sock"));
    ck_assert(is_there("notes.sock")); /* no socket, not ours */
}
END_TEST

START_TEST(a_lock_that_is_never_given_back_holds_up_nobody)
{
    struct control *second;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(serve("web2", loop, &second), -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "--no-control"));
    close(fd);
}
END_TEST

START_TEST(the_users_mistakes)
{
    static const struct {
        const char *line, *says;
        int code;
    } cases[] = {
        {"stop wbe", "did you mean web?", 1},
        {"stop elephant", "these are: web", 1},
        {"stop", "the name of a VM is needed", 2},
        {"stop web --jsno", "unknown flag '--jsno'", 2},
        {"pause web --force", "unknown flag '--force'", 2},
        {"stop web two", "'two' is one name too many", 2},
        {"stop web --timeout", "needs a number", 2},
        {"stop web --timeout soon", "--timeout", 2},
        {"stop web --timeout 86401", "--timeout", 2},
        {"pause ../web", "../web", 2},
        {"stop --help", "usage:", 0},
    };
    char text[4096];
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int code = command(text, sizeof(text), cases[i].line);
        ck_assert_msg(code == cases[i].code && strstr(text, cases[i].says), "%s: %d, %s", cases[i].line, code,
                      text);
    }
    ck_assert_uint_eq(requests, 0);
    control_close(control);
    control = NULL;
    ck_assert_int_eq(command(text, sizeof(text), "stop web"), 1);
    ck_assert_ptr_nonnull(strstr(text, "nor any other"));
    ck_assert_int_eq(command(text, sizeof(text), "status"), 0);
    ck_assert_str_eq(text, "no VM is running\n");
}
END_TEST

START_TEST(stop_waits_for_the_process)
{
    char text[4096];
    /* This very process serves, and does not go away. */
    ck_assert_int_eq(command(text, sizeof(text), "stop web --timeout 1"), 1);
    ck_assert_str_eq(asked, "stop");
    ck_assert_ptr_nonnull(strstr(text, "--force"));
    fflush(NULL);
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    pid_t vm = fork();
    if (vm == 0) {
        struct loop *own;
        struct control *mine;
        if (loop_create(&own, &err) < 0 || serve("gone", own, &mine) < 0)
            _exit(9);
        stopped = false;
        if (write(ready[1], "r", 1) != 1)
            _exit(8);
        while (!stopped)
            loop_run_once(own, -1);
        control_close(mine);
        _exit(0);
    }
    char byte;
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(command(text, sizeof(text), "stop gone"), 0);
    int status;
    ck_assert_int_eq(waitpid(vm, &status, WNOHANG), vm); /* it is gone by now, not soon */
    ck_assert_int_eq(status, 0);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, answers_one_request_and_hangs_up);
    tcase_add_test(tc, a_refusal_is_one_line);
    tcase_add_test(tc, a_descriptor_comes_along);
    tcase_add_test(tc, descriptors_that_nobody_takes_are_closed);
    tcase_add_test(tc, long_requests_and_control_characters_are_refused);
    tcase_add_test(tc, a_client_that_reads_nothing_holds_up_nobody);
    tcase_add_test(tc, clients_that_leave_at_any_point_are_forgotten);
    tcase_add_test(tc, silent_clients_make_room_for_new_ones);
    tcase_add_test(tc, modes_keep_others_out);
    tcase_add_test(tc, another_users_process_gets_no_answer);
    tcase_add_test(tc, a_living_name_is_refused_even_when_it_is_busy);
    tcase_add_test(tc, a_dead_vms_socket_is_replaced);
    tcase_add_test(tc, a_socket_that_another_took_over_is_not_removed);
    tcase_add_test(tc, a_start_removes_the_sockets_of_dead_processes);
    tcase_add_test(tc, a_listing_removes_what_the_dead_left);
    tcase_add_test(tc, a_lock_that_is_never_given_back_holds_up_nobody);
    tcase_add_test(tc, names_and_folders_are_checked);
    tcase_add_test(tc, the_users_commands);
    tcase_add_test(tc, the_users_mistakes);
    tcase_add_test(tc, stop_waits_for_the_process);
    suite_add_tcase(suite, tc);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
