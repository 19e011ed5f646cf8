/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts on other processes, on its own rights, and on the world by socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"
#include "minivmm/bytes.h"

#define PIDS_TO 70000

static long attach(pid_t pid)
{
    return TRY(SYS_ptrace, PTRACE_ATTACH, pid, 0, 0);
}

static long trace_sibling(void)
{
    return attach(hostile.victim);
}

static long trace_keeper(void)
{
    return attach(hostile.keeper);
}

static long seize_sibling(void)
{
    return TRY(SYS_ptrace, PTRACE_SEIZE, hostile.victim, 0, 0);
}

static long read_memory_of(pid_t pid)
{
    static char here[64];
    const struct iovec to = {here, sizeof(here)}, from = {&hostile, sizeof(here)};
    return TRY(SYS_process_vm_readv, pid, &to, 1, &from, 1, 0);
}

static long read_sibling(void)
{
    return read_memory_of(hostile.victim);
}

static long read_keeper(void)
{
    return read_memory_of(hostile.keeper);
}

static long write_keeper(void)
{
    static char here[8];
    const struct iovec from = {here, sizeof(here)}, to = {here, sizeof(here)};
    return TRY(SYS_process_vm_writev, hostile.keeper, &from, 1, &to, 1, 0);
}

static long open_sibling(void)
{
    return TRY(SYS_pidfd_open, hostile.victim, 0);
}

/* A key object in memfd_secret memory is a descriptor of that VM. */
static long steal_descriptors(void)
{
    long pidfd = TRY(SYS_pidfd_open, hostile.victim, 0);
    return pidfd < 0 ? pidfd : TRY(SYS_pidfd_getfd, pidfd, 5, 0);
}

static long kill_keeper(void)
{
    return TRY(SYS_kill, hostile.keeper, HOSTILE_SIGNAL);
}

static long kill_driver(void)
{
    return TRY(SYS_kill, hostile.driver, HOSTILE_SIGNAL);
}

static long kill_sibling(void)
{
    return TRY(SYS_kill, hostile.victim, HOSTILE_SIGNAL);
}

static long kill_thread_of_sibling(void)
{
    return TRY(SYS_tgkill, hostile.victim, hostile.victim, SIGABRT);
}

static long queue_signal_to_sibling(void)
{
    siginfo_t info = {.si_signo = HOSTILE_SIGNAL, .si_code = SI_QUEUE};
    return TRY(SYS_rt_sigqueueinfo, hostile.victim, HOSTILE_SIGNAL, &info);
}

static long kill_all(void)
{
    return TRY(SYS_kill, -1, HOSTILE_SIGNAL);
}

/* Reaches the process itself at the least; the driver is in the same group. */
static long kill_group(void)
{
    long result = TRY(SYS_kill, 0, HOSTILE_SIGNAL);
    return result == 0 ? KEPT_IN : result;
}

/* In its own pid namespace the first process is the VM's own. */
static long kill_first(void)
{
    long result = TRY(SYS_kill, 1, HOSTILE_SIGNAL);
    return result == 0 && getpid() == 1 ? KEPT_IN : result;
}

/* Its own threads have numbers too, but no pidfd. */
static long see_processes(void)
{
    for (pid_t pid = 2; pid < PIDS_TO; pid++)
        if (TRY(SYS_pidfd_open, pid, 0) >= 0)
            return pid;
    return -ESRCH;
}

static long renice_sibling(void)
{
    return TRY(SYS_setpriority, PRIO_PROCESS, hostile.victim, 19);
}

static long limit_sibling(void)
{
    const struct rlimit none = {0, 0};
    return TRY(SYS_prlimit64, hostile.victim, RLIMIT_CPU, &none, 0);
}

/* A child, where no filter keeps it from being: refused is what it does then. */
static long be_child(long refused)
{
    return syscall(SYS_exit_group, refused < 0 ? -refused : 0);
}

static long hear_of(long pid)
{
    int status = 0;
    if (pid < 0)
        return pid;
    long code = TRY(SYS_wait4, pid, &status, __WALL, 0);
    return code < 0 ? code : -(long)WEXITSTATUS(status);
}

static long fork_and_open(void)
{
    long pid = TRY(SYS_fork);
    return pid == 0 ? be_child(TRY(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)) : hear_of(pid);
}

static long clone3_and_open(void)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    long pid = TRY(SYS_clone3, &args, sizeof(args));
    return pid == 0 ? be_child(TRY(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)) : hear_of(pid);
}

/* All capabilities, in a user namespace that holds nothing; a mount would be the way on. */
static long clone_and_mount(void)
{
    long pid = TRY(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    return pid == 0 ? be_child(TRY(SYS_mount, "new", "/", "tmpfs", 0, 0)) : hear_of(pid);
}

static long run_shell(void)
{
    const char *const argv[] = {"sh", "-c", "exit 0", NULL};
    return TRY(SYS_execve, "/bin/sh", argv, 0);
}

static long run_shell_at(void)
{
    const char *const argv[] = {"sh", "-c", "exit 0", NULL};
    return TRY(SYS_execveat, AT_FDCWD, "/bin/sh", argv, 0, 0);
}

static long run_itself(void)
{
    const char *const argv[] = {"minivmm", NULL};
    return TRY(SYS_execve, "/proc/self/exe", argv, 0);
}

static long unshare_user(void)
{
    return TRY(SYS_unshare, CLONE_NEWUSER);
}

static long unshare_mounts(void)
{
    return TRY(SYS_unshare, CLONE_NEWNS);
}

static long become_root(void)
{
    return TRY(SYS_setresuid, 0, 0, 0);
}

static long become_nobody(void)
{
    return TRY(SYS_setresuid, 65533, 65533, 65533);
}

static long set_groups(void)
{
    const gid_t group = 0;
    return TRY(SYS_setgroups, 1, &group);
}

static long regain_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct all[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = 1U << CAP_SYS_ADMIN, .permitted = 1U << CAP_SYS_ADMIN}};
    return TRY(SYS_capset, &header, all);
}

static long raise_ambient(void)
{
    return TRY(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0);
}

static long raise_limits(void)
{
    const struct rlimit more = {4096, 4096};
    return TRY(SYS_setrlimit, RLIMIT_NOFILE, &more);
}

static long allow_new_privileges(void)
{
    return TRY(SYS_prctl, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static long be_dumpable(void)
{
    return TRY(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long connect_to(int family, const void *to, size_t size)
{
    long fd = TRY(SYS_socket, family, SOCK_STREAM, 0);
    return fd < 0 ? fd : TRY(SYS_connect, fd, to, size);
}

static long connect_tcp(void)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(hostile.tcp_port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    return connect_to(AF_INET, &to, sizeof(to));
}

static long connect_abstract(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = strlen(hostile.abstract);
    memcpy(to.sun_path + 1, hostile.abstract, len);
    return connect_to(AF_UNIX, &to, sizeof(sa_family_t) + 1 + len);
}

static long connect_control(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, hostile.control_socket, sizeof(to.sun_path) - 1);
    return connect_to(AF_UNIX, &to, sizeof(to));
}

static long raw_socket(void)
{
    return TRY(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static long packet_socket(void)
{
    return TRY(SYS_socket, AF_PACKET, SOCK_RAW, 0);
}

static long attach_shared_memory(void)
{
    return TRY(SYS_shmget, hostile.shm_key, 0, 0);
}

static long name_host(void)
{
    return TRY(SYS_sethostname, "hostile", 7);
}

static long do_reboot(void)
{
    return TRY(SYS_reboot, 0xfee1dead, 672274793, RB_ENABLE_CAD, 0);
}

static long load_module(void)
{
    return TRY(SYS_init_module, "", 0, "");
}

static long raise_io_privilege(void)
{
    return TRY(SYS_iopl, 3);
}

static long set_clock(void)
{
    const struct timespec now = {0};
    return TRY(SYS_clock_settime, CLOCK_REALTIME, &now);
}

static long load_bpf(void)
{
    static const char attr[128];
    return TRY(SYS_bpf, BPF_PROG_LOAD, attr, sizeof(attr));
}

const struct attempt process_attempts[] = {
    {.name = "ptrace another VM", .fn = trace_sibling},
    {.name = "ptrace another VM (seize)", .fn = seize_sibling},
    {.name = "ptrace its keeper", .fn = trace_keeper},
    {.name = "read another VM's memory", .fn = read_sibling},
    {.name = "read its keeper's memory", .fn = read_keeper},
    {.name = "write its keeper's memory", .fn = write_keeper},
    {.name = "pidfd of another VM", .fn = open_sibling},
    {.name = "take another VM's key object (pidfd_getfd)", .fn = steal_descriptors},
    {.name = "kill its keeper", .fn = kill_keeper},
    {.name = "kill its supervisor", .fn = kill_driver},
    {.name = "kill another VM", .fn = kill_sibling},
    {.name = "kill a thread of another VM", .fn = kill_thread_of_sibling},
    {.name = "queue a signal to another VM", .fn = queue_signal_to_sibling},
    {.name = "kill all processes (-1)", .fn = kill_all},
    {.name = "kill its process group (0)", .fn = kill_group},
    {.name = "kill the first process (1)", .fn = kill_first},
    {.name = "see any process", .fn = see_processes},
    {.name = "renice another VM", .fn = renice_sibling},
    {.name = "limit another VM", .fn = limit_sibling},
    {.name = "fork, the child opens /etc/passwd", .fn = fork_and_open},
    {.name = "clone3, the child opens /etc/passwd", .fn = clone3_and_open},
    {.name = "clone into a user namespace, mount", .fn = clone_and_mount},
    {.name = "execve /bin/sh", .fn = run_shell},
    {.name = "execveat /bin/sh", .fn = run_shell_at},
    {.name = "execve /proc/self/exe", .fn = run_itself},
    {.name = "unshare into a user namespace", .fn = unshare_user},
    {.name = "unshare into a mount namespace", .fn = unshare_mounts},
    {.name = "become root", .fn = become_root},
    {.name = "become another user", .fn = become_nobody},
    {.name = "join groups", .fn = set_groups},
    {.name = "regain capabilities", .fn = regain_capabilities},
    {.name = "raise ambient capabilities", .fn = raise_ambient},
    {.name = "raise its limits", .fn = raise_limits},
    {.name = "allow new privileges", .fn = allow_new_privileges},
    {.name = "become dumpable", .fn = be_dumpable, .filter_only = "none is there who could look"},
    {.name = "socket, connect: TCP", .fn = connect_tcp},
    {.name = "socket, connect: an abstract socket", .fn = connect_abstract},
    {.name = "socket, connect: another VM's control socket", .fn = connect_control},
    {.name = "a raw socket", .fn = raw_socket},
    {.name = "a packet socket", .fn = packet_socket},
    {.name = "attach shared memory", .fn = attach_shared_memory},
    {.name = "set the host's name", .fn = name_host},
    {.name = "reboot", .fn = do_reboot},
    {.name = "load a kernel module", .fn = load_module},
    {.name = "iopl", .fn = raise_io_privilege},
    {.name = "set the clock", .fn = set_clock},
    {.name = "load a BPF program", .fn = load_bpf},
};
const unsigned process_attempts_count = ARRAY_SIZE(process_attempts);
