/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each of a VM's threads may ask of the kernel once its guest runs: the one list. tools/seccomp_gen
 * makes the filters and the tables of docs/security.md from it. A call that is not here kills the process; so
 * does one whose arguments fit none of its rows. A row's checks must all hold; rows of one call are
 * alternatives.
 */
#ifndef MINIVMM_VMM_SECCOMP_POLICY_H
#define MINIVMM_VMM_SECCOMP_POLICY_H

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/mman.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#include "vmm/seccomp.h"

#define M   (1U << SECCOMP_MAIN)
#define V   (1U << SECCOMP_VCPU)
#define Q   (1U << SECCOMP_QUEUE)
#define ALL (M | V | Q)

/* The kick of vCPUs, SIGRTMIN: the C library keeps 32 and 33 for itself. */
#define KICK_SIGNAL 34

/* Stands in the programs for the process's id, which seccomp_enter() puts in its place. */
#define SECCOMP_OWN_PID 0x7ffffff1U

#define CHECKS_MAX 4

/* Holds when (argument & mask) == value. Without text there is no check. */
struct seccomp_check {
    unsigned arg;
    uint64_t mask, value;
    const char *text; /* for people */
};

struct seccomp_rule {
    unsigned roles;
    int call;
    const char *name;
    struct seccomp_check check[CHECKS_MAX];
    const char *why;
};

#define LOW32 0xffffffffULL /* of arguments that the kernel takes as int: it does not look at the rest */

#define CALL(call) SYS_##call, #call
/* Argument arg, called name in the manual page, is value; is NULL; holds no bit beyond some; is value, give
 * or take some bits. */
#define IS(arg, name, value)                                                                                 \
    {                                                                                                        \
        arg, LOW32, (uint32_t)(value), "`" name "` is `" #value "`"                                          \
    }
#define ABSENT(arg, name)                                                                                    \
    {                                                                                                        \
        arg, ~0ULL, 0, "`" name "` is `NULL`"                                                                \
    }
#define ONLY(arg, name, bits)                                                                                \
    {                                                                                                        \
        arg, ~(uint64_t)(bits)&LOW32, 0, "`" name "` holds `" #bits "` at most"                              \
    }
#define WITH(arg, name, value, bits)                                                                         \
    {                                                                                                        \
        arg, ~(uint64_t)(bits)&LOW32, (uint32_t)(value), "`" name "` is `" #value "`, also with `" #bits "`" \
    }
#define OWN_PROCESS(arg, name)                                                                               \
    {                                                                                                        \
        arg, LOW32, SECCOMP_OWN_PID, "`" name "` is the process's own"                                       \
    }

static const struct seccomp_rule seccomp_policy[] = {
    /* KVM */
    {V, CALL(ioctl), {IS(1, "request", KVM_RUN)}, "runs the guest"},
    {V, CALL(ioctl), {IS(1, "request", KVM_KVMCLOCK_CTRL)}, "tells the guest of a pause that it was in"},
    {V, CALL(ioctl), {IS(1, "request", KVM_GET_REGS)}, "the report of a guest's crash"},
    {V, CALL(ioctl), {IS(1, "request", KVM_GET_SREGS)}, "the report of a guest's crash"},
    {V, CALL(ioctl), {IS(1, "request", KVM_TRANSLATE)}, "the code bytes in the report of a guest's crash"},

    /* Disks */
    {Q,
     CALL(io_uring_enter),
     {ONLY(3, "flags", IORING_ENTER_GETEVENTS), ABSENT(4, "argp")},
     "disk requests; what the ring itself may do was restricted before it was enabled"},
    {Q, CALL(preadv2), {IS(5, "flags", 0)}, "`engine=sync` reads"},
    {Q, CALL(pwritev2), {ONLY(5, "flags", RWF_DSYNC)}, "`engine=sync` writes"},
    {Q, CALL(fdatasync), {{0}}, "the guest's flush with `engine=sync`"},
    {Q,
     CALL(fallocate),
     {IS(1, "mode", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)},
     "discard, and zeroes, in files"},
    {Q, CALL(fallocate), {IS(1, "mode", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)}, "zeroes in files"},
    {Q, CALL(ioctl), {IS(1, "request", BLKDISCARD)}, "discard on block devices"},
    {Q, CALL(ioctl), {IS(1, "request", BLKSECDISCARD)}, "secure erase on block devices"},
    {M,
     CALL(fcntl),
     {IS(1, "cmd", F_OFD_SETLK)},
     "unlocks the images when the VM ends; there is no other descriptor to lock"},

    /* Random numbers */
    {Q, CALL(getrandom), {IS(2, "flags", 0)}, "virtio-rng, and keys that the key service makes"},

    /* Events, and bytes in and out */
    {ALL, CALL(read), {{0}}, "eventfds; main: signals, timers, the console's input, key files"},
    {ALL, CALL(write), {{0}}, "eventfds and log lines; main and vCPUs: the console's output"},
    {ALL, CALL(poll), {{0}}, "queues wait for kicks; main and vCPUs: whether the console takes more"},
    {M, CALL(epoll_wait), {{0}}, "the event loop"},
    {M, CALL(epoll_ctl), {{0}}, "the event loop's descriptors come and go"},
    {M,
     CALL(timerfd_create),
     {IS(0, "clockid", CLOCK_MONOTONIC), IS(1, "flags", TFD_CLOEXEC | TFD_NONBLOCK)},
     "the deadline of `minivmm stop --timeout`"},
    {M | V, CALL(timerfd_settime), {IS(1, "flags", 0)}, "that deadline, and the console's flush"},
    {M | V,
     CALL(sendto),
     {IS(3, "flags", MSG_DONTWAIT | MSG_NOSIGNAL), ABSENT(4, "dest_addr")},
     "a console that is a socket; main: answers on the control socket"},
    {ALL, CALL(close), {{0}}, "main: clients, and everything when the VM ends"},

    /* The control socket */
    {M, CALL(accept4), {IS(3, "flags", SOCK_NONBLOCK | SOCK_CLOEXEC)}, "takes a client"},
    {M, CALL(getsockopt), {IS(1, "level", SOL_SOCKET), IS(2, "optname", SO_PEERCRED)}, "who the client is"},
    {M, CALL(geteuid), {{0}}, "whether the client is the same user"},
    {M,
     CALL(recvmsg),
     {IS(2, "flags", MSG_DONTWAIT | MSG_CMSG_CLOEXEC)},
     "a request, and the key file that comes with it"},
    {M, CALL(pread64), {{0}}, "the memory in use, for `status`"},
    {M, CALL(lseek), {{0}}, "a key file is read from its beginning"},
    {M, CALL(fstat), {{0}}, "whether what came along is a file"},
    {M, CALL(newfstatat), {IS(3, "flags", AT_EMPTY_PATH)}, "as fstat, which the C library makes of it"},
    {M, CALL(fcntl), {IS(1, "cmd", F_GET_SEALS)}, "whether a key came in a memfd, which is wiped"},
    {M, CALL(pwrite64), {{0}}, "wipes that memfd"},
    {M,
     CALL(mmap),
     {ONLY(2, "prot", PROT_READ | PROT_WRITE), IS(3, "flags", MAP_SHARED)},
     "a key that came in a memfd_secret, which can't be read otherwise"},

    /* Threads, locks and signals */
    {ALL,
     CALL(futex),
     {WITH(1, "futex_op", FUTEX_WAIT, FUTEX_PRIVATE_FLAG)},
     "waits for locks and the end of threads"},
    {ALL,
     CALL(futex),
     {WITH(1, "futex_op", FUTEX_WAIT_BITSET, FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)},
     "waits for conditions and the end of threads"},
    {ALL, CALL(futex), {WITH(1, "futex_op", FUTEX_WAKE, FUTEX_PRIVATE_FLAG)}, "wakes who waits"},
    {M | V,
     CALL(tgkill),
     {OWN_PROCESS(0, "tgid"), IS(2, "sig", KICK_SIGNAL)},
     "takes vCPUs out of the guest: pause, stop, a crash of one"},
    {ALL,
     CALL(tgkill),
     {OWN_PROCESS(0, "tgid"), IS(2, "sig", SIGABRT)},
     "abort(), when the C library or the compiler's guards find memory overwritten"},
    {ALL, CALL(rt_sigaction), {IS(0, "signum", SIGABRT)}, "abort()"},
    {ALL, CALL(getpid), {{0}}, "before tgkill"},
    {ALL, CALL(gettid), {{0}}, "before tgkill"},
    {ALL, CALL(rt_sigprocmask), {{0}}, "the end of threads; before and after tgkill"},
    {ALL, CALL(rt_sigreturn), {{0}}, "the return from a kick"},
    {ALL, CALL(restart_syscall), {{0}}, "a wait goes on after the process was stopped and continued"},
    {V | Q, CALL(exit), {{0}}, "the end of the thread"},
    {ALL, CALL(exit_group), {{0}}, "the end of the VM"},

    /* Memory, never executable and never of a file */
    {ALL,
     CALL(mmap),
     {ONLY(2, "prot", PROT_READ | PROT_WRITE),
      WITH(3, "flags", MAP_PRIVATE | MAP_ANONYMOUS, MAP_NORESERVE | MAP_STACK)},
     "malloc()"},
    {ALL, CALL(mprotect), {ONLY(2, "prot", PROT_READ | PROT_WRITE)}, "malloc()"},
    {ALL, CALL(mremap), {IS(3, "flags", MREMAP_MAYMOVE)}, "realloc()"},
    {ALL, CALL(brk), {{0}}, "malloc()"},
    {ALL, CALL(munmap), {{0}}, "free(); main: the VM's memory and rings when it ends"},
    {ALL, CALL(madvise), {IS(2, "advice", MADV_DONTNEED)}, "free(), and stacks of threads that end"},

    /* Else */
    {ALL,
     CALL(clock_gettime),
     {{0}},
     "time, where the host's clock can't be read without a call; main: the vCPUs' use"},
    {ALL, CALL(writev), {{0}}, "the C library's last words before abort()"},
};

#define SECCOMP_RULES (sizeof(seccomp_policy) / sizeof(seccomp_policy[0]))

#endif
