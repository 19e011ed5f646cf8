/* SPDX-License-Identifier: Apache-2.0 */
/* minivmm stop, pause, resume and status: the user's end of the control socket. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/config_internal.h"
#include "vmm/control.h"
#include "vmm/control_internal.h"
#include "vmm/exit_codes.h"
#include "vmm/json.h"
#include "vmm/suggest.h"

#define ANSWER_MAX   (1U << 20)
#define STOP_SECONDS 60u
#define STOP_MAX     86400u
#define NAMES_SHOWN  8u

static const char usage[] = "usage: minivmm stop NAME [--force] [--timeout SECONDS]\n"
                            "       minivmm pause NAME\n"
                            "       minivmm resume NAME\n"
                            "       minivmm status [NAME] [--json]\n"
                            "\n"
                            "stop    presses the power button of the VM and waits until its process is gone\n"
                            "pause   holds its vCPUs\n"
                            "resume  lets them go on\n"
                            "status  tells its state and counters; without NAME, lists all VMs\n"
                            "\n"
                            "  --force            stop: end the VM at once, whatever the guest does\n"
                            "  --timeout SECONDS  stop: wait that long; 0: not at all (default: 60)\n"
                            "  --json             status: an object, or an array of them without NAME\n"
                            "  --help             print this help\n"
                            "\n"
                            "Exit codes: 0 done, 1 there is no such VM or it refused, 2 bad flags.\n";

struct wish {
    const char *command, *name;
    bool force, json, help;
    uint64_t seconds;
};

/* One VM that was asked something. */
struct reply {
    int pid_fd; /* the VM's process; -1: it can't be seen from here */
    char *text; /* all lines but the last */
    size_t len;
    FILE *stream; /* writes text */
};

static int fail(int code, const struct err *err)
{
    fprintf(stderr, "minivmm: error: %s\n", err->text);
    return code;
}

static bool takes(const struct wish *wish, const char *command)
{
    return strcmp(wish->command, command) == 0;
}

static int unknown_flag(const struct wish *wish, const char *flag, struct err *err)
{
    return err_set(err, -EINVAL, "%s: unknown flag '%s'; minivmm %s --help lists them", wish->command, flag,
                   wish->command);
}

static int parse_flag(struct wish *wish, const char *flag, const char *next, int *used, struct err *err)
{
    static const char timeout[] = "--timeout";
    size_t len = sizeof(timeout) - 1;
    *used = 1;
    if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
        wish->help = true;
        return 0;
    }
    if (takes(wish, "stop") && strcmp(flag, "--force") == 0) {
        wish->force = true;
        return 0;
    }
    if (takes(wish, "status") && strcmp(flag, "--json") == 0) {
        wish->json = true;
        return 0;
    }
    if (!takes(wish, "stop") || strncmp(flag, timeout, len) != 0 || (flag[len] && flag[len] != '='))
        return unknown_flag(wish, flag, err);
    const char *value = flag[len] ? flag + len + 1 : next;
    *used = flag[len] ? 1 : 2;
    if (!value)
        return err_set(err, -EINVAL, "stop: --timeout needs a number of seconds");
    int code = config_value_number(value, 0, STOP_MAX, &wish->seconds, err);
    return code < 0 ? err_prefix(err, code, "stop: --timeout") : 0;
}

static int parse(int argc, char **argv, struct wish *wish, struct err *err)
{
    int code = 0;
    int used;
    for (int i = 1; i < argc && code == 0; i += used) {
        used = 1;
        if (argv[i][0] == '-')
            code = parse_flag(wish, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used, err);
        else if (wish->name)
            code = err_set(err, -EINVAL, "%s: '%s' is one name too many, after '%s'", wish->command, argv[i],
                           wish->name);
        else
            wish->name = argv[i];
    }
    if (code < 0 || wish->help)
        return code;
    if (!wish->name && !takes(wish, "status"))
        return err_set(err, -EINVAL, "%s: the name of a VM is needed; minivmm status lists them",
                       wish->command);
    char file[CONTROL_FILE_MAX];
    return wish->name ? control_file_name(wish->name, file, err) : 0;
}

static void reply_free(struct reply *reply)
{
    if (reply->stream)
        fclose(reply->stream);
    if (reply->pid_fd >= 0)
        close(reply->pid_fd);
    free(reply->text);
}

int control_connect_owner(int dir_fd, const char *file, int flags)
{
    struct stat st;
    bool other = geteuid() == 0 && fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid != 0;
    if (!other)
        return control_connect(dir_fd, file, flags);
    if (seteuid(st.st_uid) < 0)
        return -errno;
    /* The directory is root's, and stays closed to that user. */
    (void)setfsuid(0);
    int fd = control_connect(dir_fd, file, flags);
    if (seteuid(0) == 0)
        return fd;
    int code = -errno;
    if (fd >= 0)
        close(fd);
    return code;
}

int control_peer_pidfd(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

int control_send(int fd, const char *text, int passed)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    size_t len = strlen(text);
    memcpy(CMSG_DATA(&control.header), &passed, sizeof(int));
    while (len) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (passed >= 0) {
            message.msg_control = &control;
            message.msg_controllen = sizeof(control);
        }
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        passed = -1;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Reads to the end of the connection. */
static int read_answer(int fd, struct reply *reply)
{
    char part[4096];
    for (;;) {
        ssize_t n = recv(fd, part, sizeof(part), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return fflush(reply->stream) == 0 ? 0 : -errno;
        fwrite(part, 1, (size_t)n, reply->stream);
        if (fflush(reply->stream) != 0 || reply->len > ANSWER_MAX)
            return -EMSGSIZE;
    }
}

/* Takes the last line off the answer: 0 for "ok", else -EPROTO or -EREMOTEIO with the VM's sentence. */
static int take_verdict(struct reply *reply, struct err *err)
{
    if (reply->len == 0 || reply->text[reply->len - 1] != '\n')
        return err_set(err, -EPROTO, "the connection ended within the answer");
    reply->text[--reply->len] = '\0';
    char *last = strrchr(reply->text, '\n');
    last = last ? last + 1 : reply->text;
    int code = 0;
    if (strncmp(last, "error: ", 7) == 0)
        code = err_set(err, -EREMOTEIO, "%s", last + 7);
    else if (strcmp(last, "ok") != 0)
        code = err_set(err, -EPROTO, "the answer does not end with ok or error");
    *last = '\0';
    reply->len = strlen(reply->text);
    return code;
}

static int talk(int fd, const char *request, int passed, struct reply *reply, struct err *err)
{
    /* Before the request: afterwards the process may be gone and its number another's. */
    reply->pid_fd = control_peer_pidfd(fd);
    int code = control_send(fd, request, passed);
    if (code == 0)
        code = read_answer(fd, reply);
    if (code == -EAGAIN)
        return err_set(err, -ETIMEDOUT, "no answer in %u s: its process may be stopped", CONTROL_PATIENCE);
    if (code < 0)
        return err_set(err, code, "the connection failed: %s", strerror(-code));
    return take_verdict(reply, err);
}

/* request: with its newline. -ENOENT, -ECONNREFUSED: nobody is there. reply_free() in any case. */
static int ask(int dir_fd, const char *file, const char *request, int passed, struct reply *reply,
               struct err *err)
{
    *reply = (struct reply){.pid_fd = -1};
    reply->stream = open_memstream(&reply->text, &reply->len);
    if (!reply->stream)
        return err_set(err, -ENOMEM, "out of memory");
    int fd = control_connect_owner(dir_fd, file, 0);
    if (fd < 0)
        return err_set(err, fd, "the connection failed: %s", strerror(-fd));
    int code = talk(fd, request, passed, reply, err);
    close(fd);
    return code;
}

/* Whether a VM listens there; what a dead one left is removed if the lock is free. */
static bool is_alive(int dir_fd, const char *file)
{
    int fd = control_connect_owner(dir_fd, file, SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    if (fd == -ECONNREFUSED && control_dir_lock(dir_fd, 0) == 0) {
        (void)control_remove_dead(dir_fd, file);
        control_dir_unlock(dir_fd);
    }
    return fd >= 0 || fd == -EAGAIN;
}

struct names {
    char (*name)[CONTROL_FILE_MAX];
    size_t count;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The living VMs, sorted. dir_fd -1: none. names->name is the caller's to free. */
static int list_names(int dir_fd, struct names *names)
{
    *names = (struct names){0};
    int again = dir_fd < 0 ? -1 : fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    if (!dir)
        return dir_fd < 0 ? 0 : -errno;
    rewinddir(dir);
    const struct dirent *entry;
    int code = 0;
    while (code == 0 && (entry = readdir(dir))) {
        char file[CONTROL_FILE_MAX];
        if (snprintf(file, sizeof(file), "%s", entry->d_name) >= (int)sizeof(file) ||
            !control_strip_suffix(file) || !is_alive(dir_fd, entry->d_name))
            continue;
        void *more = realloc(names->name, (names->count + 1) * sizeof(*names->name));
        code = more ? 0 : -ENOMEM;
        if (more) {
            names->name = more;
            memcpy(names->name[names->count++], file, sizeof(file));
        }
    }
    closedir(dir);
    if (names->count)
        qsort(names->name, names->count, sizeof(*names->name), compare_names);
    return code;
}

/* "no VM ... runs", with the nearest name or all of them. */
static int no_such_vm(int dir_fd, const char *name, struct err *err)
{
    struct names names;
    struct suggestion near = {.typed = name};
    char list[NAMES_SHOWN * (CONFIG_NAME_MAX + 2) + 1] = "";
    size_t at = 0;
    (void)list_names(dir_fd, &names);
    for (size_t i = 0; i < names.count; i++) {
        suggest_offer(&near, names.name[i]);
        if (i < NAMES_SHOWN)
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", names.name[i]);
    }
    int code = -ENOENT;
    if (near.best)
        err_set(err, code, "no VM named %s is running; did you mean %s?", name, near.best);
    else if (names.count)
        err_set(err, code, "no VM named %s is running; these are: %s%s", name, list,
                names.count > NAMES_SHOWN ? ", ..." : "");
    else
        err_set(err, code, "no VM named %s is running, nor any other of yours", name);
    free(names.name);
    return code;
}

static int wait_until_gone(const struct wish *wish, const struct reply *reply, struct err *err)
{
    if (wish->seconds == 0)
        return 0;
    if (reply->pid_fd < 0)
        return err_set(err, -ESRCH,
                       "%s was asked to stop, but its process can't be seen from here to wait for it",
                       wish->name);
    struct pollfd gone = {.fd = reply->pid_fd, .events = POLLIN};
    int n;
    do
        n = poll(&gone, 1, (int)wish->seconds * 1000);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return 0;
    return err_set(
        err, -ETIMEDOUT,
        "%s still runs after %u s: its guest may not heed the power button; minivmm stop %s --force "
        "ends it at once",
        wish->name, (unsigned)wish->seconds, wish->name);
}

/* Splits "key=value" lines; false at the end. */
static bool next_fact(char **text, const char **key, const char **value)
{
    for (;;) {
        char *line = strsep(text, "\n");
        if (!line)
            return false;
        char *equals = strchr(line, '=');
        if (!equals)
            continue;
        *equals = '\0';
        *key = line;
        *value = equals + 1;
        return true;
    }
}

/* Facts as a JSON object: numbers as such, apart from what a person chose. */
static void print_facts(struct json *json, char *text)
{
    const char *key;
    const char *value;
    json_open(json, NULL, '{');
    while (next_fact(&text, &key, &value)) {
        const char *dot = strrchr(key, '.');
        const char *last = dot ? dot + 1 : key;
        if (json_is_number(value) && strcmp(last, "name") != 0 && strcmp(last, "path") != 0)
            json_raw(json, key, value);
        else
            json_string(json, key, value);
    }
    json_close(json, '}');
}

static void print_json(struct json *json, struct reply *reply)
{
    print_facts(json, reply->text);
}

void control_print_json(FILE *out, char *text)
{
    print_facts(&(struct json){.out = out}, text);
}

static void print_row(const char *name, struct reply *reply)
{
    static const char *const wanted[] = {"state", "pid", "cpus", "memory", "uptime"};
    const char *found[5] = {"?", "?", "?", "?", "?"};
    const char *key;
    const char *value;
    char *text = reply->text;
    while (next_fact(&text, &key, &value))
        for (unsigned i = 0; i < 5; i++)
            if (strcmp(key, wanted[i]) == 0)
                found[i] = value;
    printf("%-24s %-9s %8s %4s %7lluM %10s\n", name, found[0], found[1], found[2],
           strtoull(found[3], NULL, 10) >> 20, found[4]);
}

static int list_all(int dir_fd, bool as_json, struct err *err)
{
    struct names names;
    struct json json = {.out = stdout};
    int code = list_names(dir_fd, &names);
    if (code < 0)
        return err_set(err, code, "the run directory could not be read: %s", strerror(-code));
    if (as_json)
        json_open(&json, NULL, '[');
    else if (names.count == 0)
        puts("no VM is running");
    else
        printf("%-24s %-9s %8s %4s %8s %10s\n", "NAME", "STATE", "PID", "CPUS", "MEMORY", "UPTIME");
    for (size_t i = 0; i < names.count; i++) {
        struct reply reply;
        struct err why = {{0}};
        char file[CONTROL_FILE_MAX + sizeof(CONTROL_SUFFIX)];
        snprintf(file, sizeof(file), "%s" CONTROL_SUFFIX, names.name[i]);
        int answered = ask(dir_fd, file, "status\n", -1, &reply, &why);
        if (answered == 0 && as_json)
            print_json(&json, &reply);
        else if (answered == 0)
            print_row(names.name[i], &reply);
        else /* that one ended meanwhile, or hangs: the others are told of all the same */
            fprintf(stderr, "minivmm: warning: %s: %s\n", names.name[i], why.text);
        reply_free(&reply);
    }
    if (as_json)
        json_close(&json, ']');
    free(names.name);
    return 0;
}

static int ask_one(int dir_fd, const struct wish *wish, struct err *err)
{
    char file[CONTROL_FILE_MAX];
    char request[32];
    struct reply reply;
    (void)control_file_name(wish->name, file, err);
    snprintf(request, sizeof(request), "%s%s\n", wish->command, wish->force ? " force" : "");
    int code = ask(dir_fd, file, request, -1, &reply, err);
    if (code == -ENOENT || code == -ECONNREFUSED)
        no_such_vm(dir_fd, wish->name, err);
    else if (code < 0)
        err_prefix(err, code, "%s: %s", wish->command, wish->name);
    else if (takes(wish, "stop"))
        code = wait_until_gone(wish, &reply, err);
    else if (wish->json)
        print_json(&(struct json){.out = stdout}, &reply);
    else
        fputs(reply.text, stdout);
    reply_free(&reply);
    return code;
}

int control_ask(const char *name, const char *request, int fd, char **text, struct err *err)
{
    char file[CONTROL_FILE_MAX];
    char line[CONTROL_LINE_MAX + 1];
    struct reply reply;
    *text = NULL;
    int code = control_file_name(name, file, err);
    if (code < 0)
        return code;
    snprintf(line, sizeof(line), "%s\n", request);
    int dir_fd = control_dir_open(false, err);
    if (dir_fd == -ENOENT)
        return err_set(err, dir_fd, "no VM named %s is running, nor any other of yours", name);
    if (dir_fd < 0)
        return dir_fd;
    code = ask(dir_fd, file, line, fd, &reply, err);
    if (code == -ENOENT || code == -ECONNREFUSED)
        code = no_such_vm(dir_fd, name, err);
    close(dir_fd);
    if (code == 0) {
        fclose(reply.stream); /* text keeps its place now */
        reply.stream = NULL;
        *text = reply.text;
        reply.text = NULL;
    }
    reply_free(&reply);
    return code;
}

int control_main(int argc, char **argv)
{
    struct err err = {{0}};
    struct wish wish = {.command = argv[0], .seconds = STOP_SECONDS};
    if (parse(argc, argv, &wish, &err) < 0)
        return fail(EXIT_CODE_USAGE, &err);
    if (wish.help) {
        fputs(usage, stdout);
        return EXIT_CODE_OK;
    }
    int dir_fd = control_dir_open(false, &err);
    int code = dir_fd == -ENOENT ? 0 : dir_fd;
    if (dir_fd < 0)
        dir_fd = -1;
    if (code >= 0 && !wish.name)
        code = list_all(dir_fd, wish.json, &err);
    else if (code >= 0)
        code = dir_fd < 0 ? no_such_vm(dir_fd, wish.name, &err) : ask_one(dir_fd, &wish, &err);
    if (dir_fd >= 0)
        close(dir_fd);
    return code < 0 ? fail(EXIT_CODE_FAILURE, &err) : EXIT_CODE_OK;
}
