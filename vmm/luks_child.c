/* SPDX-License-Identifier: Apache-2.0 */
#include "luks_child.h"

#include <dlfcn.h>
#include <errno.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmm/keyfile.h"

#define PASSPHRASE_MAX (8u << 20) /* cryptsetup's own limit for key files */

#define CRYPTSETUP_FUNCTIONS(X)                                                                              \
    X(crypt_init)                                                                                            \
    X(crypt_free)                                                                                            \
    X(crypt_load)                                                                                            \
    X(crypt_metadata_locking)                                                                                \
    X(crypt_set_log_callback)                                                                                \
    X(crypt_get_cipher)                                                                                      \
    X(crypt_get_cipher_mode)                                                                                 \
    X(crypt_get_volume_key_size)                                                                             \
    X(crypt_get_data_offset)                                                                                 \
    X(crypt_get_iv_offset)                                                                                   \
    X(crypt_get_sector_size)                                                                                 \
    X(crypt_get_integrity_info)                                                                              \
    X(crypt_persistent_flags_get)                                                                            \
    X(crypt_dump_json)                                                                                       \
    X(crypt_volume_key_get)

#define JSON_FUNCTIONS(X)                                                                                    \
    X(json_tokener_parse)                                                                                    \
    X(json_object_object_get_ex)                                                                             \
    X(json_object_object_length)                                                                             \
    X(json_object_get_string)

struct library {
#define X(name) __typeof__(&name) name; // NOLINT(bugprone-macro-parentheses)
    CRYPTSETUP_FUNCTIONS(X)
    JSON_FUNCTIONS(X)
#undef X
};

struct job {
    struct library lib;
    struct crypt_device *cd;
    const char *path, *name; /* name: the passphrase's */
    int passphrase_fd;
    uint8_t *key;
    struct luks_answer answer;
};

static int fail(struct job *job, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct job *job, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(job->answer.text, sizeof(job->answer.text), fmt, ap);
    va_end(ap);
    job->answer.code = code;
    return code;
}

static int load_library(struct job *job)
{
    void *cryptsetup = dlopen("libcryptsetup.so.12", RTLD_NOW | RTLD_LOCAL);
    if (!cryptsetup)
        return fail(job, -ENOSYS, "encrypt=luks needs libcryptsetup.so.12 (Debian: libcryptsetup12): %s",
                    dlerror());
    void *json = dlopen("libjson-c.so.5", RTLD_NOW | RTLD_LOCAL);
    if (!json)
        return fail(job, -ENOSYS, "encrypt=luks needs libjson-c.so.5 (Debian: libjson-c5): %s", dlerror());
#define X(name)                                                                                              \
    *(void **)&job->lib.name = dlsym(from, #name);                                                           \
    if (!job->lib.name)                                                                                      \
        return fail(job, -ENOSYS, "the installed libraries have no %s", #name);
    void *from = cryptsetup;
    CRYPTSETUP_FUNCTIONS(X)
    from = json;
    JSON_FUNCTIONS(X)
#undef X
    return 0;
}

/* The library talks to standard output unless told otherwise; what it has to say is in the error codes. */
static void silent(int level, const char *msg, void *usrptr)
{
    (void)level;
    (void)msg;
    (void)usrptr;
}

static int check_requirements(struct job *job)
{
    uint32_t flags = 0;
    int r = job->lib.crypt_persistent_flags_get(job->cd, CRYPT_FLAGS_REQUIREMENTS, &flags);
    if (r < 0)
        return fail(job, -EINVAL, "the LUKS2 header has a requirement that is not known here");
    if (flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT | CRYPT_REQUIREMENT_ONLINE_REENCRYPT))
        return fail(job, -EINVAL,
                    "a reencryption of this volume is under way: finish it with 'cryptsetup reencrypt'");
    if (flags)
        return fail(job, -EINVAL, "the LUKS2 header has a requirement that is not known here");
    return 0;
}

static int check_cipher(struct job *job)
{
    const char *cipher = job->lib.crypt_get_cipher(job->cd), *mode = job->lib.crypt_get_cipher_mode(job->cd);
    struct crypt_params_integrity integrity = {0};
    if (!cipher || !mode || strcmp(cipher, "aes") != 0 || strcmp(mode, "xts-plain64") != 0)
        return fail(job, -EINVAL, "the volume's cipher is %s-%s, and only aes-xts-plain64 can be opened",
                    cipher ? cipher : "?", mode ? mode : "?");
    if (job->lib.crypt_get_integrity_info(job->cd, &integrity) == 0 && integrity.integrity &&
        *integrity.integrity)
        return fail(job, -EINVAL, "the volume has integrity (%s), which can't be opened",
                    integrity.integrity);
    return 0;
}

/* The library tells offsets and sizes of one segment; that there is just one, and its size, only the metadata
 * says. */
static int check_segments(struct job *job)
{
    const struct library *lib = &job->lib;
    const char *text;
    struct json_object *top, *segments, *segment, *size;
    if (lib->crypt_dump_json(job->cd, &text, 0) < 0 || !(top = lib->json_tokener_parse(text)) ||
        !lib->json_object_object_get_ex(top, "segments", &segments))
        return fail(job, -EINVAL, "the LUKS2 metadata can't be read");
    if (lib->json_object_object_length(segments) != 1 ||
        !lib->json_object_object_get_ex(segments, "0", &segment) ||
        !lib->json_object_object_get_ex(segment, "size", &size))
        return fail(job, -EINVAL, "the volume has %d segments, and only volumes of one can be opened",
                    lib->json_object_object_length(segments));
    const char *said = lib->json_object_get_string(size);
    job->answer.volume.data_size = strcmp(said, "dynamic") == 0 ? 0 : strtoull(said, NULL, 10);
    return 0;
}

static int read_header(struct job *job)
{
    struct luks_volume *v = &job->answer.volume;
    job->lib.crypt_set_log_callback(NULL, silent, NULL);
    if (access(job->path, R_OK) < 0)
        return fail(job, -errno, "can't be opened: %s", strerror(errno));
    int r = job->lib.crypt_init(&job->cd, job->path);
    if (r < 0)
        return fail(job, r, "can't be opened as an encrypted volume: %s", strerror(-r));
    /* The image is locked by the disk itself, and the lock directory may be out of reach. */
    job->lib.crypt_metadata_locking(job->cd, 0);
    r = job->lib.crypt_load(job->cd, CRYPT_LUKS2, NULL);
    if (r < 0)
        return fail(job, -EINVAL,
                    "is not a LUKS2 volume (encrypt=luks expects one; see 'cryptsetup luksDump'): %s",
                    strerror(-r));
    if ((r = check_requirements(job)) < 0 || (r = check_cipher(job)) < 0 || (r = check_segments(job)) < 0)
        return r;
    v->data_offset = job->lib.crypt_get_data_offset(job->cd) * 512;
    v->iv_offset = job->lib.crypt_get_iv_offset(job->cd);
    v->sector_size = (uint32_t)job->lib.crypt_get_sector_size(job->cd);
    v->key_size = (uint32_t)job->lib.crypt_get_volume_key_size(job->cd);
    if (v->key_size != 32 && v->key_size != 64)
        return fail(job, -EINVAL, "the volume's key has %u bytes, and only 32 and 64 can be opened",
                    v->key_size);
    return 0;
}

static int read_passphrase(struct job *job, char **text, size_t *len)
{
    *text = malloc(PASSPHRASE_MAX + 1);
    if (!*text)
        return fail(job, -ENOMEM, "out of memory for the passphrase");
    ssize_t n = keyfile_take(job->passphrase_fd, (uint8_t *)*text, PASSPHRASE_MAX + 1);
    *len = n > 0 ? (size_t)n : 0;
    if (n < 0)
        return fail(job, -EIO, "the passphrase file %s can't be read: %s", job->name, strerror((int)-n));
    if (*len == 0)
        return fail(job, -EINVAL, "the passphrase file %s is empty", job->name);
    if (*len > PASSPHRASE_MAX)
        return fail(job, -EINVAL, "the passphrase file %s is larger than 8 MiB", job->name);
    return 0;
}

static int recover_key(struct job *job)
{
    char *text = NULL;
    size_t len = 0, key_len = LUKS_KEY_MAX;
    int r = read_passphrase(job, &text, &len);
    if (r < 0)
        return r;
    r = job->lib.crypt_volume_key_get(job->cd, CRYPT_ANY_SLOT, (char *)job->key, &key_len, text, len);
    if (r == -EPERM && len > 1 && text[len - 1] == '\n') {
        key_len = LUKS_KEY_MAX;
        r = job->lib.crypt_volume_key_get(job->cd, CRYPT_ANY_SLOT, (char *)job->key, &key_len, text, len - 1);
    }
    explicit_bzero(text, len);
    free(text);
    if (r == -EPERM)
        return fail(job, -EKEYREJECTED, "the passphrase in %s opens no key slot of the volume", job->name);
    if (r < 0)
        return fail(job, r, "the volume key can't be recovered: %s", strerror(-r));
    return 0;
}

static bool write_all(int fd, const void *from, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const uint8_t *)from + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

void luks_child_run(const char *path, int passphrase_fd, const char *name, pid_t parent, int fd)
{
    /* This process shares the VM's lock on its keyslots, so it must not outlive the VM. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        return;
    uint8_t key[LUKS_KEY_MAX];
    struct job job = {.path = path, .name = name, .passphrase_fd = passphrase_fd, .key = key};
    /* Key bytes pass through here: no core file, no tracer. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_DUMPABLE, 0);
    if (load_library(&job) == 0 && read_header(&job) == 0)
        recover_key(&job);
    if (write_all(fd, &job.answer, sizeof(job.answer)) && job.answer.code == 0)
        write_all(fd, key, job.answer.volume.key_size);
    if (job.cd)
        job.lib.crypt_free(job.cd);
    explicit_bzero(key, sizeof(key));
}
