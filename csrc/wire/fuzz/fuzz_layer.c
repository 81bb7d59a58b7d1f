/* Bytes of a hostile client against what lies under the parser: PROXY headers, websocket frames, compressed messages.
 * First byte: which of them, second: where the bytes are cut. */
#include "../plane.h"
#include "../../base/fuzz/driver.h"
#include <sys/socket.h>
#include <unistd.h>

enum { PROXY = 1, WEB = 2, DEFLATE = 4, UNMASKED = 8, BROWSER = 16, SUBSCRIBED = 32 };

static void turns(jsc_plane *p, int sink, uint8_t how) {
    static char got[1 << 16];
    for (int i = 0; i < 6; i++) {
        jsc_ready r[4];
        jsc_plane_poll(p, 0, r, 4);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            jsc_conn_options co = {
                .account = jsc_plane_account(p, "$G", 2), .headers = 1, .no_responders = 1, .echo = 1};
            jsc_ws_options wo = {.response = "HTTP/1.1 101 ok\r\n\r\n",
                                 .response_len = 19,
                                 .unmasked = (how & UNMASKED) != 0,
                                 .deflate = (how & DEFLATE) != 0,
                                 .browser = (how & BROWSER) != 0};
            if (e.type == JSC_EV_CONNECT) jsc_conn_accept(p, e.conn, &co);
            if (e.type == JSC_EV_HTTP && e.data_len) jsc_conn_ws_open(p, e.conn, &wo);
            if (e.type == JSC_EV_HTTP && !e.data_len) jsc_conn_close(p, e.conn, "Client Closed", NULL);
        }
        while (recv(sink, got, sizeof got, MSG_DONTWAIT) > 0) {
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    jsc_plane_options o = {.max_payload = 4096, .max_pending = 1 << 16};
    jsc_plane *p;
    int sv[2];
    uint64_t id;
    if (n < 3 || n > 65536 || jsc_plane_new(&o, &p)) return 0;
    uint8_t how = data[0];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    if (jsc_conn_adopt(p, sv[0], JSC_CONN_CLIENT, "", 0, &id)) abort();
    jsc_layer_options lo = {.proxy = how & PROXY, .websocket = (how & WEB) != 0};
    if (jsc_conn_layer(p, id, &lo)) abort();
    if (how & WEB && !(how & PROXY) && how & 64) send(sv[1], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL);
    turns(p, sv[1], how);
    size_t cut = 2 + data[1] % (n - 1);
    for (int part = 0; part < 2; part++) {
        const uint8_t *b = part ? data + cut : data + 2;
        size_t k = part ? n - cut : cut - 2;
        if (k && send(sv[1], b, k, MSG_NOSIGNAL) < 0) break;
        turns(p, sv[1], how);
    }
    close(sv[1]);
    turns(p, -1, how);
    jsc_plane_free(p);
    return 0;
}

#define S(text) {text, sizeof(text) - 1}
static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    static const struct {
        const char *text;
        size_t n;
    } seeds[] = {
        S("\001\007PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\nCONNECT {}\r\nPING\r\n"),
        S("\001\020\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\1\2\3\4\5\6\7\10\4W\10\xae\4\0\0PING\r\n"),
        S("\001\024\r\n\r\n\0\r\nQUIT\n\x21\x21\0\44aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb\1\2\3\4PING\r\n"),
        S("\113\x0e\x82\x0d"
          "CONNECT {}\r\n\n\x82\x10SUB > 1\r\nPING\r\n\r\x89\2hi\x02\4PUB \x80\6"
          "a 1\r\nx\x80\2\r\n\x88\2\3\xe8"),
        S("\103\x1e\x82\x8d\1\2\3\4BMMJDAW$zj\t\16\13\x88\x80\0\0\0\0"),
        S("\117\x30\xc2\x1f\xf2\xf6\xf3\x0b\x71\x0d\x0e\x51\xa8\xae\xe5\xe5\x0a\x0d\x72\x52\xb0\x53\x30\xe4\xe5\x0a\xf0"
          "\xf4"
          "\x73\xe7\xe5\x02\0\0\0\x82\6PING\r\n\xc2\3\x01\0\0"),
        S("\002\010GET / HTTP/1.1\r\nHost: "
          "a\r\n\r\n\x82\x80\1\2\3\4\x82\xfe\0\6\0\0\0\0PING\r\n\x82\xff\0\0\0\0\0\0\0\6\0\0\0\0PING\r\n"),
        S("\133\x0e\x82\x3f"
          "CONNECT {}\r\nSUB a 1\r\nPUB a 30\r\n012345678901234567890123456789\r\n\x89\x00"),
    };
    p->lead = 2;
    p->draw[0] = p->draw[1] = 255;
    p->likes = "\r\n\0\1\176\177\200\202\211\302\377";
    p->nlikes = 11;
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        jsc_fuzz_add(p, seeds[i].text, seeds[i].text + 2, seeds[i].n - 2);
}
