/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm fleet up: from its flags to the supervisor's end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/log.h"
#include "vmm/cgroup.h"
#include "vmm/console.h"
#include "vmm/crypt.h"
#include "vmm/exit_codes.h"
#include "vmm/fleet.h"
#include "vmm/sibling.h"

static const char usage[] =
    "usage: minivmm fleet up FILE [--detach] [--log FILE] [--verbose | --quiet]\n"
    "\n"
    "Starts the VMs of a fleet's file and keeps them as it says, until SIGTERM, ctrl-c or minivmm fleet "
    "down,\n"
    "when it stops them in good order; a second SIGTERM kills them. SIGHUP reads the file again.\n"
    "\n"
    "  --detach    go to the background when all VMs have started, or failed to\n"
    "  --log FILE  append what the supervisor and its VMs have to say to FILE (default: standard error; "
    "with\n"
    "              --detach, nowhere)\n"
    "  --verbose   say more\n"
    "  --quiet     say only what went wrong\n"
    "  --help      print this help\n"
    "\n"
    "Exit codes: 0 stopped by order (--detach: all VMs run), 1 the host failed (--detach: or a VM did; the\n"
    "supervisor goes on), 2 bad flags or a bad file.\n";

struct wish {
    const char *file, *log;
    bool detach, verbose, quiet, help;
};

static int parse(int argc, char **argv, struct wish *wish, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
            wish->help = true;
        else if (strcmp(arg, "--detach") == 0)
            wish->detach = true;
        else if (strcmp(arg, "--verbose") == 0)
            wish->verbose = true;
        else if (strcmp(arg, "--quiet") == 0)
            wish->quiet = true;
        else if (strncmp(arg, "--log=", 6) == 0)
            wish->log = arg + 6;
        else if (strcmp(arg, "--log") == 0 && i + 1 < argc)
            wish->log = argv[++i];
        else if (strcmp(arg, "--log") == 0)
            return err_set(err, -EINVAL, "fleet up: --log needs a file's name");
        else if (arg[0] == '-')
            return err_set(err, -EINVAL, "fleet up: unknown flag '%s'; minivmm fleet up --help lists them",
                           arg);
        else if (wish->file)
            return err_set(err, -EINVAL, "fleet up: '%s' is one file too many, after '%s'", arg, wish->file);
        else
            wish->file = arg;
    }
    if (!wish->help && !wish->file)
        return err_set(err, -EINVAL, "fleet up: the fleet's file is needed");
    return 0;
}

static int fail(int code, const struct err *err)
{
    log_error("%s", err->text);
    return code;
}

/* ---- the file's lock ---- */

/* Who has a lock on the file, as /proc/locks tells; 0: nobody knows. */
static int pid_of_holder(const struct stat *st)
{
    char line[256];
    char id[64];
    int holder = 0;
    FILE *locks = fopen("/proc/locks", "re");
    snprintf(id, sizeof(id), " %02x:%02x:%llu ", major(st->st_dev), minor(st->st_dev),
             (unsigned long long)st->st_ino);
    while (locks && !holder && fgets(line, sizeof(line), locks)) {
        const char *at = strstr(line, id);
        if (!at || !strstr(line, "FLOCK"))
            continue;
        while (at > line && at[-1] != ' ')
            at--;
        holder = (int)strtol(at, NULL, 10);
    }
    if (locks)
        (void)fclose(locks);
    return holder;
}

static int keep_lock(struct supervisor *up, int fd)
{
    if (up->lock_fd >= 0)
        close(up->lock_fd);
    up->lock_fd = fd;
    return 0;
}

/* Whoever may read the file can lock it, too: another user's process is no supervisor of this fleet. */
static bool is_strangers(int pid)
{
    char line[128];
    unsigned uid = 0;
    snprintf(line, sizeof(line), "/proc/%d/status", pid);
    FILE *status = pid > 0 ? fopen(line, "re") : NULL;
    while (status && fgets(line, sizeof(line), status))
        if (strncmp(line, "Uid:", 4) == 0) {
            uid = (unsigned)strtoul(line + 4, NULL, 10);
            break;
        }
    if (status)
        (void)fclose(status);
    return uid != 0 && uid != geteuid();
}

int supervisor_lock(struct supervisor *up, struct err *err)
{
    struct stat now;
    struct stat held;
    int fd = open(up->fleet.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &now) < 0) {
        int code = -errno;
        if (fd >= 0)
            close(fd);
        return err_set(err, code, "%s could not be opened: %s", up->fleet.path, strerror(-code));
    }
    if (up->lock_fd >= 0 && fstat(up->lock_fd, &held) == 0 && held.st_dev == now.st_dev &&
        held.st_ino == now.st_ino) {
        close(fd);
        return 0;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int code = -errno;
        int pid = pid_of_holder(&now);
        if (code == -EWOULDBLOCK && is_strangers(pid)) {
            log_warn("%s is locked by process %d of another user, which is no supervisor of yours",
                     up->fleet.path, pid);
            return keep_lock(up, fd);
        }
        close(fd);
        if (code != -EWOULDBLOCK)
            return err_set(err, code, "%s could not be locked: %s", up->fleet.path, strerror(-code));
        return err_set(err, -EBUSY,
                       "%s is under another supervisor already, process %d: a file is one's alone",
                       up->fleet.path, pid);
    }
    return keep_lock(up, fd);
}

/* ---- signals ---- */

void supervisor_end(struct supervisor *up)
{
    if (!up->ending) {
        up->ending = true;
        notify_send(&up->notify, "STOPPING=1\nSTATUS=Stopping all VMs");
        log_info("stopping all VMs");
        return;
    }
    log_warn("killing all VMs");
    for (struct unit *unit = up->units; unit; unit = unit->next)
        unit_kill(unit);
}

static void reload_by_signal(struct supervisor *up)
{
    struct err err = {{0}};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out || reload_fleet(up, out, NULL, NULL, &err) < 0)
        log_error("reload: %s", out ? err.text : "out of memory");
    if (out)
        (void)fclose(out);
    free(text);
}

static void on_signal(void *arg, uint32_t events)
{
    struct supervisor *up = arg;
    struct signalfd_siginfo info;
    (void)events;
    if (read(up->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD)
        spawn_on_child(up);
    else if (info.ssi_signo == SIGHUP)
        reload_by_signal(up);
    else
        supervisor_end(up);
}

static int open_signals(struct supervisor *up, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    up->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int code = up->signal_fd < 0 ? -errno : loop_add(up->loop, up->signal_fd, EPOLLIN, on_signal, up);
    return code < 0 ? err_set(err, code, "signals can't be received: %s", strerror(-code)) : 0;
}

/* ---- the background ---- */

/* What the one in the background tells the one whom the user started. */
struct outcome {
    int code;
    char text[512];
};

/* In the foreground: waits for the other's word, or end. Returns the exit code. */
static int await(int fd, pid_t pid)
{
    struct outcome outcome = {0};
    ssize_t n;
    do
        n = read(fd, &outcome, sizeof(outcome));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(outcome)) {
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CODE_FAILURE;
    }
    outcome.text[sizeof(outcome.text) - 1] = '\0';
    (void)fprintf(outcome.code ? stderr : stdout, "%s\n", outcome.text);
    return outcome.code;
}

/* Returns the pipe to the foreground in the background's process; ends the other there. */
static int detach(struct err *err)
{
    int ends[2];
    (void)fflush(NULL);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(err, -errno, "--detach: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        return err_set(err, -errno, "--detach: %s", strerror(errno));
    if (pid > 0) {
        close(ends[1]);
        exit(await(ends[0], pid)); // NOLINT(concurrency-mt-unsafe)
    }
    close(ends[0]);
    (void)setsid();
    return ends[1];
}

/* Where messages go from now on, and standard input and output when there is no terminal any more. */
static int redirect(const struct wish *wish, struct err *err)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log_fd = null_fd;
    if (wish->log)
        log_fd = open(wish->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (null_fd < 0 || log_fd < 0)
        return err_set(err, -errno, "%s could not be opened: %s", null_fd < 0 ? "/dev/null" : wish->log,
                       strerror(errno));
    if (wish->detach || wish->log)
        (void)dup2(log_fd, STDERR_FILENO);
    if (wish->detach) {
        (void)dup2(null_fd, STDIN_FILENO);
        (void)dup2(null_fd, STDOUT_FILENO);
    }
    if (log_fd != null_fd)
        close(log_fd);
    close(null_fd);
    return 0;
}

/* ---- the run ---- */

struct tally {
    unsigned wanted, running, settled;
};

static struct tally count(const struct supervisor *up)
{
    struct tally t = {0};
    for (const struct unit *unit = up->units; unit; unit = unit->next) {
        bool wanted = unit->vm->autostart || unit->state == FLEET_RUNNING;
        t.wanted += wanted;
        t.running += unit->state == FLEET_RUNNING;
        t.settled += wanted && unit_is_settled(unit);
    }
    return t;
}

static void report_start(struct supervisor *up, const struct tally *t, int *outcome_fd)
{
    struct outcome outcome = {0};
    bool well = true;
    size_t at = (size_t)snprintf(outcome.text, sizeof(outcome.text),
                                 "fleet %s: %u of %u VMs run, supervisor is process %d", up->fleet.name,
                                 t->running, t->wanted, (int)getpid());
    for (const struct unit *unit = up->units; unit; unit = unit->next) {
        if (unit->state != FLEET_FAILED && unit->state != FLEET_BACKOFF)
            continue;
        outcome.code = EXIT_CODE_FAILURE;
        int n = snprintf(outcome.text + at, sizeof(outcome.text) - at, "%s%s", well ? "; failed: " : ", ",
                         unit_name(unit));
        well = false;
        at = n > 0 && at + (size_t)n < sizeof(outcome.text) ? at + (size_t)n : sizeof(outcome.text) - 1;
    }
    log_info("%s", outcome.text);
    if (*outcome_fd < 0)
        return;
    (void)!write(*outcome_fd, &outcome, sizeof(outcome));
    close(*outcome_fd);
    *outcome_fd = -1;
}

/* Tells the service manager, and whoever waits for the start, when there is news. */
static void progress(struct supervisor *up, struct tally *said, int *outcome_fd)
{
    struct tally t = count(up);
    if (!up->begun && !up->ending && t.settled == t.wanted) {
        up->begun = true;
        notify_send(&up->notify, "READY=1");
        report_start(up, &t, outcome_fd);
    }
    if (!up->ending && (t.running != said->running || t.wanted != said->wanted))
        notify_send(&up->notify, "STATUS=%u of %u VMs run", t.running, t.wanted);
    *said = t;
}

static bool has_processes(const struct supervisor *up)
{
    const struct unit *unit = up->units;
    while (unit && !unit->pid)
        unit = unit->next;
    return unit;
}

static int serve(struct supervisor *up, int *outcome_fd, struct err *err)
{
    struct tally said = {0};
    for (;;) {
        units_advance(up);
        progress(up, &said, outcome_fd);
        if (up->ending && !has_processes(up))
            return 0;
        server_advance(up);
        int code = loop_run_once(up->loop, units_timeout(up));
        if (code < 0)
            return err_set(err, code, "waiting for events failed: %s", strerror(-code));
    }
}

static int create_units(struct supervisor *up, struct err *err)
{
    struct unit *unit;
    for (unsigned i = 0; i < up->fleet.vms; i++) {
        if (unit_create(up, &up->fleet.vm[i], &unit) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        if (unit->vm->autostart)
            unit_queue(unit);
    }
    units_claim_windows(up);
    return 0;
}

/* Several descriptors a VM: as many as the host lets us have. */
static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int prepare(struct supervisor *up, struct err *err)
{
    int code = loop_create(&up->loop, err);
    if (code == 0)
        code = open_signals(up, err);
    if (code == 0) {
        up->dir_fd = control_dir_open(true, err);
        code = up->dir_fd < 0 ? up->dir_fd : 0;
    }
    /* The name before the file: its socket knows the other's process best. */
    if (code == 0)
        code = server_create(up, err);
    if (code == 0)
        code = supervisor_lock(up, err);
    return code;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void destroy(struct supervisor *up)
{
    /* The clients that waited for the end hear of it, then the name is free, then the file. */
    if (up->server) {
        units_advance(up);
        server_farewell(up);
    }
    while (up->units)
        unit_free(up->units);
    server_destroy(up->server);
    up->server = NULL;
    loop_destroy(up->loop);
    close_fd(up->signal_fd);
    close_fd(up->lock_fd);
    close_fd(up->dir_fd);
    notify_close(&up->notify);
    if (up->reloading)
        fleet_free(&up->old);
    fleet_free(&up->fleet);
}

static void open_log(const struct supervisor *up, const struct wish *wish)
{
    enum log_level most = wish->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
    log_open(STDERR_FILENO, up->fleet.name, wish->quiet ? LOG_LEVEL_ERROR : most);
}

static int supervise(struct supervisor *up, const struct wish *wish, int *outcome_fd)
{
    struct err err = {{0}};
    crypt_harden();
    raise_limits();
    /* What a dead VM's keeper leaves behind is ours to reap. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    int code = prepare(up, &err);
    if (code == 0)
        code = redirect(wish, &err);
    open_log(up, wish);
    if (code == 0 && cgroup_make_room(&err) < 0)
        log_info("%s", err.text); /* a VM that asks for limits says what that means for it */
    if (code == 0)
        code = create_units(up, &err);
    if (code == 0)
        code = serve(up, outcome_fd, &err);
    return code < 0 ? fail(EXIT_CODE_FAILURE, &err) : EXIT_CODE_OK;
}

static int run(const struct wish *wish, struct err *err)
{
    char program[4096];
    if (sibling_path("minivmm", program, sizeof(program), err) < 0)
        return fail(EXIT_CODE_FAILURE, err);
    struct supervisor up = {.program = program, .dir_fd = -1, .lock_fd = -1, .signal_fd = -1};
    struct fleet_problems problems;
    int outcome_fd = -1;
    int loaded = fleet_load(wish->file, &up.fleet, &problems);
    fleet_problems_print(&problems, stderr);
    fleet_problems_free(&problems);
    if (loaded < 0) {
        fleet_free(&up.fleet);
        return EXIT_CODE_USAGE;
    }
    open_log(&up, wish);
    notify_open(&up.notify);
    if (wish->detach && (outcome_fd = detach(err)) < 0)
        return fail(EXIT_CODE_FAILURE, err);
    int code = supervise(&up, wish, &outcome_fd);
    destroy(&up);
    close_fd(outcome_fd);
    return code;
}

int fleet_up_main(int argc, char **argv)
{
    struct err err = {{0}};
    struct wish wish = {0};
    console_hold_standard();
    if (parse(argc, argv, &wish, &err) < 0)
        return fail(EXIT_CODE_USAGE, &err);
    if (wish.help) {
        (void)fputs(usage, stdout);
        return EXIT_CODE_OK;
    }
    return run(&wish, &err);
}
