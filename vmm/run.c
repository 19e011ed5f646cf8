/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm --kernel ...: one VM from its flags to its exit code. */
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "minivmm/config.h"
#include "minivmm/log.h"
#include "vmm/cell.h"
#include "vmm/cgroup.h"
#include "vmm/commands.h"
#include "vmm/console.h"
#include "vmm/exit_codes.h"
#include "vmm/options.h"
#include "vmm/vm.h"

static int report(int code, const struct err *err)
{
    log_error("%s", err->text);
    return code;
}

/* The sentence, then the registers: a log line each, since the log cuts long ones. */
static void report_crash(const char *text)
{
    int len = (int)strcspn(text, "\n");
    log_error("the guest crashed: %.*s", len, text);
    for (text += len; *text == '\n'; text += len) {
        len = (int)strcspn(++text, "\n");
        if (len > 0)
            log_error("  %.*s", len, text);
    }
}

/* Says on standard error how the run ended, unless the guest just powered off, and gives the exit code. */
static int conclude(const struct config *config, const struct vm_result *result)
{
    switch (result->how) {
    case VM_END_POWEROFF:
        return EXIT_CODE_OK;
    case VM_END_RESET:
        log_info("the guest asked for a reset");
        return EXIT_CODE_RESET;
    case VM_END_PANIC:
        log_error("the guest panicked");
        return EXIT_CODE_PANIC;
    case VM_END_DEBUG_EXIT:
        log_info("the guest wrote %u to the debug exit port", result->code);
        return result->code == 0 ? EXIT_CODE_OK : EXIT_CODE_DEBUG_EXIT + (int)(result->code & 31U);
    case VM_END_TIMEOUT:
        log_error("--timeout: the guest still ran after %u s", config->timeout_s);
        return EXIT_CODE_TIMEOUT;
    case VM_END_STOPPED:
        log_info("stopped");
        return EXIT_CODE_STOPPED;
    case VM_END_TRIPLE_FAULT:
    case VM_END_INTERNAL:
    case VM_END_NONE:
        break;
    }
    report_crash(result->text);
    return EXIT_CODE_CRASH;
}

/*
 * Until the process is gone. vm_create() makes the VM hear them; one that comes when its guest has ended, and
 * its disks and console are still being closed, must not put itself in place of the guest's exit code.
 */
static void hold_ending_signals(void)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
}

/* From the built VM to its exit code; the VM is gone then. built: what vm_build() gave. */
static int finish(const struct config *config, struct vm *vm, int built, bool usage, struct err *err)
{
    struct vm_result result = {0};
    int code = built < 0 ? built : vm_run(vm, &result, err);
    /* What the guest was told is safe must be, and its last words out, before anything is said of the end. */
    vm_destroy(vm);
    if (code < 0)
        return report(usage ? EXIT_CODE_USAGE : EXIT_CODE_FAILURE, err);
    return conclude(config, &result);
}

static int run_without_cell(const struct config *config)
{
    struct err err = {{0}};
    bool usage = false;
    struct vm *vm = NULL;
    log_warn("--no-sandbox: this VM runs WITHOUT its cell; a guest that breaks out has all that you have");
    if (console_guard_terminal(config, &err) < 0)
        return report(EXIT_CODE_FAILURE, &err);
    int code = vm_create(config, &vm, &usage, &err);
    return code < 0 ? report(usage ? EXIT_CODE_USAGE : EXIT_CODE_FAILURE, &err)
                    : finish(config, vm, code, usage, &err);
}

/* The VM's process, from the moment that it is there. */
static int run_inside(const struct config *config, struct vm *vm, const struct cell *cell)
{
    struct err err = {{0}};
    bool usage = false;
    vm_enter_cell(vm, cell);
    int code = vm_load(vm, &err);
    if (code == 0)
        code = cell_close(cell, &err);
    if (code == 0)
        code = vm_build(vm, &usage, &err);
    return finish(config, vm, code, usage, &err);
}

static int run_keeper(struct vm *vm, const struct cell *cell)
{
    vm_become_keeper(vm);
    int status = cell_keep(cell->vm, cell->walls != CELL_WALLS_NONE);
    vm_destroy(vm);
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    int signal = WTERMSIG(status);
    if (signal == SIGSYS)
        log_error(
            "the VM's process made a system call that its filter forbids, and was killed: this is a break-in "
            "or a defect of minivmm (the kernel's log, dmesg, names the call)");
    else
        log_error("the VM's process was killed by signal %d (%s)", signal, sigabbrev_np(signal));
    return EXIT_CODE_SIGNAL + signal;
}

static int on_born(void *ctx, pid_t vm, struct err *err)
{
    return ctx ? cgroup_add(ctx, vm, err) : 0; /* a host without delegation, and no limit asked for */
}

static int run_in_cell(const struct config *config)
{
    struct err err = {{0}};
    bool usage = false;
    struct vm *vm = NULL;
    struct cell cell = {0};
    struct termios saved;
    struct cgroup *group = NULL;
    cell_close_strays(config);
    bool terminal = console_save_terminal(config, &saved);
    if (vm_open(config, &vm, &usage, &err) < 0)
        return report(usage ? EXIT_CODE_USAGE : EXIT_CODE_FAILURE, &err);
    cell_close_copied(config);
    int code = cgroup_create(config->name, config->cpu_limit, config->memory_limit, &group, &err);
    if (code == 0)
        code = cell_split(&cell, on_born, group, &err);
    if (code == CELL_INSIDE)
        _exit(run_inside(config, vm, &cell)); /* what comes after belongs to the process that was started */
    if (code < 0) {
        vm_destroy(vm);
        code = report(EXIT_CODE_FAILURE, &err);
    } else {
        code = run_keeper(vm, &cell);
    }
    cgroup_remove(group);
    if (terminal)
        console_restore_terminal(&saved);
    return code;
}

static enum log_level level(const struct config *config)
{
    if (config->quiet)
        return LOG_LEVEL_ERROR;
    return config->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
}

int run_main(int argc, char **argv)
{
    enum options_action action = options_action(argc, argv);
    if (action != OPTIONS_RUN) {
        (action == OPTIONS_HELP ? options_print_help : options_print_version)(stdout);
        return EXIT_CODE_OK;
    }
    struct err err = {{0}};
    struct config config;
    config_init(&config);
    int code = EXIT_CODE_USAGE;
    if (config_parse_args(&config, argc, argv, &err) < 0 || config_check(&config, &err) < 0) {
        report(code, &err);
    } else {
        console_hold_standard();
        log_open(STDERR_FILENO, config.name, level(&config));
        hold_ending_signals();
        code = (config.sandbox ? run_in_cell : run_without_cell)(&config);
    }
    config_free(&config);
    return code;
}
