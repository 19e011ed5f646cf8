/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a virtual machine monitor and measures it from outside, knowing only KVM's ioctls: what it costs up to
 * its first KVM_RUN, its memory beyond guest RAM, and how often it leaves the guest for user space.
 *
 * usage: startprobe start COMMAND...
 *        startprobe memory FROM TO OUTPUT COMMAND...
 *        startprobe exits FROM TO OUTPUT COMMAND...
 *
 *   start   ends COMMAND at its first KVM_RUN and prints the CPU time and the wall time since exec, and the
 * PSS memory  the largest PSS seen between the texts FROM and TO on COMMAND's standard output exits   the
 * KVM_RUN calls between the two texts
 *
 * Guest RAM, that is all that was given to KVM_SET_USER_MEMORY_REGION, is left out of the PSS. A seccomp
 * filter stops the command at just the ioctls of interest, so that everything else runs at its own speed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX 16u
#define REGIONS_MAX   64u
#define PAGE          4096u
#define SAMPLE_MS     20
#define GIVE_UP_S     120u
#define OPTIONS                                                                                              \
    (PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |                \
     PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL)

enum mode { MODE_START, MODE_MEMORY, MODE_EXITS };

struct range {
    uint64_t start, end;
};

/* Written by the child just before its exec, so that exec itself is counted. */
struct at_exec {
    struct timespec cpu, wall;
};

struct probe {
    enum mode mode;
    const char *from, *to;
    pid_t first;
    pid_t process[PROCESSES_MAX];
    unsigned processes;
    int64_t gone_us; /* CPU time of processes that have ended */
    struct range ram[REGIONS_MAX];
    unsigned regions;
    struct at_exec *exec;
    int pipe_fd, out_fd, signal_fd;
    char text[4096]; /* the end of the command's output, for the search of from and to */
    size_t text_len;
    bool between, done;
    uint64_t runs, pss_max;
};

static void die(const char *what)
{
    fprintf(stderr, "startprobe: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int64_t us_between(const struct timespec *a, const struct timespec *b)
{
    return (int64_t)(b->tv_sec - a->tv_sec) * 1000000 + (b->tv_nsec - a->tv_nsec) / 1000;
}

/* Lets through all but KVM_SET_USER_MEMORY_REGION and, when wanted, KVM_RUN. */
static void install_filter(bool runs)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)KVM_SET_USER_MEMORY_REGION, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, runs ? (uint32_t)KVM_RUN : (uint32_t)KVM_SET_USER_MEMORY_REGION,
                 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        die("the seccomp filter");
}

static void run_command(struct probe *p, char **command, const int go[2], const int out[2])
{
    char byte;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close(go[1]);
    if (read(go[0], &byte, 1) != 1)
        _exit(2);
    close(go[0]);
    if (p->mode != MODE_START && dup2(out[1], STDOUT_FILENO) < 0)
        die("dup2");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    if (p->mode == MODE_START)
        dup2(null, STDOUT_FILENO);
    install_filter(p->mode != MODE_MEMORY);
    clock_gettime(CLOCK_MONOTONIC, &p->exec->wall);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &p->exec->cpu);
    execvp(command[0], command);
    die(command[0]);
}

static void start(struct probe *p, char **command)
{
    int go[2], out[2];
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    p->signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    p->exec = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->signal_fd < 0 || p->exec == MAP_FAILED || pipe2(go, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        die("start");
    p->first = fork();
    if (p->first < 0)
        die("fork");
    if (p->first == 0)
        run_command(p, command, go, out);
    close(go[0]);
    close(out[1]);
    p->pipe_fd = out[0];
    fcntl(p->pipe_fd, F_SETFL, O_NONBLOCK);
    if (ptrace(PTRACE_SEIZE, p->first, NULL, (void *)(uintptr_t)OPTIONS) < 0)
        die("ptrace");
    p->process[p->processes++] = p->first;
    if (write(go[1], "g", 1) != 1)
        die("write");
    close(go[1]);
}

static uint64_t pages_present(pid_t pid, uint64_t start, uint64_t end)
{
    char path[64];
    uint64_t entry, present = 0;
    snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(path);
    for (uint64_t at = start; at < end; at += PAGE)
        if (pread(fd, &entry, sizeof(entry), (off_t)(at / PAGE * sizeof(entry))) == (ssize_t)sizeof(entry))
            present += entry >> 63;
    close(fd);
    return present;
}

static bool in_ram(const struct probe *p, uint64_t at, uint64_t *until)
{
    for (unsigned i = 0; i < p->regions; i++) {
        if (at >= p->ram[i].start && at < p->ram[i].end) {
            if (*until > p->ram[i].end)
                *until = p->ram[i].end;
            return true;
        }
        if (p->ram[i].start > at && p->ram[i].start < *until)
            *until = p->ram[i].start;
    }
    return false;
}

/*
 * The PSS in bytes of a mapping beyond guest RAM. The kernel may have merged guest RAM and its neighbours
 * into one mapping; of such a one the pages outside RAM are counted one by one.
 */
static uint64_t beyond_ram(const struct probe *p, pid_t pid, const struct range *map, uint64_t pss)
{
    uint64_t sum = 0;
    for (uint64_t at = map->start; at < map->end;) {
        uint64_t until = map->end;
        bool ram = in_ram(p, at, &until);
        if (!ram && at == map->start && until == map->end)
            return pss;
        if (!ram)
            sum += pages_present(pid, at, until) * PAGE;
        at = until;
    }
    return sum;
}

static uint64_t pss_of(const struct probe *p, pid_t pid)
{
    char line[4096], path[64];
    struct range map = {0, 0};
    uint64_t sum = 0, start, end, kib;
    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0; /* it ended meanwhile */
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Pss: %lu kB", &kib) == 1)
            sum += beyond_ram(p, pid, &map, kib * 1024);
        else if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            map = (struct range){start, end};
        if (getenv("STARTPROBE_MAPS") && (strstr(line, "-") || strncmp(line, "Pss:", 4) == 0))
            fputs(line, stderr);
    }
    fclose(f);
    return sum;
}

static uint64_t pss(const struct probe *p)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->processes; i++)
        sum += pss_of(p, p->process[i]);
    return sum;
}

static int64_t cpu_of(pid_t pid)
{
    struct timespec now;
    clockid_t id;
    if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &now) < 0)
        return 0;
    return us_between(&(struct timespec){0, 0}, &now);
}

/* Of all its processes, those that have ended included. */
static int64_t cpu_us(const struct probe *p)
{
    int64_t sum = p->gone_us - us_between(&(struct timespec){0, 0}, &p->exec->cpu);
    for (unsigned i = 0; i < p->processes; i++)
        sum += cpu_of(p->process[i]);
    return sum;
}

/* A task is about to end, its clock still there. */
static void note_exit(struct probe *p, pid_t tid)
{
    unsigned i = 0;
    while (i < p->processes && p->process[i] != tid)
        i++;
    if (i == p->processes)
        return;
    p->gone_us += cpu_of(tid);
    p->process[i] = p->process[--p->processes];
}

static void report_start(const struct probe *p)
{
    struct timespec wall;
    clock_gettime(CLOCK_MONOTONIC, &wall);
    int64_t cpu = cpu_us(p);
    printf("cpu_us=%ld\nwall_us=%ld\n", (long)cpu, (long)us_between(&p->exec->wall, &wall));
    printf("pss_kib=%lu\n", (unsigned long)((pss(p) + 1023) / 1024));
}

/* A thread is stopped at its KVM_SET_USER_MEMORY_REGION: notes the region, whose removal (size 0) is no
 * matter. */
static void note_region(struct probe *p, pid_t tid, uint64_t address)
{
    struct kvm_userspace_memory_region region;
    struct iovec to = {&region, sizeof(region)};
    struct iovec from = {(void *)(uintptr_t)address, sizeof(region)};
    if (process_vm_readv(tid, &to, 1, &from, 1, 0) != (ssize_t)sizeof(region))
        die("process_vm_readv");
    if (region.memory_size && p->regions < REGIONS_MAX)
        p->ram[p->regions++] =
            (struct range){region.userspace_addr, region.userspace_addr + region.memory_size};
}

static void on_ioctl(struct probe *p, pid_t tid)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, tid, NULL, &regs) < 0)
        return;
    if ((uint32_t)regs.rsi == (uint32_t)KVM_SET_USER_MEMORY_REGION) {
        note_region(p, tid, regs.rdx);
        return;
    }
    p->runs += p->between;
    if (p->mode != MODE_START)
        return;
    report_start(p);
    p->done = true;
}

/* A new task that leads a thread group is a process. */
static void note_process(struct probe *p, pid_t tid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/status", tid);
    FILE *f = fopen(path, "re");
    char line[256];
    int tgid = 0;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Tgid: %d", &tgid) == 1)
            break;
    if (f)
        fclose(f);
    if (tgid == tid && p->processes < PROCESSES_MAX)
        p->process[p->processes++] = tid;
}

static void on_stop(struct probe *p, pid_t tid, int status)
{
    int signal = WSTOPSIG(status);
    unsigned long created = 0;
    switch (status >> 16) {
    case PTRACE_EVENT_SECCOMP:
        on_ioctl(p, tid);
        signal = 0;
        break;
    case PTRACE_EVENT_CLONE:
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
        if (ptrace(PTRACE_GETEVENTMSG, tid, NULL, &created) == 0)
            note_process(p, (pid_t)created);
        signal = 0;
        break;
    case PTRACE_EVENT_EXIT:
        note_exit(p, tid);
        signal = 0;
        break;
    case PTRACE_EVENT_STOP:
        signal = 0;
        break;
    default:
        break;
    }
    if (!p->done)
        ptrace(PTRACE_CONT, tid, NULL, (void *)(intptr_t)signal);
}

/* True when text occurs; what came up to its end is then forgotten. */
static bool seen(struct probe *p, const char *text)
{
    char *at = memmem(p->text, p->text_len, text, strlen(text));
    if (!at)
        return false;
    size_t used = (size_t)(at - p->text) + strlen(text);
    memmove(p->text, p->text + used, p->text_len - used);
    p->text_len -= used;
    return true;
}

static void sample(struct probe *p)
{
    uint64_t now;
    if (p->mode == MODE_MEMORY && p->between && (now = pss(p)) > p->pss_max)
        p->pss_max = now;
}

static void read_output(struct probe *p)
{
    if (p->text_len > sizeof(p->text) / 2) {
        p->text_len -= sizeof(p->text) / 4;
        memmove(p->text, p->text + sizeof(p->text) / 4, p->text_len);
    }
    ssize_t n = read(p->pipe_fd, p->text + p->text_len, sizeof(p->text) - p->text_len);
    if (n <= 0)
        return;
    if (write(p->out_fd, p->text + p->text_len, (size_t)n) != n)
        die("the output file");
    p->text_len += (size_t)n;
    if (!p->between && p->from && seen(p, p->from))
        p->between = true;
    if (p->between && seen(p, p->to))
        p->done = true;
}

/* Handles all stops that are due. True while the command lives. */
static bool serve_stops(struct probe *p)
{
    int status;
    pid_t tid;
    while (!p->done && (tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
        if (WIFSTOPPED(status))
            on_stop(p, tid, status);
        else if (tid == p->first)
            return false;
    }
    return true;
}

static void watch(struct probe *p)
{
    struct pollfd fds[2] = {{.fd = p->signal_fd, .events = POLLIN}, {.fd = p->pipe_fd, .events = POLLIN}};
    nfds_t count = p->mode == MODE_START ? 1 : 2;
    struct signalfd_siginfo info;
    bool lives = true;
    while (lives && !p->done) {
        lives = serve_stops(p);
        if (p->mode != MODE_START)
            read_output(p);
        sample(p);
        if (p->done || !lives)
            break;
        if (poll(fds, count, SAMPLE_MS) < 0 && errno != EINTR)
            die("poll");
        while (read(p->signal_fd, &info, sizeof(info)) > 0)
            ;
        if ((fds[1].revents & (POLLHUP | POLLIN)) == POLLHUP)
            count = 1; /* closed, and all of it read */
    }
}

static void parse(struct probe *p, int argc, char **argv, char ***command)
{
    static const char *const names[] = {"start", "memory", "exits"};
    int first = 2;
    p->mode = MODE_START;
    while (argc > 2 && p->mode <= MODE_EXITS && strcmp(argv[1], names[p->mode]) != 0)
        p->mode++;
    if (p->mode > MODE_EXITS || argc < (p->mode == MODE_START ? 3 : 6)) {
        fputs("usage: startprobe start|memory FROM TO OUTPUT|exits FROM TO OUTPUT COMMAND...\n", stderr);
        exit(2);
    }
    if (p->mode != MODE_START) {
        p->from = argv[2];
        p->to = argv[3];
        p->out_fd = open(argv[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (p->out_fd < 0)
            die(argv[4]);
        first = 5;
    }
    *command = argv + first;
}

int main(int argc, char **argv)
{
    static struct probe p;
    char **command;
    parse(&p, argc, argv, &command);
    start(&p, command);
    alarm(GIVE_UP_S);
    watch(&p);
    for (unsigned i = 0; i < p.processes; i++)
        kill(p.process[i], SIGKILL);
    /* Until they are gone they hold their disk. */
    int status;
    pid_t left;
    while ((left = waitpid(-1, &status, __WALL)) > 0)
        if (WIFSTOPPED(status))
            ptrace(PTRACE_CONT, left, NULL, NULL);
    if (!p.done) {
        fprintf(stderr, "startprobe: %s ended before it was measured\n", command[0]);
        return 1;
    }
    if (p.mode == MODE_MEMORY)
        printf("pss_kib=%lu\n", (unsigned long)((p.pss_max + 1023) / 1024));
    if (p.mode == MODE_EXITS)
        printf("runs=%lu\n", (unsigned long)p.runs);
    return 0;
}
