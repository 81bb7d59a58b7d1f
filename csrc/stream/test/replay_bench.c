/* How fast a log is applied again: bench_replay [messages] [subjects]. Not a test; numbers depend on the machine. */
#include "fake_plane.h"
#include "../internal.h"
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 300000, subjects = argc > 2 ? atoi(argv[2]) : 100;
    jsc_sim *sim = jsc_sim_new(1);
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
    if (jsc_store_open(jsc_sim_vfs(sim), JSC_SYNC_NEVER, 0, &store) || jsc_log_open(store, "log", NULL, &log, &rec))
        return 1;
    char subject[32], data[128] = {0};
    uint64_t index = 0;
    for (int i = 0; i < n; i++) {
        int k = snprintf(subject, sizeof subject, "s.%d", i % subjects);
        if (jsc_log_append(log, 1, 1700000000000000000ll + i, JSC_K_MESSAGE, subject, (size_t)k, NULL, 0, data, 128,
                           &index))
            return 1;
        if (i % 256 == 255) {
            jsc_log_submit(log);
            if (i % 65536 == 65535) jsc_log_wait(log, index, 10000000000ll);
        }
    }
    jsc_log_submit(log);
    jsc_log_wait(log, index, 10000000000ll);
    for (int pass = 0; pass < 2; pass++) {
        jsc_plane *plane = fake_plane_new();
        jsc_streams *all;
        jsc_stream *s;
        jsc_streams_new(plane, store, &all);
        jsc_stream_new(all, log, 1, jsc_plane_account(plane, "$G", 2), "S", 1, &s);
        double t = now();
        int rc = jsc_stream_commit(s, index);
        t = now() - t;
        jsc_stream_state st;
        jsc_stream_stat(s, &st);
        printf("applied %llu messages, code %d: %.2f M/s\n", (unsigned long long)st.messages, rc, n / t / 1e6);
        jsc_streams_free(all);
        jsc_plane_free(plane);
    }
    jsc_log_close(log);
    jsc_store_close(store);
    jsc_sim_free(sim);
    return 0;
}
