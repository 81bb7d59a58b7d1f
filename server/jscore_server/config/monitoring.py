"""The `http_authorization` block: who may read the monitoring port. Not one of nats-server's keys. Pure.

    http_authorization { user: prometheus, password: "$2a$11$…", token: "…" }

With a user, a password (in plain or as a bcrypt hash) is asked for by HTTP's Basic scheme; a token is sent as `Bearer`;
with both, either will do. `/healthz` is asked by load balancers and orchestrators that know no password:
`healthz: open` leaves it to everybody.
"""

from __future__ import annotations

from typing import Any

from .kinds import Reader, Rule, Wrong, map_of, one_of, sets, string, table
from .options import MonitoringAuthorization, Options
from .parser import Entry

__all__ = ["http_authorization"]

_RULES = table(
    [
        sets("user", string, "username"),
        sets("password", string, "pass"),
        sets("token", string),
        sets("healthz", one_of("open", "closed")),
    ]
)


def _block(reader: Reader, target: Any, entry: Entry) -> None:
    assert isinstance(target, Options)
    login = MonitoringAuthorization()
    reader.block(map_of(entry), _RULES, login, "http_authorization.")
    if bool(login.user) != bool(login.password):
        raise Wrong("http_authorization needs a user and a password, or a token")
    if not login.required:
        # An empty one would look like a lock and be none.
        raise Wrong("http_authorization needs a user and a password, or a token")
    target.http_authorization = login


http_authorization = Rule(("http_authorization",), _block)
