"""The way of a client from its connection to an identity in the data plane, and what an identity's end means for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from jscore_server.authentication import Authentication, Identity
from jscore_server.config.options import Options
from jscore_server.config.users import AccountLimits
from jscore_server.dataplane.events import DENIED_MAX_SUBS, DENIED_REPLY, DENIED_SUBSCRIBE
from jscore_server.passwords import Passwords
from jscore_server.protocol.certificate import BadCertificate, Certificate, read_certificate
from jscore_server.protocol.connect import Connect

if TYPE_CHECKING:
    from jscore_server.server import Client, Server

__all__ = ["Admission"]

NANOSECOND = 1_000_000_000
VIOLATION = ("Authentication Failure", "Authorization Violation")


class Admission:
    """Lets clients in. All methods from the loop's thread."""

    def __init__(self, server: Server, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.passwords = Passwords(loop)
        self.authentication = Authentication(options, self.passwords)
        self.authentication.bind(server.plane)

    def close(self) -> None:
        self.passwords.close()

    # ---- one client ----

    def arrived(self, client: Client) -> None:
        """A client was accepted: without an identity it has so long to get one."""
        door = self.authentication.door(client.connection_type)
        if client.web is not None:
            self.authentication.admit(self._server.plane, client.conn)
            interval = self._server.options.websocket.ping_interval
            if interval:
                self._server.plane.ping_every(client.conn, int(interval * NANOSECOND))
        if door.anonymous is None:
            client.auth_timer = self._loop.call_later(door.timeout_s, self._too_late, client)
        else:
            client.identity = door.anonymous

    def left(self, client: Client, reason: str = "") -> None:
        if reason == "Authentication Failure" and client.connect is None:
            self._say(client, "authentication error", named=False)  # it began with another verb
        self._stop(client)

    def _stop(self, client: Client) -> None:
        if client.auth_timer is not None:
            client.auth_timer.cancel()
            client.auth_timer = None
        if client.auth_stop is not None:
            client.auth_stop()
            client.auth_stop = None

    def connect(self, client: Client, connect: Connect) -> None:
        """Judges a CONNECT; the connection reads on once that is done."""
        client.connect = connect
        client.identity = None

        def judged(identity: Identity | None) -> None:
            client.auth_stop = None
            if client.conn not in self._server.clients:
                return
            if identity is None:
                self._refuse(client, connect)
            else:
                self._let_in(client, connect, identity)

        client.auth_stop = self._identify(client, connect, judged)

    def _identify(
        self, client: Client, connect: Connect, judged: Callable[[Identity | None], None]
    ) -> Callable[[], None] | None:
        now = self.authentication
        certificate = None
        if now.door(client.connection_type).mapped:
            certificate = self._certificate(client)
            if connect.user and certificate is not None:
                text = f'User "{connect.user}" found in connect proto, but user required from cert'
                self._server.log.warn(f"{client.label} - {text}")
        return now.identify(connect, client.ip, client.connection_type, judged, certificate)

    def _certificate(self, client: Client) -> Certificate | None:
        """What the client showed for itself."""
        for der in self._server.plane.peer_certificates(client.conn)[:1]:
            try:
                return read_certificate(der)
            except BadCertificate as err:
                self._server.log.debug(f"{client.label} - certificate not understood: {err}")
        return None

    def _let_in(self, client: Client, connect: Connect, identity: Identity) -> None:
        server = self._server
        self._stop(client)
        client.identity = identity
        right = self.authentication.right(identity)
        taken = server.plane.accept(
            client.conn,
            right.account,
            verbose=connect.verbose,
            pedantic=connect.pedantic,
            echo=connect.echo,
            headers=connect.headers,
            no_responders=connect.no_responders,
            protocol=connect.protocol,
            after_pong=server.client_info(client, right) if connect.protocol >= 1 else b"",
            permissions=right.permissions,
            max_subs=right.max_subs,
            max_payload=right.max_payload,
        )
        if taken:
            server.system.connected(client, right.account)
        else:
            self._say(client, "maximum account active connections exceeded", named=False)

    def _refuse(self, client: Client, connect: Connect) -> None:
        shown = ""
        if connect.user:
            shown = f' - User "{connect.user}"'
        elif connect.auth_token:
            shown = ' - Token "[REDACTED]"'
        self._say(client, f"authentication error{shown}", named=False)
        self._server.plane.close_conn(client.conn, *VIOLATION)

    def _too_late(self, client: Client) -> None:
        client.auth_timer = None
        if client.identity is None:
            self._server.plane.close_conn(client.conn, "Authentication Timeout", "Authentication Timeout")

    def _say(self, client: Client, text: str, *, named: bool = True) -> None:
        label = client.identity.label if named and client.identity is not None else ""
        who = f'"{label}" - ' if label else ""
        self._server.log.error(f"{client.label} - {who}{text}")

    def denied(self, client: Client, what: int, left_out: int, about: tuple[bytes, bytes, bytes]) -> None:
        """A client overstepped its permissions or limits; the data plane has told it so."""
        subject, queue, sid = (part.decode("utf-8", "backslashreplace") for part in about)
        if what == DENIED_MAX_SUBS:
            text = "maximum subscriptions exceeded"
        elif what == DENIED_SUBSCRIBE:
            in_queue = f', Queue: "{queue}"' if queue else ""
            text = f'Subscription Violation - Subject "{subject}"{in_queue}, SID {sid}'
        else:
            text = f'Publish Violation - {"Reply" if what == DENIED_REPLY else "Subject"} "{subject}"'
        self._say(client, text + (f" ({left_out} violations before this one are not shown)" if left_out else ""))

    # ---- a reload ----

    def replace(self, options: Options) -> None:
        """Other users, accounts, permissions and limits from now on. Source: config.md section 7.

        Whoever is no more, or is in another account, is closed without a word; who would not be let in again is told
        so; others keep their connection under the permissions and limits of now, as far as these have room for it.
        """
        server = self._server
        before = self.authentication
        self.authentication = Authentication(options, self.passwords)
        for name in before.limits.keys() - self.authentication.limits.keys():
            server.plane.account_limit(name, None)
        self.authentication.bind(server.plane)
        for client in list(server.clients.values()):
            self._judge_again(client)
        for name, limits in self.authentication.limits.items():
            if limits != before.limits.get(name, AccountLimits()):
                self._limit(name)
        for name in before.limits.keys() - self.authentication.limits.keys():
            self._limit(name)

    def _limit(self, account: str) -> None:
        """The account's limits of now hold for its clients; who is beyond them is closed."""
        server, plane = self._server, self._server.plane
        clients = [c for c in server.clients.values() if c.identity is not None and c.identity.account == account]
        random.shuffle(clients)
        right = self.authentication.right(Identity(account))
        limits = self.authentication.limits.get(account, AccountLimits())
        room = len(clients) if limits.max_connections == -1 else max(0, limits.max_connections)
        for client in clients:
            info = plane.conn_info(client.conn)
            if info is None or not plane.limit(client.conn, right.max_subs, right.max_payload):
                continue  # it is on its way out
            if right.max_subs is not None and info.subs > right.max_subs:
                self._exceeded(client, "Maximum Subscriptions Exceeded", "maximum subscriptions exceeded")
            elif room <= 0:
                text = "maximum account active connections exceeded"
                self._exceeded(client, "Maximum Account Connections Exceeded", text)
            else:
                room -= 1

    def _exceeded(self, client: Client, reason: str, error: str) -> None:
        self._say(client, error)
        self._server.plane.close_conn(client.conn, reason, error)

    def _judge_again(self, client: Client) -> None:
        identity, connect = client.identity, client.connect
        if identity is None:
            return  # its CONNECT is still to come, or its password being checked: against the users of before, then
        now = self.authentication
        known = now.users.get(identity.user) if identity.user else None
        login = now.door(client.connection_type).login
        if identity.user and login.user != identity.user and (known is None or known.account != identity.account):
            self._server.plane.close_conn(client.conn, "Authentication Failure")
            return

        def judged(again: Identity | None) -> None:
            client.auth_stop = None
            if client.conn not in self._server.clients:
                return
            if again is None or again.account != identity.account:
                self._say(client, "Authorization Violation")
                self._server.plane.close_conn(client.conn, *VIOLATION)
                return
            client.identity = again
            if again.permissions != identity.permissions:
                self._server.plane.permit(client.conn, now.right(again).permissions)

        client.auth_stop = self._identify(client, connect or Connect(), judged)
