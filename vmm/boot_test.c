/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm boot-test: boots a guest in a child process and judges it by its console, for CI. */
#include "vmm/boot_test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "vmm/commands.h"
#include "vmm/config_internal.h"
#include "vmm/exit_codes.h"
#include "vmm/suggest.h"

#define TIMEOUT_S   60u
#define TIMEOUT_MAX 86400u
#define REPEAT_MAX  1000u

static const char usage[] =
    "usage: minivmm boot-test [FLAG...] --kernel FILE [FLAG OF A RUN...]\n"
    "\n"
    "Boots a guest with the flags of a run (minivmm --help), reads its serial console\n"
    "and says whether it came up: it passes when every --expect was seen, in order, and\n"
    "is then stopped; without --expect, when the guest powers off.\n"
    "\n"
    "  --expect REGEX      a POSIX extended regular expression to see in a line of the\n"
    "                      console; an unfinished line counts, such as a prompt, but $\n"
    "                      matches only at the end of a whole one (repeatable)\n"
    "  --reject REGEX      fail as soon as this is seen (repeatable)\n"
    "  --timeout SECONDS   for each run, 1 to 86400 (default: 60)\n"
    "  --repeat N          run it N times, 1 to 1000 (default: 1)\n"
    "  --log FILE          write all that the console says to a file\n"
    "  --report KIND[:FILE]\n"
    "                      text, tap, junit or json, to a file or standard output\n"
    "                      (repeatable; default: text)\n"
    "  --help              print this help\n"
    "\n"
    "Exit codes, of several runs the last in this list that came up: 0 passed, 1 failed,\n"
    "124 time-out, 3 the kernel panicked, 2 bad flags or input.\n";

/* All that the command line says. */
struct order {
    struct boot_plan plan;
    struct boot_report report[BOOT_TEST_REPORTS_MAX];
    unsigned reports;
    uint64_t timeout, repeat; /* 0: not given */
    const char *log_path;
    char *program; /* path of this program */
    char **vm;     /* the run's command line, NULL at its end; strings are argv's */
    int vm_count;
    bool help;
};

typedef int order_fn(struct order *order, const char *value, struct err *err);

static int add_pattern(struct boot_pattern *patterns, unsigned *count, const char *text, struct err *err)
{
    char why[128];
    if (*count == BOOT_TEST_PATTERNS_MAX)
        return err_set(err, -E2BIG, "at most %u may be given", BOOT_TEST_PATTERNS_MAX);
    struct boot_pattern *p = &patterns[*count];
    int code = regcomp(&p->regex, text, REG_EXTENDED);
    if (code != 0) {
        regerror(code, &p->regex, why, sizeof(why));
        return err_set(err, -EINVAL, "'%s' is no POSIX extended regular expression: %s", text, why);
    }
    p->text = text;
    ++*count;
    return 0;
}

static int set_expect(struct order *order, const char *value, struct err *err)
{
    return add_pattern(order->plan.expect, &order->plan.expects, value, err);
}

static int set_reject(struct order *order, const char *value, struct err *err)
{
    return add_pattern(order->plan.reject, &order->plan.rejects, value, err);
}

static int set_once(uint64_t *number, uint64_t most, const char *value, struct err *err)
{
    if (*number)
        return err_set(err, -EINVAL, "given twice");
    return config_value_number(value, 1, most, number, err);
}

static int set_timeout(struct order *order, const char *value, struct err *err)
{
    return set_once(&order->timeout, TIMEOUT_MAX, value, err);
}

static int set_repeat(struct order *order, const char *value, struct err *err)
{
    return set_once(&order->repeat, REPEAT_MAX, value, err);
}

static int set_log(struct order *order, const char *value, struct err *err)
{
    if (order->log_path)
        return err_set(err, -EINVAL, "given twice");
    order->log_path = value;
    return 0;
}

static int set_report(struct order *order, const char *value, struct err *err)
{
    if (order->reports == BOOT_TEST_REPORTS_MAX)
        return err_set(err, -E2BIG, "at most %u may be given", BOOT_TEST_REPORTS_MAX);
    /* Its file is made when the whole command line is known to be right. */
    order->report[order->reports++].path = value;
    return 0;
}

static int set_console(struct order *order, const char *value, struct err *err)
{
    (void)order;
    (void)value;
    return err_set(err, -EINVAL, "boot-test reads the console itself; --log FILE keeps what it says");
}

static const struct {
    const char *name;
    order_fn *set;
} flags[] = {
    {"expect", set_expect}, {"reject", set_reject}, {"timeout", set_timeout}, {"repeat", set_repeat},
    {"log", set_log},       {"report", set_report}, {"console", set_console},
};

/* A flag that is not ours, with its value where it takes one, goes to the run as it is. */
static int pass_on(struct order *order, int argc, char **argv, int i)
{
    const char *name = argv[i] + 2;
    size_t len = strcspn(name, "=");
    const struct option_def *option = config_option_find(name, len);
    order->vm[order->vm_count++] = argv[i];
    if (!option || !option->arg || name[len] == '=' || i + 1 == argc)
        return i + 1;
    order->vm[order->vm_count++] = argv[i + 1];
    return i + 2;
}

/* An unknown flag that looks like one of ours gets our suggestion; the run's parser tells of the others. */
static int check_known(const char *flag, struct err *err)
{
    size_t len = strcspn(flag + 2, "=");
    char name[32];
    if (config_option_find(flag + 2, len) || len >= sizeof(name))
        return 0;
    snprintf(name, sizeof(name), "%.*s", (int)len, flag + 2);
    struct suggestion near = {.typed = name};
    for (unsigned f = 0; f < ARRAY_SIZE(flags); f++)
        suggest_offer(&near, flags[f].name);
    if (!near.best)
        return 0;
    return err_set(err, -EINVAL, "unknown flag '--%s'; did you mean '--%s'?", name, near.best);
}

/* Takes the flag at argv[*i] and moves *i behind it and its value. */
static int take_flag(struct order *order, int argc, char **argv, int *i, struct err *err)
{
    const char *flag = argv[*i];
    if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
        order->help = true;
        ++*i;
        return 0;
    }
    if (strncmp(flag, "--", 2) != 0) {
        *i = pass_on(order, argc, argv, *i);
        return 0;
    }
    size_t len = strcspn(flag + 2, "=");
    unsigned f = 0;
    while (f < ARRAY_SIZE(flags) &&
           (strlen(flags[f].name) != len || strncmp(flag + 2, flags[f].name, len) != 0))
        f++;
    if (f == ARRAY_SIZE(flags)) {
        int code = check_known(flag, err);
        *i = pass_on(order, argc, argv, *i);
        return code;
    }
    const char *value = flag[2 + len] ? flag + 2 + len + 1 : argv[*i + 1];
    if (!value)
        return err_set(err, -EINVAL, "--%s needs a value", flags[f].name);
    *i += flag[2 + len] ? 1 : 2;
    int code = flags[f].set(order, value, err);
    return code < 0 ? err_prefix(err, code, "--%s", flags[f].name) : 0;
}

/* The run's own rules, so that a bad flag is one sentence rather than a failed test. */
static int check_run(const struct order *order, struct err *err)
{
    struct config config;
    config_init(&config);
    int code = config_parse_args(&config, order->vm_count, order->vm, err);
    if (code == 0)
        code = config_check(&config, err);
    config_free(&config);
    return code;
}

static int parse(struct order *order, int argc, char **argv, struct err *err)
{
    static char flag_console[] = "--console";
    static char console[] = "file:/dev/fd/3";
    order->vm = calloc((size_t)argc + 4, sizeof(*order->vm));
    if (!order->vm)
        return err_set(err, -ENOMEM, "out of memory");
    order->vm[order->vm_count++] = order->program;
    int code = 0;
    for (int i = 1; i < argc && code == 0 && !order->help;)
        code = take_flag(order, argc, argv, &i, err);
    if (code < 0 || order->help)
        return code;
    _Static_assert(BOOT_TEST_CONSOLE_FD == 3, "the console's path says so");
    order->vm[order->vm_count++] = flag_console;
    order->vm[order->vm_count++] = console;
    return check_run(order, err);
}

static int open_outputs(struct order *order, struct err *err)
{
    if (order->reports == 0)
        order->report[order->reports++].path = "text";
    for (unsigned i = 0; i < order->reports; i++) {
        int code = boot_report_open(order->report[i].path, &order->report[i], err);
        if (code < 0)
            return code;
    }
    if (!order->log_path)
        return 0;
    order->plan.log = fopen(order->log_path, "we");
    if (!order->plan.log)
        return err_set(err, -errno, "--log: %s could not be written: %s", order->log_path, strerror(errno));
    return 0;
}

/* The signals by which a user or CI ends us: the run must end too, and the report be written. */
static int catch_signals(void)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    (void)signal(SIGCHLD, SIG_DFL);
    return signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run_all(struct order *order, struct boot_run *runs, unsigned *done, struct err *err)
{
    unsigned repeat = order->repeat ? (unsigned)order->repeat : 1;
    enum boot_outcome worst = BOOT_PASS;
    for (*done = 0; *done < repeat;) {
        struct boot_run *run = &runs[*done];
        if (order->plan.log && repeat > 1)
            fprintf(order->plan.log, "--- run %u of %u ---\n", *done + 1, repeat);
        boot_run_once(&order->plan, order->vm, run);
        for (unsigned r = 0; r < order->reports; r++)
            boot_report_run(&order->report[r], run, *done);
        if (run->outcome > worst)
            worst = run->outcome;
        ++*done;
        /* What could not start will not start the next time either. */
        if (run->interrupted || run->outcome == BOOT_USAGE)
            break;
    }
    if (order->plan.log && (fflush(order->plan.log) != 0 || ferror(order->plan.log)))
        return err_set(err, -EIO, "--log: %s could not be written whole", order->log_path);
    return boot_exit_code(worst);
}

/* What was tested: the kernel's file name. */
static const char *test_name(const struct order *order)
{
    const char *name = "boot";
    for (char *const *arg = order->vm + 1; *arg; arg++) {
        if (strncmp(*arg, "--kernel=", 9) == 0)
            name = *arg + 9;
        else if (strcmp(*arg, "--kernel") == 0 && arg[1])
            name = arg[1];
    }
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

/* Returns the exit code, or -errno with a sentence. */
static int test(struct order *order, struct err *err)
{
    struct boot_run *runs = calloc(order->repeat ? order->repeat : 1, sizeof(*runs));
    if (!runs)
        return err_set(err, -ENOMEM, "out of memory for %u runs", (unsigned)order->repeat);
    order->plan.timeout_s = order->timeout ? (unsigned)order->timeout : TIMEOUT_S;
    order->plan.signal_fd = catch_signals();
    unsigned done;
    int code = run_all(order, runs, &done, err);
    for (unsigned r = 0; r < order->reports; r++) {
        int written = boot_report_end(&order->report[r], test_name(order), runs, done, err);
        code = written < 0 && code >= 0 ? written : code;
    }
    free(runs);
    return code;
}

static void forget(struct order *order)
{
    for (unsigned i = 0; i < order->plan.expects; i++)
        regfree(&order->plan.expect[i].regex);
    for (unsigned i = 0; i < order->plan.rejects; i++)
        regfree(&order->plan.reject[i].regex);
    if (order->plan.log)
        fclose(order->plan.log);
    free(order->vm);
    free(order);
}

int boot_test_main(int argc, char **argv)
{
    static char self[] = "/proc/self/exe";
    struct err err = {{0}};
    struct order *order = calloc(1, sizeof(*order));
    if (!order)
        return EXIT_CODE_FAILURE;
    order->program = self;
    int result = EXIT_CODE_USAGE;
    int code = parse(order, argc, argv, &err);
    if (code == 0 && order->help) {
        fputs(usage, stdout);
        result = EXIT_CODE_OK;
    } else if (code == 0) {
        code = open_outputs(order, &err);
        if (code == 0) {
            code = test(order, &err);
            result = code < 0 ? EXIT_CODE_FAILURE : code;
        }
    }
    if (code < 0)
        fprintf(stderr, "minivmm: error: boot-test: %s\n", err.text);
    forget(order);
    return result;
}
