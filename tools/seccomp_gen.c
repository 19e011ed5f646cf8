/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the system-call filters of vmm/seccomp_policy.h when minivmm is built.
 *
 * usage: seccomp_gen [--doc]
 *
 * Prints the C header with a BPF program a role; with --doc the tables of docs/security.md.
 */
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/filter.h>

#include "vmm/seccomp_policy.h"

static const struct {
    const char *name, *title;
} roles[SECCOMP_ROLES] = {
    [SECCOMP_MAIN] = {"main", "The main thread"},
    [SECCOMP_VCPU] = {"vcpu", "A vCPU's thread"},
    [SECCOMP_QUEUE] = {"queue", "A queue's thread: disks, random numbers, the key service"},
};

__attribute__((noreturn)) static void die(const char *what, int code)
{
    fprintf(stderr, "seccomp_gen: %s: %s\n", what, strerror(-code));
    exit(1);
}

static void must(const char *what, int code)
{
    if (code < 0)
        die(what, code);
}

static void add(scmp_filter_ctx filter, const struct seccomp_rule *rule)
{
    struct scmp_arg_cmp checks[CHECKS_MAX];
    unsigned n = 0;
    for (const struct seccomp_check *c = rule->check; n < CHECKS_MAX && c->text; c++)
        checks[n++] = SCMP_CMP(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value);
    must(rule->name, seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, rule->call, n, checks));
}

static scmp_filter_ctx make(unsigned role)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter)
        die("seccomp_init", -1);
    must("bad architectures", seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
    /* A binary tree over the calls' numbers. */
    must("optimisation", seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2));
    for (unsigned i = 0; i < SECCOMP_RULES; i++)
        if (seccomp_policy[i].roles & 1U << role)
            add(filter, &seccomp_policy[i]);
    return filter;
}

static void print_program(unsigned role)
{
    struct sock_filter code;
    scmp_filter_ctx filter = make(role);
    FILE *bpf = tmpfile();
    if (!bpf)
        die("a temporary file", -1);
    must("seccomp_export_bpf", seccomp_export_bpf(filter, fileno(bpf)));
    seccomp_release(filter);
    rewind(bpf);
    printf("static const struct sock_filter seccomp_%s[] = {\n", roles[role].name);
    while (fread(&code, sizeof(code), 1, bpf) == 1)
        printf("    {0x%02x, %3u, %3u, 0x%08x},\n", code.code, code.jt, code.jf, code.k);
    printf("};\n\n");
    fclose(bpf);
}

static void print_header(void)
{
    printf("/* Made by tools/seccomp_gen.c from vmm/seccomp_policy.h when minivmm is built. */\n"
           "#include <linux/filter.h>\n\n"
           "#define SECCOMP_OWN_PID %#xU /* to be replaced by the process's id */\n\n",
           SECCOMP_OWN_PID);
    for (unsigned role = 0; role < SECCOMP_ROLES; role++)
        print_program(role);
}

static void print_row(const struct seccomp_rule *rule)
{
    printf("| `%s` | ", rule->name);
    for (unsigned i = 0; i < CHECKS_MAX && rule->check[i].text; i++) {
        if (i)
            printf("; ");
        /* A bar would end the table's cell. */
        for (const char *c = rule->check[i].text; *c; c++)
            printf(*c == '|' ? "\\%c" : "%c", *c);
    }
    printf("%s| %s |\n", rule->check[0].text ? " " : "", rule->why);
}

static void print_doc(void)
{
    for (unsigned role = 0; role < SECCOMP_ROLES; role++) {
        printf("### %s\n\n| Call | Only where | Why |\n|---|---|---|\n", roles[role].title);
        for (unsigned i = 0; i < SECCOMP_RULES; i++)
            if (seccomp_policy[i].roles & 1U << role)
                print_row(&seccomp_policy[i]);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--doc") == 0)
        print_doc();
    else if (argc == 1)
        print_header();
    else
        return 2;
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
