/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at an encrypted disk image with a cipher that minivmm does not use (nettle; minivmm has OpenSSL):
 * what this program decrypts has been encrypted as docs/ice-spec.md says, not just as minivmm would undo it.
 *
 * usage: ice_check KEY=VALUE... ACTION IMAGE [OUT]
 *
 * Actions: pattern  the range decrypts to what the test guest wrote (mark and words by seed=)
 *          decrypt  IMAGE's range to OUT
 *          encrypt  IMAGE's range to OUT
 *          absent   text= occurs nowhere in IMAGE
 * Keys: alg=NAME key=HEX | key-file=PATH | key-seed=N with key-bytes=N (byte i = N + 3 * i)
 *       unit=BYTES dun=N stride=N (of the range's first unit, and from unit to unit)
 *       offset=BYTES length=BYTES (0: to the end) seed=N text=TEXT
 * Exit: 0 it is so, 1 it is not, 2 wrong use or a file that can't be used.
 */
#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/sha2.h>
#include <nettle/xts.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX        64u
#define UNIT_MAX       65536u
#define PATTERN_FACTOR 0x9E3779B97F4A7C15ULL /* as in tests/guest/block.h */
#define MARK           "minivmm: plaintext marker of ICE"

enum alg { XTS, ESSIV, BITLOCKER, ECB, ALGS };
static const char *const alg_names[ALGS] = {"aes-xts", "essiv-aes-cbc", "bitlocker-aes-cbc", "aes-ecb"};

struct job {
    enum alg alg;
    uint8_t key[KEY_MAX];
    size_t key_len;
    uint64_t unit, dun, stride, offset, length, seed;
    const char *text;
};

/* One AES key in both directions; CBC and ECB share it. */
struct aes {
    bool wide;
    union {
        struct aes128_ctx a128;
        struct aes256_ctx a256;
    } enc, dec;
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("ice_check: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static void aes_set(struct aes *aes, const uint8_t *key, size_t len)
{
    aes->wide = len == 32;
    if (aes->wide) {
        aes256_set_encrypt_key(&aes->enc.a256, key);
        aes256_set_decrypt_key(&aes->dec.a256, key);
    } else {
        aes128_set_encrypt_key(&aes->enc.a128, key);
        aes128_set_decrypt_key(&aes->dec.a128, key);
    }
}

static void ecb(const struct aes *aes, bool encrypt, size_t len, uint8_t *data)
{
    if (aes->wide && encrypt)
        aes256_encrypt(&aes->enc.a256, len, data, data);
    else if (aes->wide)
        aes256_decrypt(&aes->dec.a256, len, data, data);
    else if (encrypt)
        aes128_encrypt(&aes->enc.a128, len, data, data);
    else
        aes128_decrypt(&aes->dec.a128, len, data, data);
}

static void cbc(const struct aes *aes, bool encrypt, uint8_t iv[16], size_t len, uint8_t *data)
{
    if (encrypt)
        cbc_encrypt(&aes->enc,
                    (nettle_cipher_func *)(aes->wide ? (void *)aes256_encrypt : (void *)aes128_encrypt), 16,
                    iv, len, data, data);
    else
        cbc_decrypt(&aes->dec,
                    (nettle_cipher_func *)(aes->wide ? (void *)aes256_decrypt : (void *)aes128_decrypt), 16,
                    iv, len, data, data);
}

static void xts(const struct job *job, bool encrypt, const uint8_t tweak[16], uint8_t *data)
{
    union {
        struct xts_aes128_key a128;
        struct xts_aes256_key a256;
    } key;
    if (job->key_len == 64 && encrypt) {
        xts_aes256_set_encrypt_key(&key.a256, job->key);
        xts_aes256_encrypt_message(&key.a256, tweak, job->unit, data, data);
    } else if (job->key_len == 64) {
        xts_aes256_set_decrypt_key(&key.a256, job->key);
        xts_aes256_decrypt_message(&key.a256, tweak, job->unit, data, data);
    } else if (encrypt) {
        xts_aes128_set_encrypt_key(&key.a128, job->key);
        xts_aes128_encrypt_message(&key.a128, tweak, job->unit, data, data);
    } else {
        xts_aes128_set_decrypt_key(&key.a128, job->key);
        xts_aes128_decrypt_message(&key.a128, tweak, job->unit, data, data);
    }
}

static void le64(uint8_t out[16], uint64_t v)
{
    memset(out, 0, 16);
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

static void crypt_unit(const struct job *job, bool encrypt, uint64_t dun, uint8_t *data)
{
    struct aes aes, salted;
    struct sha256_ctx sha;
    uint8_t iv[16], salt[32];

    le64(iv, job->alg == BITLOCKER ? dun * job->unit : dun);
    if (job->alg == XTS) {
        xts(job, encrypt, iv, data);
        return;
    }
    aes_set(&aes, job->key, job->key_len);
    if (job->alg == ECB) {
        ecb(&aes, encrypt, job->unit, data);
        return;
    }
    if (job->alg == BITLOCKER) {
        ecb(&aes, true, sizeof(iv), iv);
    } else {
        sha256_init(&sha);
        sha256_update(&sha, job->key_len, job->key);
        sha256_digest(&sha, sizeof(salt), salt);
        aes_set(&salted, salt, sizeof(salt));
        ecb(&salted, true, sizeof(iv), iv);
    }
    cbc(&aes, encrypt, iv, job->unit, data);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    if (!*text || *end)
        die("'%s' is not a number", text);
    return n;
}

static void set_hex(struct job *job, const char *text)
{
    for (job->key_len = 0; text[0] && text[1] && job->key_len < KEY_MAX; text += 2)
        if (sscanf(text, "%2hhx", &job->key[job->key_len++]) != 1)
            die("key= is not hexadecimal");
    if (*text)
        die("key= is odd or too long");
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    if (!f)
        die("%s could not be opened", path);
    return f;
}

static void set(struct job *job, const char *name, const char *value)
{
    if (!strcmp(name, "alg")) {
        for (job->alg = XTS; job->alg < ALGS && strcmp(value, alg_names[job->alg]) != 0; job->alg++)
            ;
        if (job->alg == ALGS)
            die("unknown alg=%s", value);
    } else if (!strcmp(name, "key")) {
        set_hex(job, value);
    } else if (!strcmp(name, "key-file")) {
        FILE *f = open_file(value, "rb");
        job->key_len = fread(job->key, 1, KEY_MAX, f);
        fclose(f);
    } else if (!strcmp(name, "key-seed")) {
        for (unsigned i = 0; i < KEY_MAX; i++)
            job->key[i] = (uint8_t)(number(value) + 3 * i);
    } else if (!strcmp(name, "key-bytes")) {
        job->key_len = number(value);
    } else if (!strcmp(name, "unit")) {
        job->unit = number(value);
    } else if (!strcmp(name, "dun")) {
        job->dun = number(value);
    } else if (!strcmp(name, "stride")) {
        job->stride = number(value);
    } else if (!strcmp(name, "offset")) {
        job->offset = number(value);
    } else if (!strcmp(name, "length")) {
        job->length = number(value);
    } else if (!strcmp(name, "seed")) {
        job->seed = number(value);
    } else if (!strcmp(name, "text")) {
        job->text = value;
    } else {
        die("unknown key %s=", name);
    }
}

static void check_job(const struct job *job)
{
    size_t half = job->alg == XTS ? 2 : 1;
    if (job->key_len != 16 * half && job->key_len != 32 * half)
        die("a key of %zu bytes is of no use for %s", job->key_len, alg_names[job->alg]);
    if (job->unit < 512 || job->unit > UNIT_MAX || job->unit & (job->unit - 1) || job->length % job->unit)
        die("unit= must be a power of two, 512 to %u, and length= a multiple of it", UNIT_MAX);
}

/* Runs every unit of the range through the cipher and hands it to use(), until that says no. */
static bool walk(const struct job *job, const char *path, bool encrypt,
                 bool (*use)(const struct job *job, uint64_t at, const uint8_t *data, void *arg), void *arg)
{
    static uint8_t unit[UNIT_MAX];
    FILE *f = open_file(path, "rb");
    bool good = true;
    uint64_t at = 0;

    if (fseek(f, (long)job->offset, SEEK_SET) != 0)
        die("%s has no byte %llu", path, (unsigned long long)job->offset);
    for (; good && (!job->length || at < job->length); at += job->unit) {
        size_t got = fread(unit, 1, job->unit, f);
        if (got == 0 && !job->length)
            break;
        if (got != job->unit)
            die("%s ends within the range or a data unit", path);
        crypt_unit(job, encrypt, job->dun + at / job->unit * job->stride, unit);
        good = use(job, at, unit, arg);
    }
    fclose(f);
    if (at == 0)
        die("%s: the range is empty", path);
    return good;
}

static bool is_pattern(const struct job *job, uint64_t at, const uint8_t *data, void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < job->unit; i += 8) {
        uint64_t want = job->seed * PATTERN_FACTOR + (at + i) / 8, have;
        memcpy(&have, data + i, sizeof(have));
        if (at + i < sizeof(MARK) - 1)
            memcpy(&want, &MARK[at + i], sizeof(want));
        if (have != want)
            return false;
    }
    return true;
}

static bool write_out(const struct job *job, uint64_t at, const uint8_t *data, void *arg)
{
    (void)at;
    if (fwrite(data, 1, job->unit, arg) != job->unit)
        die("the result could not be written");
    return true;
}

static bool convert(const struct job *job, const char *from, const char *to, bool encrypt)
{
    FILE *out = open_file(to, "wb");
    walk(job, from, encrypt, write_out, out);
    if (fclose(out) != 0)
        die("%s could not be written", to);
    return true;
}

/* In overlapping pieces, so that no boundary hides the text. */
static bool is_absent(const char *path, const char *text)
{
    static char piece[1 << 20];
    size_t len = strlen(text), kept = 0, got;
    FILE *f = open_file(path, "rb");
    bool found = false;

    if (len == 0 || len > sizeof(piece) / 2)
        die("absent needs text=");
    while (!found && (got = fread(piece + kept, 1, sizeof(piece) - kept, f)) > 0) {
        got += kept;
        found = memmem(piece, got, text, len) != NULL;
        kept = got < len ? got : len - 1;
        memmove(piece, piece + got - kept, kept);
    }
    fclose(f);
    return !found;
}

int main(int argc, char **argv)
{
    struct job job = {.unit = 512, .stride = 1};
    int i = 1;

    for (char *value; i < argc && (value = strchr(argv[i], '=')); i++) {
        *value = '\0';
        set(&job, argv[i], value + 1);
    }
    const char *action = i < argc ? argv[i++] : "";
    int files = argc - i;
    if (!strcmp(action, "absent") && files == 1)
        return job.text && is_absent(argv[i], job.text) ? 0 : 1;
    check_job(&job);
    if (!strcmp(action, "pattern") && files == 1)
        return walk(&job, argv[i], false, is_pattern, NULL) ? 0 : 1;
    if (!strcmp(action, "decrypt") && files == 2)
        return convert(&job, argv[i], argv[i + 1], false) ? 0 : 1;
    if (!strcmp(action, "encrypt") && files == 2)
        return convert(&job, argv[i], argv[i + 1], true) ? 0 : 1;
    die("usage: ice_check KEY=VALUE... pattern|decrypt|encrypt|absent IMAGE [OUT]");
}
