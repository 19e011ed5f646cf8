/* SPDX-License-Identifier: Apache-2.0 */
/* Fleets' files: what they make, and that every mistake is told, at its line. */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "vmm/fleet_config.h"

static struct fleet fleet;
static struct fleet_problems problems;
static char dir[] = "/tmp/minivmm-fleet-XXXXXX", home[PATH_MAX];

static void put(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* In a folder with a kernel k and images a, b, c. */
static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/minivmm-fleet-XXXXXX");
    ck_assert_ptr_nonnull(getcwd(home, sizeof(home)));
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    put("k", "kernel");
    put("a", "image");
    put("b", "image");
    put("c", "image");
    put("key", "0123456789abcdef");
    ck_assert_int_eq(chmod("key", 0600), 0);
}

static void teardown(void)
{
    char command[128];
    fleet_free(&fleet);
    fleet_problems_free(&problems);
    ck_assert_int_eq(chdir(home), 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0); // NOLINT(cert-env33-c)
}

static int load(const char *text)
{
    fleet_free(&fleet);
    fleet_problems_free(&problems);
    if (text)
        put("f.conf", text);
    return fleet_load("f.conf", &fleet, &problems);
}

static void load_good(const char *text)
{
    int code = load(text);
    ck_assert_msg(code == 0, "%u: %s", problems.count ? problems.list[0].line : 0,
                  problems.count ? problems.list[0].text : "");
    ck_assert_uint_eq(problems.errors, 0);
}

/* One of the problems is at this place and says so. */
static void assert_told(const char *file, unsigned line, const char *says)
{
    for (unsigned i = 0; i < problems.count; i++)
        if (problems.list[i].line == line && strcmp(problems.list[i].file, file) == 0 &&
            strstr(problems.list[i].text, says))
            return;
    fleet_problems_print(&problems, stdout);
    ck_abort_msg("nothing at %s:%u says '%s'", file, line, says);
}

/* The file has this one error. */
static void assert_refused(const char *text, unsigned line, const char *says)
{
    ck_assert_int_eq(load(text), -EINVAL);
    assert_told("f.conf", line, says);
    if (problems.errors != 1)
        fleet_problems_print(&problems, stdout);
    ck_assert_uint_eq(problems.errors, 1);
}

static void assert_path(const char *got, const char *name)
{
    char want[128];
    snprintf(want, sizeof(want), "%s/%s", dir, name);
    ck_assert_ptr_nonnull(got);
    ck_assert_str_eq(got, want);
}

START_TEST(a_fleet_comes_from_defaults_templates_and_vms)
{
    load_good("\xEF\xBB\xBF[vm db]\r\n"
              "template = big\n"
              "disk = b\n"
              "cmdline = root=/dev/vda x\n"
              "   y=%n %%\n"
              "restart = never\n"
              "[fleet]\n"
              "name = shop\n"
              "ice-total = 32\n"
              "ice-map = the.map\n"
              "ice-kek = key\n"
              "[defaults]\n"
              "kernel = k\n"
              "memory = 64M\n"
              "log = %n.log\n"
              "; a comment\n"
              "[template big]\n"
              "memory = 256M\n"
              "disk = a\n"
              "stop-timeout = 7\n"
              "[vm bare]\n");
    ck_assert_str_eq(fleet.name, "shop");
    assert_path(fleet.path, "f.conf");
    assert_path(fleet.map, "the.map");
    assert_path(fleet.kek, "key");
    ck_assert_uint_eq(fleet.total, 32);
    ck_assert_uint_eq(fleet.vms, 2);
    const struct fleet_vm *db = fleet_find(&fleet, "db"), *bare = fleet_find(&fleet, "bare");
    ck_assert(db && bare && !fleet_find(&fleet, "other"));
    ck_assert_uint_eq(db->config.memory, 256U << 20);
    ck_assert_str_eq(db->config.cmdline, "root=/dev/vda x y=db %");
    ck_assert_uint_eq(db->config.disks, 2);
    assert_path(db->config.disk[0].path, "a");
    assert_path(db->config.disk[1].path, "b");
    assert_path(db->log, "db.log");
    assert_path(db->config.ice.map, "the.map");
    ck_assert_ptr_null(db->config.ice.kek);
    ck_assert_uint_eq(db->config.ice.total, 32);
    ck_assert(db->restart == FLEET_RESTART_NEVER && db->stop_timeout_s == 7);
    ck_assert_uint_eq(db->line, 1);
    ck_assert_uint_eq(bare->config.memory, 64U << 20);
    ck_assert_uint_eq(bare->config.disks, 0);
    ck_assert_uint_eq(bare->line, 21);
    assert_path(bare->config.kernel, "k");
    ck_assert(bare->restart == FLEET_RESTART_ON_FAILURE && bare->restart_delay_ms == 1000);
    ck_assert(bare->autostart && bare->stop_timeout_s == 30 && bare->order == 0 && bare->delay_ms == 0);
}
END_TEST

START_TEST(a_fleets_own_settings)
{
    load_good("[vm a]\nkernel = k\nrestart = always\nrestart-delay = 0.25\norder = -3\ndelay = 2\n"
              "autostart = off\nconsole = pty\n");
    const struct fleet_vm *a = fleet.vm;
    ck_assert_str_eq(fleet.name, "f");
    ck_assert(a->restart == FLEET_RESTART_ALWAYS && a->restart_delay_ms == 250 && a->order == -3);
    ck_assert(a->delay_ms == 2000 && !a->autostart && a->config.console == CONSOLE_PTY && !a->log);
}
END_TEST

START_TEST(count_makes_copies)
{
    put("a.0", "x");
    put("a.1", "x");
    load_good("[defaults]\nkernel = k\n[template t]\ncount = 2\ndisk = a.%i\nice-slots = 3@4\n"
              "[vm web%i]\ntemplate = t\n[vm x]\ncount = 3\ncmdline = i=%i n=%n\nice-slots = 2\n");
    static const char *const names[] = {"web0", "web1", "x-0", "x-1", "x-2"};
    static const int first[] = {4, 7, 0, 2, 10};
    ck_assert_uint_eq(fleet.vms, ARRAY_SIZE(names));
    for (unsigned i = 0; i < fleet.vms; i++) {
        ck_assert_str_eq(fleet.vm[i].config.name, names[i]);
        ck_assert_int_eq(fleet.vm[i].config.ice.offset, first[i]);
        ck_assert_int_eq(fleet.vm[i].slots_fixed, i < 2);
    }
    assert_path(fleet.vm[1].config.disk[0].path, "a.1");
    ck_assert_str_eq(fleet.vm[4].config.cmdline, "i=2 n=x-2");
}
END_TEST

START_TEST(includes_are_read_in_order_of_names)
{
    ck_assert_int_eq(mkdir("f.conf.d", 0700) | mkdir("more", 0700) | mkdir("more/img", 0700), 0);
    put("f.conf.d/z.conf", "[vm z]\n");
    put("f.conf.d/no.text", "nonsense");
    put("more/2.conf", "[vm m2]\ndisk = img/d\n");
    put("more/1.conf", "[vm m1]\n[fleet]\ninclude = ../one.conf\n");
    put("more/img/d", "x");
    put("one.conf", "[vm one]\ntemplate = t\n");
    load_good("[fleet]\ninclude = more\n[defaults]\nkernel = k\n[vm own]\n[template t]\nmemory = 32M\n");
    static const char *const names[] = {"own", "m1", "one", "m2", "z"};
    ck_assert_uint_eq(fleet.vms, ARRAY_SIZE(names));
    for (unsigned i = 0; i < fleet.vms; i++)
        ck_assert_str_eq(fleet.vm[i].config.name, names[i]);
    ck_assert_uint_eq(fleet.file_count, 5);
    ck_assert_str_eq(fleet.vm[2].file, "more/../one.conf");
    assert_path(fleet.vm[3].config.disk[0].path, "more/img/d");
    ck_assert_uint_eq(fleet.vm[2].config.memory, 32U << 20);
}
END_TEST

START_TEST(includes_in_circles_end)
{
    ck_assert_int_eq(mkdir("d", 0700), 0);
    put("one.conf", "[fleet]\ninclude = two.conf\n");
    put("two.conf", "\n[fleet]\ninclude = one.conf\n");
    static const char text[] = "[fleet]\ninclude = one.conf\n[vm a]\nkernel = k\n";
    ck_assert_int_eq(load(text), -EINVAL);
    assert_told("two.conf", 3, "was read already, for the include at f.conf:2");
    ck_assert_int_eq(symlink("../f.conf", "d/link.conf"), 0);
    assert_refused("[fleet]\ninclude = d\n[vm a]\nkernel = k\n", 2, "was read already, with f.conf");
    ck_assert_int_eq(unlink("d/link.conf"), 0);
    put("d/x.conf", "[fleet]\ninclude = ../d\n");
    ck_assert_int_eq(load(NULL), -EINVAL);
    assert_told("d/x.conf", 2, "was read already, for the include at f.conf:2");
}
END_TEST

START_TEST(includes_go_so_deep)
{
    for (unsigned i = 0; i < 10; i++) {
        char name[16], text[64];
        snprintf(name, sizeof(name), "%u.conf", i);
        snprintf(text, sizeof(text), "[fleet]\ninclude = %u.conf\n", i + 1);
        put(name, i == 9 ? "[vm last]\n" : text);
    }
    ck_assert_int_eq(load("[fleet]\ninclude = 0.conf\n[vm a]\nkernel = k\n"), -EINVAL);
    assert_told("7.conf", 2, "8 levels");
    load_good("[fleet]\ninclude = 2.conf\n[defaults]\nkernel = k\n");
    ck_assert_uint_eq(fleet.vms, 1);
}
END_TEST

#define K "[defaults]\nkernel = k\n"

static const struct {
    const char *text;
    unsigned line;
    const char *says;
} refused[] = {
    {"kernel = k\n[vm a]\nkernel = k\n", 1, "before the first section"},
    {K "[vm a]\nmemroy = 1\n", 4, "unknown key 'memroy'; did you mean 'memory'?"},
    {K "[vm a]\nrestrat = never\n", 4, "did you mean 'restart'?"},
    {K "[vm a]\nrestart = alway\n", 4,
     "restart: 'alway' is not one of never, on-failure, always; did you mean"},
    {K "[vm a]\n[templat b]\n", 4, "unknown section [templat b]"},
    {K "[vm a]\n[templat b]\n", 4, "did you mean 'template'?"},
    {K "[vm a]\n[disk b]\nx = y\n", 4, "no [disk] sections"},
    {K "[vm a]\n[vm ]\n", 4, "a name is missing"},
    {K "[vm a]\n[vm b/c]\n", 4, "'b/c' is not a name"},
    {K "[vm a]\n[vm .b]\n", 4, "'.b' is not a name"},
    {K "[vm a]\n[template b/c]\n", 4, "'b/c' is not a name"},
    {K "[vm a]\n[vm a]\n", 4, "there is a VM 'a' already, at f.conf:3"},
    {K "[vm a-1]\n[vm a]\ncount = 2\n", 4, "there is a VM 'a-1' already, at f.conf:3"},
    {K "[vm a]\n[template t]\n\n[template t]\n", 6, "there is a [template t] already, at f.conf:4"},
    {K "[vm a]\n[defaults]\n", 4, "there is a [defaults] already, at f.conf:1"},
    {K "[fleet]\n[vm a]\n[fleet]\n", 5, "there is a [fleet] already, at f.conf:3"},
    {K "[vm a]\n[vm b\n", 4, "']' is missing"},
    {K "[vm a] b\n[vm c]\n", 3, "behind a section's ']'"},
    {K "[vm a]\nmemory\n", 4, "expected key = value"},
    {K "[vm a]\n= 3\n", 4, "expected key = value"},
    {K "[vm a]\ncpus = 2\n  3\n", 5, "an indented line goes on"},
    {K "[vm a]\ncpus = 2\ncpus = 3\n", 5, "cpus is given twice"},
    {K "[vm a]\norder = 2\norder = 3\n", 5, "order is given twice"},
    {K "[vm a]\ncpus = 99\n", 4, "cpus: '99' is not a whole number from 1 to 32"},
    {K "[vm a]\nready-fd = 3\n", 4, "ready-fd is for the command line"},
    {K "[vm a]\nconfig = x\n", 4, "config is for the command line"},
    {K "[vm a]\nhelp = on\n", 4, "help is for the command line"},
    {K "[vm a]\nice-vm-key = 4\n", 4, "ice-vm-key is for the command line"},
    {K "[vm a]\nname = x\n", 4, "name belongs into [fleet]"},
    {K "[vm a]\nice-total = 3\n", 4, "ice-total belongs into [fleet]"},
    {K "count = 3\n[vm a]\n", 3, "count belongs into [template NAME] or [vm NAME]"},
    {K "[template t]\ntemplate = u\n[vm a]\n", 4, "template belongs into [vm NAME]"},
    {K "[vm a]\n[fleet]\nmemory = 3\n", 5, "memory is a setting of VMs"},
    {K "[vm a]\n[fleet]\nrestart = never\n", 5, "restart belongs into [defaults], [template NAME] or [vm"},
    {K "[vm a]\n[fleet]\nice-total = 257\n", 5, "ice-total: '257' is not a whole number from 1 to 256"},
    {K "[vm a]\n[fleet]\nname = a/b\n", 5, "name: 'a/b' is not a name"},
    {K "[vm a]\n[fleet]\ninclude = nowhere\n", 5, "nowhere: No such file"},
    {K "[vm a]\n[fleet]\nincude = x\n", 5, "unknown key 'incude'; did you mean 'include'?"},
    {K "[vm a]\n[fleet]\nice-kek = nokey\n", 5, "nokey could not be opened"},
    {K "[vm a]\n[fleet]\nice-kek = a\n", 5, "chmod 600"},
    {K "[vm a]\ntemplate = wbe\n[template web]\n", 4, "no [template wbe]; did you mean 'web'?"},
    {K "[vm a]\ntemplate = [defaults]\n", 4, "there is no [template [defaults]]"},
    {K "[vm a]\ncount = 10000\n", 4, "count: '10000' is not a whole number from 1 to 4096"},
    {K "[vm a]\ncount = 4000\n[vm b]\ncount = 97\n", 5, "more than 4096 VMs"},
    {K "[vm a%i]\n", 3, "%i counts copies"},
    {K "[vm a%n]\n", 3, "'%n' means nothing"},
    {K "[vm a]\ncmdline = 5%\n", 4, "'%' means nothing"},
    {K "[vm a]\ncmdline = %i\n", 4, "%i counts copies"},
    {K "[vm a]\nrestart-delay = 0\n", 4, "restart-delay: '0' is not a number of seconds from 0.01 to 3600"},
    {K "[vm a]\ndelay = 1.\n", 4, "delay: '1.'"},
    {K "[vm a]\ndelay = 3601\n", 4, "delay: '3601'"},
    {K "[vm a]\ndelay = 1.2345\n", 4, "delay: '1.2345'"},
    {K "[vm a]\ndelay = -1\n", 4, "delay: '-1'"},
    {K "[vm a]\norder = 1001\n", 4, "order: '1001' is not a whole number from -1000"},
    {K "[vm a]\nstop-timeout = x\n", 4, "stop-timeout: 'x'"},
    {K "[vm a]\nautostart = maybe\n", 4, "autostart: 'maybe'"},
    {"[vm a]\n", 1, "VM 'a' has no kernel"},
    {"[vm a]\nkernel = nix\n", 2, "/nix: No such file"},
    {"[vm a]\nkernel = /dev/fd/0\n", 2, "a descriptor of this command"},
    {"[vm a]\nkernel = .\n", 2, "is a directory"},
    {K "[vm a]\ninitrd = nix\n", 4, "initrd: "},
    {K "[vm a]\ndisk = nix\n", 4, "/nix: No such file"},
    {K "[vm a]\ndisk = a,nix=3\n", 4, "unknown key 'nix'"},
    {K "[vm a]\ndisk = a\ndisk = ./a\n", 3, "are one file"},
    {K "[vm a]\nverbose = on\nquiet = on\n", 3, "VM 'a': --verbose and --quiet exclude"},
    {K "[vm a]\nverbose = on\nquiet = on\ncount = 9\n", 3, "VM 'a-0': --verbose and --quiet exclude"},
    {K "[vm a]\ndisk = a\n[vm b]\ndisk = a\n", 6, "VM 'b' writes "},
    {K "[vm a]\ndisk = a\n[vm b]\ndisk = a,ro\n", 6, "which VM 'a' writes too (f.conf:4)"},
    {K "[vm a]\ndisk = a,ro\n[vm b]\ndisk = a\n", 6, "which VM 'a' reads too (f.conf:4)"},
    {K "[vm a]\ndisk = a,encrypt=nokey\n", 4, "nokey could not be opened"},
    {K "[vm a]\ndisk = a,encrypt=b\n", 4, "chmod 600"},
    {K "[vm a]\ndisk = a,encrypt=/dev/fd/0\n", 4, "a descriptor of this command"},
    {K "[vm a]\ndisk = a,encrypt=luks,key=nokey\n", 4, "nokey could not be opened"},
    {K "[vm a]\ndisk = a\nice-key = slot=1,disk=disk0,alg=aes-xts,unit=512,file=nokey\n", 5,
     "nokey could not"},
    {K "[vm a]\ndisk = a\nice-key = slot=1,disk=disk0,alg=aes-xts,unit=512,fd=3\n", 5,
     "fd= is for the command"},
    {K "[vm a]\nice-slots = 2@1,fd=3\n", 4, "fd= is for the command line"},
    {K "log = l\n[vm a]\n[vm b]\n", 3, "is that of VM 'a' too"},
    {K "[vm a]\nice-slots = 4@2\n[vm b]\nice-slots = 4@5\n", 6,
     "the window of VM 'b' (slots 5 to 8) overlaps the window of VM 'a' at slot 5 (f.conf:4)"},
    {K
     "[vm a]\nice-slots = 4@2\n[vm b]\ndisk = a\nice-key = slot=3,disk=disk0,alg=aes-xts,unit=512,file=key\n",
     5, "a key of VM 'b' (slots 3 to 3) overlaps the window of VM 'a'"},
    {K "[vm a]\nice-slots = 2@63\n", 3, "end past the host's last, 63"},
    {K "[vm a]\nice-slots = 2@60\ncount = 3\n", 3, "VM 'a-2': --ice-slots: 2 from 64"},
    {K "[vm a]\nice-slots = 65\n", 3, "65 are more than the host's 64"},
    {K "[vm a]\nice-slots = 8\ncount = 9\n", 0,
     "need 72 keyslots (72 in windows, 0 for keys, 0 for encrypt= "
     "disks), which is more than the host's 64"},
    {K "[vm a]\nice-slots = 64\n[vm b]\ndisk = a,encrypt=key\n", 0, "need 65 keyslots"},
    {K "[vm a]\nice-slots = 1@31\n[vm b]\nice-slots = 33\n", 6, "no 33 free keyslots in a row"},
    {K, 0, "no VM"},
    {"", 0, "is empty"},
};

START_TEST(mistakes_are_told_at_their_line)
{
    if (strstr(refused[_i].says, "65 are more")) { /* told twice: of the VM, and of the sum */
        ck_assert_int_eq(load(refused[_i].text), -EINVAL);
        assert_told("f.conf", refused[_i].line, refused[_i].says);
        return;
    }
    assert_refused(refused[_i].text, refused[_i].line, refused[_i].says);
}
END_TEST

START_TEST(all_mistakes_are_told_at_once_in_order)
{
    ck_assert_int_eq(load("[vm a]\ncpus = 0\nnonsense\ndisk = nix\n[vn b]\n[vm a]\nmemory = x\n"
                          "[template unused]\ncpus = 77\n[vm c]\nno-sandbox = on\nlog = l\nconsole = none\n"),
                     -EINVAL);
    static const unsigned lines[] = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13};
    ck_assert_uint_eq(problems.count, ARRAY_SIZE(lines));
    for (unsigned i = 0; i < problems.count; i++) {
        ck_assert_uint_eq(problems.list[i].line, lines[i]);
        ck_assert_int_eq(problems.list[i].warning, lines[i] >= 11);
    }
    ck_assert_uint_eq(problems.errors, 9);
}
END_TEST

START_TEST(warnings_are_no_errors)
{
    load_good("[vm a]\nkernel = k\nno-sandbox = on\n");
    assert_told("f.conf", 3, "outside the cell");
}
END_TEST

START_TEST(images_may_be_read_by_all)
{
    load_good(K "disk = a,ro\n[vm a]\n[vm b]\ndisk = b\n[vm c]\ncount = 2\n");
    ck_assert_int_eq(link("a", "hard"), 0);
    assert_refused(K "[vm a]\ndisk = a\n[vm b]\ndisk = hard\n", 6, "writes");
}
END_TEST

START_TEST(what_included_files_may_say)
{
    put("one.conf", "[fleet]\nname = x\n[vm b]\n[vm a]\n");
    ck_assert_int_eq(load("[fleet]\ninclude = one.conf\n" K "[vm a]\n"), -EINVAL);
    assert_told("one.conf", 2, "name belongs into the fleet's own file, f.conf");
    assert_told("one.conf", 4, "there is a VM 'a' already, at f.conf:5");
    ck_assert_uint_eq(problems.errors, 2);
    /* The kernel is looked for last of all; the fleet's own file still comes first. */
    ck_assert_int_eq(load("[fleet]\ninclude = one.conf\n[defaults]\nkernel = nix\n[vm a]\n"), -EINVAL);
    ck_assert_uint_eq(problems.errors, 3);
    ck_assert_str_eq(problems.list[0].file, "f.conf");
    ck_assert_str_eq(problems.list[2].file, "one.conf");
}
END_TEST

START_TEST(many_problems_are_cut)
{
    char text[4096] = K "[vm a]\n", *out = NULL;
    size_t len = 0;
    for (unsigned i = 0; i < 300; i++)
        strcat(text, "x\n");
    ck_assert_int_eq(load(text), -EINVAL);
    ck_assert_uint_eq(problems.count, 200);
    ck_assert_uint_eq(problems.errors, 300);
    FILE *file = open_memstream(&out, &len);
    fleet_problems_print(&problems, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(strncmp(out, "f.conf:4: error: expected key", 29), 0);
    ck_assert_ptr_nonnull(strstr(out, "\nand 100 more errors\n"));
    free(out);
}
END_TEST

START_TEST(files_that_are_none)
{
    ck_assert_int_eq(fleet_load("nowhere.conf", &fleet, &problems), -EINVAL);
    assert_told("nowhere.conf", 0, "cannot be opened: No such file");
    ck_assert_int_eq(mkfifo("f.conf", 0600), 0);
    ck_assert_int_eq(load(NULL), -EINVAL);
    assert_told("f.conf", 0, "is empty");
    ck_assert_int_eq(unlink("f.conf"), 0);
    ck_assert_int_eq(mkdir("f.conf", 0700), 0);
    ck_assert_int_eq(load(NULL), -EINVAL);
    assert_told("f.conf", 0, "cannot be read");
    ck_assert_int_eq(rmdir("f.conf"), 0);
    put("f.conf", "");
    ck_assert_int_eq(truncate("f.conf", 100 << 20), 0);
    ck_assert_int_eq(load(NULL), -EINVAL);
    assert_told("f.conf", 0, "larger than 1 MiB");
    ck_assert_int_eq(load("[vm a]\nkernel = \x01\x02\n"), -EINVAL);
    assert_told("f.conf", 2, "not a text file");
    put("f.conf", "[vm a]\nkernel = k\n");
    ck_assert_int_eq(mkdir("f.conf.d", 0700), 0);
    ck_assert_int_eq(mkfifo("f.conf.d/p.conf", 0600), 0);
    ck_assert_int_eq(load(NULL), -EINVAL);
    assert_told("f.conf.d/p.conf", 0, "is empty");
}
END_TEST

START_TEST(values_stay_small)
{
    static char text[1 << 20];
    size_t at = (size_t)sprintf(text, K "cmdline = a\n");
    while (at < 900000)
        at += (size_t)sprintf(text + at, "  %01000d\n", 1);
    sprintf(text + at, "[vm a]\ncount = 4096\n");
    ck_assert_int_eq(load(text), -EINVAL);
    assert_told("f.conf", 8, "longer than 4095 bytes");
    at = (size_t)sprintf(text, K);
    for (unsigned i = 0; i < 14; i++)
        at += (size_t)sprintf(text + at, "disk = %03900d\n", 1);
    sprintf(text + at, "[vm a]\ncount = 4096\n");
    ck_assert_int_eq(load(text), -EINVAL);
    assert_told("f.conf", 17, "64 MiB");
    ck_assert_uint_lt(fleet.vms, 2000);
}
END_TEST

/* Every change, one letter a kind. */
static void note_change(void *ctx, enum fleet_change change, const char *vm)
{
    char *text = ctx;
    sprintf(text + strlen(text), "%c%s ", "=+-*"[change], vm);
}

static void assert_changes(const char *before, const char *after, const char *want)
{
    struct fleet old;
    char got[256] = "";
    load_good(before);
    old = fleet;
    fleet = (struct fleet){0};
    load_good(after);
    fleet_keep_windows(&old, &fleet);
    fleet_changes(&old, &fleet, note_change, got);
    ck_assert_str_eq(got, want);
    fleet_free(&old);
}

START_TEST(a_reload_changes_what_changed)
{
    char got[64] = "";
    load_good(K "[vm a]\n[vm b]\n");
    fleet_changes(NULL, &fleet, note_change, got);
    ck_assert_str_eq(got, "+a +b ");
    assert_changes(K "[vm a]\n[vm b]\n[vm c]\n", K "\n[vm d]\n[vm c]\ncpus = 2\n[vm b]\n", "-a *c +d =b ");
    assert_changes(K "[vm a]\n[vm b]\nlog = l\n", K "[vm a]\nrestart = never\n[vm b]\nlog = m\n", "*a *b ");
    assert_changes(K "[vm a]\ndelay = 1\n[vm b]\n", K "[vm a]\ndelay = 1.0\n[vm b]\norder = 1\n", "*b =a ");
    assert_changes(K "[vm a]\nice-slots = 1\n[vm b]\n",
                   K "[vm a]\nice-slots = 1\n[vm b]\n[fleet]\nice-kek = key\n", "*a =b ");
}
END_TEST

START_TEST(windows_stay_over_a_reload)
{
    static const char before[] = K "[vm a]\nice-slots = 4\n[vm b]\nice-slots = 4\n";
    assert_changes(before, K "[vm new]\nice-slots = 8\n[vm b]\nice-slots = 4\n[vm a]\nice-slots = 4\n",
                   "+new =b =a ");
    ck_assert_int_eq(fleet_find(&fleet, "new")->config.ice.offset, 8);
    ck_assert_int_eq(fleet_find(&fleet, "b")->config.ice.offset, 4);
    assert_changes(before, K "[vm b]\nice-slots = 4\n[vm c]\nice-slots = 2@5\n", "-a *b +c ");
    ck_assert_int_eq(fleet_find(&fleet, "b")->config.ice.offset, 0);
    /* Where b keeps its place there is no room for c: the file's own plan. */
    assert_changes(before, K "[vm b]\nice-slots = 4\n[vm c]\nice-slots = 60\n", "-a *b +c ");
    ck_assert_int_eq(fleet_find(&fleet, "b")->config.ice.offset, 0);
    ck_assert_int_eq(fleet_find(&fleet, "c")->config.ice.offset, 4);
}
END_TEST

START_TEST(slots_are_drawn)
{
    char *out = NULL;
    size_t len = 0;
    load_good("[fleet]\nice-total = 70\n" K "[vm a]\nice-slots = 3\n[vm b]\nice-slots = 2@63\ndisk = a\n"
              "ice-key = slot=5,disk=disk0,alg=aes-xts,unit=512,file=key\n[vm c]\ndisk = b,encrypt=key\n");
    FILE *file = open_memstream(&out, &len);
    fleet_print_slots(&fleet, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_ptr_nonnull(strstr(out, "keyslots: 7 of 70"));
    ck_assert_ptr_nonnull(strstr(out, "\n    0  AAA..#....."));
    ck_assert_ptr_nonnull(strstr(out, "....B\n   64  B.....\n"));
    ck_assert_ptr_nonnull(strstr(out, "    A  0-2       a\n    B  63-64   * b\n"));
    ck_assert_ptr_nonnull(strstr(out, "encrypt= disks, on free ones at their start: 1\n"));
    for (const char *line = out; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        ck_assert_uint_le(strcspn(line, "\n"), 80);
    free(out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fleet files");
    TCase *tc = tcase_create("fleet");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_fleet_comes_from_defaults_templates_and_vms);
    tcase_add_test(tc, a_fleets_own_settings);
    tcase_add_test(tc, count_makes_copies);
    tcase_add_test(tc, includes_are_read_in_order_of_names);
    tcase_add_test(tc, includes_in_circles_end);
    tcase_add_test(tc, includes_go_so_deep);
    tcase_add_loop_test(tc, mistakes_are_told_at_their_line, 0, ARRAY_SIZE(refused));
    tcase_add_test(tc, all_mistakes_are_told_at_once_in_order);
    tcase_add_test(tc, warnings_are_no_errors);
    tcase_add_test(tc, images_may_be_read_by_all);
    tcase_add_test(tc, what_included_files_may_say);
    tcase_add_test(tc, many_problems_are_cut);
    tcase_add_test(tc, files_that_are_none);
    tcase_add_test(tc, values_stay_small);
    tcase_add_test(tc, a_reload_changes_what_changed);
    tcase_add_test(tc, windows_stay_over_a_reload);
    tcase_add_test(tc, slots_are_drawn);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
