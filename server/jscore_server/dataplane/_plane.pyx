# cython: freethreading_compatible = False
"""The Cython window onto csrc/wire and csrc/stream: unpack, call, check, wrap. No policy here.

One Plane belongs to one thread. Python objects are made per event, never per message on the hot path.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as close_fd

import errno
import os
from collections import namedtuple

from jscore._records cimport RecordLog, Store, check as raise_code, jsc_log, jsc_record, jsc_store


cdef extern from "base/jsc_base.h":
    enum:
        JSC_OK
        JSC_ENOTFOUND
        JSC_EFULL
        JSC_EHOST


cdef extern from "wire/jsc_plane.h" nogil:
    ctypedef struct jsc_plane:
        pass
    ctypedef struct jsc_account:
        pass
    ctypedef struct jsc_sub:
        pass
    ctypedef struct jsc_permissions:
        pass
    ctypedef struct jsc_permission:
        uint8_t list
        const char *subject
        const char *queue
        uint32_t subject_len, queue_len
    ctypedef struct jsc_mapping:
        const char *source
        const char *destination
        uint32_t source_len, destination_len, percent
    ctypedef struct jsc_permissions_options:
        uint8_t no_publish
        int32_t max_responses
        int64_t expires_ns
    ctypedef struct jsc_msg:
        jsc_account *account
        const char *subject
        const char *reply
        const char *headers
        const char *data
        uint32_t subject_len, reply_len, headers_len, data_len
        uint64_t origin
        void *trace
        uint8_t origin_kind
    ctypedef struct jsc_plane_options:
        uint32_t max_payload, max_control_line
        uint64_t max_pending
        int64_t write_deadline_ns
        int64_t ping_interval_ns, route_ping_interval_ns
        int32_t ping_max, route_ping_max
        uint32_t max_subs
        uint8_t auth_required
        uint8_t no_stall, trace
    ctypedef struct jsc_ready:
        int fd
        uint32_t mask
    ctypedef struct jsc_conn_options:
        jsc_account *account
        uint8_t verbose, pedantic, echo, headers, no_responders, protocol
        const char *after_pong
        size_t after_pong_len
        jsc_permissions *permissions
        uint32_t max_subs, max_payload
    ctypedef struct jsc_route_options:
        jsc_account *only
        jsc_account **apart
        uint32_t apart_n, pool_size, pool_index
        uint8_t traces
    ctypedef struct jsc_conn_info:
        uint64_t id, in_msgs, out_msgs, in_bytes, out_bytes, pending, subs
        int64_t rtt_ns, last_activity_ns, start_ns
        uint64_t stalls
        const jsc_account *account
        int fd, kind
        int8_t level
        uint8_t greeted
    ctypedef struct jsc_plane_stats:
        uint64_t in_msgs, out_msgs, in_bytes, out_bytes, slow_consumers, subscriptions, clients, routes
        uint64_t route_in_msgs, route_out_msgs, route_in_bytes, route_out_bytes, remote_subscriptions
        uint64_t slow_clients, slow_routes, stale_clients, stale_routes, stalls
    ctypedef struct jsc_tally:
        uint64_t in_msgs, out_msgs, in_bytes, out_bytes
    ctypedef struct jsc_account_info:
        const char *name
        uint32_t name_len
        uint64_t conns, subs, own_subs
        jsc_tally clients, routes
        uint64_t slow_consumers, inserts, removes, matches, cache_hits, cached, fanout_max, fanout_sum
    ctypedef struct jsc_sub_info:
        const jsc_account *account
        const char *subject
        const char *queue
        const char *sid
        uint32_t subject_len, queue_len, sid_len
        uint64_t conn, delivered, max
    ctypedef struct jsc_sub_query:
        uint64_t conn
        const jsc_account *account
        const char *subject
        size_t subject_len
        uint64_t skip, max
    ctypedef struct jsc_event:
        uint8_t type, conn_kind
        uint64_t conn, a, b
        const char *subject
        const char *reply
        const char *headers
        const char *data
        uint32_t subject_len, reply_len, headers_len, data_len
    enum:
        JSC_EV_CLOSED
        JSC_EV_MSG
        JSC_EV_DENIED
        JSC_EV_TRACE
        JSC_EV_TRACED
        JSC_SUB_LOCAL
        JSC_SUB_LENIENT
    const uint32_t JSC_LIMIT_ZERO
    int jsc_plane_new(const jsc_plane_options *, jsc_plane **)
    void jsc_plane_tune(jsc_plane *, const jsc_plane_options *)
    void jsc_plane_free(jsc_plane *)
    jsc_account *jsc_plane_account(jsc_plane *, const char *, size_t)
    void jsc_account_limit(jsc_account *, uint32_t)
    uint32_t jsc_account_clients(const jsc_account *)
    void jsc_account_system(jsc_account *, int)
    int jsc_account_map(jsc_account *, const jsc_mapping *, int)
    int jsc_account_trace(jsc_account *, const char *, size_t, uint32_t)
    int jsc_permissions_new(const jsc_permission *, int, const jsc_permissions_options *, jsc_permissions **)
    void jsc_permissions_release(jsc_permissions *)
    int jsc_plane_watch(jsc_plane *, int fd, uint32_t mask)
    int jsc_plane_poll(jsc_plane *, int64_t, jsc_ready *, int)
    void jsc_plane_flush(jsc_plane *)
    int64_t jsc_plane_unix(const jsc_plane *)
    void jsc_plane_tell_time(jsc_plane *, int64_t, int64_t)
    int jsc_accept(int, char *, uint16_t *)
    int jsc_conn_adopt(jsc_plane *, int, int, const char *, size_t, uint64_t *)
    int jsc_conn_accept(jsc_plane *, uint64_t, const jsc_conn_options *)
    int jsc_conn_default(jsc_plane *, uint64_t, const jsc_conn_options *)
    int jsc_conn_limit(jsc_plane *, uint64_t, uint32_t, uint32_t)
    int jsc_conn_ping_every(jsc_plane *, uint64_t, int64_t)
    int jsc_plane_default(jsc_plane *, const jsc_conn_options *)
    int jsc_conn_permit(jsc_plane *, uint64_t, jsc_permissions *)
    int jsc_conn_go_on(jsc_plane *, uint64_t)
    int jsc_conn_route_ready(jsc_plane *, uint64_t, const jsc_route_options *)
    int jsc_conn_route_share(jsc_plane *, uint64_t, jsc_account *)
    void jsc_plane_route_permissions(jsc_plane *, jsc_permissions *, jsc_permissions *)
    int jsc_conn_route_tell(jsc_plane *, uint64_t)
    int jsc_conn_become_link(jsc_plane *, uint64_t, uint8_t)
    int jsc_conn_write(jsc_plane *, uint64_t, const void *, size_t)
    int jsc_conn_close(jsc_plane *, uint64_t, const char *, const char *)
    int jsc_conn_stat(jsc_plane *, uint64_t, jsc_conn_info *)
    void jsc_plane_stat(const jsc_plane *, jsc_plane_stats *)
    ctypedef struct jsc_tls:
        pass
    ctypedef struct jsc_tls_options:
        uint8_t server, verify, min_version
        uint32_t certs, pins_n
        const char *const *cert_files
        const char *const *key_files
        const char *ca_file
        const char *ciphers12
        const char *ciphers13
        const char *groups
        const uint8_t *pins
    ctypedef struct jsc_layer_options:
        jsc_tls *tls
        const char *host
        int64_t timeout_ns, fallback_ns
        uint8_t first, dials, optional, proxy, websocket
        int64_t http_ns
    ctypedef struct jsc_ws_options:
        const char *response
        size_t response_len
        uint8_t unmasked, deflate, browser
    ctypedef struct jsc_compress_options:
        uint8_t level, thresholds_n
        int64_t thresholds_ns[4]
    ctypedef struct jsc_conn_tls_info:
        const char *version
        const char *cipher
        uint8_t first
    int jsc_tls_new(const jsc_tls_options *, jsc_tls **, char *, size_t)
    void jsc_tls_release(jsc_tls *)
    int jsc_conn_layer(jsc_plane *, uint64_t, const jsc_layer_options *)
    int jsc_conn_ws_open(jsc_plane *, uint64_t, const jsc_ws_options *)
    int jsc_conn_compress(jsc_plane *, uint64_t, const jsc_compress_options *)
    int jsc_conn_tls_stat(jsc_plane *, uint64_t, jsc_conn_tls_info *)
    int jsc_conn_tls_certificate(jsc_plane *, uint64_t, int, unsigned char **, size_t *)
    const char *jsc_account_name(const jsc_account *, size_t *)
    int jsc_plane_accounts(jsc_plane *, int (*each)(void *, const jsc_account_info *) noexcept, void *) except? -1
    int64_t jsc_plane_subs(jsc_plane *, const jsc_sub_query *, int (*each)(void *, const jsc_sub_info *) noexcept,
                           void *) except? -1
    int jsc_subscribe_host(jsc_plane *, jsc_account *, const char *, size_t, const char *, size_t, int, uint64_t,
                           jsc_sub **)
    void jsc_unsubscribe(jsc_plane *, jsc_sub *)
    int jsc_publish(jsc_plane *, const jsc_msg *)
    int jsc_interest(jsc_plane *, jsc_account *, const char *, size_t)
    int jsc_link_send(jsc_plane *, uint64_t, uint8_t, const void *, size_t)
    void jsc_link_push(jsc_plane *)
    int jsc_link_send_records(jsc_plane *, uint64_t, uint8_t, const void *, size_t, jsc_log *, uint64_t, uint64_t,
                              size_t, uint64_t *)
    int jsc_plane_next_of(jsc_plane *, int, jsc_event *)
    void jsc_event_done(jsc_event *)


cdef extern from "stream/jsc_stream.h" nogil:
    enum:
        JSC_EV_JUDGED
    ctypedef struct jsc_streams:
        pass
    ctypedef struct jsc_stream:
        pass
    ctypedef struct jsc_consumer:
        pass
    ctypedef struct jsc_stream_limits:
        int64_t max_msgs, max_bytes, max_msgs_per_subject, max_age_ns, duplicate_window_ns
        int32_t max_msg_size
        uint8_t retention, discard_new, discard_new_per_subject, no_ack, sealed, deny_delete, deny_purge, allow_rollup
        uint8_t file_storage, replicas
        uint64_t first_seq
    ctypedef struct jsc_quota:
        int64_t memory, storage, elsewhere_memory, elsewhere_storage
    ctypedef struct jsc_stream_state:
        uint64_t messages, bytes, first_seq, last_seq, num_subjects, num_deleted
        int64_t first_ts, last_ts
    ctypedef struct jsc_consumer_options:
        uint8_t deliver_policy, ack_policy, flow_control, headers_only, replay_original
        uint64_t opt_start_seq
        int64_t opt_start_ns, ack_wait_ns, idle_heartbeat_ns, inactive_threshold_ns
        int64_t max_deliver, max_ack_pending, max_waiting, max_batch, max_bytes, max_expires_ns
        const int64_t *backoff_ns
        int backoffs
        const char *const *filters
        const uint32_t *filter_lens
        int nfilters
        const char *deliver_subject
        uint32_t deliver_subject_len
        const char *deliver_group
        uint32_t deliver_group_len
    ctypedef struct jsc_consumer_state:
        uint64_t delivered_consumer, delivered_stream, ack_floor_consumer, ack_floor_stream
        uint64_t num_ack_pending, num_redelivered, num_waiting, num_pending
        int64_t last_delivered_ns, last_ack_ns
        uint8_t push_bound
    int jsc_streams_new(jsc_plane *, jsc_store *, jsc_streams **)
    void jsc_streams_free(jsc_streams *)
    int jsc_streams_quota(jsc_streams *, jsc_account *, const jsc_quota *)
    void jsc_streams_used(jsc_streams *, jsc_account *, int64_t *, int64_t *)
    void jsc_streams_held(jsc_streams *, int64_t *, int64_t *)
    size_t jsc_streams_written(jsc_streams *, uint64_t *, size_t)
    int jsc_streams_own_log(jsc_streams *, jsc_log *, uint64_t)
    void jsc_streams_disown_log(jsc_streams *, jsc_log *)
    int jsc_stream_new(jsc_streams *, jsc_log *, uint64_t, jsc_account *, const char *, size_t, jsc_stream **)
    void jsc_stream_free(jsc_stream *)
    int jsc_stream_configure(jsc_stream *, const jsc_stream_limits *)
    int jsc_stream_subjects(jsc_stream *, const char *const *, const uint32_t *, int)
    int jsc_stream_lead(jsc_stream *, uint32_t)
    void jsc_stream_follow(jsc_stream *)
    void jsc_stream_shutdown(jsc_stream *)
    void jsc_stream_solo(jsc_stream *, int)
    int jsc_stream_propose(jsc_stream *, uint8_t, const void *, size_t, uint64_t *)
    int jsc_stream_commit(jsc_stream *, uint64_t)
    int jsc_stream_skip(jsc_stream *)
    uint64_t jsc_stream_applied(const jsc_stream *)
    uint64_t jsc_stream_committed(const jsc_stream *)
    void jsc_stream_stat(const jsc_stream *, jsc_stream_state *)
    void jsc_stream_amount(const jsc_stream *, uint64_t *, uint64_t *)
    int jsc_stream_get(jsc_stream *, uint64_t, jsc_record *)
    int jsc_stream_last(jsc_stream *, const char *, size_t, uint64_t *, jsc_record *)
    int jsc_stream_next(jsc_stream *, const char *, size_t, uint64_t, uint64_t *, jsc_record *)
    int jsc_stream_seq_at(jsc_stream *, int64_t, uint64_t *)
    int jsc_stream_subject_counts(jsc_stream *, const char *, size_t,
                                  int (*each)(void *, const char *, size_t, uint64_t, uint64_t) noexcept,
                                  void *) except? -1
    int jsc_stream_deleted(jsc_stream *, int (*each)(void *, uint64_t) noexcept, void *)
    int jsc_stream_purge(jsc_stream *, const char *, size_t, uint64_t, uint64_t, const char *, size_t)
    int jsc_stream_delete(jsc_stream *, uint64_t, const char *, size_t)
    int jsc_stream_snapshot_begin(jsc_stream *, const void *host, size_t n)
    int jsc_stream_snapshot_step(jsc_stream *)
    int jsc_stream_snapshot_file(jsc_stream *, const uint8_t **, size_t *, uint64_t *, uint64_t *)
    void jsc_stream_snapshot_end(jsc_stream *)
    uint64_t jsc_stream_keeps(jsc_stream *)
    int jsc_stream_move(jsc_stream *, uint64_t below, uint64_t bytes)
    int jsc_stream_snapshot_host(const uint8_t *, size_t, const uint8_t **, size_t *)
    int jsc_stream_restore(jsc_stream *, const uint8_t *, size_t, int lossy, uint64_t *)
    int jsc_stream_restore_consumers(jsc_stream *)
    int jsc_consumer_new(jsc_stream *, uint64_t, const char *, size_t, int64_t, const jsc_consumer_options *,
                         jsc_consumer **)
    void jsc_consumer_free(jsc_consumer *)
    void jsc_consumer_stat(jsc_consumer *, jsc_consumer_state *)


Msg = namedtuple("Msg", "account subject reply headers data origin origin_kind")
Msg.__doc__ = "A message for a subscription of the server: text subjects, bytes headers and data; origin 0 is us."
StoredMsg = namedtuple("StoredMsg", "seq subject headers data ts")
StoredMsg.__doc__ = "A stored message: bytes headers and data, ts in unix ns."
StreamState = namedtuple("StreamState", "messages bytes first_seq last_seq num_subjects num_deleted first_ts last_ts")
ConsumerState = namedtuple(
    "ConsumerState",
    "delivered_consumer delivered_stream ack_floor_consumer ack_floor_stream num_ack_pending num_redelivered "
    "num_waiting num_pending last_delivered_ns last_ack_ns push_bound",
)
ConnInfo = namedtuple(
    "ConnInfo",
    "id in_msgs out_msgs in_bytes out_bytes pending subs rtt_ns last_activity_ns start_ns kind greeted stalls account "
    "level",
)
TlsInfo = namedtuple("TlsInfo", "version cipher first")
PlaneStats = namedtuple(
    "PlaneStats",
    "in_msgs out_msgs in_bytes out_bytes slow_consumers subscriptions clients routes "
    "route_in_msgs route_out_msgs route_in_bytes route_out_bytes remote_subscriptions "
    "slow_clients slow_routes stale_clients stale_routes stalls",
)
Tally = namedtuple("Tally", "in_msgs out_msgs in_bytes out_bytes")
AccountInfo = namedtuple(
    "AccountInfo",
    "name conns subs own_subs clients routes slow_consumers inserts removes matches cache_hits cached fanout_max "
    "fanout_sum",
)
SubInfo = namedtuple("SubInfo", "account subject queue sid conn delivered max")

cdef int READY_MAX = 128
cdef int EVENTS_A_CALL = 512
cdef int EAGAIN = errno.EAGAIN
cdef int LINES_AN_EVENT = 32  # so many lines of a protocol trace are as much work as what else is about a client


cdef int check(int rc) except? -1:
    """Passes counts >= 0 through; codes become jscore's exceptions."""
    if rc < 0:
        raise_code(rc)
    return rc


cdef uint32_t bound(limit) except? 1:
    """A limit as the data plane has it: None is none of its own."""
    return 0 if limit is None else JSC_LIMIT_ZERO if limit <= 0 else min(limit, 0xFFFFFFFE)


cdef int64_t mono_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


def accept(int listener):
    """A connection that waits at a listening socket, (descriptor, address, port); None: none does. Raises OSError."""
    cdef char address[48]
    cdef uint16_t port = 0
    cdef int fd = jsc_accept(listener, address, &port)
    if fd == -EAGAIN:
        return None
    check(fd)
    return fd, address.decode("ascii"), port


cdef class Tls:
    """TLS settings of a listener, or of what we dial. Connections keep those that they began with."""

    cdef jsc_tls *handle

    def __cinit__(self, *, bint server, bint verify, bint tls13_only=False, certificates=(), ca_file=None,
                  ciphers12=None, ciphers13=None, groups=None, pins=()):
        """certificates: [(cert_file, key_file)]; lists in OpenSSL's notation; pins: SHA-256. Raises ValueError."""
        cdef jsc_tls_options o
        cdef char why[512]
        cdef const char *certs[64]
        cdef const char *keys[64]
        cdef list kept = [(os.fsencode(cert), os.fsencode(key)) for cert, key in certificates]
        cdef bytes ca = None if ca_file is None else os.fsencode(ca_file)
        cdef bytes c12 = None if ciphers12 is None else ciphers12.encode()
        cdef bytes c13 = None if ciphers13 is None else ciphers13.encode()
        cdef bytes g = None if groups is None else groups.encode()
        cdef bytes digests = b"".join(pins)
        cdef int i, rc
        if len(kept) > 64:
            raise ValueError(f"{len(kept)} certificates are too many")
        for i in range(len(kept)):
            certs[i] = <const char *>(<bytes>(<tuple>kept[i])[0])
            keys[i] = <const char *>(<bytes>(<tuple>kept[i])[1])
        o.server, o.verify, o.min_version = server, verify, 13 if tls13_only else 12
        o.certs, o.cert_files, o.key_files = <uint32_t>len(kept), certs, keys
        o.ca_file = NULL if ca is None else <const char *>ca
        o.ciphers12 = NULL if c12 is None else <const char *>c12
        o.ciphers13 = NULL if c13 is None else <const char *>c13
        o.groups = NULL if g is None else <const char *>g
        o.pins, o.pins_n = <const uint8_t *>(<const char *>digests), <uint32_t>(len(digests) // 32)
        rc = jsc_tls_new(&o, &self.handle, why, sizeof(why))
        if rc < 0:
            self.handle = NULL
            raise ValueError(why.decode("utf-8", "replace"))

    def __dealloc__(self):
        jsc_tls_release(self.handle)


cdef class Subscription:
    """A subscription of the server itself; `close` ends it and may be called twice."""

    cdef jsc_sub *sub
    cdef Plane plane
    cdef uint64_t tag

    def close(self):
        if self.sub != NULL:
            self.plane._callbacks.pop(self.tag, None)
            if self.plane.handle != NULL:
                jsc_unsubscribe(self.plane.handle, self.sub)
            self.sub = NULL


cdef class Permissions:
    """What a user may do, compiled; shared by its connections.

    Publish: subjects; subscribe: (subject, queue or "") pairs. An empty allow list allows all, unless `no_publish`.
    max_responses 0: none, < 0 any number; expires_ns < 0: never. Raises jscore.InvalidArgument for what is no subject.
    """

    cdef jsc_permissions *handle

    def __cinit__(self, *, publish_allow=(), publish_deny=(), subscribe_allow=(), subscribe_deny=(),
                  bint no_publish=False,
                  int max_responses=0, int64_t expires_ns=0):
        cdef list texts = []  # keeps the bytes alive while they are copied
        cdef jsc_permissions_options o
        cdef jsc_permission *v
        cdef bytes s, q
        cdef int rc, i
        for which, entries in enumerate((publish_allow, publish_deny, subscribe_allow, subscribe_deny)):
            for entry in entries:
                subject, queue = (entry, "") if which < 2 else entry
                texts.append((which, subject.encode("utf-8", "surrogateescape"),
                              queue.encode("utf-8", "surrogateescape")))
        o.no_publish, o.max_responses, o.expires_ns = no_publish, max_responses, expires_ns
        v = <jsc_permission *>malloc((len(texts) + 1) * sizeof(jsc_permission))
        if v == NULL:
            raise MemoryError
        for i in range(len(texts)):
            s, q = texts[i][1], texts[i][2]
            v[i].list = texts[i][0]
            v[i].subject, v[i].subject_len = <const char *>s, len(s)
            v[i].queue, v[i].queue_len = <const char *>q, len(q)
        rc = jsc_permissions_new(v, len(texts), &o, &self.handle)
        free(v)
        check(rc)

    def __dealloc__(self):
        jsc_permissions_release(self.handle)


cdef class Plane:
    """All connections, subscriptions and streams of one server, driven by `poll` from one thread."""

    cdef jsc_plane *handle
    cdef jsc_streams *streams
    cdef Store store
    cdef public dict _callbacks
    cdef uint64_t next_tag
    cdef dict accounts
    cdef jsc_ready ready[128]
    cdef jsc_conn_info gone  # of the connection whose EV_CLOSED is being handled
    cdef readonly bytes gone_subs

    def __cinit__(self, *, max_payload=1048576, max_control_line=4096, max_pending=67108864,
                  ping_interval_ns=120_000_000_000, ping_max=2, max_subs=0, route_ping_interval_ns=0, route_ping_max=0,
                  write_deadline_ns=0, auth_required=False, trace=False, no_stall=False):
        cdef jsc_plane_options o
        o.max_payload = max_payload
        o.max_control_line = max_control_line
        o.max_pending = max_pending
        o.ping_interval_ns = ping_interval_ns
        o.ping_max = ping_max
        o.write_deadline_ns = write_deadline_ns
        o.max_subs = max_subs
        o.route_ping_interval_ns = route_ping_interval_ns
        o.route_ping_max = route_ping_max
        o.auth_required = auth_required
        o.trace = trace
        o.no_stall = no_stall
        self._callbacks = {}
        self.gone.id = 0
        self.gone_subs = b""
        self.accounts = {}
        self.next_tag = 1
        check(jsc_plane_new(&o, &self.handle))

    cdef jsc_plane *live(self) except NULL:
        if self.handle == NULL:
            raise ValueError("the plane is closed")
        return self.handle

    def tune(self, *, max_payload, max_control_line, ping_interval_ns, ping_max, write_deadline_ns,
             route_ping_interval_ns, route_ping_max, trace, no_stall):
        """Other bounds from now on; the rest stays as it was made."""
        cdef jsc_plane_options o
        o.max_pending = o.max_subs = o.auth_required = 0  # not looked at
        o.max_payload = max_payload
        o.max_control_line = max_control_line
        o.ping_interval_ns = ping_interval_ns
        o.ping_max = ping_max
        o.write_deadline_ns = write_deadline_ns
        o.route_ping_interval_ns = route_ping_interval_ns
        o.route_ping_max = route_ping_max
        o.trace = trace
        o.no_stall = no_stall
        jsc_plane_tune(self.live(), &o)

    def attach_store(self, Store store not None):
        """From here the store's progress drives streams and becomes events. Once."""
        if self.streams != NULL:
            raise ValueError("a store is attached already")
        check(jsc_streams_new(self.live(), store.handle, &self.streams))
        self.store = store

    def own_log(self, RecordLog log not None, uint64_t log_id):
        """Progress of a log without a stream becomes EV_DURABLE / EV_FAILED with this id."""
        check(jsc_streams_own_log(self.streams, log.handle, log_id))

    def disown_log(self, RecordLog log not None):
        jsc_streams_disown_log(self.streams, log.handle)

    def close(self):
        """Frees everything; streams and consumers must be closed before. Idempotent."""
        if self.streams != NULL:
            jsc_streams_free(self.streams)
            self.streams = NULL
        if self.handle != NULL:
            jsc_plane_free(self.handle)
            self.handle = NULL

    def __dealloc__(self):
        if self.streams != NULL:
            jsc_streams_free(self.streams)
        if self.handle != NULL:
            jsc_plane_free(self.handle)

    # ---- the loop ----

    def watch(self, int fd, uint32_t mask):
        check(jsc_plane_watch(self.live(), fd, mask))

    def poll(self, int64_t timeout_ns):
        """Runs the C loop; returns [(fd, epoll mask)] of ready host descriptors. Raises OSError."""
        cdef jsc_plane *plane = self.live()
        cdef int n, i
        with nogil:
            n = jsc_plane_poll(plane, timeout_ns, self.ready, 128)
        check(n)
        if n == 0:
            return ()
        return [(self.ready[i].fd, self.ready[i].mask) for i in range(n)]

    def flush(self):
        jsc_plane_flush(self.live())

    def unix_ns(self):
        return jsc_plane_unix(self.live())

    def tell_time(self, int64_t mono_ns, int64_t unix_ns):
        """From now on its clocks stand where they are told: simulated time."""
        jsc_plane_tell_time(self.live(), mono_ns, unix_ns)

    def dispatch(self, handler, int clients=512, int64_t within_ns=0):
        """Hands waiting events to callbacks of subscriptions and to handler(type, conn, conn_kind, a, b, data): at most
        512, and at most `clients` of those about clients; of these no more than take within_ns, of the others four
        times that, unless it is 0. Returns True when more may wait. Exceptions pass through.
        """
        more = self._dispatch(handler, 0, EVENTS_A_CALL, 4 * within_ns)
        return self._dispatch(handler, 1, clients * LINES_AN_EVENT, within_ns) or more

    cdef bint _dispatch(self, handler, bint clients, int left, int64_t within_ns) except? True:
        cdef jsc_event ev
        cdef int64_t end = 0
        while left > 0:
            if self.handle == NULL or not jsc_plane_next_of(self.handle, clients, &ev):
                return False
            if within_ns and not end:
                end = mono_ns() + within_ns
            left -= 1 if not clients or ev.type == JSC_EV_TRACE else LINES_AN_EVENT
            try:
                if ev.type == JSC_EV_MSG:
                    entry = self._callbacks.get(ev.a)
                    if entry is not None:
                        account, callback = entry
                        callback(Msg(
                            account,
                            ev.subject[:ev.subject_len].decode("utf-8", "surrogateescape"),
                            ev.reply[:ev.reply_len].decode("utf-8", "surrogateescape") if ev.reply_len else "",
                            ev.headers[:ev.headers_len] if ev.headers_len else b"",
                            ev.data[:ev.data_len] if ev.data_len else b"",
                            ev.conn, ev.conn_kind,
                        ))
                elif ev.type == JSC_EV_DENIED:
                    handler(ev.type, ev.conn, ev.conn_kind, ev.a, ev.b, (
                        ev.subject[:ev.subject_len], ev.reply[:ev.reply_len], ev.data[:ev.data_len]))
                elif ev.type == JSC_EV_TRACED or ev.type == JSC_EV_JUDGED:
                    handler(ev.type, ev.conn, ev.conn_kind, ev.a, ev.b, (
                        ev.subject[:ev.subject_len].decode("utf-8", "replace"),
                        ev.reply[:ev.reply_len].decode("utf-8", "replace"),
                        ev.headers[:ev.headers_len], ev.data[:ev.data_len].decode("utf-8", "replace")))
                else:
                    if ev.type == JSC_EV_CLOSED and ev.headers_len == sizeof(jsc_conn_info):
                        memcpy(&self.gone, ev.headers, sizeof(jsc_conn_info))
                        self.gone_subs = ev.reply[:ev.reply_len] if ev.reply_len else b""
                    handler(ev.type, ev.conn, ev.conn_kind, ev.a, ev.b, ev.data[:ev.data_len] if ev.data_len else b"")
            finally:
                self.gone.id = 0
                jsc_event_done(&ev)
            if end and mono_ns() >= end:
                return True
        return True

    # ---- connections ----

    def adopt(self, int fd, int kind):
        """Takes over a connected non-blocking descriptor, closed also when this raises OSError; the connection's id."""
        cdef uint64_t ident = 0
        cdef int rc = jsc_conn_adopt(self.live(), fd, kind, NULL, 0, &ident)
        if rc < 0:
            close_fd(fd)
        check(rc)
        return ident

    def accept(self, uint64_t conn, str account, *, bint verbose, bint pedantic, bint echo, bint headers,
               bint no_responders, int protocol, bytes after_pong=b"", Permissions permissions=None,
               max_subs=None, max_payload=None):
        """The answer to EV_CONNECT of a client; see jsc_conn_accept."""
        cdef jsc_conn_options o
        o.account = self._account(account)
        o.verbose, o.pedantic, o.echo, o.headers = verbose, pedantic, echo, headers
        o.no_responders, o.protocol = no_responders, protocol
        o.after_pong = after_pong
        o.after_pong_len = len(after_pong)
        o.permissions = permissions.handle if permissions is not None else NULL
        o.max_subs, o.max_payload = bound(max_subs), bound(max_payload)
        return jsc_conn_accept(self.live(), conn, &o) >= 0

    def default_client(self, str account, *, Permissions permissions=None, max_subs=None, max_payload=None):
        """What a client is that sends no CONNECT; account None: CONNECT is required."""
        cdef jsc_conn_options o
        if account is None:
            check(jsc_plane_default(self.live(), NULL))
            return
        o.account = self._account(account)
        o.permissions = permissions.handle if permissions is not None else NULL
        o.max_subs, o.max_payload = bound(max_subs), bound(max_payload)
        check(jsc_plane_default(self.live(), &o))

    def client_default(self, uint64_t conn, str account, *, Permissions permissions=None, max_subs=None,
                       max_payload=None):
        """The same for one client alone; False when it is closed, or there is no room for it."""
        cdef jsc_conn_options o
        if account is None:
            return jsc_conn_default(self.live(), conn, NULL) >= 0
        o.account = self._account(account)
        o.permissions = permissions.handle if permissions is not None else NULL
        o.max_subs, o.max_payload = bound(max_subs), bound(max_payload)
        return jsc_conn_default(self.live(), conn, &o) >= 0

    def limit(self, uint64_t conn, max_subs, max_payload):
        """Other bounds for a connected client; None: only the plane's."""
        return jsc_conn_limit(self.live(), conn, bound(max_subs), bound(max_payload)) >= 0

    def ping_every(self, uint64_t conn, int64_t interval_ns):
        """How often this client is asked whether it is there, instead of as all others."""
        return jsc_conn_ping_every(self.live(), conn, interval_ns) >= 0

    def permit(self, uint64_t conn, Permissions permissions):
        """Other permissions for a connected client; see jsc_conn_permit."""
        return jsc_conn_permit(self.live(), conn, permissions.handle if permissions is not None else NULL) >= 0

    def account_limit(self, str account, max_clients):
        """How many clients the account may have; None: any number."""
        jsc_account_limit(self._account(account), 0xFFFFFFFF if max_clients is None else max_clients)

    def account_clients(self, str account):
        return jsc_account_clients(self._account(account))

    def account_system(self, str account, bint on):
        jsc_account_system(self._account(account), on)

    def account_map(self, str account, entries):
        """Subject mappings, (source, destination, percent) in their order; see jsc_account_map. Raises: ValueError."""
        cdef list texts = [(source.encode(), destination.encode(), percent) for source, destination, percent in entries]
        cdef jsc_mapping *v = <jsc_mapping *>malloc((len(texts) + 1) * sizeof(jsc_mapping))
        cdef bytes a, b
        cdef int i, rc
        if v == NULL:
            raise MemoryError
        for i in range(len(texts)):
            a, b = texts[i][0], texts[i][1]
            v[i].source, v[i].source_len = <const char *>a, len(a)
            v[i].destination, v[i].destination_len = <const char *>b, len(b)
            v[i].percent = texts[i][2]
        rc = jsc_account_map(self._account(account), v, len(texts))
        free(v)
        check(rc)

    def account_trace(self, str account, str dest, uint32_t percent):
        """Where traces of so many percent of sampled messages go; '': nowhere. Raises: ValueError."""
        cdef bytes d = dest.encode()
        check(jsc_account_trace(self._account(account), d, len(d), percent))

    def go_on(self, uint64_t conn):
        """The answer to EV_INFO of a client, or of a route that is not active. False: nothing waited for it."""
        return jsc_conn_go_on(self.live(), conn) >= 0

    def route_ready(self, uint64_t conn, *, str account="", apart=(), uint32_t pool_size=0, uint32_t pool_index=0,
                    bint traces=False):
        """Makes a route active: for `account` alone, or as one of a pool that carries all but those `apart`."""
        cdef jsc_route_options o
        cdef jsc_account *some[64]
        o.only = self._account(account) if account else NULL
        o.apart_n = 0
        for name in apart:
            if o.apart_n == 64:
                raise ValueError("more than 64 accounts have a route of their own")
            some[o.apart_n] = self._account(name)
            o.apart_n += 1
        o.apart = some
        o.pool_size, o.pool_index, o.traces = pool_size, pool_index, traces
        return jsc_conn_route_ready(self.live(), conn, &o) >= 0

    def route_permissions(self, Permissions imports, Permissions exports):
        """What routes made ready from now on may be told and sent; None: all. See jsc_plane_route_permissions."""
        jsc_plane_route_permissions(self.live(), imports.handle if imports is not None else NULL,
                                    exports.handle if exports is not None else NULL)

    def route_tell(self, uint64_t conn):
        """All interest once more; False: the route is gone or not ready."""
        return jsc_conn_route_tell(self.live(), conn) >= 0

    def route_share(self, uint64_t conn, str account):
        """The account has no route of its own to that peer after all."""
        return jsc_conn_route_share(self.live(), conn, self._account(account)) >= 0

    def become_link(self, uint64_t conn, uint8_t version):
        return jsc_conn_become_link(self.live(), conn, version) >= 0

    def write(self, uint64_t conn, bytes data not None):
        return jsc_conn_write(self.live(), conn, <const char *>data, len(data)) >= 0

    def close_conn(self, uint64_t conn, str reason, str err=None):
        cdef bytes r = reason.encode()
        cdef bytes e = err.encode() if err is not None else b""
        return jsc_conn_close(self.live(), conn, r, <const char *>e if err is not None else NULL) >= 0

    def layer(self, uint64_t conn, Tls tls, *, int64_t timeout_ns=0, bint first=False, int64_t fallback_ns=0,
              bint dials=False, str host=None, bint optional=False, bint proxy=False, bint websocket=False,
              int64_t http_ns=0):
        """Puts TLS and others under a connection that has not received anything; see jsc_conn_layer. False: gone."""
        cdef jsc_layer_options o
        cdef bytes name = None if host is None else host.encode()
        o.tls = NULL if tls is None else tls.handle
        o.host = NULL if name is None else <const char *>name
        o.timeout_ns, o.fallback_ns = timeout_ns, fallback_ns
        o.first, o.dials, o.optional = first, dials, optional
        o.proxy, o.websocket, o.http_ns = proxy, websocket, http_ns
        return jsc_conn_layer(self.live(), conn, &o) >= 0

    def ws_open(self, uint64_t conn, bytes response not None, *, bint unmasked, bint deflate, bint browser):
        """Accepts a websocket's request with that HTTP response; frames follow. False: the connection is gone."""
        cdef jsc_ws_options o
        o.response, o.response_len = response, len(response)
        o.unmasked, o.deflate, o.browser = unmasked, deflate, browser
        return jsc_conn_ws_open(self.live(), conn, &o) >= 0

    def compress(self, uint64_t conn, int level, thresholds_ns=()):
        """A route speaks S2 from here on, at this level or, with thresholds, at the one its round-trip time asks for;
        see jsc_conn_compress. False: the connection is gone.
        """
        cdef jsc_compress_options o
        if not 0 <= level <= 3 or len(thresholds_ns) > 4:
            raise ValueError(f"level {level}, {len(thresholds_ns)} thresholds")
        o.level, o.thresholds_n = <uint8_t>level, <uint8_t>len(thresholds_ns)
        for i, threshold in enumerate(thresholds_ns):
            o.thresholds_ns[i] = threshold
        return jsc_conn_compress(self.live(), conn, &o) >= 0

    def tls_info(self, uint64_t conn):
        """Version and cipher of a connection whose TLS handshake is done, else None."""
        cdef jsc_conn_tls_info i
        if jsc_conn_tls_stat(self.live(), conn, &i) < 0:
            return None
        return TlsInfo(i.version.decode(), i.cipher.decode(), bool(i.first))

    def peer_certificates(self, uint64_t conn):
        """The certificates that the other side sent, DER, its own first; [] without TLS or when it sent none."""
        cdef unsigned char *der = NULL
        cdef size_t n = 0
        out = []
        while len(out) < 16 and jsc_conn_tls_certificate(self.live(), conn, <int>len(out), &der, &n) >= 0:
            out.append((<char *>der)[:n])
            free(der)
        return out

    def conn_info(self, uint64_t conn):
        """None when it is gone. While its EV_CLOSED is handled, what it was at the end; `gone_subs` its subscriptions,
        the first few of them, "subject queue sid delivered" in lines.
        """
        cdef jsc_conn_info s
        cdef size_t n = 0
        cdef const char *name
        if jsc_conn_stat(self.live(), conn, &s) < 0:
            if conn != self.gone.id:
                return None
            s = self.gone
        name = jsc_account_name(s.account, &n)
        return ConnInfo(s.id, s.in_msgs, s.out_msgs, s.in_bytes, s.out_bytes, s.pending, s.subs, s.rtt_ns,
                        s.last_activity_ns, s.start_ns, s.kind, bool(s.greeted), s.stalls,
                        name[:n].decode("utf-8", "replace"), s.level)

    def stats(self):
        cdef jsc_plane_stats s
        jsc_plane_stat(self.live(), &s)
        return PlaneStats(s.in_msgs, s.out_msgs, s.in_bytes, s.out_bytes, s.slow_consumers, s.subscriptions, s.clients,
                          s.routes, s.route_in_msgs, s.route_out_msgs, s.route_in_bytes, s.route_out_bytes,
                          s.remote_subscriptions, s.slow_clients, s.slow_routes, s.stale_clients, s.stale_routes,
                          s.stalls)

    def account_infos(self):
        """What every account has and did, in no order."""
        out = []
        check(jsc_plane_accounts(self.live(), collect_account, <void *>out))
        return out

    def subscriptions(self, *, uint64_t conn=0, str account=None, str subject=None, uint64_t skip=0, uint64_t limit=0):
        """(number of those that match, one page of them): of one connection or account, or those that get messages of
        a literal subject.
        """
        cdef jsc_sub_query q
        cdef bytes s = subject.encode("utf-8", "surrogateescape") if subject is not None else b""
        out = []
        q.conn, q.skip, q.max = conn, skip, limit
        q.account = self._account(account) if account is not None else NULL
        q.subject = <const char *>s if subject is not None else NULL
        q.subject_len = len(s)
        total = jsc_plane_subs(self.live(), &q, collect_sub, <void *>out)
        return total, out

    # ---- subjects ----

    cdef jsc_account *_account(self, str name) except NULL:
        cdef bytes b = name.encode()
        cdef jsc_account *a = jsc_plane_account(self.live(), b, len(b))
        if a == NULL:
            raise MemoryError
        return a

    def subscribe(self, str account, str subject, callback, *, str queue="", bint local=False, bint lenient=False):
        """callback(Msg) for each message on the subject; `local`: not told to routes; `lenient`: no responder."""
        cdef Subscription s = Subscription.__new__(Subscription)
        cdef bytes subj = subject.encode("utf-8", "surrogateescape")
        cdef bytes q = queue.encode("utf-8", "surrogateescape")
        cdef int flags = (JSC_SUB_LOCAL if local else 0) | (JSC_SUB_LENIENT if lenient else 0)
        s.plane = self
        s.tag = self.next_tag
        self.next_tag += 1
        check(jsc_subscribe_host(self.live(), self._account(account), subj, len(subj),
                                 <const char *>q if q else NULL, len(q), flags, s.tag, &s.sub))
        self._callbacks[s.tag] = (account, callback)
        return s

    def publish(self, str account, str subject, bytes data=b"", *, str reply="", bytes headers=b""):
        """Routes one message as the server; the number of subscribers and routes that took it."""
        cdef jsc_msg m
        cdef bytes s = subject.encode("utf-8", "surrogateescape")
        cdef bytes r = reply.encode("utf-8", "surrogateescape")
        m.account = self._account(account)
        m.subject, m.subject_len = <const char *>s, len(s)
        m.reply, m.reply_len = <const char *>r, len(r)
        m.headers, m.headers_len = <const char *>headers, len(headers)
        m.data, m.data_len = <const char *>data, len(data)
        m.origin = 0
        m.trace = NULL
        m.origin_kind = 3
        return check(jsc_publish(self.live(), &m))

    def interest(self, str account, str subject):
        cdef bytes s = subject.encode("utf-8", "surrogateescape")
        return jsc_interest(self.live(), self._account(account), s, len(s))

    # ---- links ----

    def link_send(self, uint64_t conn, int kind, bytes body not None):
        return jsc_link_send(self.live(), conn, kind, <const char *>body, len(body)) >= 0

    def link_push(self):
        """What links have to send leaves now and not with the turn, if no event waits whose handler may add to it."""
        jsc_link_push(self.live())

    def link_send_records(self, uint64_t conn, int kind, bytes head not None, RecordLog log not None, uint64_t lo,
                          uint64_t hi, size_t cap):
        """The index of the last record sent, 0 when the link is gone or full. Raises what reading the log raises."""
        cdef uint64_t last = 0
        cdef int rc = jsc_link_send_records(self.live(), conn, kind, <const char *>head, len(head), log.handle,
                                            lo, hi, cap, &last)
        if rc == JSC_ENOTFOUND or rc == JSC_EFULL:
            return 0
        check(rc)
        return last

    # ---- streams ----

    def quota(self, str account, int64_t memory, int64_t storage, *, int64_t elsewhere_memory=0,
              int64_t elsewhere_storage=0):
        """Bytes that the account's streams may take, -1 any number; what streams led elsewhere take of them."""
        cdef jsc_quota q
        q.memory, q.storage = memory, storage
        q.elsewhere_memory, q.elsewhere_storage = elsewhere_memory, elsewhere_storage
        check(jsc_streams_quota(self.streams, self._account(account), &q))

    def used(self, str account):
        """(memory, storage) that the account's streams led here take, with all replicas."""
        cdef int64_t memory, storage
        jsc_streams_used(self.streams, self._account(account), &memory, &storage)
        return memory, storage

    def held(self):
        """(memory, storage) that the streams here take, this replica of each."""
        cdef int64_t memory = 0, storage = 0
        if self.streams != NULL:
            jsc_streams_held(self.streams, &memory, &storage)
        return memory, storage

    def written_streams(self):
        """Ids of streams that are new, or whose log was written to, since the last call."""
        cdef uint64_t ids[64]
        cdef size_t n = 64, i
        cdef list found = []
        while self.streams != NULL and n == 64:
            n = jsc_streams_written(self.streams, ids, 64)
            for i in range(n):
                found.append(ids[i])
        return found

    def add_stream(self, RecordLog log not None, uint64_t stream_id, str account, str name):
        """A stream replica over an open log, nothing applied yet."""
        cdef Stream s = Stream.__new__(Stream)
        cdef bytes n = name.encode()
        if self.streams == NULL:
            raise ValueError("no store is attached")
        check(jsc_stream_new(self.streams, log.handle, stream_id, self._account(account), n, len(n), &s.handle))
        s.plane, s.log, s.id, s.name = self, log, stream_id, name
        return s


cdef object stored(uint64_t seq, const jsc_record *r):
    return StoredMsg(seq, r.subject[:r.subject_len].decode("utf-8", "surrogateescape"),
                     r.headers[:r.headers_len] if r.headers_len else b"",
                     r.data[:r.data_len] if r.data_len else b"", r.ts)


cdef int collect_count(void *ctx, const char *s, size_t n, uint64_t count, uint64_t last) noexcept with gil:
    try:
        (<dict>ctx)[s[:n].decode("utf-8", "surrogateescape")] = count
    except Exception:
        return -1
    return 0


cdef int collect_account(void *ctx, const jsc_account_info *a) noexcept with gil:
    try:
        (<list>ctx).append(AccountInfo(
            a.name[:a.name_len].decode("utf-8", "replace"), a.conns, a.subs, a.own_subs,
            Tally(a.clients.in_msgs, a.clients.out_msgs, a.clients.in_bytes, a.clients.out_bytes),
            Tally(a.routes.in_msgs, a.routes.out_msgs, a.routes.in_bytes, a.routes.out_bytes),
            a.slow_consumers, a.inserts, a.removes, a.matches, a.cache_hits, a.cached, a.fanout_max, a.fanout_sum,
        ))
    except Exception:
        return -1
    return 0


cdef int collect_sub(void *ctx, const jsc_sub_info *s) noexcept with gil:
    cdef size_t n = 0
    cdef const char *account = jsc_account_name(s.account, &n)
    try:
        (<list>ctx).append(SubInfo(
            account[:n].decode("utf-8", "replace"), s.subject[:s.subject_len].decode("utf-8", "replace"),
            s.queue[:s.queue_len].decode("utf-8", "replace") if s.queue_len else "",
            s.sid[:s.sid_len].decode("utf-8", "replace") if s.sid_len else "", s.conn, s.delivered, s.max,
        ))
    except Exception:
        return -1
    return 0


cdef int collect_seq(void *ctx, uint64_t seq) noexcept with gil:
    try:
        (<list>ctx).append(seq)
    except Exception:
        return -1
    return 0


cdef class Stream:
    """One stream replica; see csrc/stream/jsc_stream.h for what each call promises."""

    cdef jsc_stream *handle
    cdef Plane plane
    cdef readonly RecordLog log
    cdef readonly uint64_t id
    cdef readonly str name

    cdef jsc_stream *live(self) except NULL:
        if self.handle == NULL:
            raise ValueError("the stream is closed")
        return self.handle

    def close(self):
        """Frees the stream and its consumers; the log stays open."""
        if self.handle != NULL and self.plane.handle != NULL:
            jsc_stream_free(self.handle)
        self.handle = NULL

    def configure(self, *, max_msgs=-1, max_bytes=-1, max_msgs_per_subject=-1, max_age_ns=0, duplicate_window_ns=0,
                  max_msg_size=-1, retention=0, discard_new=False, discard_new_per_subject=False, no_ack=False,
                  sealed=False, deny_delete=False, deny_purge=False, allow_rollup=False, file_storage=True,
                  first_seq=0, replicas=1):
        cdef jsc_stream_limits o
        o.max_msgs, o.max_bytes, o.max_msgs_per_subject = max_msgs, max_bytes, max_msgs_per_subject
        o.max_age_ns, o.duplicate_window_ns, o.max_msg_size = max_age_ns, duplicate_window_ns, max_msg_size
        o.retention, o.discard_new, o.discard_new_per_subject = retention, discard_new, discard_new_per_subject
        o.no_ack, o.sealed, o.deny_delete, o.deny_purge = no_ack, sealed, deny_delete, deny_purge
        o.allow_rollup, o.file_storage, o.first_seq = allow_rollup, file_storage, first_seq
        o.replicas = replicas
        check(jsc_stream_configure(self.live(), &o))

    def set_subjects(self, subjects):
        encoded = [s.encode("utf-8", "surrogateescape") for s in subjects]
        cdef size_t n = len(encoded)
        cdef const char **p = <const char **>malloc(n * sizeof(char *) + 1)
        cdef uint32_t *lens = <uint32_t *>malloc(n * sizeof(uint32_t) + 1)
        cdef size_t i
        try:
            if p == NULL or lens == NULL:
                raise MemoryError
            for i in range(n):
                p[i] = <const char *>(<bytes>encoded[i])
                lens[i] = len(<bytes>encoded[i])
            check(jsc_stream_subjects(self.live(), p, lens, <int>n))
        finally:
            free(p)
            free(lens)

    def lead(self, uint32_t term):
        check(jsc_stream_lead(self.live(), term))

    def follow(self):
        jsc_stream_follow(self.live())

    def shutdown(self):
        """As follow, at a clean stop of the server: clients whose pulls wait here are told."""
        jsc_stream_shutdown(self.live())

    def set_solo(self, bint on):
        jsc_stream_solo(self.live(), on)

    def propose(self, int kind, bytes data not None):
        cdef uint64_t index = 0
        check(jsc_stream_propose(self.live(), kind, <const char *>data, len(data), &index))
        return index

    def commit(self, uint64_t index):
        """True: applied up to index; False: the record after `applied` is for the host, then skip() and call again."""
        cdef int rc = jsc_stream_commit(self.live(), index)
        if rc == JSC_EHOST:
            return False
        check(rc)
        return True

    def skip(self):
        check(jsc_stream_skip(self.live()))

    @property
    def applied(self):
        return jsc_stream_applied(self.live())

    @property
    def committed(self):
        return jsc_stream_committed(self.live())

    def state(self):
        cdef jsc_stream_state s
        jsc_stream_stat(self.live(), &s)
        return StreamState(s.messages, s.bytes, s.first_seq, s.last_seq, s.num_subjects, s.num_deleted, s.first_ts,
                           s.last_ts)

    def amount(self):
        """(messages, bytes) without a look at the log: for sums over thousands of streams."""
        cdef uint64_t messages = 0, size = 0
        jsc_stream_amount(self.live(), &messages, &size)
        return messages, size

    def get(self, uint64_t seq):
        """The message of that sequence or None. Raises jscore.Corrupt."""
        cdef jsc_record r
        cdef int rc = jsc_stream_get(self.live(), seq, &r)
        if rc == JSC_ENOTFOUND:
            return None
        check(rc)
        return stored(seq, &r)

    def last(self, str pattern):
        cdef jsc_record r
        cdef uint64_t seq = 0
        cdef bytes p = pattern.encode("utf-8", "surrogateescape")
        cdef int rc = jsc_stream_last(self.live(), p, len(p), &seq, &r)
        if rc == JSC_ENOTFOUND:
            return None
        check(rc)
        return stored(seq, &r)

    def next(self, str pattern, uint64_t from_seq):
        cdef jsc_record r
        cdef uint64_t seq = 0
        cdef bytes p = pattern.encode("utf-8", "surrogateescape")
        cdef int rc = jsc_stream_next(self.live(), p, len(p), from_seq, &seq, &r)
        if rc == JSC_ENOTFOUND:
            return None
        check(rc)
        return stored(seq, &r)

    def seq_at(self, int64_t unix_ns):
        """The first message of that time or later, None if there is none. Raises jscore.Corrupt."""
        cdef uint64_t seq = 0
        cdef int rc = jsc_stream_seq_at(self.live(), unix_ns, &seq)
        if rc == JSC_ENOTFOUND:
            return None
        check(rc)
        return seq

    def subject_counts(self, str pattern=">"):
        out = {}
        cdef bytes p = pattern.encode("utf-8", "surrogateescape")
        check(jsc_stream_subject_counts(self.live(), p, len(p), collect_count, <void *>out))
        return out

    def deleted(self):
        out = []
        check(jsc_stream_deleted(self.live(), collect_seq, <void *>out))
        return out

    def purge(self, str filter, uint64_t seq, uint64_t keep, str reply):
        cdef bytes f = filter.encode("utf-8", "surrogateescape")
        cdef bytes r = reply.encode("utf-8", "surrogateescape")
        check(jsc_stream_purge(self.live(), f, len(f), seq, keep, r, len(r)))

    def delete(self, uint64_t seq, str reply):
        cdef bytes r = reply.encode("utf-8", "surrogateescape")
        check(jsc_stream_delete(self.live(), seq, r, len(r)))

    @property
    def keeps(self):
        """The first record that is needed by what is applied."""
        return jsc_stream_keeps(self.live())

    def move(self, uint64_t below, uint64_t most):
        """As leader: appends messages again whose records lie below `below` and hold up others, about `most` bytes.
        False: there are none left. Raises: jscore.Error, OSError, ValueError (not the leader)."""
        cdef int rc = jsc_stream_move(self.live(), below, most)
        if rc < 0:
            check(rc)
        return rc == 1

    def snapshot_begin(self, bytes host not None):
        """Captures what is applied now, `host` with it; until snapshot_end. Raises: ValueError (nothing is applied)."""
        check(jsc_stream_snapshot_begin(self.live(), <const char *>host, len(host)))

    def snapshot_step(self):
        """A few milliseconds of it; True: it is done. Raises: ValueError, when it has to begin again."""
        cdef int rc = jsc_stream_snapshot_step(self.live())
        if rc < 0:
            check(rc)
        return rc == 1

    def snapshot_file(self):
        """(the file, index of the last record in it, the first record that is still needed). Raises: ValueError."""
        cdef const uint8_t *p = NULL
        cdef size_t n = 0
        cdef uint64_t index = 0, first = 0
        check(jsc_stream_snapshot_file(self.live(), &p, &n, &index, &first))
        return (<const char *>p)[:n], index, first

    def snapshot_end(self):
        if self.handle != NULL:
            jsc_stream_snapshot_end(self.handle)

    def restore(self, bytes data not None, bint lossy):
        """Becomes what a snapshot says, without consumers yet; returns how many messages could not be read (lossy).

        Raises: jscore.Corrupt.
        """
        cdef uint64_t lost = 0
        check(jsc_stream_restore(self.live(), <const uint8_t *><const char *>data, len(data), lossy, &lost))
        return lost

    def restore_consumers(self):
        """The consumers were added: each gets its progress. Raises: jscore.Corrupt."""
        check(jsc_stream_restore_consumers(self.live()))

    def add_consumer(self, uint64_t consumer_id, str name, int64_t created_ns, *, deliver_policy=0, ack_policy=0,
                     flow_control=False, headers_only=False, replay_original=False, opt_start_seq=0, opt_start_ns=0,
                     ack_wait_ns=0, idle_heartbeat_ns=0, inactive_threshold_ns=0, max_deliver=-1, max_ack_pending=-1,
                     max_waiting=0, max_batch=0, max_bytes=0, max_expires_ns=0, backoff_ns=(), filters=(),
                     str deliver_subject="", str deliver_group=""):
        """A consumer of this replica, at apply of its creation; options as in jsc_consumer_options."""
        cdef jsc_consumer_options o
        cdef Consumer c = Consumer.__new__(Consumer)
        cdef bytes n = name.encode()
        cdef bytes ds = deliver_subject.encode("utf-8", "surrogateescape")
        cdef bytes dg = deliver_group.encode("utf-8", "surrogateescape")
        encoded = [f.encode("utf-8", "surrogateescape") for f in filters]
        cdef size_t nf = len(encoded), nb = len(backoff_ns), i
        cdef const char **p = <const char **>malloc(nf * sizeof(char *) + 1)
        cdef uint32_t *lens = <uint32_t *>malloc(nf * sizeof(uint32_t) + 1)
        cdef int64_t *back = <int64_t *>malloc(nb * sizeof(int64_t) + 1)
        try:
            if p == NULL or lens == NULL or back == NULL:
                raise MemoryError
            for i in range(nf):
                p[i] = <const char *>(<bytes>encoded[i])
                lens[i] = len(<bytes>encoded[i])
            for i in range(nb):
                back[i] = backoff_ns[i]
            o.deliver_policy, o.ack_policy, o.flow_control = deliver_policy, ack_policy, flow_control
            o.headers_only, o.replay_original, o.opt_start_seq = headers_only, replay_original, opt_start_seq
            o.opt_start_ns, o.ack_wait_ns, o.idle_heartbeat_ns = opt_start_ns, ack_wait_ns, idle_heartbeat_ns
            o.inactive_threshold_ns, o.max_deliver = inactive_threshold_ns, max_deliver
            o.max_ack_pending, o.max_waiting = max_ack_pending, max_waiting
            o.max_batch, o.max_bytes, o.max_expires_ns = max_batch, max_bytes, max_expires_ns
            o.backoff_ns, o.backoffs = back, <int>nb
            o.filters, o.filter_lens, o.nfilters = p, lens, <int>nf
            o.deliver_subject = <const char *>ds if ds else NULL
            o.deliver_subject_len = len(ds)
            o.deliver_group = <const char *>dg if dg else NULL
            o.deliver_group_len = len(dg)
            check(jsc_consumer_new(self.live(), consumer_id, n, len(n), created_ns, &o, &c.handle))
        finally:
            free(p)
            free(lens)
            free(back)
        c.stream, c.id, c.name = self, consumer_id, name
        return c


cdef class Consumer:
    """A consumer of one stream replica. Its stream's close() ends it too."""

    cdef jsc_consumer *handle
    cdef Stream stream
    cdef readonly uint64_t id
    cdef readonly str name

    def state(self):
        cdef jsc_consumer_state s
        if self.handle == NULL or self.stream.handle == NULL:
            raise ValueError("the consumer is closed")
        jsc_consumer_stat(self.handle, &s)
        return ConsumerState(s.delivered_consumer, s.delivered_stream, s.ack_floor_consumer, s.ack_floor_stream,
                             s.num_ack_pending, s.num_redelivered, s.num_waiting, s.num_pending, s.last_delivered_ns,
                             s.last_ack_ns, bool(s.push_bound))

    def close(self):
        if self.handle != NULL and self.stream.handle != NULL:
            jsc_consumer_free(self.handle)
        self.handle = NULL


def snapshot_host(bytes data not None):
    """What the host gave to snapshot_begin. Raises: jscore.Corrupt, jscore.FormatError."""
    cdef const uint8_t *p = NULL
    cdef size_t n = 0
    check(jsc_stream_snapshot_host(<const uint8_t *><const char *>data, len(data), &p, &n))
    return (<const char *>p)[:n]
