/* SPDX-License-Identifier: Apache-2.0 */
#include "libcrypto.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

/*
 * Set before the first key comes near libcrypto. What it allocates earlier are its tables of algorithms: half
 * a megabyte that holds no secret, and whose pages would cost a millisecond and more in memory that is out of
 * the kernel's map.
 */
#ifdef MINIVMM_SANITIZED
/* The leak checker finds no pointers inside the arena: what they point to must lie there too. */
static _Atomic bool keys_follow = true;
#else
static _Atomic bool keys_follow;
#endif

void libcrypto_keys_follow(void)
{
    atomic_store_explicit(&keys_follow, true, memory_order_release);
}

/* The hooks take file and line for debugging; nobody here has a use for them. */
static void *hook_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return atomic_load_explicit(&keys_follow, memory_order_acquire) ? arena_alloc(size) : malloc(size);
}

/* A block stays where it began: one from before the first key holds none. */
static void *hook_realloc(void *p, size_t size, const char *file, int line)
{
    if (!p)
        return hook_malloc(size, file, line);
    return arena_holds(p) ? arena_realloc(p, size) : realloc(p, size);
}

static void hook_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    if (arena_holds(p))
        arena_free(p);
    else
        free(p);
}

static int find(struct libcrypto *lib, void **slot, const char *name, struct err *err)
{
    *slot = dlsym(lib->handle, name);
    if (!*slot)
        return err_set(err, -ENOSYS, "libcrypto.so.3 has no %s: install Debian's libssl3", name);
    return 0;
}

static int load(struct libcrypto *lib, struct err *err)
{
    int r = arena_open(err);
    if (r < 0)
        return r;
    lib->handle = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!lib->handle)
        return err_set(err, -ENOSYS, "disk encryption needs libcrypto.so.3 (Debian: libssl3): %s", dlerror());
#define X(name)                                                                                              \
    r = find(lib, (void **)&lib->name, #name, err);                                                          \
    if (r < 0)                                                                                               \
        return r;
    LIBCRYPTO_FUNCTIONS(X)
#undef X
    if (lib->CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1)
        return err_set(err, -EBUSY, "libcrypto was in use before its memory could be locked");
    /* No configuration file: nothing outside this program chooses the algorithms' implementation. */
    if (lib->OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT |
                                     OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
                                 NULL) != 1)
        return err_set(err, -EIO, "libcrypto did not initialise");
    return 0;
}

int libcrypto_load(const struct libcrypto **out, struct err *err)
{
    static struct libcrypto lib;
    if (!lib.handle) {
        int r = load(&lib, err);
        if (r < 0) {
            if (lib.handle)
                dlclose(lib.handle);
            memset(&lib, 0, sizeof(lib));
            return r;
        }
    }
    *out = &lib;
    return 0;
}
