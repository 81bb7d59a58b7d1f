/* Bytes of a hostile client, peer or link against the parser. First byte: kind and split. libFuzzer: LLVMFuzzerTestOneInput;
 * otherwise a program: files to replay as arguments, or a number of random mutations. */
#include "../plane.h"
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    jsc_plane_options o = {.max_payload = 4096, .max_pending = 1 << 16, .trace = n > 1 && data[1] & 1};
    jsc_plane *p;
    int sv[2];
    uint64_t id;
    if (n < 2 || n > 65536 || jsc_plane_new(&o, &p)) return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    if (jsc_conn_adopt(p, sv[0], data[0] % 3, "", 0, &id)) abort();
    jsc_route_options ro = {.pool_size = 3, .pool_index = data[1] % 3};
    if (data[1] & 2) ro = (jsc_route_options){.only = jsc_plane_account(p, "$G", 2)};
    if (data[0] % 3 == 1 && data[0] & 64) jsc_conn_route_ready(p, id, &ro);
    size_t cut = 1 + data[0] % n;
    for (int part = 0; part < 2; part++) {
        const uint8_t *b = part ? data + cut : data + 1;
        size_t k = part ? n - cut : cut - 1;
        if (k && send(sv[1], b, k, MSG_NOSIGNAL) < 0) break;
        if (part && data[0] % 3 == 1 && data[0] & 32) jsc_conn_route_ready(p, id, &ro);
        for (int i = 0; i < 3; i++) {
            jsc_ready r[4];
            jsc_plane_poll(p, 0, r, 4);
            for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
                jsc_conn_options co = {
                    .account = jsc_plane_account(p, "$G", 2), .headers = 1, .no_responders = 1, .echo = 1};
                if (e.type == JSC_EV_CONNECT) jsc_conn_accept(p, e.conn, &co);
                if (e.type == JSC_EV_INFO) jsc_conn_go_on(p, e.conn);
                if (e.type == JSC_EV_LINK) jsc_conn_become_link(p, e.conn);
            }
        }
    }
    close(sv[1]);
    jsc_plane_free(p);
    return 0;
}

#ifndef JSC_LIBFUZZER
static const char *const seeds[] = {
    "CONNECT {}\r\nSUB a.* q 1\r\nSUB > 2\r\nPUB a.b _INBOX.x.y 5\r\nhello\r\nHPUB a.b r 12 "
    "14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 1 2\r\nPING\r\n",
    "RS+ $G a.>\r\nRS+ $G b q 2\r\nRMSG $G a | q 1\r\nx\r\nHMSG $G a + r q 2 3\r\nabc\r\nLMSG o $G a 0 1\r\nx\r\nRS- "
    "$G b q\r\nJSLINK {}\r\n",
    "RS+ a.>\r\nRS+ b q 2\r\nLS+ o a q 1\r\nRMSG a | q 1\r\nx\r\nHMSG a + r q 2 3\r\nabc\r\nLMSG o a r 0 1\r\nx\r\nLS- "
    "o a q\r\n"
    "RS- b q\r\nRS+ x\r\n",
    "RMSG $G a $JS.ACK.a.b.c.d.e.f.g@sub 3\r\nabc\r\nINFO {}\r\nCONNECT {}\r\nA+ x\r\nPONG\r\n+OK\r\n-ERR 'x'\r\n",
};
int main(int argc, char **argv) {
    static uint8_t b[65536];
    uint64_t r = 88172645463325252u;
    long rounds = argc > 1 ? atol(argv[1]) : 20000;
    for (int i = 1; i < argc && rounds == 0; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) return 1;
        size_t n = fread(b, 1, sizeof b, f);
        fclose(f);
        LLVMFuzzerTestOneInput(b, n);
    }
    for (long i = 0; i < rounds; i++) {
        const char *s = seeds[i % 4];
        size_t n = strlen(s) + 1;
        memcpy(b + 1, s, n - 1);
        for (int k = (int)(i % 7); k >= 0; k--) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            size_t at = (size_t)(r >> 8) % (n - 1) + 1;
            if (r & 1) b[at] = (uint8_t)"\r\n .>*0129AP@+|-"[r >> 20 & 15];
            else if (r & 2) b[at] = (uint8_t)(r >> 24);
            else memmove(b + at, b + at + 1, n - at), n -= n > 8;
        }
        b[0] = (uint8_t)(r >> 32);
        LLVMFuzzerTestOneInput(b, n);
    }
    puts("fuzz: ok");
    return 0;
}
#endif
