/* Bytes of a hostile client, peer or link against the parser. First byte: kind and split. */
#include "../plane.h"
#include "../../base/fuzz/driver.h"
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    jsc_plane_options o = {.max_payload = 4096, .max_pending = 1 << 16, .trace = n > 1 && data[1] & 1};
    jsc_plane *p;
    int sv[2];
    uint64_t id;
    if (n < 2 || n > 65536 || jsc_plane_new(&o, &p)) return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    if (jsc_account_trace(jsc_plane_account(p, "$G", 2), "t.a", 3, 100)) abort();
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
                if (e.type == JSC_EV_LINK) jsc_conn_become_link(p, e.conn, 1);
            }
        }
    }
    close(sv[1]);
    jsc_plane_free(p);
    return 0;
}

/* What each speaks: a client, a route with accounts, one without, and a link. */
static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    static const char *const seeds[] = {
        "CONNECT {}\r\nSUB a.* q 1\r\nSUB > 2\r\nPUB a.b _INBOX.x.y 5\r\nhello\r\nHPUB a.b r 12 "
        "14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 1 2\r\nPING\r\n",
        "RS+ $G a.>\r\nRS+ $G b q 2\r\nRMSG $G a | q 1\r\nx\r\nHMSG $G a + r q 2 3\r\nabc\r\nLMSG o $G a 0 "
        "1\r\nx\r\nRS- "
        "$G b q\r\nJSLINK {}\r\n",
        "RS+ a.>\r\nRS+ b q 2\r\nLS+ o a q 1\r\nRMSG a | q 1\r\nx\r\nHMSG a + r q 2 3\r\nabc\r\nLMSG o a r 0 "
        "1\r\nx\r\nLS- "
        "o a q\r\n"
        "RS- b q\r\nRS+ x\r\n",
        "CONNECT {}\r\nSUB > 1\r\nSUB * q 2\r\nHPUB a 55 56\r\nNATS/1.0\r\nNats-Trace-Dest: t.b\r\nNats-Trace-Only: "
        "1\r\n\r\nx\r\nHPUB a 82 82\r\nNATS/1.0\r\ntraceparent: "
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n\r\n",
        "HMSG $G a 83 84\r\nNATS/1.0\r\nNats-Trace-Dest: t.b\r\nNats-Trace-Origin-Account: $SYS\r\nNats-Trace-Hop: "
        "1\r\n\r\nx\r\n",
        "RS+ $G _INBOX.a.*\r\nRMSG $G _INBOX.a.1 35\r\n{\"stream\":\"a\", \"seq\":1,\"domain\":\"\"}\r\nRMSG $G a "
        "_INBOX.a.2 "
        "40\r\n0123456789012345678901234567890123456789\r\nRMSG $G a 100\r\n0123456789012345678901234567890123456789"
        "012345678901234567890123456789012345678901234567890123456789\r\nRMSG $G a 1\r\nx\r\n",
        "RMSG $G a $JS.ACK.a.b.c.d.e.f.g@sub 3\r\nabc\r\nINFO {}\r\nCONNECT {}\r\nA+ x\r\nPONG\r\n+OK\r\n-ERR 'x'\r\n",
    };
    static const char *const leads[] = {"\0", "\100", "\100", "\0", "\100", "\100", "\2"};
    p->lead = 1;
    p->draw[0] = 255;
    p->likes = "\r\n .>*0129AP@+|-";
    p->nlikes = strlen(p->likes);
    for (size_t i = 0; i < 7; i++) jsc_fuzz_add(p, leads[i], seeds[i], strlen(seeds[i]));
}
