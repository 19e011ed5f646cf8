/* SPDX-License-Identifier: Apache-2.0 */
/* --help and --version, from the table of options. */
#include <stdio.h>
#include <string.h>

#include "vmm/config_internal.h"
#include "vmm/options.h"

#define WIDTH  80
#define COLUMN 22

static const char *const group_title[GROUP_COUNT] = {
    [GROUP_BOOT] = "What to boot:",           [GROUP_MACHINE] = "The machine:",
    [GROUP_ICE] = "Inline crypto engine:",    [GROUP_RUN] = "The run:",
    [GROUP_CELL] = "The cell around the VM:", [GROUP_OTHER] = "Other:",
};

/* Writes text in lines of WIDTH, words whole, each but the first indented by COLUMN; at: the column now. */
static void print_wrapped(FILE *out, const char *text, int *at)
{
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (*at > COLUMN && *at + 1 + word > WIDTH) {
            fprintf(out, "\n%*s", COLUMN, "");
            *at = COLUMN;
        } else if (*at > COLUMN) {
            fputc(' ', out);
            ++*at;
        }
        fprintf(out, "%.*s", word, text);
        *at += word;
        text += word;
        text += strspn(text, " ");
    }
}

/* One row: the name in the left column, the help in the right one. */
static void print_row(FILE *out, const char *label, const char *help, const char *standard)
{
    int at = fprintf(out, "  %s", label);
    if (at + 2 > COLUMN) {
        fputc('\n', out);
        at = 0;
    }
    fprintf(out, "%*s", COLUMN - at, "");
    at = COLUMN;
    print_wrapped(out, help, &at);
    if (standard) {
        char text[64];
        snprintf(text, sizeof(text), "(default: %s)", standard);
        print_wrapped(out, text, &at);
    }
    fputc('\n', out);
}

static void print_options(FILE *out, enum option_group group)
{
    fprintf(out, "\n%s\n", group_title[group]);
    for (unsigned i = 0; i < config_options_count; i++) {
        const struct option_def *o = &config_options[i];
        if (o->group != group)
            continue;
        char label[64];
        snprintf(label, sizeof(label), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        print_row(out, label, o->help, o->flags & OPTION_SWITCH ? NULL : o->standard);
    }
}

static void print_disk_keys(FILE *out)
{
    fputs("\nKeys of --disk:\n", out);
    for (unsigned i = 0; i < config_disk_keys_count; i++) {
        const struct disk_key_def *k = &config_disk_keys[i];
        if (strcmp(k->name, "path") == 0)
            continue;
        char label[64];
        snprintf(label, sizeof(label), "%s=%s", k->name, k->arg);
        print_row(out, label, k->help, k->standard);
    }
}

void options_print_help(FILE *out)
{
    fputs("usage: minivmm --kernel FILE [FLAG...]\n"
          "       minivmm COMMAND [ARGUMENT...]\n"
          "\n"
          "Runs a Linux guest on KVM with virtio-mmio disks. Flags are written --flag VALUE\n"
          "or --flag=VALUE; those without a value take =on or =off too.\n",
          out);
    for (enum option_group g = GROUP_BOOT; g < GROUP_COUNT; g++) {
        print_options(out, g);
        if (g == GROUP_BOOT)
            print_disk_keys(out);
    }
    fputs("\n"
          "Commands:\n"
          "  doctor              what this host can and can't do, and how to mend it\n"
          "  boot-test           boot a guest and check its console, for CI\n"
          "  stop NAME           press the power button of a running VM\n"
          "  pause NAME          hold its vCPUs\n"
          "  resume NAME         let them go on\n"
          "  status NAME         tell its state and counters\n"
          "  stats NAME          tell what its keyslots and encrypted disks did\n"
          "  key set|evict|list  change the keys of a running VM's encrypted disks\n"
          "  slots               who holds which of the host's keyslots\n"
          "  fleet up FILE       run the VMs of a file and watch over them\n"
          "  fleet check FILE    all that is wrong with such a file; fleet plan shows it\n"
          "  fleet COMMAND       ps, start, stop, restart, reload, down, logs, console,\n"
          "                      top: of a fleet that runs\n"
          "\n"
          "Exit codes:\n"
          "  0  the guest powered off        5    the guest crashed\n"
          "  1  minivmm or the host failed   6    stopped from outside\n"
          "  2  bad flags or input           32+  the guest wrote to the debug exit port\n"
          "  3  the guest panicked           124  --timeout passed\n"
          "  4  the guest asked for a reset\n"
          "\n"
          "Examples:\n"
          "  minivmm --kernel vmlinuz --initrd initrd.img --disk root.img \\\n"
          "      --cmdline 'console=ttyS0 root=/dev/vda' --memory 256M --cpus 2\n"
          "  minivmm --config vm.conf --disk data.img,ro,id=data --console file:vm.log\n",
          out);
}

void options_print_version(FILE *out)
{
    fputs("minivmm " MINIVMM_VERSION "\n", out);
}
