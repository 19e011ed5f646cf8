/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the input is what a hostile driver leaves in memory. The block device itself runs, with
 * its thread and the sync engine, over a small image in memory.
 *
 * An input is a configuration byte, then 16 bytes a descriptor (up to the queue's size), then the bytes of
 * the data area, headers included. In the confined mode addresses are folded into the data area, so that the
 * rings stay as the driver wrote them; then each chain must be answered, or the device must ask for a reset.
 * In the free mode addresses stay as they are, rings and read-only memory included, and nothing but survival
 * is asked for. Always: guest memory lies between guard pages, the ROM is mapped read-only (a write there
 * crashes), the image keeps its size, and what lies behind the guest's memory in the ROM keeps its bytes.
 *
 * Two bits of the configuration byte choose between a plain disk, one that requires inline encryption and one
 * that is encrypted without the driver's knowledge. Into the latter two no plaintext may come: what the input
 * leaves free of the data area is filled with a marker, which their images must never hold.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with the library's objects. With -DFUZZ_BLK_REPLAY it gets
 * a main() that runs the files named on the command line, or made-up inputs from a fixed seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "minivmm/block.h"
#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/ice.h"
#include "minivmm/log.h"

#define PAGE        4096u
#define RAM_SIZE    (16u * PAGE)
#define ROM_GPA     RAM_SIZE
#define ROM_SIZE    PAGE
#define ROM_BYTE    0xA5
#define IMAGE_SIZE  (64u * 512u)
#define QUEUE_SIZE  16u
#define DESC_GPA    0u
#define AVAIL_GPA   PAGE
#define USED_GPA    (2u * PAGE)
#define DATA_GPA    (4u * PAGE)
#define DATA_SIZE   (RAM_SIZE - DATA_GPA)
#define ANSWER_MS   2000u
#define FREE_MS     2u
#define CONFINED    0x80u
#define DESC_BYTES  16u
#define FLAGS_OF(d) ((d) + 12)

/* Keyslots: the window, of which the last is left empty, and the operator's. */
#define SLOT_FIRST    32u
#define SLOT_COUNT    3u
#define SLOT_OPERATOR 60u

enum kind { PLAIN, REQUIRED, TRANSPARENT, KINDS };

static const char marker[] = "PLAINTEXT-MARKER";

struct device {
    int image;
    struct disk *disk;
    struct block *block;
    struct virtio_mmio *mmio;
};

static struct {
    struct guest_memory mem;
    uint8_t *ram;
    int line;
    struct ice *ice;
    struct device device[KINDS];
    struct device *now; /* the one that the input is for */
} f;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_blk: %s\n", what);
    abort();
}

static uint8_t *guarded(size_t size, int prot, int fill)
{
    uint8_t *all = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    must(all != MAP_FAILED, "no memory");
    must(!mprotect(all + PAGE, size, PROT_READ | PROT_WRITE), "mprotect");
    memset(all + PAGE, fill, size);
    must(!mprotect(all + PAGE, size, prot), "mprotect");
    return all + PAGE;
}

static void set_key(unsigned slot, unsigned unit_exp)
{
    const struct ice_spec spec = {ICE_ALG_AES_XTS, (uint8_t)unit_exp, ICE_KEY_256};
    uint8_t raw[ICE_RAW_KEY_MAX];
    struct err err = {""};

    for (unsigned i = 0; i < sizeof(raw); i++)
        raw[i] = (uint8_t)(i * 37 + slot);
    must(!ice_slot_set(f.ice, slot, &spec, raw, sizeof(raw), 0, &err), err.text);
}

static void set_up_keys(void)
{
    struct err err = {""};

    must(!ice_create(&(struct ice_config){.allow_ecb = false}, &f.ice, &err), err.text);
    must(!ice_assign(f.ice, SLOT_FIRST, SLOT_COUNT, REQUIRED, true, &err), err.text);
    must(!ice_assign(f.ice, SLOT_OPERATOR, 1, TRANSPARENT, false, &err), err.text);
    set_key(SLOT_FIRST, 0);
    set_key(SLOT_FIRST + 1, 3);
    set_key(SLOT_OPERATOR, 1);
}

static void set_up_device(enum kind kind)
{
    struct device *d = &f.device[kind];
    struct err err = {""};

    d->image = memfd_create("image", MFD_CLOEXEC);
    must(d->image >= 0 && !ftruncate(d->image, IMAGE_SIZE), "no image");
    struct disk_config disk = {.path = "image", .fd = dup(d->image), .engine = DISK_ENGINE_SYNC};
    must(!disk_open(&disk, &d->disk, &err), err.text);
    struct block_config config = {.index = kind,
                                  .disk = d->disk,
                                  .queues = 1,
                                  .queue_size = QUEUE_SIZE,
                                  .serial = "fuzz",
                                  .writeback = true,
                                  .discard = true,
                                  .write_zeroes = true,
                                  .ice = f.ice};
    if (kind == REQUIRED) {
        config.ice_first = SLOT_FIRST;
        config.ice_count = SLOT_COUNT;
        config.ice_required = true;
    } else if (kind == TRANSPARENT) {
        config.transparent = (struct block_transparent){
            .unit = 1024, .slot = SLOT_OPERATOR, .data_offset = 1024, .iv_offset = 5, .discard = true};
    }
    must(!block_create(&config, &f.mem, &d->block, &err), err.text);
    must(!virtio_mmio_create(block_device(d->block), f.line, &d->mmio, &err), err.text);
}

static void set_up(void)
{
    log_open(STDERR_FILENO, "fuzz", LOG_LEVEL_ERROR);
    f.ram = guarded(RAM_SIZE, PROT_READ | PROT_WRITE, 0);
    f.mem.count = 2;
    f.mem.region[0] = (struct guest_region){.gpa = 0, .size = RAM_SIZE, .hva = f.ram};
    f.mem.region[1] = (struct guest_region){
        .gpa = ROM_GPA, .size = ROM_SIZE, .hva = guarded(ROM_SIZE, PROT_READ, ROM_BYTE), .readonly = true};
    f.line = event_open();
    must(f.line >= 0, "no eventfd");
    set_up_keys();
    for (unsigned kind = 0; kind < KINDS; kind++)
        set_up_device(kind);
}

/* PLAIN for two of the four values. */
static enum kind kind_of(uint8_t mode)
{
    return (mode >> 3 & 3) < 2 ? PLAIN : (enum kind)((mode >> 3 & 3) - 1);
}

static void reg(uint32_t offset, uint32_t value)
{
    uint8_t le[4];

    store_le32(le, value);
    virtio_mmio_bus_ops.write(f.now->mmio, offset, le, sizeof(le));
}

static void start_device(uint64_t features)
{
    const struct {
        uint32_t offset, value;
    } steps[] = {{0x070, 0},
                 {0x070, 1},
                 {0x070, 3},
                 {0x024, 0},
                 {0x020, (uint32_t)features},
                 {0x024, 1},
                 {0x020, (uint32_t)(features >> 32)},
                 {0x070, 11},
                 {0x030, 0},
                 {0x038, QUEUE_SIZE},
                 {0x080, DESC_GPA},
                 {0x084, 0},
                 {0x090, AVAIL_GPA},
                 {0x094, 0},
                 {0x0a0, USED_GPA},
                 {0x0a4, 0},
                 {0x044, 1},
                 {0x070, 15}};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
        reg(steps[i].offset, steps[i].value);
    must(virtio_mmio_status(f.now->mmio) & VIRTIO_STATUS_DRIVER_OK, "the device did not start");
}

/* An address into the data area, so that no chain reaches a ring; the length is cut to what is left. */
static void confine(uint8_t *desc)
{
    uint64_t at = load_le64(desc) % DATA_SIZE;
    uint32_t room = DATA_SIZE - (uint32_t)at, len = load_le32(desc + 8);

    store_le64(desc, DATA_GPA + at);
    store_le32(desc + 8, len > room ? room : len);
    if (load_le16(FLAGS_OF(desc)) & 4u)
        store_le16(FLAGS_OF(desc), load_le16(FLAGS_OF(desc)) & 3u);
}

/* Lays the input out in guest memory; returns how many chains are available. */
static unsigned lay_out(const uint8_t *data, size_t size, uint8_t mode)
{
    unsigned count = 1 + (mode & 7u);
    size_t descs = size / DESC_BYTES < QUEUE_SIZE ? size / DESC_BYTES : QUEUE_SIZE;

    memset(f.ram, 0, RAM_SIZE);
    for (unsigned at = DATA_GPA; at < RAM_SIZE; at += 16)
        memcpy(f.ram + at, marker, 16);
    memcpy(f.ram + DESC_GPA, data, descs * DESC_BYTES);
    for (size_t i = 0; mode & CONFINED && i < QUEUE_SIZE; i++)
        confine(f.ram + DESC_GPA + i * DESC_BYTES);
    data += descs * DESC_BYTES;
    size -= descs * DESC_BYTES;
    memcpy(f.ram + DATA_GPA, data, size < DATA_SIZE ? size : DATA_SIZE);
    for (unsigned i = 0; i < count; i++)
        store_le16(f.ram + AVAIL_GPA + 4 + 2 * i, (uint16_t)(i * 2 % QUEUE_SIZE));
    _Atomic uint16_t *idx = (_Atomic uint16_t *)(void *)(f.ram + AVAIL_GPA + 2);
    atomic_store_explicit(idx, (uint16_t)count, memory_order_release);
    return count;
}

/* True when all chains are in the used ring or the device gave the ring up. */
static bool settled(unsigned count)
{
    _Atomic uint16_t *idx = (_Atomic uint16_t *)(void *)(f.ram + USED_GPA + 2);

    return atomic_load_explicit(idx, memory_order_acquire) == count ||
           virtio_mmio_status(f.now->mmio) & VIRTIO_STATUS_NEEDS_RESET;
}

static bool settles(unsigned count, unsigned within_ms)
{
    for (unsigned us = 0; us < within_ms * 1000u; us += 20) {
        if (settled(count))
            return true;
        usleep(20);
    }
    return settled(count);
}

static void check_world(void)
{
    static uint8_t image[IMAGE_SIZE];
    struct stat st;

    must(!fstat(f.now->image, &st) && st.st_size == IMAGE_SIZE, "the image changed its size");
    must(pread(f.now->image, image, IMAGE_SIZE, 0) == IMAGE_SIZE, "can't read the image");
    must(f.now == &f.device[PLAIN] || !memmem(image, IMAGE_SIZE, marker, 16), "plaintext in the image");
    for (unsigned i = 0; i < ROM_SIZE; i++)
        must(f.mem.region[1].hva[i] == ROM_BYTE, "the ROM changed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (!f.ram)
        set_up();
    f.now = &f.device[kind_of(data[0])];
    uint64_t offered = block_device(f.now->block)->offered;
    /* The second byte takes features away, so that requests for what was not
     * negotiated are tried too: FLUSH, TOPOLOGY, CONFIG_WCE and MQ; DISCARD to SECURE_ERASE by the high bits.
     */
    uint64_t drop = (uint64_t)(data[1] & 0x0fu) << 9 | (uint64_t)(data[1] & 0xf0u) << 9;
    uint8_t mode = data[0];
    reg(0x070, 0);
    unsigned count = lay_out(data + 2, size - 2, mode);
    start_device(offered & ~drop);
    reg(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    bool ended = settles(count, mode & CONFINED ? ANSWER_MS : FREE_MS);
    must(ended || !(mode & CONFINED), "a chain was neither answered nor refused");
    reg(0x070, 0);
    check_world();
    return 0;
}

#ifdef FUZZ_BLK_REPLAY
static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return *state >> 33;
}

static void replay_file(const char *path)
{
    static uint8_t input[RAM_SIZE];
    FILE *from = fopen(path, "rb");

    must(from, path);
    size_t n = fread(input, 1, sizeof(input), from);
    fclose(from);
    LLVMFuzzerTestOneInput(input, n);
}

/* Inputs that look like requests: chains of three in order, plausible headers, now and then a wild byte. */
static size_t make_up(uint8_t *input, uint64_t *seed)
{
    static const uint8_t types[] = {0, 1, 4, 8, 10, 11, 13, 14, 28, 99};
    static const uint8_t slots[] = {
        0, SLOT_FIRST, SLOT_FIRST + 1, SLOT_FIRST + 2, SLOT_FIRST + 3, SLOT_OPERATOR};
    uint8_t *desc = input + 2, *data = desc + QUEUE_SIZE * DESC_BYTES;

    memset(input, 0, 2 + QUEUE_SIZE * DESC_BYTES + 1024);
    input[0] = (uint8_t)next_random(seed);
    input[1] = (uint8_t)(next_random(seed) & (next_random(seed) & 1 ? 0 : 0xff));
    const uint32_t header = kind_of(input[0]) == REQUIRED ? 32 : 16;
    for (unsigned i = 0; i < QUEUE_SIZE; i++, desc += DESC_BYTES) {
        uint64_t at = i % 2 ? 1024 + next_random(seed) % 8192 : 32ull * i;
        store_le64(desc, DATA_GPA * (uint64_t) !(input[0] & CONFINED) + at);
        store_le32(desc + 8,
                   i % 2 ? (uint32_t)(next_random(seed) % 9 * 512 + 1)
                         : header + (uint32_t)(next_random(seed) % 3 * (next_random(seed) % 9) * 512));
        store_le16(FLAGS_OF(desc), i % 2 ? 2 : 1);
        store_le16(desc + 14, (uint16_t)(i + 1));
    }
    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        data[32 * i] = types[next_random(seed) % sizeof(types)];
        data[32 * i + 8] = (uint8_t)(next_random(seed) % 70);
        data[32 * i + 16] = slots[next_random(seed) % sizeof(slots)];
        data[32 * i + 17] = (uint8_t)(next_random(seed) % 8 ? 1 : next_random(seed) % 4);
        memset(&data[32 * i + 24], next_random(seed) % 4 ? 0 : 0xff, 8);
    }
    for (unsigned wild = next_random(seed) % 4; wild; wild--)
        input[2 + next_random(seed) % (QUEUE_SIZE * DESC_BYTES + 512)] = (uint8_t)next_random(seed);
    return 2 + QUEUE_SIZE * DESC_BYTES + 1024;
}

int main(int argc, char **argv)
{
    static uint8_t input[RAM_SIZE];
    uint64_t seed = 1;

    for (int i = 1; i < argc; i++)
        replay_file(argv[i]);
    for (int i = 0; argc < 2 && i < 3000; i++)
        LLVMFuzzerTestOneInput(input, make_up(input, &seed));
    for (unsigned kind = 0; f.ram && kind < KINDS; kind++) {
        const struct block_counters *c = block_counters(f.device[kind].block);
        printf("disk%u: %lu requests, %lu by key, %lu failed, %lu bytes read, %lu written\n", kind,
               c->requests, c->ice_requests, c->errors, c->read_bytes, c->written_bytes);
    }
    printf("fuzz_blk: ok\n");
    return 0;
}
#endif
