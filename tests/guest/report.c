/* SPDX-License-Identifier: Apache-2.0 */
/* TAP lines on COM1, the command line, and the few library functions that the compiler may call. */
#include "guest.h"

#define CMDLINE_MAX 1024u

static char cmdline[CMDLINE_MAX];
static struct {
    const char *name, *skipped;
    unsigned number, failures;
    bool failed;
} now;

void *memset(void *to, int c, size_t n)
{
    uint8_t *p = to;

    while (n--)
        *p++ = (uint8_t)c;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    uint8_t *p = to;
    const uint8_t *q = from;

    while (n--)
        *p++ = *q++;
    return to;
}

void print(const char *s)
{
    for (; *s; s++)
        outb(COM1, (uint8_t)*s);
}

static void print_base(uint64_t n, unsigned base)
{
    char digits[24];
    unsigned i = sizeof(digits);

    digits[--i] = 0;
    do {
        digits[--i] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    print(digits + i);
}

void print_number(uint64_t n)
{
    print_base(n, 10);
}

void print_hex(uint64_t n)
{
    print("0x");
    print_base(n, 16);
}

void report_init(const char *text)
{
    for (unsigned i = 0; text && text[i] && i < CMDLINE_MAX - 1; i++)
        cmdline[i] = text[i];
}

static bool begins(const char *s, const char *with)
{
    while (*with)
        if (*s++ != *with++)
            return false;
    return true;
}

const char *cmdline_value(const char *name)
{
    for (const char *s = cmdline; *s; s++) {
        const char *value = s;

        if (s != cmdline && s[-1] != ' ')
            continue;
        if (!begins(s, name))
            continue;
        while (*value != '=' && *value && *value != ' ')
            value++;
        if (*value == '=')
            return value + 1;
    }
    return NULL;
}

uint64_t cmdline_number(const char *name, uint64_t otherwise)
{
    const char *value = cmdline_value(name);
    uint64_t n = 0;

    if (!value || *value < '0' || *value > '9')
        return otherwise;
    for (; *value >= '0' && *value <= '9'; value++)
        n = n * 10 + (uint64_t)(*value - '0');
    return n;
}

bool text_equal(const char *a, const char *b)
{
    for (; *a && *a != ' ' && *a == *b; a++, b++)
        ;
    return (!*a || *a == ' ') && !*b;
}

bool test_begin(const char *name)
{
    const char *only = cmdline_value("test");

    if (only && !text_equal(only, name))
        return false;
    now.name = name;
    now.skipped = NULL;
    now.failed = false;
    now.number++;
    return true;
}

void test_end(void)
{
    print(now.failed ? "not ok " : "ok ");
    print_number(now.number);
    print(" - guest: ");
    print(now.name);
    if (now.skipped) {
        print(" # SKIP ");
        print(now.skipped);
    }
    print("\n");
    now.failures += now.failed;
}

void fail(const char *file, int line, const char *what)
{
    now.failed = true;
    print("# ");
    print(file);
    print(":");
    print_number((uint64_t)line);
    print(": not so: ");
    print(what);
    print("\n");
}

void skip(const char *why)
{
    now.skipped = why;
}

void finish(void)
{
    print("1..");
    print_number(now.number);
    print("\n");
    /* A run of no test at all must not pass for one. */
    outb(DEBUG_EXIT, now.number == 0 ? 30 : now.failures < 29 ? (uint8_t)now.failures : 29);
    for (;;)
        __asm__ volatile("cli; hlt");
}
