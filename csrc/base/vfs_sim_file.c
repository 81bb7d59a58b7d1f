/* Bytes of a simulated file. A reader sees the image; for each page that was written and not synced, the page as the disk
 * has it is kept beside, so that a sync costs what was written and not what the file holds. */
#include "vfs_sim.h"

#include <sys/mman.h>

#define BY_MMAP ((size_t)256 << 10) /* from here on images are address space that costs nothing until touched */

static const uint8_t zeros[SIM_PAGE];

void *sim_grow(void *old, size_t n, size_t item) {
    void *p = realloc(old, n * item);
    JSC_ASSERT(p != NULL);
    return p;
}

static size_t page_up(uint64_t n) { return (size_t)((n + SIM_PAGE - 1) / SIM_PAGE * SIM_PAGE); }

/* ---- images ---- */

static sim_image *image_new(jsc_sim *s, sim_file *f, size_t cap) {
    size_t bytes = sizeof(sim_image) + cap;
    void *p;
    if (cap >= BY_MMAP) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        JSC_ASSERT(p != MAP_FAILED);
    } else {
        p = aligned_alloc(64, bytes);
        JSC_ASSERT(p != NULL);
        memset(p, 0, bytes);
    }
    sim_image *m = p;
    m->file = f;
    m->cap = cap;
    m->by_mmap = cap >= BY_MMAP;
    m->all_link = &s->images;
    m->all_next = s->images;
    if (m->all_next) m->all_next->all_link = &m->all_next;
    s->images = m;
    return m;
}

static void image_free(sim_image *m) {
    *m->all_link = m->all_next;
    if (m->all_next) m->all_next->all_link = m->all_link;
    if (m->by_mmap) munmap(m, sizeof *m + m->cap);
    else free(m);
}

/* An image of at least n bytes, at the head of the list. */
static sim_image *image_for(jsc_sim *s, sim_file *f, size_t n) {
    sim_image *old = f->images;
    if (old && old->cap >= n) return old;
    size_t cap = page_up(n);
    if (old && cap < 2 * old->cap) cap = 2 * old->cap;
    sim_image *m = image_new(s, f, cap);
    f->images = m;
    if (!old) return m;
    memcpy(m->bytes, old->bytes, f->high < old->cap ? f->high : old->cap);
    if (old->maps) {
        m->next = old;
    } else {
        m->next = old->next;
        image_free(old);
    }
    return m;
}

/* Mapped images go on showing what they showed, apart from the file. */
static void images_detach(sim_file *f) {
    sim_image *next;
    for (sim_image *m = f->images; m; m = next) {
        next = m->next;
        m->next = NULL;
        m->file = NULL;
        if (!m->maps) image_free(m);
    }
    f->images = NULL;
    f->maps = 0;
}

void sim_images_free(jsc_sim *s) {
    while (s->images) image_free(s->images);
}

const void *sim_file_map(jsc_sim *s, sim_file *f, size_t n) {
    sim_image *m = image_for(s, f, n);
    m->maps++;
    f->maps++;
    return m->bytes;
}

void sim_image_unmap(jsc_sim *s, const void *p) {
    sim_image *m = (sim_image *)((uintptr_t)p - offsetof(sim_image, bytes));
    JSC_ASSERT(m->maps > 0);
    m->maps--;
    sim_file *f = m->file;
    if (!f) {
        if (!m->maps) image_free(m);
        return;
    }
    f->maps--;
    if (!m->maps && m != f->images) {
        sim_image **link = &f->images;
        while (*link != m) link = &(*link)->next;
        *link = m->next;
        image_free(m);
    }
    sim_file_settle_use(s, f);
}

static void image_put(sim_file *f, uint64_t at, const void *bytes, size_t n) {
    for (sim_image *m = f->images; m; m = m->next) {
        if (at >= m->cap) continue;
        size_t fits = n < m->cap - at ? n : (size_t)(m->cap - at);
        if (bytes) memcpy(m->bytes + at, bytes, fits);
        else memset(m->bytes + at, 0, fits);
    }
}

/* ---- pages that differ from the disk's ---- */

static uint8_t *page_take(jsc_sim *s) {
    if (s->nspare) return s->spare[--s->nspare];
    uint8_t *p = malloc(SIM_PAGE);
    JSC_ASSERT(p != NULL);
    return p;
}

static void page_give(jsc_sim *s, const uint8_t *p) {
    if (p == zeros) return;
    if (s->nspare < SIM_SPARE_PAGES) s->spare[s->nspare++] = (uint8_t *)(uintptr_t)p;
    else free((void *)(uintptr_t)p);
}

/* Bytes [lo, hi) are about to change: keeps what the disk has of their pages. The image holds all of [0, high). */
static void touch(jsc_sim *s, sim_file *f, uint64_t lo, uint64_t hi) {
    size_t end = page_up(hi) / SIM_PAGE;
    if (end > f->npages) {
        size_t n = end < 2 * f->npages ? 2 * f->npages : end;
        f->pages = sim_grow(f->pages, n, sizeof *f->pages);
        memset(f->pages + f->npages, 0, (n - f->npages) * sizeof *f->pages);
        f->npages = n;
    }
    for (size_t p = (size_t)(lo / SIM_PAGE); p < end; p++) {
        sim_page *page = &f->pages[p];
        page->lost = false;
        if (page->old) continue;
        if (p * SIM_PAGE >= f->high) {
            page->old = zeros;
        } else {
            uint8_t *copy = page_take(s);
            memcpy(copy, f->images->bytes + p * SIM_PAGE, SIM_PAGE);
            page->old = copy;
        }
        if (f->nchanged == f->changed_cap) {
            f->changed_cap = f->changed_cap ? 2 * f->changed_cap : 8;
            f->changed = sim_grow(f->changed, f->changed_cap, sizeof *f->changed);
        }
        f->changed[f->nchanged++] = (uint32_t)p;
    }
}

void sim_file_write(jsc_sim *s, sim_file *f, uint64_t at, const void *bytes, size_t n) {
    if (!n) return;
    image_for(s, f, (size_t)at + n);
    touch(s, f, at, at + n);
    image_put(f, at, bytes, n);
    if (at + n > f->high) f->high = at + n;
    if (at + n > f->size) f->size = at + n;
}

/* The page as the disk has it, to be changed; NULL: as in the image. */
static uint8_t *page_old(jsc_sim *s, sim_file *f, size_t p) {
    if (p >= f->npages || !f->pages[p].old) return NULL;
    if (f->pages[p].old == zeros) f->pages[p].old = memset(page_take(s), 0, SIM_PAGE);
    return (uint8_t *)(uintptr_t)f->pages[p].old;
}

void sim_file_patch(jsc_sim *s, sim_file *f, uint64_t at, const void *bytes, size_t n) {
    image_for(s, f, (size_t)at + n);
    image_put(f, at, bytes, n);
    if (at + n > f->high) f->high = at + n;
    for (size_t i = 0; i < n; i++) {
        uint8_t *old = page_old(s, f, (size_t)((at + i) / SIM_PAGE));
        if (old) old[(at + i) % SIM_PAGE] = ((const uint8_t *)bytes)[i];
    }
}

void sim_file_flip(jsc_sim *s, sim_file *f, uint64_t at, uint8_t mask) {
    uint8_t byte = (uint8_t)(image_for(s, f, (size_t)at + 1)->bytes[at] ^ mask);
    image_put(f, at, &byte, 1);
    if (at >= f->high) f->high = at + 1;
    uint8_t *old = page_old(s, f, (size_t)(at / SIM_PAGE));
    if (old) old[at % SIM_PAGE] ^= mask;
}

void sim_file_resize(jsc_sim *s, sim_file *f, uint64_t size) {
    if (size < f->high) {
        touch(s, f, size, f->high);
        image_put(f, size, NULL, (size_t)(f->high - size));
    }
    f->size = size;
    if (page_up(size) < f->charged) {
        s->used -= f->charged - page_up(size);
        f->charged = page_up(size);
    }
}

size_t sim_file_read(const sim_file *f, uint64_t at, void *buf, size_t n) {
    if (at >= f->size) return 0;
    if (n > f->size - at) n = (size_t)(f->size - at);
    size_t have = f->images && at < f->images->cap ? f->images->cap - (size_t)at : 0;
    if (have > n) have = n;
    if (have) memcpy(buf, f->images->bytes + at, have);
    memset((uint8_t *)buf + have, 0, n - have);
    return n;
}

void sim_file_sync(jsc_sim *s, sim_file *f) {
    size_t kept = 0;
    for (size_t i = 0; i < f->nchanged; i++) {
        uint32_t p = f->changed[i];
        if (f->pages[p].lost) {
            f->changed[kept++] = p;
        } else {
            page_give(s, f->pages[p].old);
            f->pages[p].old = NULL;
        }
    }
    f->nchanged = kept;
    f->synced_size = f->size;
}

void sim_file_drop_some(jsc_sim *s, sim_file *f, int percent) {
    for (size_t i = 0; i < f->nchanged; i++)
        if (sim_chance(s, percent)) f->pages[f->changed[i]].lost = true;
}

void sim_file_crash(jsc_sim *s, sim_file *f, int keep_percent, bool torn) {
    if (f->size != f->synced_size && sim_chance(s, keep_percent)) f->synced_size = f->size;
    f->locked_by = f->nsharers = 0;
    if (f->maps) { /* whoever still looks keeps what he saw */
        sim_image *seen = f->images;
        seen->maps++;
        images_detach(f);
        sim_image *m = image_for(s, f, (size_t)f->high ? (size_t)f->high : 1);
        memcpy(m->bytes, seen->bytes, f->high < seen->cap ? f->high : seen->cap);
        if (!--seen->maps) image_free(seen);
    }
    for (size_t i = 0; i < f->nchanged; i++) {
        uint32_t p = f->changed[i];
        const uint8_t *old = f->pages[p].old;
        uint8_t *now = f->images->bytes + (size_t)p * SIM_PAGE;
        if (f->pages[p].lost) {
            memcpy(now, old, SIM_PAGE);
        } else if (torn && sim_chance(s, 30)) {
            for (size_t k = 0; k < SIM_PAGE; k += SIM_SECTOR)
                if (!sim_chance(s, keep_percent)) memcpy(now + k, old + k, SIM_SECTOR);
        } else if (!sim_chance(s, keep_percent)) {
            memcpy(now, old, SIM_PAGE);
        }
        page_give(s, old);
        f->pages[p] = (sim_page){0};
    }
    f->nchanged = 0;
    f->size = f->synced_size;
    /* Nothing lies behind the end of a file. */
    if (f->size < f->high) {
        image_put(f, f->size, NULL, (size_t)(f->high - f->size));
        f->high = f->size;
    }
    s->used -= f->charged;
    f->charged = page_up(f->size);
    s->used += f->charged;
}

/* ---- life ---- */

uint64_t sim_file_charge(jsc_sim *s, sim_file *f, uint64_t end) {
    if (end <= f->charged) return f->charged;
    uint64_t want = page_up(end) - f->charged, room = s->capacity > s->used ? s->capacity - s->used : 0;
    if (want > room) want = room / SIM_PAGE * SIM_PAGE;
    f->charged += want;
    s->used += want;
    return f->charged;
}

sim_file *sim_file_new(jsc_sim *s) {
    sim_file *f = calloc(1, sizeof *f);
    JSC_ASSERT(f != NULL);
    f->link = s->files_end;
    *f->link = f;
    s->files_end = &f->next;
    return f;
}

void sim_file_free(jsc_sim *s, sim_file *f) {
    *f->link = f->next;
    if (f->next) f->next->link = f->link;
    else s->files_end = f->link;
    s->used -= f->charged;
    images_detach(f);
    for (size_t i = 0; i < f->nchanged; i++) page_give(s, f->pages[f->changed[i]].old);
    free(f->pages);
    free(f->changed);
    free(f->sharers);
    free(f);
}

void sim_file_settle_use(jsc_sim *s, sim_file *f) {
    if (f->links || f->handles || f->maps) return;
    s->used -= f->charged; /* a name that only a power cut could bring back holds no space */
    f->charged = 0;
    if (!f->ghosts && !f->dir) sim_file_free(s, f);
}
