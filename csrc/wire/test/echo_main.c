/* A bare server for load tests: listens on a loopback port, greets, accepts every CONNECT. echo_main PORT */
#include "../plane.h"
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const char info[] = "INFO {\"server_id\":\"E\",\"version\":\"2.14.5\",\"proto\":1,\"headers\":true,"
                               "\"max_payload\":1048576} \r\n";
    jsc_plane_options o = {0};
    jsc_plane *p;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t an = sizeof a;
    int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (void *)&a, an) || listen(s, 1024) || getsockname(s, (void *)&a, &an) || jsc_plane_new(&o, &p)) {
        perror("echo_main");
        return 1;
    }
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    jsc_plane_watch(p, s, EPOLLIN);
    for (;;) {
        jsc_ready r[4];
        if (jsc_plane_poll(p, -1, r, 4) > 0)
            for (int fd; (fd = accept4(s, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                uint64_t id;
                if (jsc_conn_adopt(p, fd, JSC_CONN_CLIENT, info, sizeof info - 1, &id)) close(fd);
            }
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e))
            if (e.type == JSC_EV_CONNECT) {
                int hdr = strstr(e.data, "\"headers\":true") != NULL;
                jsc_conn_options co = {.account = jsc_plane_account(p, "$G", 2),
                                       .echo = 1,
                                       .headers = (uint8_t)hdr,
                                       .verbose = !strstr(e.data, "\"verbose\":false"),
                                       .no_responders = strstr(e.data, "\"no_responders\":true") != NULL};
                jsc_conn_accept(p, e.conn, &co);
            }
    }
}
