/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "minivmm/event.h"
#include "minivmm/log.h"
#include "minivmm/sandbox.h"
#include "vmm/cell.h"
#include "vmm/kvm.h"
#include "vmm/vm_internal.h"

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* The first end wins; every later one only makes sure that the vCPUs stop. */
static void end_with(struct vm *vm, enum vm_end how, unsigned code, const char *text)
{
    pthread_mutex_lock(&vm->end_lock);
    if (vm->result.how == VM_END_NONE) {
        vm->result.how = how;
        vm->result.code = code;
        if (text)
            strncpy(vm->result.text, text, sizeof(vm->result.text) - 1);
    }
    pthread_mutex_unlock(&vm->end_lock);
    vcpus_wish(&vm->vcpus, VCPUS_STOP);
    event_signal(vm->end_fd);
}

void vm_end(struct vm *vm, enum vm_end how, unsigned code)
{
    end_with(vm, how, code, NULL);
}

static void on_vcpu_ended(void *ctx, enum vm_end how, const char *text)
{
    end_with(ctx, how, 0, text);
}

static void on_power_request(void *ctx, enum vm_end how, unsigned code)
{
    end_with(ctx, how, code, NULL);
}

static void on_panicked(void *ctx, unsigned flags)
{
    struct vm *vm = ctx;
    /* Bit 1: a crash kernel takes over and will end the run itself, after it has written its dump. */
    if (flags & 1U)
        vm_end(vm, VM_END_PANIC, 0);
    else
        log_warn_limited(&vm->crashes, "the guest crashed and has loaded its crash kernel (pvpanic %#x)",
                         flags);
}

static void on_quit(void *ctx)
{
    vm_end(ctx, VM_END_STOPPED, 0);
}

static void on_signal(void *arg, uint32_t events)
{
    (void)events;
    struct vm *vm = arg;
    struct signalfd_siginfo info;
    if (read(vm->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    log_info("stopped by signal %u (%s)", info.ssi_signo, sigabbrev_np((int)info.ssi_signo));
    vm_end(vm, VM_END_STOPPED, 0);
}

static void on_timeout(void *arg, uint32_t events)
{
    (void)events;
    vm_end(arg, VM_END_TIMEOUT, 0);
}

static void on_force(void *arg, uint32_t events)
{
    (void)events;
    vm_end(arg, VM_END_STOPPED, 0);
}

/* result is set: the loop looks at it after each turn. */
static void on_end(void *arg, uint32_t events)
{
    (void)events;
    const struct vm *vm = arg;
    event_clear(vm->end_fd);
}

static int watch(struct vm *vm, int fd, loop_fn *fn, struct err *err)
{
    int code = loop_add(vm->loop, fd, EPOLLIN, fn, vm);
    if (code < 0)
        return err_set(err, code, "the event loop did not take a descriptor: %s", strerror(-code));
    return 0;
}

/* A timerfd that calls fn once, seconds from now. Returns it or -errno. */
static int start_timer(struct vm *vm, unsigned seconds, loop_fn *fn, struct err *err)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec when = {.it_value.tv_sec = (time_t)seconds};
    if (fd < 0 || timerfd_settime(fd, 0, &when, NULL) < 0) {
        int code = -errno;
        if (fd >= 0)
            close(fd);
        return err_set(err, code, "a timer could not be started: %s", strerror(-code));
    }
    int code = watch(vm, fd, fn, err);
    if (code < 0) {
        close(fd);
        return code;
    }
    return fd;
}

int vm_force_after(struct vm *vm, unsigned seconds)
{
    if (vm->force_fd >= 0) {
        loop_remove(vm->loop, vm->force_fd);
        close(vm->force_fd);
    }
    vm->force_fd = start_timer(vm, seconds, on_force, NULL);
    return vm->force_fd < 0 ? vm->force_fd : 0;
}

/* From here on the ending signals wait for the loop, in this thread and in those that it makes. */
static int take_signals(struct vm *vm, struct err *err)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ending, &vm->mask_before);
    vm->mask_changed = true;
    /* A reader of the console that went away is an error of that write, not the end of the VM. */
    signal(SIGPIPE, SIG_IGN);
    vm->signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vm->signal_fd < 0)
        return err_set(err, -errno, "the signal descriptor could not be created: %s", strerror(errno));
    return 0;
}

static int create_loop(struct vm *vm, struct err *err)
{
    int code = take_signals(vm, err);
    if (code < 0)
        return code;
    vm->end_fd = event_open();
    if (vm->end_fd < 0)
        return err_set(err, vm->end_fd, "an eventfd could not be created: %s", strerror(-vm->end_fd));
    code = loop_create(&vm->loop, err);
    if (code == 0)
        code = watch(vm, vm->end_fd, on_end, err);
    if (code == 0)
        code = watch(vm, vm->signal_fd, on_signal, err);
    return code;
}

static int create_console(struct vm *vm, struct err *err)
{
    const struct console_hooks hooks = {.quit = on_quit, .ctx = vm};
    return console_open(vm->config, &hooks, &vm->console, err);
}

static int create_devices(struct vm *vm, struct err *err)
{
    const struct serial_config serial = {
        .output = console_output, .input_ready = console_input_ready, .ctx = vm->console};
    vm->machine.sink = (struct power_sink){.request = on_power_request, .panicked = on_panicked, .ctx = vm};
    return machine_create_devices(&vm->machine, vm->config, &serial, err);
}

static int create_vcpus(struct vm *vm, const struct arch_entry *entry, struct err *err)
{
    vm->vm_fd = kvm_create_vm(vm->kvm_fd, err);
    if (vm->vm_fd < 0)
        return vm->vm_fd;
    int code = arch_vm_init(vm->kvm_fd, vm->vm_fd, err);
    if (code == 0)
        code = machine_connect(&vm->machine, vm->vm_fd, err);
    const struct vcpu_env env = {
        .mmio = &vm->machine.mmio,
        .ports = &vm->machine.ports,
        .mem = &vm->machine.mem,
        .ended = on_vcpu_ended,
        .ctx = vm,
    };
    if (code == 0)
        code = vcpus_create(&vm->vcpus, vm->kvm_fd, vm->vm_fd, vm->config->cpus, vm->config->cpu, entry, &env,
                            err);
    return code;
}

/* Lack of memory or descriptors is the host's, whatever asked for them. */
static bool user_can_mend(int code)
{
    return code != -ENOMEM && code != -EMFILE && code != -ENFILE;
}

static int open_all(struct vm *vm, bool *usage, struct err *err)
{
    const struct config *config = vm->config;
    vm->kvm_fd = kvm_open(config->kvm, config->cpus, err);
    if (vm->kvm_fd < 0)
        return vm->kvm_fd;
    int code = machine_check_memory(config, err);
    if (code == 0)
        code = create_console(vm, err);
    if (code == 0)
        code = machine_open(&vm->machine, config, err);
    if (code < 0) {
        *usage = user_can_mend(code);
        return code;
    }
    if (config->control) {
        code = control_listen(config->name, &vm->control, err);
        *usage = code == -EBUSY;
    }
    return code;
}

int vm_open(const struct config *config, struct vm **out, bool *usage, struct err *err)
{
    *usage = false;
    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return err_set(err, -ENOMEM, "out of memory for the VM");
    vm->config = config;
    vm->kvm_fd = vm->vm_fd = vm->end_fd = vm->signal_fd = vm->timer_fd = vm->force_fd = vm->statm_fd = -1;
    vm->pid = vm->cell_pid = getpid();
    pthread_mutex_init(&vm->end_lock, NULL);
    machine_init(&vm->machine);
    vcpus_init(&vm->vcpus);
    clock_gettime(CLOCK_MONOTONIC, &vm->started);
    int code = open_all(vm, usage, err);
    if (code < 0) {
        vm_destroy(vm);
        return code;
    }
    *out = vm;
    return 0;
}

void vm_enter_cell(struct vm *vm, const struct cell *cell)
{
    vm->pid = cell->keeper;
    vm->cell_pid = cell->vm;
    crypt_leave_locks(&vm->machine.crypt);
    console_leave_terminal(vm->console);
    /* In the background of the user's terminal, a namespace's first process would not be stopped by these:
     * its call would begin again for ever. Ignored, it fails. */
    (void)signal(SIGTTIN, SIG_IGN);
    (void)signal(SIGTTOU, SIG_IGN);
    if (vm->control)
        control_leave_dir(vm->control);
}

void vm_become_keeper(struct vm *vm)
{
    crypt_harden(); /* of what it hands down, nobody is to get hold of through it */
    crypt_leave_keys(&vm->machine.crypt);
    machine_leave_payload(&vm->machine);
    close_fd(vm->kvm_fd);
    vm->kvm_fd = -1;
    close_fd(vm->config->ready_fd); /* its reader waits for the end of file after the line */
}

int vm_load(struct vm *vm, struct err *err)
{
    vm->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (!crypt_wanted(vm->config))
        return 0;
    crypt_harden();
    return crypt_load(&vm->machine.crypt, vm->config, err);
}

int vm_build(struct vm *vm, bool *usage, struct err *err)
{
    struct arch_entry entry = {0};
    *usage = false;
    int code = create_loop(vm, err);
    if (code < 0)
        return code;
    code = machine_create_memory(&vm->machine, vm->config, err);
    if (code == 0)
        code = create_devices(vm, err);
    if (code == 0)
        code = machine_load(&vm->machine, vm->config, &entry, err);
    if (code < 0) {
        *usage = user_can_mend(code);
        return code;
    }
    code = create_vcpus(vm, &entry, err);
    if (code == 0)
        code = vcpus_start(&vm->vcpus, err);
    if (code == 0)
        code = console_attach(vm->console, vm->machine.serial, vm->loop, err);
    if (code == 0 && vm->control)
        code = control_serve(vm->control, vm->loop, vm_control_request, vm, err);
    return code;
}

int vm_create(const struct config *config, struct vm **out, bool *usage, struct err *err)
{
    struct vm *vm = NULL;
    int code = vm_open(config, &vm, usage, err);
    if (code < 0 || !vm)
        return code;
    code = vm_load(vm, err);
    if (code == 0)
        code = vm_build(vm, usage, err);
    if (code < 0) {
        vm_destroy(vm);
        return code;
    }
    *out = vm;
    return 0;
}

static bool has_ended(struct vm *vm)
{
    pthread_mutex_lock(&vm->end_lock);
    bool ended = vm->result.how != VM_END_NONE;
    pthread_mutex_unlock(&vm->end_lock);
    return ended;
}

/* Who started us waits for a line there; one that waits no more is nothing to us. */
static void tell_ready(int fd)
{
    static const char line[] = "ready\n";
    if (fd < 0)
        return;
    (void)!write(fd, line, sizeof(line) - 1);
    close(fd);
}

int vm_run(struct vm *vm, struct vm_result *result, struct err *err)
{
    if (vm->config->timeout_s) {
        vm->timer_fd = start_timer(vm, vm->config->timeout_s, on_timeout, err);
        if (vm->timer_fd < 0)
            return vm->timer_fd;
    }
    /* The threads are parked by now, each behind its filter; then this one, and only then the guest. */
    vcpus_wait_idle(&vm->vcpus);
    close_fd(vm->kvm_fd); /* all that the VM consists of is there */
    vm->kvm_fd = -1;
    cell_limit(vm->statm_fd);
    int code = sandbox_thread(SANDBOX_MAIN, err);
    if (code < 0)
        return code;
    tell_ready(vm->config->ready_fd);
    atomic_store(&vm->state, VM_RUNNING);
    vcpus_wish(&vm->vcpus, VCPUS_RUN);
    while (code == 0 && !has_ended(vm))
        code = loop_run_once(vm->loop, -1);
    atomic_store(&vm->state, VM_ENDING);
    console_hurry(vm->console, true);
    vcpus_join(&vm->vcpus);
    if (code < 0)
        return err_set(err, code, "the event loop failed: %s", strerror(-code));
    *result = vm->result;
    return 0;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    vcpus_destroy(&vm->vcpus);
    if (vm->control)
        control_close(vm->control);
    machine_destroy(&vm->machine);
    if (vm->console)
        console_close(vm->console);
    loop_destroy(vm->loop);
    close_fd(vm->vm_fd);
    close_fd(vm->kvm_fd);
    close_fd(vm->end_fd);
    close_fd(vm->signal_fd);
    close_fd(vm->timer_fd);
    close_fd(vm->force_fd);
    close_fd(vm->statm_fd);
    if (vm->mask_changed)
        pthread_sigmask(SIG_SETMASK, &vm->mask_before, NULL);
    pthread_mutex_destroy(&vm->end_lock);
    free(vm);
}

int vm_pause(struct vm *vm)
{
    if (atomic_load(&vm->state) != VM_RUNNING)
        return -EALREADY;
    console_hurry(vm->console, true);
    vcpus_wish(&vm->vcpus, VCPUS_HOLD);
    vcpus_wait_idle(&vm->vcpus);
    atomic_store(&vm->state, VM_PAUSED);
    return 0;
}

int vm_resume(struct vm *vm)
{
    if (atomic_load(&vm->state) != VM_PAUSED)
        return -EALREADY;
    atomic_store(&vm->state, VM_RUNNING);
    console_hurry(vm->console, false);
    vcpus_wish(&vm->vcpus, VCPUS_RUN);
    return 0;
}

void vm_power_button(struct vm *vm)
{
    power_ged_press_button(vm->machine.ged);
}

enum vm_state vm_state(const struct vm *vm)
{
    return (enum vm_state)atomic_load(&vm->state);
}
