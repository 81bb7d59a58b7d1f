/* Frames of a hostile peer on a replication link. First byte: how they are cut into reads, and whether the checksum of
 * the first frame is made good again. What comes up is a frame whose checksum holds, whole and of the agreed version,
 * in the order sent; anything else ends the link. */
#include "../plane.h"
#include "../../base/fuzz/driver.h"
#include <sys/socket.h>
#include <unistd.h>

enum { VERSION = 2 };

static uint32_t get32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void seal(uint8_t *f, size_t n) {
    if (n < JSC_FRAME_HEAD) return;
    size_t len = get32(f + 4);
    if (len > n - JSC_FRAME_HEAD) return;
    uint32_t crc = jsc_crc32c(0, f + 4, JSC_FRAME_HEAD - 4 + len);
    for (int i = 0; i < 4; i++) f[i] = (uint8_t)(crc >> (8 * i));
}

/* Bytes of the proper frame at b; 0: it is none, or not whole. */
static size_t frame(const uint8_t *b, size_t n) {
    if (n < JSC_FRAME_HEAD) return 0;
    size_t len = get32(b + 4);
    if (len > JSC_FRAME_MAX || n - JSC_FRAME_HEAD < len || b[8] != VERSION) return 0;
    if (b[10] || b[11] || get32(b + 12)) return 0;
    return jsc_crc32c(0, b + 4, JSC_FRAME_HEAD - 4 + len) == get32(b) ? JSC_FRAME_HEAD + len : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    jsc_plane_options o = {.max_payload = 4096, .max_pending = 1 << 16};
    jsc_plane *p;
    int sv[2];
    uint64_t id;
    if (n < 2 || n > 65536 || jsc_plane_new(&o, &p)) return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    if (jsc_conn_adopt(p, sv[0], JSC_CONN_ROUTE, "", 0, &id)) abort();
    if (jsc_conn_become_link(p, id, VERSION)) abort();
    uint8_t *b = malloc(n - 1);
    if (!b) abort();
    memcpy(b, data + 1, n - 1);
    n--;
    if (data[0] & 128) seal(b, n);
    size_t sent = 0, seen = 0, step = 1 + (data[0] & 127);
    while (sent < n) {
        size_t k = n - sent < step ? n - sent : step;
        if (send(sv[1], b + sent, k, MSG_NOSIGNAL) < 0) break;
        sent += k;
        step *= 2;
        for (int i = 0; i < 2; i++) {
            jsc_ready r[4];
            jsc_plane_poll(p, 0, r, 4);
        }
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            if (e.type != JSC_EV_FRAME) continue;
            size_t whole = frame(b + seen, sent - seen);
            if (!whole || e.data_len != whole - JSC_FRAME_HEAD || e.a != b[seen + 9]) abort();
            if (memcmp(e.data, b + seen + JSC_FRAME_HEAD, e.data_len)) abort();
            seen += whole;
        }
    }
    if (sent == n && frame(b + seen, n - seen)) abort(); /* a proper one was withheld */
    close(sv[1]);
    jsc_plane_free(p);
    free(b);
    return 0;
}

static size_t put(uint8_t *b, uint8_t kind, const void *body, size_t n) {
    memset(b, 0, JSC_FRAME_HEAD);
    b[4] = (uint8_t)n;
    b[8] = VERSION;
    b[9] = kind;
    memcpy(b + JSC_FRAME_HEAD, body, n);
    seal(b, JSC_FRAME_HEAD + n);
    return JSC_FRAME_HEAD + n;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    uint8_t b[512];
    p->lead = 1;
    p->draw[0] = 255;
    p->likes = "\1\2\377\376\0";
    p->nlikes = 5;
    p->head = JSC_FRAME_HEAD;
    size_t n = put(b, 254, "", 0);
    jsc_fuzz_add(p, "\0", b, n);
    n += put(b + n, 255, "{\"name\":\"a\",\"directory\":\"d\"}", 28);
    n += put(b + n, 1, "\6\0\1\3\0\0\0\3\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0g", 36);
    jsc_fuzz_add(p, "\200", b, n);
    n = put(b, 2, "\0\1\3\0\0\0\3\0\0\0\7\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0grecords", 34);
    jsc_fuzz_add(p, "\200", b, n);
}
