/* SPDX-License-Identifier: Apache-2.0 */
/* From payload files to a guest that can start: formats, initrd, tables, parameters. */
#include <errno.h>
#include <string.h>

#include "acpi.h"
#include "layout.h"
#include "minivmm/arch.h"
#include "mptable.h"
#include "payload.h"

unsigned arch_memory_layout(uint64_t size, struct guest_region *layout)
{
    uint64_t low = size < LAYOUT_HOLE ? size : LAYOUT_HOLE;
    layout[0] = (struct guest_region){.gpa = 0, .size = low};
    if (size == low)
        return 1;
    layout[1] = (struct guest_region){.gpa = LAYOUT_HOLE_END, .size = size - low};
    return 2;
}

/* For files that people take for kernels. */
static const char *guess(const struct payload_file *file)
{
    static const struct {
        const char *magic, *what;
        unsigned len;
    } known[] = {
        {"\x1f\x8b", "it is gzip-compressed; unpack it first", 2},
        {"\x28\xb5\x2f\xfd", "it is zstd-compressed; unpack it first", 4},
        {"\xfd"
         "7zXZ",
         "it is xz-compressed; unpack it first", 5},
        {"BZh", "it is bzip2-compressed; unpack it first", 3},
        {"!<arch>", "it is a package or archive; unpack it first", 7},
        {"070701", "it is a cpio archive, which belongs to --initrd", 6},
        {"#!", "it is a script", 2},
    };
    char head[8] = {0};
    if (payload_read(file, 0, head, file->size < sizeof(head) ? file->size : sizeof(head), NULL) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (memcmp(head, known[i].magic, known[i].len) == 0)
            return known[i].what;
    return NULL;
}

static int load_kernel(const struct guest_memory *mem, const struct payload_file *file,
                       struct loaded_kernel *kernel, struct err *err)
{
    int r = bzimage_load(mem, file, kernel, err);
    if (r == -ENOEXEC)
        r = elf_load(mem, file, kernel, err);
    if (r != -ENOEXEC)
        return r;
    const char *why = guess(file);
    return err_set(err, -EINVAL,
                   "%s: is not a kernel: a bzImage (vmlinuz) or a 64-bit ELF file (vmlinux) is expected%s%s",
                   file->path, why ? "; " : "", why ? why : "");
}

/* As high as kernel and memory allow, so that it is out of the way of a kernel that unpacks itself. */
static int place_initrd(const struct guest_memory *mem, const struct payload_file *file,
                        const struct loaded_kernel *kernel, uint64_t *at, struct err *err)
{
    const struct guest_region *low = &mem->region[0];
    uint64_t top = low->gpa + low->size;
    if (kernel->initrd_max && top - 1 > kernel->initrd_max)
        top = kernel->initrd_max + 1;
    uint64_t room_from = kernel->end > LAYOUT_HIGH ? kernel->end : LAYOUT_HIGH;
    if (file->size > top || ((top - file->size) & ~(PAGE_BYTES - 1)) < room_from)
        return err_set(
            err, -EINVAL,
            "%s: the initrd (%llu KiB) does not fit behind the kernel, which takes memory up to %llu MiB; "
            "raise --memory",
            file->path, (unsigned long long)(file->size >> 10), (unsigned long long)(kernel->end >> 20));
    *at = (top - file->size) & ~(PAGE_BYTES - 1);
    return payload_place(mem, file, 0, *at, file->size, err);
}

static int write_tables(const struct arch_machine *machine, uint64_t *rsdp, struct err *err)
{
    *rsdp = 0;
    int r = machine->acpi ? acpi_build(machine, rsdp, err) : 0;
    if (r == 0)
        r = mptable_build(machine, err);
    if (r == 0)
        r = start_tables_write(machine->mem, err);
    return r;
}

int arch_load(const struct arch_machine *machine, const struct arch_payload *payload,
              struct arch_entry *entry, struct err *err)
{
    struct payload_file kernel_file, initrd_file;
    struct loaded_kernel kernel = {0};
    struct boot_info info = {.mem = machine->mem};
    int r = payload_open(&kernel_file, payload->kernel_path, payload->kernel_fd, err);
    if (r == 0)
        r = load_kernel(machine->mem, &kernel_file, &kernel, err);
    /* The start page tables reach that far and no further. */
    if (r == 0 && kernel.entry.ip >= LAYOUT_HOLE_END)
        r = err_set(err, -EINVAL,
                    "%s: its entry point %#llx lies above 4 GiB, where no kernel can be started",
                    payload->kernel_path, (unsigned long long)kernel.entry.ip);
    if (r < 0)
        return err_prefix(err, r, "--kernel");
    if (payload->initrd_path) {
        r = payload_open(&initrd_file, payload->initrd_path, payload->initrd_fd, err);
        if (r == 0)
            r = place_initrd(machine->mem, &initrd_file, &kernel, &info.initrd, err);
        if (r < 0)
            return err_prefix(err, r, "--initrd");
        info.initrd_size = initrd_file.size;
    }
    r = write_tables(machine, &info.rsdp, err);
    if (r == 0)
        r = cmdline_write(machine, kernel.cmdline_max, &info.cmdline_len, err);
    if (r == 0)
        r = kernel.entry.protocol == ARCH_BOOT_PVH ? pvh_write(&info, err)
                                                   : boot_params_write(&info, &kernel, err);
    *entry = kernel.entry;
    entry->params = kernel.entry.protocol == ARCH_BOOT_PVH ? LAYOUT_PVH_INFO : LAYOUT_BOOT_PARAMS;
    return r;
}
