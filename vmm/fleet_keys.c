/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys on their way to a VM: from their files into memory objects that the VM inherits. The bytes are read
 * straight into the object, so that the supervisor has no copy to lose; the key-encryption key is used here
 * and never handed down.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/ice/arena.h"
#include "devices/ice/libcrypto.h"
#include "vmm/crypt.h"
#include "vmm/fleet.h"
#include "vmm/keyfile.h"

#define PASSPHRASE_MAX (8U << 20) /* cryptsetup's limit for key files */

static int plain_object(void)
{
    return memfd_create("minivmm-key", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

static int map_object(int fd, size_t size, void **map)
{
    if (ftruncate(fd, (off_t)size) < 0)
        return -errno;
    *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*map == MAP_FAILED)
        return -errno;
    /* Neither is owed to a memfd_secret, which has both by itself. */
    (void)mlock(*map, size);
    (void)madvise(*map, size, MADV_DONTDUMP);
    return 0;
}

int key_object(size_t size, bool secret, void **map)
{
    int fd = -1;
#ifdef SYS_memfd_secret
    if (secret)
        fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
#endif
    /* Secret memory is locked memory, of which there may be too little for a long passphrase. */
    if (fd >= 0 && map_object(fd, size, map) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    fd = plain_object();
    int code = fd < 0 ? -errno : map_object(fd, size, map);
    /* Not against writing: its reader wipes it. */
    if (code == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        code = -errno;
        munmap(*map, size);
    }
    if (code < 0 && fd >= 0)
        close(fd);
    return code < 0 ? code : fd;
}

static int add(struct handover *handover, int fd)
{
    handover->fd[handover->fds++] = fd;
    return fd;
}

static int read_all(int fd, uint8_t *to, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, to + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        have += (size_t)n;
    }
    return 0;
}

/* The open file's contents in an object; its descriptor, or -errno with a sentence. */
static int take_contents(int from, const char *path, size_t most, struct err *err)
{
    struct stat st;
    if (fstat(from, &st) < 0)
        return err_set(err, -errno, "%s could not be examined: %s", path, strerror(errno));
    if (st.st_size <= 0)
        return err_set(err, -EINVAL, "%s is empty", path);
    if ((uint64_t)st.st_size > most)
        return err_set(err, -EINVAL, "%s holds %lld bytes: at most %zu are possible", path,
                       (long long)st.st_size, most);
    void *map = NULL;
    size_t size = (size_t)st.st_size;
    int fd = key_object(size, true, &map);
    if (fd < 0)
        return err_set(err, fd, "no memory for the contents of %s: %s", path, strerror(-fd));
    int code = read_all(from, map, size);
    munmap(map, size);
    if (code == 0)
        return fd;
    close(fd);
    return err_set(err, code, "%s could not be read: %s", path, strerror(-code));
}

static int hand_file(struct handover *handover, const char *path, size_t most, struct err *err)
{
    int from = keyfile_open(path, err);
    if (from < 0)
        return from;
    int fd = take_contents(from, path, most, err);
    close(from);
    return fd < 0 ? fd : add(handover, fd);
}

static int hand_disk(struct handover *handover, unsigned i, struct err *err)
{
    struct config_disk *disk = &handover->config.disk[i];
    char **path = disk->luks ? &disk->passphrase : &disk->encrypt;
    if (!*path)
        return 0;
    int fd = hand_file(handover, *path, disk->luks ? PASSPHRASE_MAX : KEYFILE_SCRATCH - 1, err);
    if (fd < 0)
        return err_prefix(err, fd, "disk %s,%s", disk->path, disk->luks ? "passphrase" : "encrypt");
    snprintf(handover->path[i], sizeof(handover->path[i]), "/dev/fd/%d", fd);
    *path = handover->path[i];
    return 0;
}

static int hand_key(struct handover *handover, struct config_key *key, struct err *err)
{
    if (!key->file)
        return 0;
    int fd = hand_file(handover, key->file, KEYFILE_SCRATCH - 1, err);
    if (fd < 0)
        return err_prefix(err, fd, "ice-key slot=%u", key->slot);
    key->file = NULL;
    key->fd = fd;
    return 0;
}

/* Into the object: the VM's own key, made of the key-encryption key and its UUID. */
static int derive(const struct config *config, const char *kek, uint8_t *vm_key, struct err *err)
{
    const struct libcrypto *lib;
    uint8_t uuid[16];
    int code = libcrypto_load(&lib, err);
    if (code == 0)
        code = crypt_uuid(config, uuid, err);
    int from = code == 0 ? keyfile_open(kek, err) : code;
    if (from < 0)
        return from;
    code = crypt_derive(from, kek, uuid, vm_key, err);
    close(from);
    return code;
}

static int hand_vm_key(struct handover *handover, const char *kek, struct err *err)
{
    void *map = NULL;
    int fd = key_object(CRYPT_VM_KEY, true, &map);
    if (fd < 0)
        return err_set(err, fd, "ice-kek: no memory for the VM's key: %s", strerror(-fd));
    int code = derive(&handover->config, kek, map, err);
    munmap(map, CRYPT_VM_KEY);
    if (code < 0) {
        close(fd);
        return err_prefix(err, code, "ice-kek");
    }
    handover->config.ice.vm_key_fd = add(handover, fd);
    return 0;
}

int handover_open(struct handover *handover, const struct config *config, const char *kek, struct err *err)
{
    int code = 0;
    *handover = (struct handover){.config = *config};
    struct config_engine *ice = &handover->config.ice;
    for (unsigned i = 0; code == 0 && i < config->disks; i++)
        code = hand_disk(handover, i, err);
    for (unsigned i = 0; code == 0 && i < config->ice.keys; i++)
        code = hand_key(handover, &ice->key[i], err);
    if (ice->kek)
        kek = ice->kek;
    ice->kek = NULL;
    if (code == 0 && kek && ice->slots)
        code = hand_vm_key(handover, kek, err);
    return code;
}

void handover_close(struct handover *handover)
{
    for (unsigned i = 0; i < handover->fds; i++)
        close(handover->fd[i]);
    handover->fds = 0;
}
