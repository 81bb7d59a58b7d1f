/* S2: bytes of a hostile peer on a compressed route, blocks alone, and whether all that is packed comes back.
 * First byte: which of them and how, second: where the bytes are cut. */
#include "../plane.h"
#include "../s2.h"
#include "../../base/fuzz/driver.h"
#include <sys/socket.h>
#include <unistd.h>

static void on_a_route(const uint8_t *b, size_t n, size_t cut) {
    jsc_plane_options o = {.max_payload = 4096, .max_pending = 1 << 16};
    jsc_compress_options co = {.level = (uint8_t)(cut % 4)};
    char got[4096];
    jsc_plane *p;
    int sv[2];
    uint64_t id;
    if (jsc_plane_new(&o, &p)) return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    if (jsc_conn_adopt(p, sv[0], JSC_CONN_ROUTE, "", 0, &id)) abort();
    if (jsc_conn_compress(p, id, &co) || jsc_conn_route_ready(p, id, NULL)) abort();
    for (int part = 0; part < 2; part++) {
        if (send(sv[1], part ? b + cut : b, part ? n - cut : cut, MSG_NOSIGNAL) < 0) break;
        for (int i = 0; i < 4; i++) {
            jsc_ready r[4];
            jsc_plane_poll(p, 0, r, 4);
            for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            }
            while (recv(sv[1], got, sizeof got, MSG_DONTWAIT) > 0) {
            }
        }
    }
    close(sv[1]);
    jsc_plane_free(p);
}

static void a_block(const uint8_t *b, size_t n) {
    int64_t size = jsc_s2_size(JSC_S2_BLOCK, b, n);
    if (size < 0) return;
    uint8_t *to = malloc((size_t)size + 1);
    if (!to) abort();
    jsc_s2_unpack(JSC_S2_BLOCK, b, n, to, (size_t)size);
    free(to);
}

static void there_and_back(int level, const uint8_t *b, size_t n) {
    static jsc_s2_work work;
    uint8_t *packed = malloc(jsc_s2_bound(n)), *q = packed + 10, *made = malloc(n + 1);
    if (!packed || !made) abort();
    size_t k = jsc_s2_pack(&work, level, b, n, packed), at = 0;
    while (q < packed + k) {
        size_t len = q[1] | (size_t)q[2] << 8 | (size_t)q[3] << 16;
        int64_t size = jsc_s2_size(q[0], q + 4, len);
        if (size <= 0 || (size_t)size > n - at || jsc_s2_unpack(q[0], q + 4, len, made + at, (size_t)size)) abort();
        at += (size_t)size;
        q += 4 + len;
    }
    if (at != n || memcmp(made, b, n)) abort();
    free(packed);
    free(made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 3 || n > 65536) return 0;
    const uint8_t *b = data + 2;
    n -= 2;
    if (data[0] % 3 == 0) on_a_route(b, n, data[1] % n);
    else if (data[0] % 3 == 1) a_block(b, n);
    else there_and_back(data[1] % 4, b, n);
    return 0;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    static const char lines[] =
        "RS+ $G a.>\r\nRMSG $G a.b 5\r\nhello\r\nRMSG $G a.b 5\r\nhello\r\nRMSG $G a.b.c 5\r\nhello\r\n"
        "PING\r\nRS- $G a.>\r\n";
    static jsc_s2_work work;
    uint8_t packed[512];
    p->lead = 2;
    p->draw[1] = 255;
    p->likes = "\0\1\2\3\xff\xfe\xf0\xf4\xf8\xfc\x15\x19\x1d\x80";
    p->nlikes = 14;
    for (int level = 0; level < 4; level++) {
        size_t n = jsc_s2_pack(&work, level, lines, sizeof lines - 1, packed);
        jsc_fuzz_add(p, "\0\0", packed, n);
        jsc_fuzz_add(p, "\1\0", packed + 14, n - 14);
    }
    jsc_fuzz_add(p, "\1\0", "....\x8c\x80\4\4ab\1\2\x1d\0\2\0\0", 17);
    jsc_fuzz_add(p, "\1\0", "....\x8a\2\4ab\16\2\0\x19\0\0\0\x15\0\0", 18);
    jsc_fuzz_add(p, "\2\0", lines, sizeof lines - 1);
    jsc_fuzz_add(p, "\2\0", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabababababababababababababababab", 72);
}
