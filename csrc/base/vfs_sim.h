/* What the files of the simulated disk share: vfs_sim.c (the table of calls, faults, the test's own calls),
 * vfs_sim_file.c (bytes: images, what a power cut leaves of them), vfs_sim_name.c (directories and names). Everything is
 * under sim->lock. */
#ifndef JSC_VFS_SIM_H
#define JSC_VFS_SIM_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "jsc_base.h"
#include "jsc_vfs.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

enum { SIM_PAGE = 4096, SIM_SECTOR = 512, SIM_SPARE_PAGES = 256 };
#define SIM_FILE_MAX ((uint64_t)1 << 36)
#define SIM_OPS (sizeof JSC_VFS_OPS - 1)

typedef struct sim_file sim_file;

/* A file's first `cap` bytes in memory; never moves, so that it can be mapped. A file that outgrows it gets a larger one,
 * and the old one stays, and is written to as well, while somebody has it mapped. */
typedef struct sim_image {
    struct sim_image *next; /* older ones of the same file */
    struct sim_image *all_next, **all_link;
    sim_file *file; /* NULL: outlived it, or a power cut */
    size_t cap;
    int maps;
    bool by_mmap;
    _Alignas(64) uint8_t bytes[];
} sim_image;

/* One page of a file: what the disk has instead while it is not synced. */
typedef struct sim_page {
    const uint8_t *old; /* NULL: as in the image */
    bool lost;          /* a failed sync dropped it: only another write brings it to the disk */
} sim_page;

struct sim_file {
    sim_file *next, **link; /* all files, in order of creation */
    sim_image *images;      /* newest first; the first has everything that was ever written */
    uint64_t size, synced_size;
    uint64_t high;    /* no byte at or above was ever other than zero, now or on the disk */
    uint64_t charged; /* bytes of the disk's capacity it holds */
    sim_page *pages;
    uint32_t *changed; /* pages with an old one, in order of change */
    size_t npages, nchanged, changed_cap;
    int links, ghosts;  /* names that have it now; names that may have it after a power cut */
    int handles, maps;
    int locked_by; /* handle + 1 */
    int *sharers;  /* handles */
    int nsharers;
    uint64_t bad_lo, bad_hi; /* reads of these bytes fail */
    struct sim_dir *dir;     /* it is a directory */
};

typedef struct sim_name {
    struct sim_name *chain;       /* of its bucket */
    struct sim_name *next, **link; /* of its directory, in order of creation */
    struct sim_dir *in;           /* NULL: a root */
    sim_file *now, *synced;
    uint64_t hash;
    int pending; /* changes that name it */
    char path[];
} sim_name;

typedef struct sim_change {
    sim_name *name;
    sim_file *file; /* NULL: the name goes */
    bool tied;      /* one step with the change before it */
} sim_change;

typedef struct sim_dir {
    struct sim_dir *next, **link; /* all directories */
    sim_name *names, **end;
    sim_change *changes; /* since the last syncdir */
    size_t nchanges, changes_cap;
} sim_dir;

struct jsc_sim {
    jsc_vfs vfs;
    pthread_mutex_t lock;
    uint64_t seed;
    sim_file *files, **files_end;
    sim_image *images;
    sim_dir *dirs, **dirs_end;
    sim_name **buckets;
    size_t nbuckets, nnames;
    sim_file **handles;
    int nhandles, epoch; /* handles of before a power cut are of another epoch */
    uint8_t *spare[SIM_SPARE_PAGES];
    int nspare;
    uint64_t capacity, used;
    int short_percent, drop_percent;
    uint64_t calls[SIM_OPS];
    struct {
        int n, err;
    } fault[SIM_OPS];
    int dies_in, dies_err;
};

static inline uint64_t sim_random(jsc_sim *s) { /* splitmix64 */
    uint64_t z = (s->seed += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline bool sim_chance(jsc_sim *s, int percent) { return (int)(sim_random(s) % 100) < percent; }
void *sim_grow(void *old, size_t n, size_t item); /* realloc that does not fail */

/* vfs_sim_file.c */
sim_file *sim_file_new(jsc_sim *);
void sim_file_settle_use(jsc_sim *, sim_file *); /* a link, ghost, handle or map went: gives back what nobody needs */
void sim_file_free(jsc_sim *, sim_file *);
size_t sim_file_read(const sim_file *, uint64_t at, void *buf, size_t n); /* bytes there were */
void sim_file_write(jsc_sim *, sim_file *, uint64_t at, const void *bytes, size_t n);
void sim_file_patch(jsc_sim *, sim_file *, uint64_t at, const void *bytes, size_t n); /* also what the disk has */
void sim_file_flip(jsc_sim *, sim_file *, uint64_t at, uint8_t mask); /* likewise */
void sim_file_resize(jsc_sim *, sim_file *, uint64_t size);
void sim_file_sync(jsc_sim *, sim_file *);
void sim_file_drop_some(jsc_sim *, sim_file *, int percent); /* a failed sync */
void sim_file_crash(jsc_sim *, sim_file *, int keep_percent, bool torn);
uint64_t sim_file_charge(jsc_sim *, sim_file *, uint64_t end); /* capacity for [0, end): how far it goes, page-wise */
const void *sim_file_map(jsc_sim *, sim_file *, size_t n);
void sim_image_unmap(jsc_sim *, const void *);
void sim_images_free(jsc_sim *); /* those still mapped too */

/* vfs_sim_name.c */
void sim_names_new(jsc_sim *);
void sim_names_free(jsc_sim *);
sim_file *sim_find(jsc_sim *, const char *path); /* NULL: no such name now */
sim_file *sim_find_synced(jsc_sim *, const char *path); /* as a power cut would have it at the least */
void sim_name_set(jsc_sim *, const char *path, sim_file *, bool tied); /* NULL: unlink. Directories above are made up */
void sim_dir_settle(jsc_sim *, sim_dir *, int keep_percent); /* a prefix of the changes; 100: all */
void sim_names_crash(jsc_sim *, int keep_percent);
void sim_dir_new(jsc_sim *, sim_file *);
const char *sim_base(const char *path, size_t *dir_n); /* the last part; bytes of what is before its slash */
#endif
