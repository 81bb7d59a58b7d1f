/* A file in memory for tests of packed files: its mapping is a copy of exactly its size, so that ASan sees the first byte
 * read beyond it. */
#ifndef JSC_PACK_STAND_IN_H
#define JSC_PACK_STAND_IN_H
#include "../pack.h"

typedef struct mem_file {
    jsc_vfs vfs;
    uint8_t *bytes;
    size_t n, cap;
    int fail_at; /* this many writes from now fails; 0: none */
    int maps;
} mem_file;

void mem_file_init(mem_file *);
void mem_file_free(mem_file *); /* checks that nothing is mapped */
#endif
