/* SPDX-License-Identifier: Apache-2.0 */
/* What vm_create() refuses, and the sentence and the kind of failure that it gives for it. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tiny_kernel.h"
#include "vmm/vm.h"

static struct config config;
static struct vm *vm;

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
}

static void teardown(void)
{
    if (config.kernel)
        unlink(config.kernel);
    config_free(&config);
}

static void make_kernel(void)
{
    static const uint8_t halt[] = {0xF4, 0xEB, 0xFD};
    config.kernel = tiny_kernel_make(halt, sizeof(halt));
}

static void check_refused(bool usage_expected, const char *says, const char *names)
{
    struct err err = {{0}};
    bool usage = !usage_expected;
    ck_assert_int_lt(vm_create(&config, &vm, &usage, &err), 0);
    ck_assert_ptr_null(vm);
    ck_assert_msg(strstr(err.text, says) != NULL, "\"%s\" is not in: %s", says, err.text);
    ck_assert_msg(strstr(err.text, names) != NULL, "\"%s\" is not in: %s", names, err.text);
    ck_assert_msg(usage == usage_expected, "usage is %d: %s", usage, err.text);
}

static void add_disk(const char *path, bool readonly)
{
    struct config_disk *disk = &config.disk[config.disks++];
    disk->path = strdup(path);
    disk->readonly = readonly;
    disk->writeback = true;
}

START_TEST(refuses_a_bad_kvm_device)
{
    make_kernel();
    set(&config.kvm, "/dev/no-such-kvm");
    check_refused(false, "--kvm: there is no KVM device", "/dev/no-such-kvm");
    set(&config.kvm, "/dev/null");
    check_refused(false, "is not a KVM device", "/dev/null");
}
END_TEST

/* Root may open anything, so this looks at it as nobody. */
START_TEST(names_the_mend_where_permission_is_missing)
{
    char *closed = tiny_file_make("", 0);
    ck_assert_int_eq(chmod(closed, getuid() == 0 ? 0600 : 0), 0);
    set(&config.kvm, closed);
    int pipe_fd[2];
    ck_assert_int_eq(pipe(pipe_fd), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct err err = {{0}};
        bool usage = true;
        if (getuid() == 0 && setresuid(65534, 65534, 65534) < 0)
            _exit(2);
        int code = vm_create(&config, &vm, &usage, &err);
        (void)!write(pipe_fd[1], err.text, strlen(err.text));
        _exit(code == -EACCES && !usage ? 0 : 1);
    }
    close(pipe_fd[1]);
    char text[1024] = {0};
    (void)!read(pipe_fd[0], text, sizeof(text) - 1);
    close(pipe_fd[0]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", text);
    ck_assert_msg(strstr(text, "no permission") && strstr(text, "usermod -aG kvm") && strstr(text, closed),
                  "%s", text);
    unlink(closed);
    free(closed);
}
END_TEST

START_TEST(refuses_files_that_can_be_no_kernel)
{
    char *garbage = tiny_file_make("this is no kernel at all, whatever its name says", 48);
    char *empty = tiny_file_make("", 0);
    set(&config.kernel, "/nonexistent/vmlinuz");
    check_refused(true, "--kernel", "/nonexistent/vmlinuz");
    set(&config.kernel, "/tmp");
    check_refused(true, "--kernel", "is a directory");
    set(&config.kernel, "/dev/null");
    check_refused(true, "--kernel", "not a regular file");
    set(&config.kernel, empty);
    check_refused(true, "--kernel", "is empty");
    set(&config.kernel, garbage);
    check_refused(true, "--kernel", garbage);
    unlink(empty);
    free(empty);
    free(garbage);
}
END_TEST

START_TEST(refuses_files_that_can_be_no_initrd)
{
    make_kernel();
    set(&config.initrd, "/nonexistent/initrd");
    check_refused(true, "--initrd", "/nonexistent/initrd");
    set(&config.initrd, "/tmp");
    check_refused(true, "--initrd", "is a directory");
    char *empty = tiny_file_make("", 0);
    set(&config.initrd, empty);
    check_refused(true, "--initrd", "is empty");
    unlink(empty);
    free(empty);
}
END_TEST

START_TEST(refuses_disks_that_are_none_or_the_same)
{
    static const uint8_t sectors[4096];
    make_kernel();
    char *image = tiny_file_make(sectors, sizeof(sectors));
    add_disk("/nonexistent/disk.img", false);
    check_refused(true, "--disk", "/nonexistent/disk.img");
    set(&config.disk[0].path, "/tmp");
    check_refused(true, "--disk", "/tmp");
    set(&config.disk[0].path, image);
    add_disk(image, false);
    check_refused(true, "named twice", image);
    config.disk[0].readonly = config.disk[1].readonly = true;
    check_refused(true, "named twice", image);
    unlink(image);
    free(image);
}
END_TEST

START_TEST(refuses_memory_that_is_too_little_or_too_much)
{
    make_kernel();
    config.memory = 1ULL << 20;
    check_refused(true, "--memory", "16M");
    config.memory = 1ULL << 46;
    check_refused(true, "--memory", "more than this host has");
}
END_TEST

/* Eight pages more than the host has free, so that the answer does not depend on the host. */
START_TEST(refuses_huge_pages_that_are_not_there)
{
    unsigned long long pages = 0;
    FILE *in = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    if (in) {
        ck_assert_int_eq(fscanf(in, "%llu", &pages), 1);
        fclose(in);
    }
    make_kernel();
    config.hugepages = true;
    config.memory = (pages + 8) << 21;
    check_refused(false, "huge pages", "nr_hugepages");
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

int main(void)
{
    Suite *suite = suite_create("vm-refuses");
    TCase *tc = tcase_create("refuses");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, refuses_a_bad_kvm_device);
    tcase_add_test(tc, names_the_mend_where_permission_is_missing);
    if (kvm_works()) {
        tcase_add_test(tc, refuses_files_that_can_be_no_kernel);
        tcase_add_test(tc, refuses_files_that_can_be_no_initrd);
        tcase_add_test(tc, refuses_disks_that_are_none_or_the_same);
        tcase_add_test(tc, refuses_memory_that_is_too_little_or_too_much);
        tcase_add_test(tc, refuses_huge_pages_that_are_not_there);
    } else {
        printf("# SKIPPED 5 tests of vm-refuses: /dev/kvm can't be opened\n");
    }
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
