#include "pack_stand_in.h"

#include <errno.h>

static ssize_t mem_write(void *self, int fd, const struct iovec *iov, int niov, off_t at) {
    mem_file *f = self;
    size_t n = iov->iov_len;
    if (f->fail_at && --f->fail_at == 0) return -EIO;
    if (n > 1) n -= n / 3; /* a short write, always: whoever writes goes on */
    if ((size_t)at + n > f->cap) {
        f->cap = 2 * ((size_t)at + n);
        f->bytes = realloc(f->bytes, f->cap);
        JSC_ASSERT(f->bytes);
    }
    if ((size_t)at + n > f->n) {
        if ((size_t)at > f->n) memset(f->bytes + f->n, 0, (size_t)at - f->n);
        f->n = (size_t)at + n;
    }
    memcpy(f->bytes + at, iov->iov_base, n);
    return (ssize_t)n;
}

static int64_t mem_size(void *self, int fd) { return (int64_t)((mem_file *)self)->n; }

static int mem_map(void *self, int fd, size_t n, const void **out) {
    mem_file *f = self;
    void *copy = malloc(n);
    JSC_ASSERT(copy && n <= f->n);
    memcpy(copy, f->bytes, n);
    f->maps++;
    *out = copy;
    return 0;
}

static int mem_unmap(void *self, const void *p, size_t n) {
    ((mem_file *)self)->maps--;
    free((void *)(uintptr_t)p);
    return 0;
}

void mem_file_init(mem_file *f) {
    *f = (mem_file){.vfs = {.pwritev = mem_write, .size = mem_size, .map = mem_map, .unmap = mem_unmap}};
    f->vfs.self = f;
}

void mem_file_free(mem_file *f) {
    JSC_ASSERT(f->maps == 0);
    free(f->bytes);
}
