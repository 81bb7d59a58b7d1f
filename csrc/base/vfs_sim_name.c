/* Names of the simulated disk: one table by path, and a list for each directory. A name has two values, now and after a
 * power cut that keeps nothing; each directory remembers the changes between them in order. */
#include "vfs_sim.h"

const char *sim_base(const char *path, size_t *dir_n) {
    const char *slash = strrchr(path, '/');
    *dir_n = slash ? (size_t)(slash - path) : 0;
    return slash ? slash + 1 : path;
}

static sim_name *find(const jsc_sim *s, const char *path, size_t n) {
    uint64_t h = jsc_hash(path, n);
    for (sim_name *e = s->buckets[h % s->nbuckets]; e; e = e->chain)
        if (e->hash == h && strncmp(e->path, path, n) == 0 && !e->path[n]) return e;
    return NULL;
}

static size_t without_slash(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}

sim_file *sim_find(jsc_sim *s, const char *path) {
    sim_name *e = find(s, path, without_slash(path));
    return e ? e->now : NULL;
}

sim_file *sim_find_synced(jsc_sim *s, const char *path) {
    sim_name *e = find(s, path, without_slash(path));
    return e ? e->synced : NULL;
}

static void rehash(jsc_sim *s, size_t n) {
    sim_name **fresh = calloc(n, sizeof *fresh), *next;
    JSC_ASSERT(fresh != NULL);
    for (size_t i = 0; i < s->nbuckets; i++)
        for (sim_name *e = s->buckets[i]; e; e = next) {
            next = e->chain;
            e->chain = fresh[e->hash % n];
            fresh[e->hash % n] = e;
        }
    free(s->buckets);
    s->buckets = fresh;
    s->nbuckets = n;
}

static sim_name *add(jsc_sim *s, const char *path, size_t n, sim_dir *in) {
    if (s->nnames == s->nbuckets) rehash(s, 2 * s->nbuckets);
    sim_name *e = calloc(1, sizeof *e + n + 1);
    JSC_ASSERT(e != NULL);
    memcpy(e->path, path, n);
    e->hash = jsc_hash(path, n);
    e->chain = s->buckets[e->hash % s->nbuckets];
    s->buckets[e->hash % s->nbuckets] = e;
    s->nnames++;
    e->in = in;
    if (in) {
        e->link = in->end;
        *e->link = e;
        in->end = &e->next;
    }
    return e;
}

static void erase(jsc_sim *s, sim_name *e) {
    sim_name **at = &s->buckets[e->hash % s->nbuckets];
    while (*at != e) at = &(*at)->chain;
    *at = e->chain;
    s->nnames--;
    if (e->in) {
        *e->link = e->next;
        if (e->next) e->next->link = e->link;
        else e->in->end = e->link;
    }
    free(e);
}

static void erase_if_unused(jsc_sim *s, sim_name *e) {
    if (!e->now && !e->synced && !e->pending) erase(s, e);
}

static void point_now(jsc_sim *s, sim_name *e, sim_file *f) {
    sim_file *old = e->now;
    if (f) f->links++;
    e->now = f;
    if (old) {
        old->links--;
        sim_file_settle_use(s, old);
    }
}

static void point_synced(jsc_sim *s, sim_name *e, sim_file *f) {
    sim_file *old = e->synced;
    if (f) f->ghosts++;
    e->synced = f;
    if (old) {
        old->ghosts--;
        sim_file_settle_use(s, old);
    }
}

/* ---- directories ---- */

void sim_dir_new(jsc_sim *s, sim_file *f) {
    sim_dir *d = calloc(1, sizeof *d);
    JSC_ASSERT(d != NULL);
    d->end = &d->names;
    d->link = s->dirs_end;
    *d->link = d;
    s->dirs_end = &d->next;
    f->dir = d;
}

static void dir_free(jsc_sim *s, sim_dir *d) {
    JSC_ASSERT(!d->names);
    *d->link = d->next;
    if (d->next) d->next->link = d->link;
    else s->dirs_end = d->link;
    free(d->changes);
    free(d);
}

/* The directory at path[0, n), made up as an old and synced one when nobody made it. */
static sim_dir *dir_at(jsc_sim *s, const char *path, size_t n) {
    sim_name *e = find(s, path, n);
    if (e && e->now && e->now->dir) return e->now->dir;
    JSC_ASSERT(!e || !e->now); /* a file stands where the directory should */
    if (!e) {
        size_t up = n;
        while (up && path[up - 1] != '/') up--;
        sim_dir *in = up > 1 ? dir_at(s, path, up - 1) : dir_at(s, up ? "/" : ".", 1);
        e = add(s, path, n, in);
    }
    sim_file *f = sim_file_new(s);
    sim_dir_new(s, f);
    point_now(s, e, f);
    point_synced(s, e, f);
    return f->dir;
}

static void note(jsc_sim *s, sim_name *e, sim_file *f, bool tied) {
    sim_dir *d = e->in;
    if (d->nchanges == d->changes_cap) {
        d->changes_cap = d->changes_cap ? 2 * d->changes_cap : 8;
        d->changes = sim_grow(d->changes, d->changes_cap, sizeof *d->changes);
    }
    d->changes[d->nchanges++] = (sim_change){e, f, tied};
    e->pending++;
    if (f) f->ghosts++;
}

void sim_name_set(jsc_sim *s, const char *path, sim_file *f, bool tied) {
    size_t n = without_slash(path);
    sim_name *e = find(s, path, n);
    if (!e) {
        size_t up = n;
        while (up && path[up - 1] != '/') up--;
        e = add(s, path, n, up > 1 ? dir_at(s, path, up - 1) : dir_at(s, up ? "/" : ".", 1));
    }
    note(s, e, f, tied);
    point_now(s, e, f);
}

void sim_dir_settle(jsc_sim *s, sim_dir *d, int keep_percent) {
    bool keeps = true;
    for (size_t i = 0; i < d->nchanges; i++) {
        sim_change *c = &d->changes[i];
        if (!c->tied && keeps) keeps = keep_percent >= 100 || sim_chance(s, keep_percent);
        if (keeps) point_synced(s, c->name, c->file);
        c->name->pending--;
        if (c->file) {
            c->file->ghosts--;
            sim_file_settle_use(s, c->file);
        }
        if (!c->name->pending && keep_percent >= 100) erase_if_unused(s, c->name);
    }
    d->nchanges = 0;
}

/* What was in a directory that is gone. */
static void dir_clear(jsc_sim *s, sim_dir *d) {
    for (size_t i = 0; i < d->nchanges; i++) {
        d->changes[i].name->pending--;
        if (d->changes[i].file) {
            d->changes[i].file->ghosts--;
            sim_file_settle_use(s, d->changes[i].file);
        }
    }
    d->nchanges = 0;
    while (d->names) {
        sim_name *e = d->names;
        point_synced(s, e, NULL);
        point_now(s, e, NULL);
        erase(s, e);
    }
}

/* Directories without a name: their contents go, which may free others. */
static void drop_lost_dirs(jsc_sim *s) {
    for (bool again = true; again;) {
        again = false;
        sim_file *next;
        for (sim_file *f = s->files; f; f = next) {
            next = f->next;
            if (!f->dir || f->links || f->ghosts) continue;
            dir_clear(s, f->dir);
            dir_free(s, f->dir);
            sim_file_free(s, f);
            again = true;
            break;
        }
    }
}

void sim_names_crash(jsc_sim *s, int keep_percent) {
    for (sim_dir *d = s->dirs; d; d = d->next) {
        sim_dir_settle(s, d, keep_percent);
        sim_name *next;
        for (sim_name *e = d->names; e; e = next) {
            next = e->next;
            point_now(s, e, e->synced);
            erase_if_unused(s, e);
        }
    }
    drop_lost_dirs(s);
}

void sim_names_new(jsc_sim *s) {
    s->dirs_end = &s->dirs;
    rehash(s, 64);
    static const char *const roots[] = {"/", "."};
    for (int i = 0; i < 2; i++) {
        sim_name *e = add(s, roots[i], 1, NULL);
        sim_file *f = sim_file_new(s);
        sim_dir_new(s, f);
        point_now(s, e, f);
        point_synced(s, e, f);
    }
}

void sim_names_free(jsc_sim *s) {
    for (size_t i = 0; i < s->nbuckets; i++)
        while (s->buckets[i]) {
            sim_name *e = s->buckets[i];
            s->buckets[i] = e->chain;
            free(e);
        }
    free(s->buckets);
    while (s->dirs) {
        s->dirs->names = NULL;
        dir_free(s, s->dirs);
    }
}
