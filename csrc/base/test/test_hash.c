/* Nobody outside can choose texts of one hash: the factors are no constants, and are drawn anew in each process. */
#include "../jsc_base.h"
#include "check.h"
#include <unistd.h>

/* What texts of 16 bytes end with that made the old product zero, and all their hashes one. */
static const uint64_t was_factor = 0xc2b2ae3d27d4eb4fu;

static void test_texts_built_for_one_hash(void) {
    enum { MANY = 1000 };
    uint64_t seen[MANY], text[2] = {0, was_factor};
    for (int i = 0; i < MANY; i++) {
        text[0] = 0x6161616161616161u + (uint64_t)i;
        seen[i] = jsc_hash(text, sizeof text);
        for (int k = 0; k < i; k++) CHECK(seen[k] != seen[i]);
    }
}

static void test_one_text_in_two_processes(const char *self) {
    char command[4096];
    uint64_t theirs = 0;
    snprintf(command, sizeof command, "'%s' tell", self);
    FILE *f = popen(command, "r");
    CHECK(f && fscanf(f, "%lx", &theirs) == 1);
    CHECK(pclose(f) == 0);
    CHECK(theirs != jsc_hash("a subject", 9));
}

int main(int argc, char **argv) {
    if (argc > 1) {
        printf("%lx\n", jsc_hash("a subject", 9));
        return 0;
    }
    test_texts_built_for_one_hash();
    test_one_text_in_two_processes(argv[0]);
    CHECK(jsc_hash("a subject", 9) == jsc_hash("a subject", 9));
    puts("hash: ok");
    return 0;
}
