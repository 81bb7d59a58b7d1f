"""Who a connecting client is, by the users, the password or the token of the configuration, and what it may do then.

Source: security.md sections 1 to 3. Nkeys, JWT and a callout are further ways to an Identity and have their place in
`Authentication.identify`; nothing behind it asks how somebody was known.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jscore_server import dataplane
from jscore_server.config.options import Options
from jscore_server.config.transport import Websocket
from jscore_server.config.users import (
    GLOBAL_ACCOUNT,
    SYSTEM_ACCOUNT,
    AccountLimits,
    ClientAuthorization,
    Permissions,
    User,
)
from jscore_server.config.validate import named_users
from jscore_server.dataplane import Plane
from jscore_server.passwords import Passwords, is_hash, same
from jscore_server.protocol.certificate import Certificate
from jscore_server.protocol.connect import Connect
from jscore_server.protocol.mapping import mapped_user, parse_subject

__all__ = ["ANYBODY", "Authentication", "Door", "Identity", "Right", "plaintext"]

AUTH_TIMEOUT_S = 2.0
SECOND_NS = 1_000_000_000


class Identity(msgspec.Struct, frozen=True):
    """Somebody who was let in. `user` '': by token, or without being asked."""

    account: str = GLOBAL_ACCOUNT
    user: str = ""
    permissions: Permissions | None = None
    mapped: bool = False
    """By its certificate: `user` is not what it called itself."""

    @property
    def label(self) -> str:
        """As the log shows it: `account/user:name`, '' without a user."""
        return f"{self.account}/user:{self.user}" if self.user else ""


ANYBODY = Identity()


class Right(msgspec.Struct, frozen=True):
    """What the data plane is told about an identity."""

    account: str
    permissions: dataplane.Permissions | None
    max_subs: int | None
    max_payload: int | None


class Door(msgspec.Struct, frozen=True):
    """How the clients of one listener are let in."""

    login: ClientAuthorization
    anonymous: Identity | None
    """Who a client is that shows no credentials; None: it must."""
    required: bool
    shown_required: bool
    """`auth_required` of the first INFO."""
    timeout_s: float
    mapped: bool
    """By the certificate: it names the user."""


class Authentication:
    """The users of one configuration; a reload makes another one."""

    def __init__(self, options: Options, passwords: Passwords) -> None:
        self._passwords = passwords
        login = options.authorization
        self.users = named_users(options)
        self.limits = {name: account.limits for name, account in options.accounts.items()}
        self.system_account = "" if options.no_system_account else options.system_account
        self._compiled: dict[Permissions, dataplane.Permissions] = {}
        tls_s = options.tls.timeout + 1 if options.tls is not None else AUTH_TIMEOUT_S
        self.main = self._door(
            login,
            options.no_auth_user,
            max(login.timeout, 0.001) if login.timeout else tls_s,
            mapped=options.tls is not None and options.tls.verify_and_map,
            # Only the system account has users: everybody else is served as without any.
            is_open="authorization" not in options.places
            and not (login.user or login.token)
            and bool(self.users)
            and set(options.accounts) <= {self.system_account},
        )
        self.web = self._web_door(options.websocket)
        mapping = self.main.mapped or self.web.mapped
        self._subjects = {name: parse_subject(name) for name in self.users} if mapping else {}

    def _door(
        self, login: ClientAuthorization, no_auth_user: str, timeout_s: float, *, mapped: bool, is_open: bool
    ) -> Door:
        required = bool(self.users or login.user or login.token)
        user = self.users.get(no_auth_user)
        mapped = mapped and bool(self.users)
        anonymous = ANYBODY if is_open or not required else None
        if mapped:
            anonymous = None
        elif user is not None:
            anonymous = _identity(user)
        return Door(login, anonymous, required, required and user is None, timeout_s, mapped)

    def _web_door(self, web: Websocket) -> Door:
        """The main one, but for what the `websocket` block says otherwise."""
        timeout_s = web.timeout or self.main.timeout_s
        mapped = web.tls is not None and web.tls.verify_and_map and bool(self.users)
        if not (web.user or web.token or web.no_auth_user):
            anonymous = None if mapped else self.main.anonymous
            return msgspec.structs.replace(self.main, timeout_s=timeout_s, mapped=mapped, anonymous=anonymous)
        login = ClientAuthorization(web.user, web.password, web.token)
        door = self._door(login, web.no_auth_user, timeout_s, mapped=mapped, is_open=False)
        return msgspec.structs.replace(door, shown_required=True)

    def door(self, connection_type: str) -> Door:
        return self.web if connection_type == "WEBSOCKET" else self.main

    @property
    def required(self) -> bool:
        """Whether the clients' own port asks for credentials."""
        return self.main.required

    def find(
        self, connect: Connect, connection_type: str, certificate: Certificate | None = None
    ) -> tuple[Identity, str, str] | None:
        """Identity, the password shown and the one wanted; None for nobody, whatever the password.

        Where credentials do not matter both are ''. `certificate`: what the client showed.
        """
        door = self.door(connection_type)
        login = door.login
        if not door.required:
            return ANYBODY, "", ""
        if door.mapped:
            return self._named_by(certificate, connect, connection_type)
        shown = bool(connect.user or connect.password or connect.auth_token or connect.nkey)
        if not shown and door.anonymous is not None:
            return door.anonymous, "", ""
        if connect.nkey:
            return None
        if self.users and connect.user:
            if not self._fits(connect.user, connection_type):
                return None
            user = self.users[connect.user]
            return _identity(user), connect.password, user.password
        if login.token:
            return ANYBODY, connect.auth_token, login.token
        if login.user:
            if not same(connect.user, login.user):
                return None
            return Identity(user=login.user), connect.password, login.password
        return None

    def _fits(self, name: str, connection_type: str) -> bool:
        user = self.users.get(name)
        return user is not None and (not user.connection_types or connection_type in user.connection_types)

    def _named_by(
        self, certificate: Certificate | None, connect: Connect, connection_type: str
    ) -> tuple[Identity, str, str] | None:
        if certificate is None:
            return None
        found = mapped_user(certificate, self._subjects, lambda name: self._fits(name, connection_type))
        if found is None:
            return None
        user = self.users[found]
        return msgspec.structs.replace(_identity(user), mapped=True), connect.password, user.password

    def identify(
        self,
        connect: Connect,
        address: str,
        connection_type: str,
        done: Callable[[Identity | None], None],
        certificate: Certificate | None = None,
    ) -> Callable[[], None] | None:
        """Calls done(identity, None when refused), perhaps later; what is returned then ends the waiting."""
        found = self.find(connect, connection_type, certificate)
        if found is None:
            done(None)
            return None
        identity, given, wanted = found
        if not given and not wanted:
            done(identity)
            return None
        return self._passwords.check(address, given, wanted, lambda right: done(identity if right else None))

    def right(self, identity: Identity) -> Right:
        """The tables of an identity, made when first asked for and shared by all of its connections."""
        limits = self.limits.get(identity.account, AccountLimits())
        permissions = identity.permissions
        compiled = None
        if permissions is not None and not permissions.unlimited:
            compiled = self._compiled.get(permissions)
            if compiled is None:
                compiled = self._compiled[permissions] = compile_permissions(permissions)
        return Right(identity.account, compiled, _bound(limits.max_subscriptions), _bound(limits.max_payload))

    def bind(self, plane: Plane) -> None:
        """Tells the data plane of accounts and of those who send no CONNECT."""
        for name, limits in self.limits.items():
            plane.account_limit(name, _bound(limits.max_connections))
        plane.account_system(SYSTEM_ACCOUNT, self.system_account == SYSTEM_ACCOUNT)
        if self.system_account:
            plane.account_system(self.system_account, True)
        anonymous = self.main.anonymous
        if anonymous is None:
            plane.default_client(None)
            return
        right = self.right(anonymous)
        plane.default_client(
            right.account, permissions=right.permissions, max_subs=right.max_subs, max_payload=right.max_payload
        )

    def admit(self, plane: Plane, conn: int) -> None:
        """The same for one client that came by websocket, where that makes a difference."""
        if self.web.anonymous == self.main.anonymous:
            return
        if self.web.anonymous is None:
            plane.client_default(conn, None)
            return
        right = self.right(self.web.anonymous)
        plane.client_default(
            conn, right.account, permissions=right.permissions, max_subs=right.max_subs, max_payload=right.max_payload
        )


def _identity(user: User) -> Identity:
    return Identity(user.account, user.name, user.permissions)


def _bound(limit: int) -> int | None:
    """-1 is no limit; what else is below 0 lets nothing through, as with nats-server."""
    return None if limit == -1 else max(limit, 0)


def compile_permissions(permissions: Permissions) -> dataplane.Permissions:
    publish, subscribe, responses = permissions.publish, permissions.subscribe, permissions.responses
    return dataplane.Permissions(
        publish_allow=publish.allow or (),
        publish_deny=publish.deny,
        subscribe_allow=[_with_queue(text) for text in subscribe.allow or ()],
        subscribe_deny=[_with_queue(text) for text in subscribe.deny],
        no_publish=publish.allow == (),
        max_responses=0 if responses is None else max(-1, min(responses.max, 0x7FFFFFFF)),
        expires_ns=0 if responses is None else int(max(-1.0, responses.expires) * SECOND_NS),
    )


def _with_queue(text: str) -> tuple[str, str]:
    subject, _, queue = text.partition(" ")
    return subject, queue


def plaintext(options: Options) -> bool:
    """Whether a configured password, the cluster's too, could be read by whoever reads the file."""
    login, cluster = options.authorization, options.cluster.authorization
    single = [password for password in (login.password, cluster.password) if password]
    return any(not is_hash(password) for password in [*single, *(u.password for u in named_users(options).values())])
