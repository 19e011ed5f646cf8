/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/config_internal.h"

static int inherited(const char *path, int fd, struct err *err)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0
               ? err_set(err, -errno, "%s: descriptor %d was not handed down: %s", path, fd, strerror(errno))
               : own;
}

int keyfile_open(const char *path, struct err *err)
{
    int from;
    if (config_names_descriptor(path, &from))
        return inherited(path, from, err);
    /* Non-blocking: a FIFO by mistake must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, -errno, "%s could not be opened: %s", path, strerror(errno));
    struct stat st;
    int code = 0;
    if (fstat(fd, &st) < 0)
        code = err_set(err, -errno, "%s could not be examined: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        code = err_set(err, -EISDIR, "%s is a directory, a file with a key is needed", path);
    else if (!S_ISREG(st.st_mode))
        code = err_set(err, -EINVAL, "%s is not a regular file", path);
    else if (st.st_mode & (S_IRWXG | S_IRWXO))
        code = err_set(err, -EPERM, "%s can be read or changed by others (mode %03o): chmod 600 %s", path,
                       (unsigned)st.st_mode & 0777U, path);
    if (code < 0) {
        close(fd);
        return code;
    }
    return fd;
}

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Of a character that is_hex(). */
static unsigned hex_value(uint8_t c)
{
    return (c & 0x0fU) + (c <= '9' ? 0U : 9U);
}

/* Length without the newline when the bytes are hexadecimal digits, else 0. */
static size_t hex_length(const uint8_t *text, size_t len)
{
    if (len > 1 && text[len - 1] == '\n')
        len--;
    for (size_t i = 0; i < len; i++)
        if (!is_hex(text[i]))
            return 0;
    return len;
}

/* Fills the buffer or comes to the end of the file; how many bytes, or -errno. */
static ssize_t fill(int fd, uint8_t *to, size_t size)
{
    size_t have = 0;
    (void)lseek(fd, 0, SEEK_SET);
    while (have < size) {
        ssize_t n = read(fd, to + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

/* Of a memfd_secret, which can only be mapped: takes what it holds and leaves zeroes. */
static ssize_t take_secret(int fd, uint8_t *to, size_t size)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0)
        return -EINVAL;
    size_t len = (size_t)st.st_size;
    void *from = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (from == MAP_FAILED)
        return -errno;
    size_t take = len < size ? len : size;
    memcpy(to, from, take);
    explicit_bzero(from, len);
    munmap(from, len);
    return (ssize_t)take;
}

/* A memfd lives on in whoever else holds it; a file on a disk has no seals and stays as it is. */
static void wipe_memfd(int fd, size_t len)
{
    static const uint8_t zeroes[256];
    if (fcntl(fd, F_GET_SEALS) < 0)
        return;
    for (size_t at = 0; at < len; at += sizeof(zeroes))
        (void)!pwrite(fd, zeroes, len - at < sizeof(zeroes) ? len - at : sizeof(zeroes), (off_t)at);
}

ssize_t keyfile_take(int fd, uint8_t *to, size_t size)
{
    ssize_t got = fill(fd, to, size);
    if (got == -EINVAL)
        return take_secret(fd, to, size);
    if (got > 0)
        wipe_memfd(fd, (size_t)got);
    return got;
}

int keyfile_read(int fd, const char *name, uint8_t scratch[KEYFILE_SCRATCH], struct err *err)
{
    ssize_t got = keyfile_take(fd, scratch, KEYFILE_SCRATCH);
    size_t len = got > 0 ? (size_t)got : 0, digits = hex_length(scratch, len);
    int code = 0;
    if (got < 0)
        code = err_set(err, (int)got, "%s could not be read: %s", name, strerror((int)-got));
    else if (len == 0)
        code = err_set(err, -EINVAL, "%s is empty", name);
    else if (digits % 2)
        code = err_set(err, -EINVAL, "%s has an odd number of hexadecimal digits, %zu", name, digits);
    for (size_t i = 0; code == 0 && i < digits / 2; i++)
        scratch[i] = (uint8_t)(hex_value(scratch[2 * i]) << 4 | hex_value(scratch[2 * i + 1]));
    if (digits)
        len = digits / 2;
    if (code == 0 && len > KEYFILE_KEY_MAX)
        code = err_set(err, -EINVAL, "%s holds more than a key: at most %u bytes or %u hexadecimal digits",
                       name, KEYFILE_KEY_MAX, 2 * KEYFILE_KEY_MAX);
    size_t keep = code == 0 ? len : 0;
    explicit_bzero(scratch + keep, KEYFILE_SCRATCH - keep);
    return code < 0 ? code : (int)len;
}

int keyfile_spec(const char *name, unsigned alg, unsigned unit, size_t len, struct ice_spec *spec,
                 struct err *err)
{
    *spec = (struct ice_spec){.alg = (uint8_t)alg};
    while (512U << spec->unit_exp < unit)
        spec->unit_exp++;
    size_t times = alg == ICE_ALG_AES_XTS ? 2 : 1;
    if (len == 16 * times)
        spec->key_size = ICE_KEY_128;
    else if (len == 32 * times)
        spec->key_size = ICE_KEY_256;
    else
        return err_set(err, -EINVAL, "%s holds a key of %zu bytes: %s takes %zu or %zu", name, len,
                       ice_alg_name(alg), 16 * times, 32 * times);
    return 0;
}
