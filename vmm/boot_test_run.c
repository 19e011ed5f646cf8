/* SPDX-License-Identifier: Apache-2.0 */
/* One run of boot-test: a child process, its console line by line, and the verdict. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vmm/boot_test.h"
#include "vmm/exit_codes.h"

#define STOP_MS  5000 /* from SIGTERM to SIGKILL */
#define PANIC_MS 2000 /* for what a panicking kernel has to say */

/* Bytes taken in a row before signals and the child are looked at; more than a pipe holds. */
#define DRAIN_BYTES (256u << 10)

static const char panic_text[] = "Kernel panic - not syncing";

struct text_line {
    char text[BOOT_TEST_LINE_MAX + 1];
    size_t len;
};

struct watcher {
    const struct boot_plan *plan;
    struct boot_run *run;
    pid_t pid;
    int pid_fd, console_fd, message_fd;
    struct text_line line, message; /* of the console; of the child's standard error */
    char last_message[BOOT_TEST_TAIL_BYTES];
    unsigned matched; /* expects */
    size_t from;      /* where in the line the next expect may begin */
    bool decided, panicked, stopping;
    int64_t started, deadline; /* ms */
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void decide(struct watcher *w, enum boot_outcome outcome, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The first verdict stands. */
static void decide(struct watcher *w, enum boot_outcome outcome, const char *fmt, ...)
{
    if (w->decided)
        return;
    w->decided = true;
    w->run->outcome = outcome;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->run->reason, sizeof(w->run->reason), fmt, ap);
    va_end(ap);
}

/* What is still to be seen, for a reason; empty when nothing was expected. */
static void describe_missing(const struct watcher *w, char *text, size_t size)
{
    const struct boot_plan *plan = w->plan;
    *text = '\0';
    if (w->matched < plan->expects)
        snprintf(text, size, ": --expect %u of %u, '%s', was not seen", w->matched + 1, plan->expects,
                 plan->expect[w->matched].text);
}

static void match_rejects(struct watcher *w, int flags)
{
    const struct boot_plan *plan = w->plan;
    for (unsigned i = 0; i < plan->rejects && !w->decided; i++)
        if (regexec(&plan->reject[i].regex, w->line.text, 0, NULL, flags) == 0)
            decide(w, BOOT_FAIL, "--reject '%s' was seen: %.200s", plan->reject[i].text, w->line.text);
}

static void match_expects(struct watcher *w, int flags)
{
    const struct boot_plan *plan = w->plan;
    while (w->matched < plan->expects && !w->decided) {
        regmatch_t at;
        int bol = w->from ? REG_NOTBOL : 0;
        if (regexec(&plan->expect[w->matched].regex, w->line.text + w->from, 1, &at, flags | bol) != 0)
            return;
        w->from += (size_t)at.rm_eo;
        if (++w->matched == plan->expects)
            decide(w, BOOT_PASS, "all of %u --expect seen", plan->expects);
    }
}

/* Looks at the line as it stands; whole: its end was seen too, so that $ may match. */
static void match_line(struct watcher *w, bool whole)
{
    int flags = whole ? 0 : REG_NOTEOL;
    match_rejects(w, flags);
    match_expects(w, flags);
    if (!w->decided && !w->panicked && strstr(w->line.text, panic_text)) {
        w->panicked = true;
        int64_t soon = now_ms() + PANIC_MS;
        if (soon < w->deadline)
            w->deadline = soon;
    }
}

static void end_line(struct watcher *w)
{
    match_line(w, true);
    char *tail = w->run->tail[w->run->lines++ % BOOT_TEST_TAIL_LINES];
    snprintf(tail, BOOT_TEST_TAIL_BYTES, "%.*s", (int)BOOT_TEST_TAIL_BYTES - 1, w->line.text);
    w->line.len = 0;
    w->line.text[0] = '\0';
    w->from = 0;
}

/* Adds a byte; true when the line is whole. A line without an end is cut rather than kept for ever. */
static bool add_byte(struct text_line *line, char byte)
{
    if (byte == '\n')
        return true;
    if (byte == '\r')
        return false;
    line->text[line->len++] = (char)(byte ? byte : '?');
    line->text[line->len] = '\0';
    return line->len == BOOT_TEST_LINE_MAX;
}

static void take_console(struct watcher *w, const char *bytes, size_t len)
{
    if (w->plan->log)
        fwrite(bytes, 1, len, w->plan->log);
    for (size_t i = 0; i < len; i++)
        if (add_byte(&w->line, bytes[i]))
            end_line(w);
    if (w->line.len)
        match_line(w, false);
}

/* The child's own words: shown, and the last of them kept, since they tell why it failed. */
static void take_message(struct watcher *w, const char *bytes, size_t len)
{
    (void)!write(STDERR_FILENO, bytes, len);
    for (size_t i = 0; i < len; i++)
        if (add_byte(&w->message, bytes[i])) {
            snprintf(w->last_message, sizeof(w->last_message), "%.*s", (int)sizeof(w->last_message) - 1,
                     w->message.text);
            w->message.len = 0;
        }
}

/*
 * Reads all that is there, or so much that the rest was written meanwhile; closes at the end of file. Who
 * never stops talking is cut short by the caller's other duties, not only by the clock.
 */
static void drain(struct watcher *w, int *fd, void (*take)(struct watcher *, const char *, size_t))
{
    char bytes[4096];
    size_t taken = 0;
    while (*fd >= 0 && taken < DRAIN_BYTES) {
        ssize_t n = read(*fd, bytes, sizeof(bytes));
        if (n > 0) {
            take(w, bytes, (size_t)n);
            taken += (size_t)n;
            /* A guest that never stops talking must not keep us from the clock. */
            if ((w->decided && !w->stopping) || now_ms() >= w->deadline)
                return;
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n == 0 || errno != EINTR) {
            close(*fd);
            *fd = -1;
        }
    }
}

/* In the child: standard input from nowhere, both outputs to our messages, the console on its number. */
_Noreturn static void become(char *const *argv, int console_fd, int message_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Nothing survives boot-test, even when that is killed; and what it starts is found by the group. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setpgid(0, 0);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (getppid() == parent && null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 &&
        dup2(message_fd, STDOUT_FILENO) >= 0 && dup2(message_fd, STDERR_FILENO) >= 0 &&
        dup2(console_fd, BOOT_TEST_CONSOLE_FD) >= 0)
        execv(argv[0], argv);
    dprintf(STDERR_FILENO, "%s could not be started: %s\n", argv[0], strerror(errno));
    _exit(EXIT_CODE_FAILURE);
}

/* Both ends above the numbers that become() gives away. */
static int make_pipe(int ends[2])
{
    int raw[2];
    if (pipe2(raw, O_CLOEXEC) < 0)
        return -errno;
    for (unsigned i = 0; i < 2; i++) {
        ends[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, BOOT_TEST_CONSOLE_FD + 1);
        close(raw[i]);
    }
    if (ends[0] < 0 || ends[1] < 0)
        return -EMFILE;
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int start(struct watcher *w, char *const *argv)
{
    int console[2] = {-1, -1};
    int message[2] = {-1, -1};
    int code = make_pipe(console);
    if (code == 0)
        code = make_pipe(message);
    pid_t parent = getpid();
    if (code == 0) {
        (void)fflush(NULL);
        w->pid = fork();
        if (w->pid == 0)
            become(argv, console[1], message[1], parent);
        code = w->pid < 0 ? -errno : 0;
    }
    w->console_fd = console[0];
    w->message_fd = message[0];
    if (console[1] >= 0)
        close(console[1]);
    if (message[1] >= 0)
        close(message[1]);
    if (code < 0)
        return code;
    (void)setpgid(w->pid, w->pid);
    w->pid_fd = (int)syscall(SYS_pidfd_open, w->pid, 0);
    return w->pid_fd < 0 ? -errno : 0;
}

/* Waits for anything to happen until the time; true when the child is gone. */
static bool wait_for_child(struct watcher *w, int64_t until)
{
    struct pollfd fds[] = {
        {.fd = w->pid_fd, .events = POLLIN},
        {.fd = w->console_fd, .events = POLLIN},
        {.fd = w->message_fd, .events = POLLIN},
        {.fd = w->plan->signal_fd, .events = POLLIN},
    };
    int64_t left = until - now_ms();
    int n = poll(fds, 4, left < 0 ? 0 : (int)left);
    if (n > 0 && fds[3].revents) {
        struct signalfd_siginfo info;
        if (read(w->plan->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            w->run->interrupted = true;
            decide(w, BOOT_FAIL, "interrupted by signal %u", info.ssi_signo);
        }
    }
    return n > 0 && fds[0].revents;
}

static void drain_all(struct watcher *w)
{
    drain(w, &w->message_fd, take_message);
    drain(w, &w->console_fd, take_console);
}

/* The child ended by itself: by its exit code and what its console said. */
static void judge_end(struct watcher *w, int status)
{
    char missing[ERR_TEXT_MAX / 2];
    describe_missing(w, missing, sizeof(missing));
    if (WIFSIGNALED(status)) {
        decide(w, BOOT_FAIL, "the VM's process was killed by signal %d%s", WTERMSIG(status), missing);
        return;
    }
    int code = WEXITSTATUS(status);
    const char *said = w->last_message;
    if (code == EXIT_CODE_PANIC || w->panicked)
        decide(w, BOOT_PANIC, "the guest panicked%s", missing);
    else if (code == EXIT_CODE_USAGE)
        decide(w, BOOT_USAGE, "the VM could not start: %s", *said ? said : "bad flags or input");
    else if (code == EXIT_CODE_TIMEOUT)
        decide(w, BOOT_TIMEOUT, "%s%s", exit_code_meaning(code), missing);
    else if (code == EXIT_CODE_OK && w->plan->expects == 0)
        decide(w, BOOT_PASS, "%s", exit_code_meaning(code));
    else if (code == EXIT_CODE_FAILURE && *said)
        decide(w, BOOT_FAIL, "%s: %s%s", exit_code_meaning(code), said, missing);
    else
        decide(w, BOOT_FAIL, "%s (exit code %d)%s", exit_code_meaning(code), code, missing);
}

static void judge_time(struct watcher *w)
{
    char missing[ERR_TEXT_MAX / 2];
    describe_missing(w, missing, sizeof(missing));
    if (w->panicked)
        decide(w, BOOT_PANIC, "the guest panicked%s", missing);
    else
        decide(w, BOOT_TIMEOUT, "time-out after %u s%s", w->plan->timeout_s,
               *missing ? missing : ": the guest has not powered off");
}

/* Watches until there is a verdict; true when the child is gone. */
static bool watch(struct watcher *w)
{
    while (!w->decided) {
        bool gone = wait_for_child(w, w->deadline);
        drain_all(w);
        if (gone)
            return true;
        if (!w->decided && now_ms() >= w->deadline)
            judge_time(w);
    }
    return false;
}

/* Asks, waits a while, then insists. The console is drained meanwhile, since the child may be writing. */
static void stop(struct watcher *w)
{
    int64_t until = now_ms() + STOP_MS;
    w->deadline = until;
    (void)kill(w->pid, SIGTERM);
    while (!wait_for_child(w, until)) {
        drain_all(w);
        if (now_ms() >= until) {
            (void)kill(w->pid, SIGKILL);
            return;
        }
    }
}

static void finish(struct watcher *w, bool gone)
{
    int status = 0;
    w->stopping = true;
    if (!gone)
        stop(w);
    siginfo_t gone_info;
    while (waitid(P_PID, (id_t)w->pid, &gone_info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    /* Whatever it left behind; before it is reaped, since its number may be another's afterwards. */
    (void)kill(-w->pid, SIGKILL);
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR) {
    }
    w->deadline = now_ms() + STOP_MS;
    drain_all(w);
    if (w->line.len)
        end_line(w);
    judge_end(w, status);
}

void boot_run_once(const struct boot_plan *plan, char *const *argv, struct boot_run *run)
{
    struct watcher *w = calloc(1, sizeof(*w));
    *run = (struct boot_run){.outcome = BOOT_FAIL, .reason = "out of memory"};
    if (!w)
        return;
    w->plan = plan;
    w->run = run;
    w->pid_fd = w->console_fd = w->message_fd = -1;
    w->started = now_ms();
    w->deadline = w->started + (int64_t)plan->timeout_s * 1000;
    int code = start(w, argv);
    if (code < 0)
        decide(w, BOOT_FAIL, "the VM's process could not be started: %s", strerror(-code));
    if (w->pid > 0)
        finish(w, code == 0 && watch(w));
    run->ms = now_ms() - w->started;
    const int fds[] = {w->pid_fd, w->console_fd, w->message_fd};
    for (unsigned i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(w);
}

int boot_exit_code(enum boot_outcome outcome)
{
    static const int codes[] = {[BOOT_PASS] = EXIT_CODE_OK,
                                [BOOT_FAIL] = EXIT_CODE_FAILURE,
                                [BOOT_TIMEOUT] = EXIT_CODE_TIMEOUT,
                                [BOOT_PANIC] = EXIT_CODE_PANIC,
                                [BOOT_USAGE] = EXIT_CODE_USAGE};
    return codes[outcome];
}

const char *boot_outcome_name(enum boot_outcome outcome)
{
    static const char *const names[] = {[BOOT_PASS] = "pass",
                                        [BOOT_FAIL] = "fail",
                                        [BOOT_TIMEOUT] = "timeout",
                                        [BOOT_PANIC] = "panic",
                                        [BOOT_USAGE] = "usage"};
    return names[outcome];
}

const char *boot_tail(const struct boot_run *run, unsigned i)
{
    unsigned kept = run->lines < BOOT_TEST_TAIL_LINES ? run->lines : BOOT_TEST_TAIL_LINES;
    return i < kept ? run->tail[(run->lines - kept + i) % BOOT_TEST_TAIL_LINES] : NULL;
}
