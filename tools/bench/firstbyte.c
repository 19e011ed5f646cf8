/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command and tells when, after its exec, the first byte came on its standard output, and when it
 * ended.
 *
 * usage: firstbyte [--stop] OUTPUT COMMAND...      --stop: kill it at the first byte
 *
 * Prints first_us=, end_us= and status= (as waitpid gives it); 1 when nothing came.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "firstbyte: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static pid_t start(char **command, int *from)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        dup2(null, STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        execvp(command[0], command);
        die(command[0]);
    }
    close(out[1]);
    *from = out[0];
    return pid;
}

int main(int argc, char **argv)
{
    bool stop = argc > 1 && strcmp(argv[1], "--stop") == 0;
    char **rest = argv + 1 + stop, buffer[4096];
    int64_t first = 0;
    int from, status;
    ssize_t n;
    if (argc < 3 + stop) {
        fputs("usage: firstbyte [--stop] OUTPUT COMMAND...\n", stderr);
        return 2;
    }
    int to = open(rest[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (to < 0)
        die(rest[0]);
    int64_t began = now_us();
    pid_t pid = start(rest + 1, &from);
    while ((n = read(from, buffer, sizeof(buffer))) > 0) {
        if (!first)
            first = now_us();
        if (write(to, buffer, (size_t)n) != n)
            die(rest[0]);
        if (stop)
            kill(pid, SIGKILL);
    }
    waitpid(pid, &status, 0);
    printf("first_us=%ld\nend_us=%ld\nstatus=%d\n", first ? (long)(first - began) : -1L,
           (long)(now_us() - began), status);
    return first ? 0 : 1;
}
