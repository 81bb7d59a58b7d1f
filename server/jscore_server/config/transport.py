"""What the blocks about TLS and websockets say, typed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

__all__ = ["Tls", "Websocket"]


class Tls(msgspec.Struct):
    """A `tls` block. Times are seconds."""

    certificates: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """(cert_file, key_file); more than one: chosen by the name a client asks for."""
    ca_file: str = ""
    """'' = the system's authorities."""
    verify: bool = False
    verify_and_map: bool = False
    check_known_urls: bool = False
    insecure: bool = False
    timeout: float = 2.0
    cipher_suites: list[str] = msgspec.field(default_factory=list)
    allow_insecure_cipher_suites: bool = False
    curve_preferences: list[str] = msgspec.field(default_factory=list)
    min_version: str = ""
    pinned_certs: frozenset[str] = frozenset()
    """SHA-256 of public keys (SubjectPublicKeyInfo), lower-case hex."""
    connection_rate_limit: int = 0
    """Handshakes a second; 0 = any."""
    handshake_first: bool = False
    fallback: float = 0.0
    """With handshake_first: how long it is waited for before INFO is sent in the clear; 0 = for ever."""


@dataclass(slots=True)
class Websocket:
    """The `websocket` block. It listens when `port` is not 0. Times are seconds."""

    host: str = "0.0.0.0"
    port: int = 0
    advertise: str = ""
    tls: Tls | None = None
    no_tls: bool = False
    same_origin: bool = False
    allowed_origins: list[str] = field(default_factory=list)
    handshake_timeout: float = 0.0
    """Of the HTTP request; 0 = as long as it likes."""
    compression: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    timeout: float = 0.0
    """For CONNECT; 0 = the server's."""
    no_auth_user: str = ""
    jwt_cookie: str = ""
    user_cookie: str = ""
    pass_cookie: str = ""
    token_cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer to the HTTP request, beside those that must be there."""
    ping_interval: float | None = None
    """None = the server's."""
