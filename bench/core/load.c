/* Load for a NATS server on loopback, cheap enough that the server is what gets measured. Prints one JSON object.
 *   load ps PORT PUBS SUBS SIZE COUNT PAIRS   COUNT messages from each publisher; PAIRS 1: publisher i to subscriber i
 *   load rr PORT SIZE COUNT                   COUNT requests, one at a time, with their latencies
 * {"rate": deliveries (publishes when SUBS is 0, requests) a second, "p50_us", "p99_us": of requests}
 * TLS=1 in the environment: every connection is upgraded after INFO, certificates are not verified. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 << 10, READ = 256 << 10, MOST = 64 };

static int port, pairs, pubs_n, subs_n;
static long count;
static size_t size;
static pthread_barrier_t ready;
static SSL_CTX *tls;
static double ends[MOST];

typedef struct peer {
    int fd, id;
    SSL *ssl;
} peer;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static _Noreturn void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static size_t take(peer *p, char *b, size_t n) {
    ssize_t k = p->ssl ? SSL_read(p->ssl, b, (int)n) : recv(p->fd, b, n, 0);
    if (k <= 0) die("the server closed a connection");
    return (size_t)k;
}

static void put(peer *p, const char *b, size_t n) {
    while (n) {
        ssize_t k = p->ssl ? SSL_write(p->ssl, b, (int)n) : send(p->fd, b, n, MSG_NOSIGNAL);
        if (k <= 0 && errno == EINTR) continue;
        if (k <= 0) die("send");
        b += k;
        n -= (size_t)k;
    }
}

/* Reads until `word` has come; what was read before it is gone. */
static void await(peer *p, const char *word) {
    char b[READ / 4];
    size_t n = 0, len = strlen(word);
    for (;;) {
        n += take(p, b + n, sizeof b - n);
        if (memmem(b, n, word, len)) return;
        if (n > sizeof b / 2) {
            memmove(b, b + n - len, len);
            n = len;
        }
    }
}

static void ping(peer *p) {
    put(p, "PING\r\n", 6);
    await(p, "PONG\r\n");
}

static void join(peer *p) {
    static const char hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,"
                                "\"lang\":\"c\",\"version\":\"1\",\"protocol\":1}\r\n";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&at, sizeof at)) die("connect");
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    await(p, "\r\n");
    if (tls) {
        p->ssl = SSL_new(tls);
        if (!p->ssl || !SSL_set_fd(p->ssl, p->fd) || SSL_connect(p->ssl) != 1) die("TLS handshake");
    }
    put(p, hello, sizeof hello - 1);
    ping(p);
}

/* Lines in b: a message is two. Written so that the compiler counts many bytes at a time. */
static long lines(const char *b, size_t n) {
    long all = 0;
    while (n) {
        size_t k = n < 255 ? n : 255;
        unsigned char c = 0;
        for (size_t i = 0; i < k; i++) c = (unsigned char)(c + (b[i] == '\n'));
        all += c;
        b += k;
        n -= k;
    }
    return all;
}

static void *subscribe(void *arg) {
    peer *p = arg;
    char text[64], *b = malloc(READ);
    join(p);
    put(p, text, (size_t)snprintf(text, sizeof text, "SUB bench.%d 1\r\n", pairs ? p->id : 0));
    ping(p);
    pthread_barrier_wait(&ready);
    long left = 2 * count * (pairs ? 1 : pubs_n);
    while (left > 0) left -= lines(b, take(p, b, READ));
    ends[p->id] = now();
    free(b);
    return NULL;
}

static void *publish(void *arg) {
    peer *p = arg;
    char head[64];
    size_t hn = (size_t)snprintf(head, sizeof head, "PUB bench.%d %zu\r\n", pairs ? p->id : 0, size),
           one = hn + size + 2;
    long many = (long)(CHUNK / one) ? (long)(CHUNK / one) : 1;
    char *b = malloc(one * (size_t)many);
    memset(b, 'x', one * (size_t)many);
    for (long i = 0; i < many; i++) {
        memcpy(b + one * (size_t)i, head, hn);
        memcpy(b + one * (size_t)(i + 1) - 2, "\r\n", 2);
    }
    join(p);
    pthread_barrier_wait(&ready);
    for (long left = count; left > 0; left -= many) put(p, b, one * (size_t)(left < many ? left : many));
    ping(p);
    if (!subs_n) ends[p->id] = now();
    free(b);
    return NULL;
}

static void publish_subscribe(void) {
    pthread_t threads[2 * MOST];
    peer peers[2 * MOST] = {{0}};
    int n = 0;
    pthread_barrier_init(&ready, NULL, (unsigned)(pubs_n + subs_n + 1));
    for (int i = 0; i < subs_n; i++, n++) {
        peers[n].id = i;
        pthread_create(&threads[n], NULL, subscribe, &peers[n]);
    }
    for (int i = 0; i < pubs_n; i++, n++) {
        peers[n].id = i;
        pthread_create(&threads[n], NULL, publish, &peers[n]);
    }
    pthread_barrier_wait(&ready);
    double began = now();
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    double end = 0;
    for (int i = 0; i < MOST; i++)
        if (ends[i] > end) end = ends[i];
    double all = (double)count * (subs_n ? (pairs ? subs_n : (double)pubs_n * subs_n) : pubs_n);
    printf("{\"rate\": %.0f}\n", all / (end - began));
}

/* Answers a PING among n bytes, which then are fewer: a server sends its first one two seconds after CONNECT. */
static size_t without_ping(peer *p, char *b, size_t n) {
    char *found = memmem(b, n, "PING\r\n", 6);
    if (!found) return n;
    put(p, "PONG\r\n", 6);
    memmove(found, found + 6, n - 6 - (size_t)(found - b));
    return n - 6;
}

/* Answers requests as they come; ends with its connection. */
static void *answer(void *arg) {
    peer *p = arg;
    char *b = malloc(READ), *out = malloc(READ);
    size_t n = 0;
    for (;;) {
        n = without_ping(p, b, n + take(p, b + n, READ - n));
        char *at = b, *nl;
        while ((nl = memchr(at, '\n', n - (size_t)(at - b)))) { /* MSG subject sid reply size */
            char *word[5], *q = at, *save;
            char *body = nl + 1;
            if ((size_t)(body - b) + size + 2 > n) break;
            *nl = 0;
            for (int i = 0; i < 5; i++, q = NULL) word[i] = strtok_r(q, " \r", &save);
            size_t k = (size_t)snprintf(out, READ, "PUB %s %zu\r\n", word[3], size);
            memcpy(out + k, body, size + 2);
            put(p, out, k + size + 2);
            at = body + size + 2;
        }
        n -= (size_t)(at - b);
        memmove(b, at, n);
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void requests(void) {
    peer asks = {0}, gives = {0};
    pthread_t thread;
    char text[4096 + 65536];
    double *took = malloc((size_t)count * sizeof *took);
    join(&gives);
    put(&gives, "SUB svc 1\r\n", 11);
    ping(&gives);
    join(&asks);
    put(&asks, "SUB _INBOX.load.* 1\r\n", 21);
    ping(&asks);
    pthread_create(&thread, NULL, answer, &gives);
    double began = now();
    for (long i = 0; i < count; i++) {
        size_t n = (size_t)snprintf(text, sizeof text, "PUB svc _INBOX.load.%ld %zu\r\n", i, size);
        memset(text + n, 'x', size);
        memcpy(text + n + size, "\r\n", 2);
        double t = now();
        put(&asks, text, n + size + 2);
        for (long nl = 0; nl < 2;) nl += lines(text, without_ping(&asks, text, take(&asks, text, sizeof text)));
        took[i] = now() - t;
    }
    double end = now();
    qsort(took, (size_t)count, sizeof *took, by_value);
    printf("{\"rate\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", (double)count / (end - began),
           took[count / 2] * 1e6, took[count * 99 / 100] * 1e6);
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: load ps PORT PUBS SUBS SIZE COUNT PAIRS | load rr PORT SIZE COUNT\n");
        return 2;
    }
    port = atoi(argv[2]);
    if (getenv("TLS")) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(tls, SSL_MODE_AUTO_RETRY);
    }
    if (!strcmp(argv[1], "rr")) {
        size = (size_t)atol(argv[3]);
        count = atol(argv[4]);
        if (size > 65536) return 2;
        requests();
        return 0;
    }
    if (argc < 8) return 2;
    pubs_n = atoi(argv[3]);
    subs_n = atoi(argv[4]);
    size = (size_t)atol(argv[5]);
    count = atol(argv[6]);
    pairs = atoi(argv[7]);
    if (pubs_n < 1 || pubs_n > MOST || subs_n < 0 || subs_n > MOST || count < 1) return 2;
    publish_subscribe();
    return 0;
}
