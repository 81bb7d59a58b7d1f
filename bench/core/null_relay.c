/* What no server that receives and sends on one thread can beat: says what a client needs to hear, then passes the bytes
 * of publishers on to the subscribers of their subject as they are. No protocol, no index, no limits.
 *   null_relay PORT   serves until its standard input closes */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 256, READ = 256 << 10 };

typedef struct client {
    int fd, flows; /* flows: its bytes are passed on from now on */
    char subject[64];
} client;

static client clients[MOST];
static int clients_n;
static char b[READ];

static void put(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EINTR) return;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
    }
}

static void pass(const client *from, const char *p, size_t n) {
    for (int i = 0; i < clients_n; i++)
        if (&clients[i] != from && !clients[i].flows && !strcmp(clients[i].subject, from->subject))
            put(clients[i].fd, p, n);
}

/* The last bytes of a publisher are its PING, in a piece of their own or behind messages. */
static void serve(client *c) {
    ssize_t n = recv(c->fd, b, sizeof b - 1, 0);
    if (n <= 0) {
        close(c->fd);
        *c = clients[--clients_n];
        return;
    }
    if (!c->flows) {
        b[n] = 0;
        char *sub = strstr(b, "SUB "), *pub = strncmp(b, "PUB ", 4) ? NULL : b;
        if (sub && !pub) sscanf(sub, "SUB %63s", c->subject);
        if (!pub) {
            if (strstr(b, "PING\r\n")) put(c->fd, "PONG\r\n", 6);
            return;
        }
        sscanf(b, "PUB %63s", c->subject);
        c->flows = 1;
    }
    int last = n >= 6 && !memcmp(b + n - 6, "PING\r\n", 6);
    pass(c, b, (size_t)n - (last ? 6 : 0));
    if (last) put(c->fd, "PONG\r\n", 6);
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "0"))};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 64)) return 1;
    for (;;) {
        struct pollfd p[MOST + 2];
        p[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        p[1] = (struct pollfd){.fd = 0, .events = POLLIN};
        int n = clients_n;
        for (int i = 0; i < n; i++) p[i + 2] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        if (poll(p, (nfds_t)n + 2, -1) < 0 && errno != EINTR) return 1;
        if (p[1].revents) return 0;
        for (int i = n - 1; i >= 0; i--)
            if (p[i + 2].revents) serve(&clients[i]);
        if (!(p[0].revents & POLLIN)) continue;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || clients_n == MOST) return 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        clients[clients_n++] = (client){.fd = fd};
        put(fd, "INFO {}\r\n", 9);
    }
}
