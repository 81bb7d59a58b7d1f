"""The generator: one number gives one session, which is what one to three connections send, in steps.

Every subject of a session lies below a prefix of its own, so many can run at the same time; what reaches beyond it is
marked `alone`. A step that is not the last of its connection is well-formed and ends in a PING whose PONG says that the
server is through with it; after the last one the connection is half-closed, and what the server still sends is read to
the end. What servers may choose freely is kept apart by names: members of a queue group have sids that begin with
`q` and the group's letter, and differ in what follows.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from .limits import MAX_CONTROL_LINE, MAX_PAYLOAD

GROUPS = "abc"
TOKENS = (b"a", b"b", b"c", b"a", b"b", b"foo")
ODD_TOKENS = (
    b"\r",
    b"x\ry",
    b"\f",
    b"*x",
    b"x*",
    b">x",
    b"x>",
    b"**",
    b"\xff\xfe",
    "é".encode(),
    b"\x00",
    b"'",
    b'"',
    b"-",
    b"+",
    b"\\",
    b"\x7f",
)
SEPARATORS = (b"\t", b"  ", b" \t ", b"\t\t", b"    ")
ENDS = (b"\n", b"\n", b" \r\n", b"\t\r\n", b" \n", b"\r\r\n", b"  \t\r\n")
SIZES = (0, 0, 1, 2, 5, 5, 5, 17, 64, 200)
EDGES = (MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, MAX_PAYLOAD + 5000)
BAD_SIZES = (b"-1", b"x", b"", b"+5", b"1e1", b"1234567890", b"999999999", b"0x10", b"5.0", b"5x", b"\xd9\xa3")
PADDED_SIZES = (b"005", b"000000005")
WORDS = (
    b"hello",
    b"\r\n",
    b"PING\r\n",
    b"\x00\x01\xff",
    b"+OK\r\n",
    b"MSG a 1 1\r\nx\r\n",
    b"NATS/1.0\r\n\r\n",
    b"abcdefghij",
)
HEADERS = (
    *(
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nA: b\r\n\r\n",
        b"NATS/1.0\r\nA: b\r\nA: c\r\nB:\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
    ),
    *(b"NATS/1.0 100 Idle Heartbeat\r\nX: y\r\n\r\n", b"junk", b"", b"NATS/1.0\r\nno colon\r\n\r\n", b"\r\n\r\n"),
)
GARBAGE = (
    *(
        b"FOO\r\n",
        b"\r\n",
        b"\n",
        b" \r\n",
        b"MSG a 1 1\r\nx\r\n",
        b"RMSG $G a 1\r\nx\r\n",
        b"PUB\r\n",
        b"SUB\r\n",
        b"UNSUB\r\n",
    ),
    *(
        b"HPUB\r\n",
        b"PUB \r\n",
        b"SUB \r\n",
        b"UNSUB \r\n",
        b"HPUB \r\n",
        b"-ERR 'x'\r\n",
        b"-ERR\r\n",
        b"-ERR \r\n",
        b"INFO\r\n",
    ),
    *(
        b"INFO {}\r\n",
        b"INFO {bad\r\n",
        b"INFO []\r\n",
        b"+OX\r\n",
        b"+\r\n",
        b"PIN\r\n",
        b"PINGS\r\n",
        b"CONNECTED\r\n",
    ),
    *(
        b"RS+ $G a\r\n",
        b"LS+ a\r\n",
        b"A+ b\r\n",
        b"HMSG a 1 1 1\r\n",
        b"\x00\r\n",
        b"\xff\xfe\xfd\r\n",
        b"P",
        b"PU",
        b"SU",
        b"CON",
    ),
    *(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUBX a 1\r\nx\r\n",
        b"SUBX a 1\r\n",
        b"CONNECT\r\n",
        b"CONNECT \r\n",
        b"PUB\ta\t1\r\nx\r\n",
    ),
    *(
        b"JSLINK {}\r\n",
        b"LMSG x a 1\r\ny\r\n",
        b"RS- $G a\r\n",
        b"INFO null\r\n",
        b"INFO {} \r\n",
        b"INFO\n",
        b"INFO {}x\r\n",
    ),
)
LITERALS = (b"true", b"false")
CONNECTS = (
    *(
        b"null",
        b"[]",
        b"{bad",
        b"{",
        b"}",
        b"{}x",
        b"{} {}",
        b'""',
        b"1",
        b"{'verbose':true}",
        b'{"verbose":}',
        b"{,}",
        b"{}",
        b" {}",
    ),
    *(
        b'{"verbose":"yes"}',
        b'{"verbose":1}',
        b'{"verbose":null}',
        b'{"VERBOSE":false}',
        b'{"Verbose":false,"verbose":true}',
    ),
    *(
        b'{"protocol":2}',
        b'{"protocol":-1}',
        b'{"protocol":"1"}',
        b'{"protocol":1.0}',
        b'{"protocol":1e0}',
        b'{"protocol":1.5}',
    ),
    *(
        b'{"protocol":99999999999999999999}',
        b'{"protocol":null}',
        b'{"name":5}',
        b'{"name":null}',
        b'{"name":"\\u00e9"}',
    ),
    *(
        b'{"name":"\xff"}',
        b'{"name":"\x01"}',
        b'{"lang":[]}',
        b'{"version":{}}',
        b'{"user":1}',
        b'{"pass":true}',
        b'{"user":"u","pass":"p"}',
    ),
    *(
        b'{"auth_token":"t"}',
        b'{"auth_token":1}',
        b'{"jwt":"x"}',
        b'{"jwt":1}',
        b'{"nkey":"x","sig":"y"}',
        b'{"nkey":1}',
        b'{"sig":1}',
    ),
    *(
        b'{"account":""}',
        b'{"account":"A"}',
        b'{"account":1}',
        b'{"new_account":true}',
        b'{"new_account":false}',
        b'{"new_account":"x"}',
    ),
    *(
        b'{"no_responders":true}',
        b'{"no_responders":true,"headers":false}',
        b'{"headers":"x"}',
        b'{"tls_required":"x"}',
        b'{"tls_required":true}',
    ),
    *(
        b'{"unknown":{"a":[1,2,{"b":null}]}}',
        b'{"import":1}',
        b'{"import":{}}',
        b'{"export":{"allow":["a"]}}',
        b'{"remote_account":"x"}',
    ),
    *(
        b'{"remote_account":5}',
        b'{"echo":0}',
        b'{"pedantic":"x"}',
        b'{"verbose":true,"verbose":false}',
        b'{"verbose":false,}',
    ),
    *(
        b'{"proxy_sig":"x"}',
        b'{"proxy_sig":1}',
        b'{"a":1e999}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\x"}',
        b'{"":1}',
    ),
    *(
        b'{"cluster":1}',
        b'{"user_jwt":1}',
        b'{"import":{"allow":1}}',
        b'{"import":null}',
        b'{"export":[]}',
        b'{"\\u0076erbose":false}',
    ),
)


@dataclass(slots=True)
class Step:
    """What one connection sends before another one's turn, cut into the pieces in which it is sent."""

    conn: int
    pieces: list[bytes]
    last: bool
    pongs: int = 0
    """How many PONGs this connection has seen when the server is through with this step and all before it."""
    linger: bool = False
    """Before it is half-closed it is watched for a while: does the server close it by itself?"""


@dataclass(slots=True)
class Session:
    number: int
    conns: int
    steps: list[Step] = field(default_factory=list)
    alone: bool = False


class Stream:
    """Builds what one connection sends."""

    def __init__(self, rng: random.Random, prefix: bytes, conn: int, session: Session) -> None:
        self.rng = rng
        self.prefix = prefix
        self.conn = conn
        self.session = session
        self.data = bytearray()
        self.sids = 0
        self.known: list[bytes] = []
        self.pings = 0
        self.plain = rng.random() < 0.6

    # ---- words ----

    def one_in(self, n: int) -> bool:
        return self.rng.random() * n < 1

    def token(self) -> bytes:
        return self.rng.choice(ODD_TOKENS if self.one_in(12) else TOKENS)

    def subject(self) -> bytes:
        n = self.rng.choice((1, 1, 2, 2, 3))
        return b".".join([self.prefix, *(self.token() for _ in range(n))])

    def pattern(self) -> bytes:
        rng = self.rng
        tokens = [self.prefix]
        for _ in range(rng.choice((1, 1, 2, 2, 3))):
            tokens.append(b"*" if rng.random() < 0.35 else self.token())
        if rng.random() < 0.25:
            tokens[-1] = b">"
        return b".".join(tokens)

    def bad_subject(self) -> bytes:
        p = self.prefix
        choices = (
            p + b"..a",
            p + b".",
            b"." + p,
            p + b".>.a",
            p + b".*.>.",
            p + b".a..",
            b".",
            b"..",
            p + b".>.",
            p + b".*..",
        )
        return self.rng.choice(choices)

    def reserved(self) -> bytes:
        heads = (
            b"$JS.ACK.",
            b"_R_.",
            b"_GR_.",
            b"$NRG.",
            b"$JS.ACK",
            b"_R_",
            b"_GR_",
            b"_GR_.x.",
            b"$JS.API.",
            b"$SYS.",
            b"_R_X.",
        )
        return self.rng.choice(heads) + (self.prefix if self.rng.random() < 0.8 else b"")

    def far(self) -> bytes:
        """A pattern that reaches beyond this case."""
        self.session.alone = True
        return self.rng.choice((b">", b"*", b"*.*", b"*.>", b"*.a", b"*." + self.prefix))

    def reply(self) -> bytes:
        r = self.rng.random()
        if r < 0.6:
            return b"_INBOX." + self.prefix + b"." + self.rng.choice(TOKENS)
        if r < 0.8:
            return self.subject()
        return self.reserved() if r < 0.93 else self.bad_subject()

    def sep(self) -> bytes:
        return b" " if self.plain or self.rng.random() < 0.8 else self.rng.choice(SEPARATORS)

    def end(self) -> bytes:
        return b"\r\n" if self.plain or self.rng.random() < 0.85 else self.rng.choice(ENDS)

    def verb(self, word: bytes) -> bytes:
        if self.plain or self.rng.random() < 0.8:
            return word
        if self.rng.random() < 0.5:
            return word.lower()
        return bytes(c ^ 32 if 65 <= c <= 90 and self.rng.random() < 0.5 else c for c in word)

    def line(self, verb: bytes, *arguments: bytes) -> None:
        self.data += self.verb(verb)
        for argument in arguments:
            self.data += self.sep()
            self.data += argument
        self.data += self.end()

    def fill(self, used: int, over: bool) -> bytes:
        """A subject that makes an argument part of `used` other bytes about as long as the limit."""
        room = MAX_CONTROL_LINE - used + (self.rng.choice((-1, 0, 0, 1, 2, 40)) if over else -40)
        return self.prefix + b"." + b"l" * max(1, room - len(self.prefix) - 1)

    # ---- operations ----

    def connect(self, tame: bool = False) -> None:
        rng = self.rng
        if not tame and rng.random() < 0.25:
            self.line(b"CONNECT", rng.choice(CONNECTS))
            return
        headers = rng.random() < 0.8
        fields = [(b"verbose", rng.random() < 0.3), (b"pedantic", rng.random() < 0.3), (b"headers", headers)]
        if rng.random() < 0.4:
            fields.append((b"echo", rng.random() < 0.5))
        if headers and rng.random() < 0.6:
            fields.append((b"no_responders", True))
        text = b",".join(b'"' + name + b'":' + LITERALS[not on] for name, on in fields)
        if rng.random() < 0.5:
            text += b',"protocol":' + rng.choice((b"0", b"1"))
        self.line(b"CONNECT", b"{" + text + b"}")

    def ping(self) -> None:
        self.pings += 1
        self.line(b"PING") if self.rng.random() < 0.8 else self.line(
            b"PING", self.rng.choice((b"x", b"a b c", b"\xff"))
        )

    def body(self, size: int) -> bytes:
        word = self.rng.choice(WORDS)
        return (word * (size // len(word) + 1))[:size]

    def publish(self, tame: bool = False) -> None:
        rng = self.rng
        r = rng.random()
        subject = self.subject()
        if r > 0.94:
            subject = self.pattern()
        elif r > 0.90:
            subject = self.bad_subject()
        elif r > 0.87:
            subject = self.reserved()
        size = rng.choice(SIZES) if rng.random() < 0.97 else rng.choice(EDGES[:2] if tame else EDGES)
        parts = [subject]
        if rng.random() < 0.4:
            parts.append(self.reply())
        text = b"%d" % size
        if rng.random() < 0.02:
            text = rng.choice(PADDED_SIZES)
            size = 5
        if rng.random() < 0.02:
            parts[0] = self.fill(sum(map(len, parts[1:])) + len(parts) + len(text), over=not tame)
        self.line(b"PUB", *parts, text)
        self.data += self.body(size) + self.tail(tame)

    def tail(self, tame: bool) -> bytes:
        if tame or self.rng.random() < 0.98:
            return b"\r\n"
        return self.rng.choice((b"", b"\n", b"\r", b"\n\r", b"x\r\n", b"\r\r\n", b"  "))

    def publish_headers(self, tame: bool = False) -> None:
        rng = self.rng
        head = rng.choice(HEADERS)
        body = self.body(rng.choice(SIZES))
        parts = [self.subject() if rng.random() < 0.95 else self.bad_subject()]
        if rng.random() < 0.4:
            parts.append(self.reply())
        h, total = len(head), len(head) + len(body)
        if not tame and rng.random() < 0.06:
            h = rng.choice((0, total, total + 1, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1))
        self.line(b"HPUB", *parts, b"%d" % h, b"%d" % total)
        self.data += head + body + self.tail(tame)

    def sid(self) -> bytes:
        self.sids += 1
        sid = b"%d" % self.sids if self.rng.random() < 0.9 else b"s%d" % self.sids
        if self.known and self.rng.random() < 0.05:
            return self.rng.choice(self.known)
        self.known.append(sid)
        return sid

    def subscribe(self, tame: bool = False) -> None:
        rng = self.rng
        r = rng.random()
        subject = self.pattern() if r < 0.6 else self.subject()
        if r > 0.9:
            subject = b"_INBOX." + self.prefix + rng.choice((b".*", b".>", b".a"))
        elif r > 0.85:
            subject = self.bad_subject()
        elif r > 0.83:
            subject = self.reserved() + b".x"
        elif r > 0.82 and not tame:
            subject = self.far()
        if rng.random() < 0.25:
            group = rng.choice(GROUPS)
            queue = group.encode() if rng.random() < 0.97 else rng.choice((b"_sys_", b"*", b">", b"q.q", b"\xff"))
            self.sids += 1
            self.line(b"SUB", subject, queue, b"q%s%d_%d" % (group.encode(), self.conn, self.sids))
            return
        sid = self.sid()
        if rng.random() < 0.01:
            subject = self.fill(len(sid) + 1, over=not tame)
        self.line(b"SUB", subject, sid)

    def unsubscribe(self) -> None:
        rng = self.rng
        sid = rng.choice(self.known) if self.known and rng.random() < 0.9 else b"nope"
        r = rng.random()
        if r < 0.4:
            self.line(b"UNSUB", sid)
        else:
            self.line(
                b"UNSUB", sid, rng.choice((b"1", b"2", b"2", b"3", b"0", b"5", b"x", b"-1", b"99999999999", b"007"))
            )

    def bad_line(self) -> None:
        """A known verb with the wrong arguments."""
        rng = self.rng
        s, t, u = self.subject(), self.token(), b"7"
        size = rng.choice(BAD_SIZES)
        choices = (
            *((b"PUB", s), (b"PUB", s, t, u, u), (b"PUB", s, size), (b"PUB", s, t, size), (b"PUB", u), (b"PUB",)),
            *(
                (b"HPUB", s, u),
                (b"HPUB", s, size, u),
                (b"HPUB", s, u, size),
                (b"HPUB", s, t, u, u, u),
                (b"HPUB", s, b"10", b"5"),
            ),
            *((b"SUB", s), (b"SUB", s, t, u, u), (b"SUB",), (b"UNSUB",), (b"UNSUB", u, u, u), (b"UNSUB", u, size)),
            *(
                (b"CONNECT", b"{}", b"x"),
                (b"CONNECT", size),
                (b"PING", b"x" * 600),
                (b"PONG", b"y" * 600),
                (b"+OK", b"z" * 600),
            ),
            *(
                (b"SUB", b"x" * 600, u),
                (b"UNSUB", b"x" * 600),
                (b"-ERR", b"x" * 600),
                (b"INFO", b"{" * 600),
                (b"PUB", b" " * 600, s),
            ),
            *(
                (b"SUB", s, b" " * rng.choice((400, 505, 512, 600)) + u),
                (b"CONNECT", b'{"name":"' + b"n" * 600 + b'"}'),
            ),
        )
        self.line(*rng.choice(choices))

    def operation(self) -> None:
        r = self.rng.random()
        if r < 0.34:
            self.publish()
        elif r < 0.46:
            self.publish_headers()
        elif r < 0.72:
            self.subscribe()
        elif r < 0.82:
            self.unsubscribe()
        elif r < 0.88:
            self.ping()
        elif r < 0.90:
            self.line(self.rng.choice((b"PONG", b"+OK")))
        elif r < 0.93:
            self.connect()
        elif r < 0.965:
            self.bad_line()
        else:
            self.data += self.rng.choice(GARBAGE)

    def tame_operation(self) -> None:
        r = self.rng.random()
        if r < 0.45:
            self.publish(tame=True)
        elif r < 0.56 and self.headers:
            self.publish_headers(tame=True)
        elif r < 0.80:
            self.subscribe(tame=True)
        elif r < 0.91:
            self.unsubscribe()
        elif r < 0.96:
            self.ping()
        else:
            self.line(
                *self.rng.choice(((b"PONG",), (b"+OK",), (b"INFO", b"{}"), (b"PONG", b"x"), (b"+OK", b"y" * 600)))
            )

    headers = False

    # ---- steps ----

    def taken(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data

    def tame_start(self) -> None:
        rng = self.rng
        self.headers = rng.random() < 0.8
        flags = [b'"verbose":' + LITERALS[rng.random() < 0.7], b'"pedantic":' + LITERALS[rng.random() < 0.7]]
        flags.append(b'"headers":' + LITERALS[not self.headers])
        if rng.random() < 0.3:
            flags.append(b'"echo":false')
        if self.headers and rng.random() < 0.6:
            flags.append(b'"no_responders":true')
        flags.append(b'"protocol":' + rng.choice((b"0", b"1")))
        self.line(b"CONNECT", b"{" + b",".join(flags) + b"}")

    def tame(self, least: int, most: int) -> bytes:
        self.plain = self.rng.random() < 0.6
        if self.rng.random() < 0.35:  # drops its subscriptions, too
            self.tame_start()
            self.known.clear()
        for _ in range(self.rng.randint(least, most)):
            self.tame_operation()
        self.pings += 1
        self.data += b"PING\r\n"
        return self.taken()

    def wild(self) -> bytes:
        rng = self.rng
        if not self.pings and rng.random() < 0.85:
            self.connect(tame=rng.random() < 0.8)
        for _ in range(rng.choice((1, 2, 3, 4, 5, 6, 8, 12))):
            self.operation()
        data = self.taken()
        if rng.random() < 0.3:
            data = mutated(rng, data)
        return data


def mutated(rng: random.Random, data: bytes) -> bytes:
    b = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not b:
            break
        at = rng.randrange(len(b))
        r = rng.random()
        if r < 0.25:
            b[at] = rng.choice(b'\r\n\t .>*0129AaPp+-{}"_$')
        elif r < 0.4:
            b[at] = rng.randrange(256)
        elif r < 0.6:
            del b[at]
        elif r < 0.8:
            b.insert(at, rng.choice(b"\r\n\t .>*0159Px+-{}\"'"))
        elif r < 0.9:
            n = rng.randrange(1, 12)
            b[at:at] = b[at : at + n]
        else:
            del b[at:]
    return bytes(b)


def split(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in one piece, one by one, or cut anywhere."""
    r = rng.random()
    if len(data) < 2 or r < 0.4:
        return [data]
    if r < 0.43 and len(data) < 160:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted({0, *(rng.randrange(1, len(data)) for _ in range(rng.choice((1, 1, 1, 2, 4)))), len(data)})
    return [data[lo:hi] for lo, hi in itertools.pairwise(cuts)]


END = b"\r\nPING\r\nPING\r\n"
"""Shows where a stream has left the server: between operations, in a payload, or gone."""


def generate(number: int, prefix: bytes, seed: int = 0) -> Session:
    rng = random.Random(seed << 40 | number)
    session = Session(number, rng.choice((1, 1, 1, 2, 2, 2, 3)))
    streams = [Stream(rng, prefix, i, session) for i in range(session.conns)]
    if rng.random() < 0.8:
        for stream in streams:
            stream.tame_start()
            step(session, rng, stream, stream.tame(1, 3))
        for _ in range(rng.choice((0, 5, 20, 30))):
            stream = rng.choice(streams)
            step(session, rng, stream, stream.tame(1, 4))
    for stream in reversed(streams):
        data = stream.wild() if stream.conn == session.conns - 1 or rng.random() < 0.2 else b"PING\r\n"
        if rng.random() < 0.8:
            data += rng.choice((END, b"PING\r\n"))
        session.steps.append(Step(stream.conn, split(rng, data), True, linger=rng.random() < 0.01))
    return session


def step(session: Session, rng: random.Random, stream: Stream, data: bytes) -> None:
    session.steps.append(Step(stream.conn, split(rng, data), False, pongs=stream.pings))
