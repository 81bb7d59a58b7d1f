/* Files of dropped segments that serve again: their blocks are allocated and written, so that a sync of new bytes in them
 * has no metadata to write. At most two are kept, under names ending in .free. A reader in another process may still look
 * at the old bytes: it shares the lock of the file READERS, and while anyone does no file serves again. */
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>

enum { SPARES = 2 };

struct jsc_spares {
    const jsc_vfs *vfs;
    _Atomic int refs;
    pthread_mutex_t lock;
    char *dir, *paths[SPARES];
    int n;
    uint64_t names;
};

static int readers_file(const jsc_spares *s) {
    size_t n = strlen(s->dir) + 16;
    char *path = malloc(n);
    if (!path) return -ENOMEM;
    snprintf(path, n, "%s/READERS", s->dir);
    int fd = s->vfs->open(s->vfs->self, path, O_RDWR | O_CREAT, 0644);
    free(path);
    return fd;
}

int jsc_spares_new(const jsc_vfs *vfs, const char *dir, jsc_spares **out) {
    jsc_spares *s = calloc(1, sizeof *s);
    if (!s || !(s->dir = strdup(dir))) {
        free(s);
        return -ENOMEM;
    }
    s->vfs = vfs;
    atomic_store(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    /* The file is there before any reader can be. */
    int fd = readers_file(s);
    if (fd >= 0) vfs->close(vfs->self, fd);
    if (fd < 0) jsc_spares_unref(s);
    else *out = s;
    return fd < 0 ? fd : JSC_OK;
}

jsc_spares *jsc_spares_ref(jsc_spares *s) {
    if (s) atomic_fetch_add(&s->refs, 1);
    return s;
}

void jsc_spares_unref(jsc_spares *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    for (int i = 0; i < s->n; i++) free(s->paths[i]);
    free(s->dir);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool jsc_spares_offer(jsc_spares *s, const char *path) {
    bool taken = false;
    size_t n = strlen(path) + 32;
    char *name = malloc(n);
    if (!name) return false;
    pthread_mutex_lock(&s->lock);
    if (s->n < SPARES) {
        snprintf(name, n, "%s.%llu.free", path, (unsigned long long)s->names++);
        if (s->vfs->rename(s->vfs->self, path, name) == 0) {
            s->paths[s->n++] = name;
            taken = true;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (!taken) free(name);
    return taken;
}

/* The lock that readers share; -EWOULDBLOCK: there are some. */
static int keep_readers_out(jsc_spares *s) {
    int fd = readers_file(s), rc;
    if (fd < 0) return fd;
    if ((rc = s->vfs->lock(s->vfs->self, fd)) < 0) s->vfs->close(s->vfs->self, fd);
    return rc < 0 ? rc : fd;
}

int jsc_spares_take(jsc_spares *s, const char *path, const uint8_t head[JSC_SEGMENT_HEAD], uint64_t most,
                    int64_t *bytes) {
    const jsc_vfs *vfs = s->vfs;
    char *name = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->n) name = s->paths[--s->n];
    pthread_mutex_unlock(&s->lock);
    if (!name) return JSC_ENOTFOUND;
    int alone = keep_readers_out(s);
    if (alone < 0) {
        vfs->unlink(vfs->self, name);
        free(name);
        return alone == -EWOULDBLOCK ? JSC_ENOTFOUND : alone;
    }
    /* Its old name is gone for good before its old bytes are touched; its new one comes when its head is on the disk. */
    int fd = -1, rc = vfs->syncdir(vfs->self, s->dir);
    if (rc == 0) rc = fd = vfs->open(vfs->self, name, O_RDWR, 0);
    if (rc >= 0) {
        *bytes = vfs->size(vfs->self, fd);
        rc = *bytes < 0 ? (int)*bytes : JSC_OK;
        if (rc == 0 && (uint64_t)*bytes > most) {
            rc = vfs->truncate(vfs->self, fd, (off_t)most);
            *bytes = (int64_t)most;
        }
        if (rc == 0) rc = jsc_write_all(vfs, fd, head, JSC_SEGMENT_HEAD, 0);
        if (rc == 0) rc = vfs->datasync(vfs->self, fd);
        if (rc == 0) rc = vfs->rename(vfs->self, name, path);
        if (rc == 0) rc = vfs->syncdir(vfs->self, s->dir);
        if (rc < 0) vfs->close(vfs->self, fd);
    }
    vfs->close(vfs->self, alone);
    free(name);
    return rc < 0 ? rc : fd;
}
