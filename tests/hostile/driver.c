/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts hostile VMs by the same way as minivmm does, one an attempt, and prints what refused each attempt
 * (TAP).
 *
 * usage: hostile DIRECTORY KVM-DEVICE attempts|calls
 *   attempts: each named attempt from each thread role, with the filters and by the other walls alone
 *   calls: system calls by number, from each thread role, without arguments
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"
#include "minivmm/bytes.h"
#include "vmm/commands.h"
#include "vmm/exit_codes.h"
#include "vmm/seccomp_policy.h"

#define CALLS_TO      463 /* numbers below; mseal is 462 */
#define SYS_uretprobe 335
#define SYS_uprobe    336
#define AT_ONCE       4 /* most of a start is waiting for the kernel's clean-up */
#define DEADLINE_S    10
#define OUTPUT_MAX    4096
#define ARGS_MAX      32
#define FLAGS_MAX     2048
#define DISK_BYTES    (1536UL << 10)
#define VICTIM_BYTES  (1UL << 20)

static const char *const role_names[SECCOMP_ROLES] = {"main", "vcpu", "queue"};

struct job {
    const struct attempt *attempt;
    unsigned number;
    enum seccomp_role role;
    bool filters;

    pid_t keeper;
    int output_fd;
    time_t began;
    char output[OUTPUT_MAX];
    size_t size;
    int status;
    bool late;
};

static struct job *jobs;
static unsigned job_count;
static char directory[256], kernel[300], disk[300], victim_disk[300], slot_map[300], kek[300],
    socket_path[300];
static unsigned bad;

static void die(const char *what)
{
    printf("not ok - the hostile test's own set-up: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void make_file(char path[300], const char *name, size_t bytes)
{
    snprintf(path, 300, "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        die(path);
    close(fd);
}

/* The driver, of which every VM's process is a fork, remembers it only turned over: see find_kek(). */
static void make_kek(void)
{
    uint8_t bytes[KEK_BYTES];
    make_file(kek, "kek", 0);
    int from = open("/dev/urandom", O_RDONLY | O_CLOEXEC), to = open(kek, O_WRONLY | O_CLOEXEC);
    if (read(from, bytes, sizeof(bytes)) != sizeof(bytes) || write(to, bytes, sizeof(bytes)) != sizeof(bytes))
        die(kek);
    close(from);
    close(to);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        hostile.kek_inverted[i] = (uint8_t)~bytes[i];
    explicit_bzero(bytes, sizeof(bytes));
}

/* A guest that does nothing: an ELF file with one page of code behind its headers. */
static void make_kernel(void)
{
    const uint64_t at = 2U << 20;
    const struct image {
        Elf64_Ehdr head;
        Elf64_Phdr segment;
        uint8_t code[4];
    } image = {
        .head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_X86_64,
                 .e_version = EV_CURRENT,
                 .e_entry = at + offsetof(struct image, code),
                 .e_phoff = offsetof(struct image, segment),
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 1},
        .segment = {.p_type = PT_LOAD,
                    .p_flags = PF_R | PF_W | PF_X,
                    .p_vaddr = at,
                    .p_paddr = at,
                    .p_filesz = sizeof(image),
                    .p_memsz = sizeof(image),
                    .p_align = 4096},
        .code = {0xfa, 0xf4, 0xeb, 0xfd}, /* cli; hlt; and again */
    };
    make_file(kernel, "kernel", 0);
    int fd = open(kernel, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, &image, sizeof(image)) != (ssize_t)sizeof(image))
        die(kernel);
    close(fd);
}

/*
 * What attempts would reach if they got out: a directory that whoever starts the VM left open, sockets that
 * listen, and shared memory.
 */
static void make_lures(void)
{
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un named = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(tcp);
    if (open(directory, O_RDONLY | O_DIRECTORY) < 0)
        die(directory);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&tcp, size) < 0 || listen(fd, 4) < 0 ||
        getsockname(fd, (struct sockaddr *)&tcp, &size) < 0)
        die("a TCP socket");
    hostile.tcp_port = ntohs(tcp.sin_port);
    snprintf(hostile.abstract, sizeof(hostile.abstract), "minivmm-hostile-%d", (int)getpid());
    size_t len = strlen(hostile.abstract);
    memcpy(named.sun_path + 1, hostile.abstract, len);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&named, (socklen_t)(sizeof(sa_family_t) + 1 + len)) < 0 ||
        listen(fd, 4) < 0)
        die("an abstract socket");
    hostile.shm_key = 0x4d000000 | (int)getpid();
    if (shmget(hostile.shm_key, 4096, IPC_CREAT | 0666) < 0)
        die("shared memory");
}

static void remove_lures(void)
{
    int id = shmget(hostile.shm_key, 0, 0);
    if (id >= 0)
        shmctl(id, IPC_RMID, NULL);
}

/*
 * Runs minivmm with flags (no blanks in a value) in a fork, with standard input from nowhere and the rest to
 * a pipe, of which it gives the end.
 */
static pid_t start(const struct hostile *what, const char *flags, int *output_fd)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) < 0)
        die("a pipe");
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        char text[FLAGS_MAX], *argv[ARGS_MAX] = {text};
        int argc = 1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, STDIN_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        snprintf(text, sizeof(text), "%s", flags);
        for (char *at = strtok(text, " "); at && argc < ARGS_MAX - 1; at = strtok(NULL, " "))
            argv[argc++] = at;
        hostile = *what;
        hostile.keeper = getpid();
        int code = run_main(argc, argv);
        fflush(NULL);
        _exit(code);
    }
    close(pipes[1]);
    *output_fd = pipes[0];
    return pid;
}

static void start_job(struct job *job)
{
    char flags[FLAGS_MAX], keys[FLAGS_MAX / 2];
    struct hostile what = hostile;
    what.attempt = job->attempt;
    what.number = job->number;
    what.role = job->role;
    what.filters = job->filters;
    what.armed = true;
    snprintf(keys, sizeof(keys), "--ice-slots=1 --ice-map=%s --ice-kek=%s", slot_map, kek);
    snprintf(flags, sizeof(flags),
             "--name=hostile%u --kernel=%s --disk=%s,engine=io_uring,queues=1,ro=on --memory=16M "
             "--console=none --kvm=%s %s",
             (unsigned)(job - jobs), kernel, disk, hostile.kvm,
             job->attempt ? keys : "--no-control --no-rng");
    job->keeper = start(&what, flags, &job->output_fd);
    job->began = time(NULL);
}

/* Another VM, with keys, beside the hostile ones; what its process is called outside. */
static pid_t start_victim(int *output_fd, pid_t *keeper)
{
    char flags[FLAGS_MAX], path[64], text[64] = "";
    int ready[2];
    if (pipe(ready) < 0)
        die("a pipe");
    snprintf(flags, sizeof(flags),
             "--name=victim --kernel=%s --disk=%s --memory=16M --console=none --kvm=%s --ice-slots=1 "
             "--ice-map=%s --ice-kek=%s --ready-fd=%d",
             kernel, victim_disk, hostile.kvm, slot_map, kek, ready[1]);
    const struct hostile what = {.filters = true};
    *keeper = start(&what, flags, output_fd);
    close(ready[1]);
    struct pollfd wait = {.fd = ready[0], .events = POLLIN};
    if (poll(&wait, 1, DEADLINE_S * 1000) != 1 || read(ready[0], text, sizeof(text) - 1) <= 0) {
        char said[512] = "";
        (void)!read(*output_fd, said, sizeof(said) - 1);
        die(said);
    }
    close(ready[0]);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)*keeper, (int)*keeper);
    FILE *children = fopen(path, "re");
    pid_t pid = children && fgets(text, sizeof(text), children) ? (pid_t)strtol(text, NULL, 10) : 0;
    if (pid <= 0)
        die("the other VM's process was not found");
    fclose(children);
    return pid;
}

static void add_job(const struct attempt *attempt, unsigned number, enum seccomp_role role, bool filters)
{
    jobs = realloc(jobs, (job_count + 1) * sizeof(*jobs));
    if (!jobs)
        die("memory");
    jobs[job_count++] =
        (struct job){.attempt = attempt, .number = number, .role = role, .filters = filters, .output_fd = -1};
}

static void add_attempts(const struct attempt *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned both = 0; both < 2; both++)
            for (unsigned role = 0; role < SECCOMP_ROLES; role++)
                if (both == 0 || !list[i].filter_only)
                    add_job(&list[i], 0, (enum seccomp_role)role, both == 0);
}

/* These end the thread or leave its signal handler: nothing is left that could tell. */
static bool tells_nothing(unsigned number)
{
    return number == SYS_exit || number == SYS_rt_sigreturn;
}

static bool is_allowed(unsigned number, enum seccomp_role role)
{
    for (unsigned i = 0; i < SECCOMP_RULES; i++)
        if (seccomp_policy[i].call == (int)number && seccomp_policy[i].roles & 1U << role)
            return true;
    return false;
}

/*
 * uretprobe and uprobe are for code that the kernel itself puts into a process; newer kernels ask no filter
 * about them, and answer all else with ENXIO or SIGILL.
 */
static bool is_unseen_by_filters(const struct job *job)
{
    return (job->number == SYS_uretprobe || job->number == SYS_uprobe) &&
           ((WIFEXITED(job->status) && WEXITSTATUS(job->status) == EXIT_CODE_SIGNAL + SIGILL) ||
            strstr(job->output, "refused ENXIO"));
}

/* A line that begins with "hostile: " and word; what follows, without the line's end, or NULL. */
static const char *told(struct job *job, const char *word)
{
    static char text[128];
    char line[64];
    snprintf(line, sizeof(line), "hostile: %s", word);
    const char *at = strstr(job->output, line);
    if (!at)
        return NULL;
    at += strlen(line);
    snprintf(text, sizeof(text), "%.*s", (int)strcspn(at, "\n"), at);
    return text;
}

static bool was_killed_by_filter(const struct job *job)
{
    return WIFEXITED(job->status) && WEXITSTATUS(job->status) == EXIT_CODE_SIGNAL + SIGSYS;
}

/* What came of the job, in words; *fine: it was refused, or the policy allows it. */
static const char *judge(struct job *job, bool *fine)
{
    static char text[256];
    const char *result;
    *fine = false;
    if (!told(job, "begins")) {
        snprintf(text, sizeof(text), "never began (status %#x): %.150s", (unsigned)job->status, job->output);
    } else if (was_killed_by_filter(job)) {
        *fine = job->filters;
        return "SIGSYS by the filter";
    } else if (job->late) {
        snprintf(text, sizeof(text), "no end after %d s", DEADLINE_S);
    } else if ((result = told(job, "refused ")) != NULL) {
        *fine = true;
        snprintf(text, sizeof(text), "%s", result);
    } else if (told(job, "kept in")) {
        *fine = true;
        return "nothing of others reached";
    } else if ((result = told(job, "OBTAINED ")) != NULL) {
        snprintf(text, sizeof(text), "OBTAINED %s", result);
    } else {
        snprintf(text, sizeof(text), "ended with status %#x", (unsigned)job->status);
    }
    return text;
}

static void judge_attempt(struct job *job)
{
    bool fine, reached = false;
    const char *text = judge(job, &fine);
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, HOSTILE_SIGNAL)) {
        const struct timespec now = {0};
        sigset_t it;
        sigemptyset(&it);
        sigaddset(&it, HOSTILE_SIGNAL);
        sigtimedwait(&it, NULL, &now);
        reached = true;
    }
    if (job->filters && !job->attempt->passes_filter && !was_killed_by_filter(job))
        fine = false;
    fine = fine && !reached;
    printf("%s - %s thread%s: %s: %s%s\n", fine ? "ok" : "not ok", role_names[job->role],
           job->filters ? "" : " without its filter", job->attempt->name, text,
           reached ? ", and a signal came through, of this attempt or one beside it" : "");
    bad += !fine;
}

/* One line a call, with what came of it in each role; jobs are in that order. */
static void judge_call(struct job *job)
{
    static char line[600];
    static bool all_fine;
    bool fine, allowed = is_allowed(job->number, job->role);
    if (job->role == SECCOMP_MAIN) {
        line[0] = '\0';
        all_fine = true;
    }
    const char *text = judge(job, &fine);
    if (tells_nothing(job->number) && allowed)
        text = "allowed, not run";
    else if (!told(job, "begins"))
        all_fine = false;
    else if (is_unseen_by_filters(job))
        text = "no filter sees it, and it gives nothing";
    else if (allowed && !was_killed_by_filter(job))
        text = "allowed";
    else if (!was_killed_by_filter(job))
        all_fine = false;
    size_t at = strlen(line);
    snprintf(line + at, sizeof(line) - at, "%s %s: %s", at ? ";" : "", role_names[job->role], text);
    if (job->role != SECCOMP_QUEUE)
        return;
    printf("%s - call %u:%s\n", all_fine ? "ok" : "not ok", job->number, line);
    bad += !all_fine;
}

static void read_output(struct job *job)
{
    char spill[512];
    size_t room = sizeof(job->output) - 1 - job->size;
    ssize_t got = read(job->output_fd, room ? job->output + job->size : spill, room ? room : sizeof(spill));
    if (got > 0) {
        job->size += room ? (size_t)got : 0;
        return;
    }
    close(job->output_fd);
    job->output_fd = -1;
    while (waitpid(job->keeper, &job->status, 0) < 0 && errno == EINTR)
        ;
}

/* The keeper's death is the VM's; its output ends with it. */
static void end_late(struct job *job)
{
    if (job->output_fd < 0 || job->late || time(NULL) - job->began <= DEADLINE_S)
        return;
    job->late = true;
    kill(job->keeper, SIGKILL);
}

static void run_jobs(void)
{
    unsigned next = 0, running = 0;
    struct job *now[AT_ONCE] = {NULL};
    while (next < job_count || running > 0) {
        struct pollfd fds[AT_ONCE];
        for (unsigned i = 0; i < AT_ONCE; i++) {
            while (!now[i] && next < job_count) {
                struct job *job = &jobs[next++];
                if (!job->attempt && tells_nothing(job->number) && is_allowed(job->number, job->role))
                    continue;
                now[i] = job;
                start_job(job);
                running++;
            }
            fds[i] = (struct pollfd){.fd = now[i] ? now[i]->output_fd : -1, .events = POLLIN};
        }
        poll(fds, AT_ONCE, 1000);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            if (!now[i])
                continue;
            if (fds[i].revents)
                read_output(now[i]);
            end_late(now[i]);
            if (now[i]->output_fd >= 0)
                continue;
            if (now[i]->attempt)
                judge_attempt(now[i]);
            now[i] = NULL;
            running--;
        }
    }
}

static void prepare(const char *where, const char *kvm)
{
    sigset_t blocked;
    snprintf(directory, sizeof(directory), "%s", where);
    setenv("MINIVMM_RUN_DIR", directory, 1);
    sigemptyset(&blocked);
    sigaddset(&blocked, HOSTILE_SIGNAL);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    make_kernel();
    make_file(disk, "disk", DISK_BYTES);
    make_file(victim_disk, "victim-disk", VICTIM_BYTES);
    snprintf(slot_map, sizeof(slot_map), "%s/slots", directory);
    snprintf(socket_path, sizeof(socket_path), "%s/victim.sock", directory);
    make_kek();
    make_lures();
    hostile.kvm = kvm;
    hostile.disk = disk;
    hostile.disk_size = DISK_BYTES;
    hostile.victim_disk = victim_disk;
    hostile.slot_map = slot_map;
    hostile.key_file = kek;
    hostile.control_socket = socket_path;
    hostile.driver = getpid();
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: hostile DIRECTORY KVM-DEVICE attempts|calls\n");
        return 2;
    }
    bool calls = strcmp(argv[3], "calls") == 0;
    int victim_output;
    pid_t victim_keeper;
    prepare(argv[1], argv[2]);
    hostile.victim = start_victim(&victim_output, &victim_keeper);
    if (calls) {
        for (unsigned number = 0; number < CALLS_TO; number++)
            for (unsigned role = 0; role < SECCOMP_ROLES; role++)
                add_job(NULL, number, (enum seccomp_role)role, true);
    } else {
        add_attempts(file_attempts, file_attempts_count);
        add_attempts(ring_attempts, ring_attempts_count);
        add_attempts(process_attempts, process_attempts_count);
        add_attempts(memory_attempts, memory_attempts_count);
    }
    run_jobs();
    for (unsigned i = 0; calls && i < job_count; i++)
        judge_call(&jobs[i]);
    bool lives = waitpid(victim_keeper, NULL, WNOHANG) == 0;
    printf("%s - the other VM lives\n", lives ? "ok" : "not ok");
    bad += !lives;
    kill(victim_keeper, SIGTERM);
    while (lives && waitpid(victim_keeper, NULL, 0) < 0 && errno == EINTR)
        ;
    remove_lures();
    return bad != 0;
}
