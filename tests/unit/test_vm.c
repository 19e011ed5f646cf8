/* SPDX-License-Identifier: Apache-2.0 */
/* Whole VMs over the host's KVM, with kernels of a few instructions: how runs end, stop, pause, count. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "tiny_kernel.h"
#include "vmm/commands.h"
#include "vmm/exit_codes.h"
#include "vmm/vm_internal.h"

#define KERNEL(...)       ((const uint8_t[]){__VA_ARGS__})
/* out 0xF4, al with al = value */
#define DEBUG_EXIT(value) 0xB0, (value), 0xE6, 0xF4
/* mov dx, port; mov al, value; out dx, al */
#define OUT(port, value)  0x66, 0xBA, (port)&0xFF, (port) >> 8, 0xB0, (value), 0xEE
/* hlt; jmp to it */
#define HALT              0xF4, 0xEB, 0xFD
/* out 0x80, al; jmp to it: an exit to user space a turn, on a port that nobody claims */
#define BUSY              0xE6, 0x80, 0xEB, 0xFC

static struct config config;
static struct vm *vm;
static struct vm_result result;

static void set(char **at, const char *to)
{
    free(*at);
    *at = strdup(to);
    ck_assert_ptr_nonnull(*at);
}

static void setup(void)
{
    config_init(&config);
    set(&config.name, "test");
    set(&config.cpu, "host");
    set(&config.kvm, "/dev/kvm");
    config.memory = 16ULL << 20;
    config.cpus = 1;
    config.console = CONSOLE_NONE;
    config.control = false;
    config.debug_exit = true;
    vm = NULL;
    result = (struct vm_result){0};
}

static void teardown(void)
{
    vm_destroy(vm);
    if (config.kernel)
        unlink(config.kernel);
    config_free(&config);
}

static void create(const uint8_t *code, size_t len)
{
    struct err err = {{0}};
    bool usage;
    config.kernel = tiny_kernel_make(code, len);
    ck_assert_msg(vm_create(&config, &vm, &usage, &err) == 0, "%s", err.text);
    ck_assert_int_eq(vm_state(vm), VM_STARTING);
}

static void run(void)
{
    struct err err = {{0}};
    ck_assert_msg(vm_run(vm, &result, &err) == 0, "%s", err.text);
}

#define CREATE(...) create(KERNEL(__VA_ARGS__), sizeof(KERNEL(__VA_ARGS__)))

static void check_end(enum vm_end how, unsigned code)
{
    ck_assert_msg(result.how == how && result.code == code, "ended by %d with code %u: %s", result.how,
                  result.code, result.text);
}

/* A value of vm_describe()'s. */
static uint64_t fact(const char *key)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    vm_describe(vm, out);
    fclose(out);
    char line[64];
    snprintf(line, sizeof(line), "\n%s=", key);
    const char *at = strstr(text, line);
    ck_assert_msg(at != NULL, "no %s in:\n%s", key, text);
    uint64_t value = strtoull(at + strlen(line), NULL, 10);
    free(text);
    return value;
}

/* Calls turn every millisecond from the VM's own loop. */
static int every_ms(loop_fn *turn)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    ck_assert_int_eq(timerfd_settime(fd, 0, &often, NULL), 0);
    ck_assert_int_eq(loop_add(vm->loop, fd, EPOLLIN, turn, NULL), 0);
    return fd;
}

static int request(const char *line, struct err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    int code = vm_control_request(vm, line, out, err);
    fclose(out);
    free(text);
    return code;
}

START_TEST(debug_exit_gives_its_value)
{
    CREATE(DEBUG_EXIT(0x5A), HALT);
    run();
    check_end(VM_END_DEBUG_EXIT, 0x5A);
    ck_assert_int_eq(vm_state(vm), VM_ENDING);
}
END_TEST

START_TEST(the_guest_does_not_run_on_after_its_end)
{
    CREATE(DEBUG_EXIT(1), DEBUG_EXIT(2), BUSY);
    run();
    check_end(VM_END_DEBUG_EXIT, 1);
    ck_assert_uint_eq(fact("exits.io"), 1);
}
END_TEST

START_TEST(power_off_by_the_sleep_register)
{
    CREATE(OUT(ARCH_PORT_SLEEP, POWER_SLEEP_TYPE_S5 << 2 | 1 << 5), HALT);
    run();
    check_end(VM_END_POWEROFF, 0);
}
END_TEST

START_TEST(reset_by_the_keyboard_controller)
{
    CREATE(OUT(ARCH_PORT_KEYBOARD, 0xFE), HALT);
    run();
    check_end(VM_END_RESET, 0);
}
END_TEST

START_TEST(reset_by_the_reset_register)
{
    CREATE(OUT(ARCH_PORT_RESET, POWER_RESET_VALUE), HALT);
    run();
    check_end(VM_END_RESET, 0);
}
END_TEST

START_TEST(a_panic_is_reported)
{
    CREATE(OUT(ARCH_PORT_PVPANIC, 1), HALT);
    run();
    check_end(VM_END_PANIC, 0);
}
END_TEST

START_TEST(a_loaded_crash_kernel_may_go_on)
{
    CREATE(OUT(ARCH_PORT_PVPANIC, 2), DEBUG_EXIT(3), HALT);
    run();
    check_end(VM_END_DEBUG_EXIT, 3);
}
END_TEST

START_TEST(a_triple_fault_is_reported_with_registers)
{
    /* lidt of an empty table behind the code, then ud2 */
    CREATE(0x0F, 0x01, 0x1D, 0x02, 0, 0, 0, 0x0F, 0x0B, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    run();
    check_end(VM_END_TRIPLE_FAULT, 0);
    ck_assert_ptr_nonnull(strstr(result.text, "triple fault"));
    ck_assert_ptr_nonnull(strcasestr(result.text, "rip"));
}
END_TEST

START_TEST(a_jump_to_where_no_memory_is_ends_the_run)
{
    /* mov eax, 48 MiB; jmp rax */
    CREATE(0xB8, 0, 0, 0, 3, 0xFF, 0xE0);
    run();
    check_end(VM_END_INTERNAL, 0);
    ck_assert_ptr_nonnull(strstr(result.text, "vCPU 0: KVM"));
    ck_assert_ptr_nonnull(strcasestr(result.text, "rip"));
}
END_TEST

START_TEST(unclaimed_reads_give_all_ones)
{
    CREATE(0x66, 0xBA, 0x00, 0x07,       /* mov dx, 0x700 */
           0xED,                         /* in eax, dx */
           0xFF, 0xC0,                   /* inc eax */
           0x75, 0x13,                   /* jnz bad */
           0xBB, 0x00, 0x00, 0x00, 0x03, /* mov ebx, 48 MiB: behind the memory */
           0x48, 0xC7, 0x03, 1, 0, 0, 0, /* mov qword [rbx], 1 */
           0x48, 0x8B, 0x03,             /* mov rax, [rbx] */
           0x48, 0xFF, 0xC0,             /* inc rax */
           0x74, 0x07,                   /* jz good */
           DEBUG_EXIT(1), HALT,          /* bad */
           DEBUG_EXIT(0), HALT);         /* good */
    run();
    check_end(VM_END_DEBUG_EXIT, 0);
    ck_assert_uint_eq(fact("unclaimed"), 3);
    ck_assert_uint_eq(fact("exits.io"), 2);
    ck_assert_uint_eq(fact("exits.mmio"), 2);
}
END_TEST

START_TEST(the_time_limit_ends_a_guest_that_sleeps)
{
    config.timeout_s = 1;
    CREATE(HALT);
    run();
    check_end(VM_END_TIMEOUT, 0);
}
END_TEST

START_TEST(the_time_limit_ends_a_guest_that_never_exits)
{
    config.timeout_s = 1;
    CREATE(0xEB, 0xFE);
    run();
    check_end(VM_END_TIMEOUT, 0);
}
END_TEST

static void *terminate(void *arg)
{
    (void)arg;
    kill(getpid(), SIGTERM);
    return NULL;
}

START_TEST(sigterm_stops_the_vm)
{
    CREATE(HALT);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, terminate, NULL), 0);
    run();
    pthread_join(thread, NULL);
    check_end(VM_END_STOPPED, 0);
}
END_TEST

/* As when it comes while disks and console are being closed. */
START_TEST(a_sigterm_after_the_end_leaves_the_exit_code)
{
    config.kernel = tiny_kernel_make(KERNEL(DEBUG_EXIT(7), HALT), sizeof(KERNEL(DEBUG_EXIT(7), HALT)));
    const char *const flags[] = {"minivmm", "--kernel",     config.kernel, "--memory",     "16M", "--console",
                                 "none",    "--no-control", "--quiet",     "--debug-exit", NULL};
    char *argv[ARRAY_SIZE(flags)];
    memcpy(argv, flags, sizeof(argv));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int code = run_main(ARRAY_SIZE(flags) - 1, argv);
        (void)raise(SIGTERM);
        (void)raise(SIGINT);
        (void)raise(SIGHUP);
        _exit(code);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    ck_assert_int_eq(WEXITSTATUS(status), EXIT_CODE_DEBUG_EXIT + 7);
}
END_TEST

START_TEST(an_end_before_the_run_keeps_the_guest_out)
{
    CREATE(DEBUG_EXIT(9), HALT);
    vm_end(vm, VM_END_STOPPED, 0);
    vm_end(vm, VM_END_POWEROFF, 0);
    run();
    check_end(VM_END_STOPPED, 0);
    ck_assert_uint_eq(fact("exits.io"), 0);
}
END_TEST

START_TEST(a_vm_that_never_ran_can_be_destroyed)
{
    config.cpus = 4;
    CREATE(HALT);
}
END_TEST

static struct {
    unsigned turns, pauses;
    uint64_t seen;
    bool paused;
} pausing;

/* Pauses, sees that nothing moves while paused, resumes, sees that the guest moves on. */
static void pause_turn(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
    uint64_t now = fact("exits.io");
    if (pausing.paused) {
        ck_assert_uint_eq(now, pausing.seen);
        if (++pausing.turns % 4 != 0)
            return;
        ck_assert_int_eq(vm_pause(vm), -EALREADY);
        ck_assert_int_eq(vm_resume(vm), 0);
        ck_assert_int_eq(vm_state(vm), VM_RUNNING);
        pausing.paused = false;
        return;
    }
    if (now == pausing.seen)
        return;
    if (++pausing.pauses > 20) {
        vm_end(vm, VM_END_STOPPED, 0);
        return;
    }
    ck_assert_int_eq(vm_resume(vm), -EALREADY);
    ck_assert_int_eq(vm_pause(vm), 0);
    ck_assert_int_eq(vm_state(vm), VM_PAUSED);
    pthread_mutex_lock(&vm->vcpus.lock);
    unsigned in_guest = vm->vcpus.in_guest;
    pthread_mutex_unlock(&vm->vcpus.lock);
    ck_assert_uint_eq(in_guest, 0);
    pausing.seen = fact("exits.io");
    pausing.paused = true;
}

START_TEST(a_paused_guest_stands_still_and_goes_on)
{
    memset(&pausing, 0, sizeof(pausing));
    config.cpus = 2;
    CREATE(BUSY);
    int fd = every_ms(pause_turn);
    run();
    close(fd);
    check_end(VM_END_STOPPED, 0);
    ck_assert_uint_gt(pausing.pauses, 20);
}
END_TEST

static void end_while_paused(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
    if (vm_state(vm) == VM_RUNNING)
        ck_assert_int_eq(vm_pause(vm), 0);
    vm_end(vm, VM_END_STOPPED, 0);
}

START_TEST(a_paused_vm_can_be_ended)
{
    CREATE(BUSY);
    int fd = every_ms(end_while_paused);
    run();
    close(fd);
    check_end(VM_END_STOPPED, 0);
}
END_TEST

static void *end_soon(void *arg)
{
    /* A delay that differs each time, to meet the vCPUs before, at and after their first entry. */
    const struct timespec delay = {0, (long)*(const unsigned *)arg * 37000};
    nanosleep(&delay, NULL);
    vm_end(vm, VM_END_STOPPED, 0);
    return NULL;
}

/* A guest that only spins never leaves by itself, one that halts sleeps in the kernel, one that does I/O is
 * anywhere. */
START_TEST(a_stop_is_never_lost)
{
    static const uint8_t spin[] = {0xEB, 0xFE};
    static const uint8_t sleep[] = {HALT};
    static const uint8_t busy[] = {BUSY};
    static const struct {
        const uint8_t *code;
        size_t len;
    } kind[] = {{spin, sizeof(spin)}, {sleep, sizeof(sleep)}, {busy, sizeof(busy)}};
    config.cpus = 3;
    for (unsigned i = 0; i < 51; i++) {
        create(kind[i % 3].code, kind[i % 3].len);
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, end_soon, &i), 0);
        run();
        pthread_join(thread, NULL);
        check_end(VM_END_STOPPED, 0);
        vm_destroy(vm);
        vm = NULL;
        unlink(config.kernel);
        set(&config.kernel, "");
        free(config.kernel);
        config.kernel = NULL;
    }
}
END_TEST

/* vCPU 0 wakes all others by x2APIC; each adds 1 to a counter in memory, in real mode. */
START_TEST(thirty_two_vcpus_run)
{
    config.cpus = 32;
    CREATE(0x48, 0xB8, 0xF0, 0xFF, 0x06, 0x00, 0x90, 0xF4, 0xEB,
           0xFD, /* mov rax, code: lock inc word [0x9000]; hlt; jmp */
           0x48, 0x89, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00,       /* mov [0x8000], rax */
           0xC7, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0, 0, 0, 0, /* mov dword [0x9000], 0 */
           0xB9, 0x1B, 0, 0, 0, 0x0F, 0x32, 0x0D, 0x00, 0x0C, 0, 0, 0x0F,
           0x30, /* IA32_APIC_BASE |= EN | EXTD */
           0xB9, 0x0F, 0x08, 0, 0, 0xB8, 0xFF, 0x01, 0, 0, 0x31, 0xD2, 0x0F, 0x30, /* SIVR = 0x1FF */
           0xB9, 0x30, 0x08, 0, 0, 0xB8, 0x00, 0x45, 0x0C, 0x00, 0x0F, 0x30, /* ICR = INIT, all others */
           0xB8, 0x08, 0x46, 0x0C, 0x00, 0x0F, 0x30,                         /* ICR = SIPI 8, all others */
           0x83, 0x3C, 0x25, 0x00, 0x90, 0x00, 0x00, 31,                     /* cmp dword [0x9000], 31 */
           0x75, 0xF6,                                                       /* jne to it */
           DEBUG_EXIT(32), HALT);
    run();
    check_end(VM_END_DEBUG_EXIT, 32);
}
END_TEST

static struct {
    unsigned step;
} asking;

static void ask_turn(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
    struct err err = {{0}};
    if (asking.step++ > 0)
        return;
    ck_assert_int_eq(request("status", &err), 0);
    ck_assert_int_eq(request("resume", &err), -EALREADY);
    ck_assert_int_eq(request("pause", &err), 0);
    ck_assert_int_eq(request("pause", &err), -EALREADY);
    ck_assert_int_eq(request("stop", &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "resume it first"));
    ck_assert_int_eq(request("resume", &err), 0);
    ck_assert_int_eq(request("reboot", &err), -EINVAL);
    ck_assert_int_eq(request("stop 0", &err), -EINVAL);
    ck_assert_int_eq(request("stop 5x", &err), -EINVAL);
    ck_assert_int_eq(request("stop -1", &err), -EINVAL);
    ck_assert_int_eq(request("stop", &err), 0);
    ck_assert_int_eq(request("stop 3600", &err), 0);
    ck_assert_int_eq(request("stop 1", &err), 0);
}

START_TEST(requests_are_checked_and_a_deaf_guest_is_stopped_by_force)
{
    asking.step = 0;
    CREATE(HALT);
    int fd = every_ms(ask_turn);
    run();
    close(fd);
    check_end(VM_END_STOPPED, 0);
    ck_assert_uint_gt(asking.step, 1);
}
END_TEST

static void force_turn(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
    struct err err = {{0}};
    ck_assert_int_eq(request("stop force", &err), 0);
}

START_TEST(stop_force_ends_at_once)
{
    CREATE(BUSY);
    int fd = every_ms(force_turn);
    run();
    close(fd);
    check_end(VM_END_STOPPED, 0);
}
END_TEST

START_TEST(memory_beyond_the_hole_below_4_gib_is_there)
{
    config.memory = 3328ULL << 20;
    CREATE(DEBUG_EXIT(4), HALT);
    ck_assert_uint_ge(vm->machine.mem.count, 2);
    ck_assert_uint_ge(vm->machine.mem.region[vm->machine.mem.count - 1].gpa, 1ULL << 32);
    run();
    check_end(VM_END_DEBUG_EXIT, 4);
}
END_TEST

static bool kvm_works(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

/* Ends of runs, and what may happen meanwhile. */
static const TTest **const with_kvm[] = {
    &debug_exit_gives_its_value,
    &the_guest_does_not_run_on_after_its_end,
    &power_off_by_the_sleep_register,
    &reset_by_the_keyboard_controller,
    &reset_by_the_reset_register,
    &a_panic_is_reported,
    &a_loaded_crash_kernel_may_go_on,
    &a_triple_fault_is_reported_with_registers,
    &a_jump_to_where_no_memory_is_ends_the_run,
    &unclaimed_reads_give_all_ones,
    &the_time_limit_ends_a_guest_that_sleeps,
    &the_time_limit_ends_a_guest_that_never_exits,
    &sigterm_stops_the_vm,
    &a_sigterm_after_the_end_leaves_the_exit_code,
    &an_end_before_the_run_keeps_the_guest_out,
    &a_vm_that_never_ran_can_be_destroyed,
    &a_paused_guest_stands_still_and_goes_on,
    &a_paused_vm_can_be_ended,
    &a_stop_is_never_lost,
    &thirty_two_vcpus_run,
    &requests_are_checked_and_a_deaf_guest_is_stopped_by_force,
    &stop_force_ends_at_once,
    &memory_beyond_the_hole_below_4_gib_is_there,
};

int main(void)
{
    Suite *suite = suite_create("vm");
    unsigned count = sizeof(with_kvm) / sizeof(with_kvm[0]);
    if (kvm_works()) {
        TCase *kvm = tcase_create("kvm");
        tcase_add_checked_fixture(kvm, setup, teardown);
        tcase_set_timeout(kvm, 60);
        for (unsigned i = 0; i < count; i++)
            tcase_add_test(kvm, *with_kvm[i]);
        suite_add_tcase(suite, kvm);
    } else {
        printf("# SKIPPED %u tests of vm: /dev/kvm can't be opened\n", count);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
