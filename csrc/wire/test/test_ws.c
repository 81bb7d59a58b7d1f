/* Compressed websocket messages, whatever the frames and reads in which they come. */
#include "../plane.h"
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

static void turns(jsc_plane *p) {
    for (int i = 0; i < 4; i++) {
        jsc_ready r[4];
        assert(jsc_plane_poll(p, 0, r, 4) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            jsc_ws_options o = {.response = "HTTP/1.1 101 ok\r\n\r\n", .response_len = 19, .unmasked = 1, .deflate = 1};
            jsc_conn_options co = {.account = p->default_account, .echo = 1};
            if (e.type == JSC_EV_HTTP) assert(!jsc_conn_ws_open(p, e.conn, &o));
            if (e.type == JSC_EV_CONNECT) assert(!jsc_conn_accept(p, e.conn, &co));
        }
    }
}

static size_t hear(int fd, char *got, size_t cap) {
    ssize_t n = recv(fd, got, cap, MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

/* A message of no bytes at all is one, and the next begins anew however it is cut. */
static void test_an_empty_message_first(void) {
    static const char empty[] = {(char)0xc2, 0};
    static const char ping[] = {(char)0xc2, 12, 0, 6, 0, (char)0xf9, (char)0xff, 'P', 'I', 'N', 'G', '\r', '\n', 0};
    jsc_layer_options o = {.websocket = 1};
    jsc_plane *p;
    uint64_t id;
    int fd[2];
    for (size_t cut = 2; cut < sizeof ping; cut++) {
        char got[256];
        assert(!jsc_plane_new(NULL, &p));
        assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
        assert(!jsc_conn_adopt(p, fd[0], JSC_CONN_CLIENT, "", 0, &id));
        assert(!jsc_conn_layer(p, id, &o));
        assert(send(fd[1], "GET / HTTP/1.1\r\n\r\n", 18, 0) == 18);
        turns(p);
        assert(hear(fd[1], got, sizeof got) == 19);
        assert(send(fd[1], empty, sizeof empty, 0) == sizeof empty);
        turns(p);
        assert(send(fd[1], ping, cut, 0) == (ssize_t)cut);
        turns(p);
        assert(send(fd[1], ping + cut, sizeof ping - cut, 0) == (ssize_t)(sizeof ping - cut));
        turns(p);
        assert(hear(fd[1], got, sizeof got) == 8 && !memcmp(got + 2, "PONG\r\n", 6));
        close(fd[1]);
        jsc_plane_free(p);
    }
}

int main(void) {
    test_an_empty_message_first();
    puts("ws: ok");
    return 0;
}
