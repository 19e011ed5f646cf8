/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet's commands against a supervisor made for the test: requests, answers, sentences, exit codes.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/commands.h"
#include "vmm/control_internal.h"

static char dir[64];
static char said[4096]; /* what the command wrote, errors too */
static pid_t servers[2];

/* Answers each request with the file's text, in front of which the request and its user stand. */
static void serve(int listening, const char *answer)
{
    for (;;) {
        char request[CONTROL_LINE_MAX + 1] = "";
        struct ucred peer;
        socklen_t size = sizeof(peer);
        int fd = accept(listening, NULL, NULL);
        ssize_t n = fd < 0 ? -1 : recv(fd, request, sizeof(request) - 1, 0);
        if (n > 0) {
            char head[CONTROL_LINE_MAX + 64] = "";
            getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
            request[strcspn(request, "\n")] = '\0';
            if (answer[0] == '?')
                snprintf(head, sizeof(head), "got %s from %u\n", request, (unsigned)peer.uid);
            send(fd, head, strlen(head), MSG_NOSIGNAL);
            send(fd, answer + (answer[0] == '?'), strlen(answer) - (answer[0] == '?'), MSG_NOSIGNAL);
        }
        close(fd);
    }
}

/* A fleet that answers so; '?' in front: tells the request first. */
static void start(unsigned which, const char *file, const char *answer)
{
    struct err err = {{0}};
    int dir_fd = control_dir_open(true, &err);
    ck_assert_msg(dir_fd >= 0, "%s", err.text);
    int fd = control_bind(dir_fd, file, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    servers[which] = fork();
    if (servers[which] == 0)
        serve(fd, answer);
    close(fd);
    close(dir_fd);
}

static void setup(void)
{
    strcpy(dir, "/tmp/minivmm-fleet-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("MINIVMM_RUN_DIR", dir, 1);
    memset(servers, 0, sizeof(servers));
}

static void teardown(void)
{
    char command[96];
    for (unsigned i = 0; i < 2; i++)
        if (servers[i] > 0) {
            kill(servers[i], SIGKILL);
            waitpid(servers[i], NULL, 0);
        }
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

/* Runs "minivmm fleet LINE" in a process of its own; returns its exit code. */
static int command(const char *line)
{
    char name[] = "fleet", words[512], path[96], *argv[32] = {name};
    int status, count = 1;
    snprintf(words, sizeof(words), "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[count++] = word;
    snprintf(path, sizeof(path), "%s/said", dir);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, STDIN_FILENO);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        int code = fleet_main(count, argv);
        fflush(NULL);
        _exit(code);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    FILE *in = fopen(path, "r");
    ck_assert_ptr_nonnull(in);
    said[fread(said, 1, sizeof(said) - 1, in)] = '\0';
    fclose(in);
    unlink(path);
    ck_assert_msg(WIFEXITED(status), "%s", said);
    return WEXITSTATUS(status);
}

#define ck_assert_said(text) ck_assert_msg(strstr(said, text), "no \"%s\" in: %s", text, said)

START_TEST(bad_words_are_refused_before_anybody_is_asked)
{
    static const struct {
        const char *line, *sentence;
    } rows[] = {
        {"", "a command is needed"},
        {"lgos", "did you mean 'logs'?"},
        {"frobnicate", "unknown command 'frobnicate'"},
        {"stop", "names of VMs are needed, or --all"},
        {"restart", "names of VMs are needed, or --all"},
        {"stop --all web", "exclude each other"},
        {"stop ../web", "'../web' is not a name"},
        {"reload web", "'web' is one word too many"},
        {"logs", "the name of a VM is needed"},
        {"logs a b", "'b' is one word too many"},
        {"logs a -n 100001", "-n"},
        {"ps --all", "unknown flag '--all'"},
        {"ps -n 3", "unknown flag '-n'"},
        {"top -d 0", "from 0.1 to 3600"},
        {"top -d nan", "from 0.1 to 3600"},
        {"top -n 0", "-n"},
        {"top -n", "-n needs a value"},
        {"ps --fleet=", "the name of a fleet is needed"},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_msg(command(rows[i].line) == 2, "%s: %s", rows[i].line, said);
        ck_assert_said(rows[i].sentence);
    }
    ck_assert_int_eq(command("--help"), 0);
    ck_assert_said("usage: minivmm fleet up FILE");
    ck_assert_int_eq(command("stop --help"), 0);
}
END_TEST

START_TEST(the_only_fleet_is_the_default)
{
    ck_assert_int_eq(command("ps"), 1);
    ck_assert_said("no fleet of yours is running");
    start(0, "prod.fleet", "?ok\n");
    ck_assert_int_eq(command("reload"), 0);
    ck_assert_said("got reload from");
    ck_assert_int_eq(command("reload --fleet prdo"), 1);
    ck_assert_said("no fleet named prdo is running; did you mean prod?");
    ck_assert_int_eq(command("reload -f else"), 1);
    ck_assert_said("these are: prod");
    start(1, "other.fleet", "error: no\n");
    ck_assert_int_eq(command("reload"), 1);
    ck_assert_said("choose one with --fleet");
    ck_assert_int_eq(command("reload -f prod"), 0);
    /* What a supervisor that was killed left is not there. */
    kill(servers[1], SIGKILL);
    waitpid(servers[1], NULL, 0);
    servers[1] = 0;
    ck_assert_int_eq(command("reload"), 0);
}
END_TEST

START_TEST(a_file_stands_for_its_fleet)
{
    char path[96], line[128];
    snprintf(path, sizeof(path), "%s/site.conf", dir);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs("[fleet]\nname = prod\n", file);
    fclose(file);
    start(0, "prod.fleet", "?ok\n");
    start(1, "site.fleet", "error: not me\n");
    snprintf(line, sizeof(line), "reload --fleet %s", path);
    ck_assert_msg(command(line) == 0, "%s", said);
    ck_assert_int_eq(command("reload --fleet /nowhere/x.conf"), 1);
    ck_assert_said("/nowhere/x.conf");
}
END_TEST

START_TEST(orders_name_their_vms)
{
    start(0, "prod.fleet", "?stopped a\nok\n");
    ck_assert_int_eq(command("stop a b"), 0);
    ck_assert_said("got stop a b from");
    ck_assert_said("\nstopped a\n");
    ck_assert_int_eq(command("start --all"), 0);
    ck_assert_said("got start * from");
}
END_TEST

START_TEST(failures_show_in_the_exit_code)
{
    start(0, "refuses.fleet", "error: there is no VM 'x'\n");
    ck_assert_int_eq(command("stop x"), 1);
    ck_assert_said("minivmm: error: fleet stop: there is no VM 'x'\n");
    ck_assert_int_eq(command("console x"), 1);
    ck_assert_said("fleet console: there is no VM 'x'");
    start(1, "fails.fleet", "failed x: it is broken\nok\n");
    ck_assert_int_eq(command("start x -f fails"), 1);
    ck_assert_said("failed x: it is broken\n");
}
END_TEST

START_TEST(half_an_answer_is_an_error)
{
    start(0, "half.fleet", "starting x\nok");
    ck_assert_int_eq(command("start x"), 1);
    ck_assert_said("ended within its answer");
    ck_assert_int_eq(command("logs x"), 1);
    start(1, "mute.fleet", "");
    ck_assert_int_eq(command("ps -f mute"), 1);
    ck_assert_said("ended within its answer");
    ck_assert_ptr_null(strstr(said, "NAME"));
}
END_TEST

START_TEST(ps_is_a_table_or_json)
{
    start(0, "prod.fleet",
          "vm=007 state=running pid=12 uptime=75.250 restarts=2 first=4 slots=4 since=x\n"
          "vm=a-name-that-is-much-longer-than-its-column state=stopped restarts=0\nok\n");
    ck_assert_int_eq(command("ps"), 0);
    ck_assert_said("007                              running          12    1m15s        2      4-7\n");
    ck_assert_said("a-name-that-is-much-longer-than~ stopped           -        -        0        -\n");
    for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n"))
        ck_assert_uint_le(strlen(line), 80);
    ck_assert_int_eq(command("ps --json"), 0);
    ck_assert_said("\"name\": \"007\"");
    ck_assert_said("\"uptime\": 75.250");
    ck_assert_said("\"since\": \"x\"");
}
END_TEST

START_TEST(streams_are_copied_as_they_are)
{
    start(0, "prod.fleet", "stream\nok\nerror: no verdict here\nlast");
    ck_assert_int_eq(command("logs web"), 0);
    ck_assert_str_eq(said, "ok\nerror: no verdict here\nlast");
    ck_assert_int_eq(command("console web"), 0);
    ck_assert_str_eq(said, "ok\nerror: no verdict here\nlast");
}
END_TEST

/* In a directory that is root's alone. */
START_TEST(root_asks_as_the_owner_of_the_socket)
{
    char path[96];
    char expected[64];
    start(0, "prod.fleet", "?ok\n");
    snprintf(path, sizeof(path), "%s/prod.fleet", dir);
    uid_t owner = geteuid() == 0 ? 4242 : geteuid();
    ck_assert_int_eq(chown(path, owner, (gid_t)-1), 0);
    ck_assert_int_eq(command("reload"), 0);
    snprintf(expected, sizeof(expected), "got reload from %u\n", (unsigned)owner);
    ck_assert_said(expected);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("client");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, bad_words_are_refused_before_anybody_is_asked);
    tcase_add_test(tests, the_only_fleet_is_the_default);
    tcase_add_test(tests, a_file_stands_for_its_fleet);
    tcase_add_test(tests, orders_name_their_vms);
    tcase_add_test(tests, failures_show_in_the_exit_code);
    tcase_add_test(tests, half_an_answer_is_an_error);
    tcase_add_test(tests, ps_is_a_table_or_json);
    tcase_add_test(tests, streams_are_copied_as_they_are);
    tcase_add_test(tests, root_asks_as_the_owner_of_the_socket);
    Suite *suite = suite_create("fleet_client");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
