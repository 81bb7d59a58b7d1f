"""The `tls` block. Pure: whether its files can be used is seen when they are loaded."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .kinds import (
    Reader,
    Rule,
    Wrong,
    array_of_strings,
    boolean,
    checked,
    duration_seconds,
    integer,
    map_of,
    mistyped,
    refused,
    sets,
    string,
    table,
    timeout,
)
from .parser import Entry
from .transport import Tls

__all__ = ["CURVES", "INSECURE_SUITES", "SUITES", "TLS13_SUITES", "tls_block"]

AUTO_FALLBACK_S = 0.05
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
SUITES = {
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""TLS 1.2 suites by the names used in files, and what OpenSSL calls them. TLS 1.3's own three are always on."""
INSECURE_SUITES = {
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
}
CURVES = {
    "X25519MLKEM768": "X25519MLKEM768",
    "X25519": "X25519",
    "CurveP256": "P-256",
    "CurveP384": "P-384",
    "CurveP521": "P-521",
}


def _suites(reader: Reader, entry: Entry) -> list[str]:
    names = _some(reader, entry)
    for name in names:
        if name not in SUITES and name not in INSECURE_SUITES and name not in TLS13_SUITES:
            raise Wrong(f"unrecognized cipher {name}")
    return names


def _curves(reader: Reader, entry: Entry) -> list[str]:
    names = _some(reader, entry)
    for name in names:
        if name not in CURVES:
            raise Wrong(f"unrecognized curve preference {name}")
    return names


def _some(reader: Reader, entry: Entry) -> list[str]:
    found = array_of_strings(reader, entry)
    if not found:
        raise Wrong(f"'{entry.name}' cannot be empty")
    return found


def _pins(reader: Reader, entry: Entry) -> frozenset[str]:
    found = []
    for pin in array_of_strings(reader, entry):
        if not re.fullmatch("[0-9a-f]{64}", pin.lower()):
            text = "does not look like hex-encoded sha256 of DER encoded SubjectPublicKeyInfo"
            raise Wrong(f"'pinned_certs' key {pin} {text}")
        found.append(pin.lower())
    return frozenset(found)


def _min_version(reader: Reader, entry: Entry) -> str:
    value = string(reader, entry)
    if value in ("1.0", "1.1"):
        raise Wrong(f"unsupported TLS version: TLS {value}")
    if value not in ("1.2", "1.3"):
        raise Wrong(f"unknown TLS version: {value}")
    return value


def _certificates(reader: Reader, target: Tls, entry: Entry) -> None:
    if not isinstance(entry.node.value, list):
        raise mistyped(entry, "an array of maps")
    for node in entry.node.value:
        if not isinstance(node.value, dict):
            raise Wrong(f'expected maps in "{entry.name}", got {node.kind}')
        pair = {"cert_file": "", "key_file": ""}
        for inner in node.value.values():
            if not isinstance(inner.node.value, str):
                raise mistyped(inner, "a string")
            if inner.name not in pair:
                raise Wrong(f'error parsing certificates config, unknown field "{inner.name}"')
            pair[inner.name] = inner.node.value
        if not all(pair.values()):
            raise Wrong("error parsing certificates config: both 'cert_file' and 'cert_key' options are required")
        target.certificates.append((pair["cert_file"], pair["key_file"]))


def _handshake_first(reader: Reader, target: Tls, entry: Entry) -> None:
    value = entry.node.value
    if isinstance(value, bool):
        target.handshake_first = value
        return
    word = string(reader, entry).strip().lower()
    target.handshake_first = word not in ("off", "false")
    if word in ("auto", "auto_fallback"):
        target.fallback = AUTO_FALLBACK_S
    elif word not in ("on", "true", "off", "false"):
        seconds = duration_seconds(word)
        if seconds is None:
            raise Wrong(f'field "{entry.name}"\'s value "{value}" is invalid')
        target.fallback = max(seconds, 0.0)


def _verify_and_map(reader: Reader, target: Tls, entry: Entry) -> None:
    target.verify_and_map = boolean(reader, entry)
    target.verify = target.verify or target.verify_and_map


def _known_urls(reader: Reader, target: Tls, entry: Entry) -> None:
    target.check_known_urls = boolean(reader, entry)
    target.verify = target.verify or target.check_known_urls


def _missing_here(*names: str) -> Rule:
    def apply(reader: Reader, target: Tls, entry: Entry) -> None:
        raise Wrong(f'"{entry.name}" is for the certificate store of Windows')

    return Rule(names, apply)


def _file(index: int, *names: str) -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        target.pair[index] = string(reader, entry)

    return Rule(names, apply)


class _Reading(Tls):
    """A block while it is read: certificate and key come apart."""

    pair: list[str] = msgspec.field(default_factory=lambda: ["", ""])


_OCSP_PEER = table(
    [
        *(checked(name, kind=boolean) for name in ("verify", "warn_only", "unknown_is_good")),
        checked("allow_when_ca_unreachable", kind=boolean),
        *(checked(name, kind=timeout) for name in ("ca_timeout", "allowed_clockskew")),
        checked("cache_ttl_when_next_update_unset", kind=timeout),
    ]
)


def _ocsp_peer(reader: Reader, entry: Entry) -> None:
    if not isinstance(entry.node.value, bool):
        reader.block(map_of(entry), _OCSP_PEER, None, "", exact=True)


_TLS = table(
    [
        _file(0, "cert_file"),
        _file(1, "key_file"),
        Rule(("certs", "certificates"), _certificates),
        sets("ca_file", string),
        sets("verify", boolean),
        Rule(("verify_and_map",), _verify_and_map),
        Rule(("verify_cert_and_check_known_urls",), _known_urls),
        sets("insecure", boolean),
        sets("timeout", timeout),
        sets("cipher_suites", _suites),
        sets("allow_insecure_cipher_suites", boolean),
        sets("curve_preferences", _curves),
        sets("min_version", _min_version),
        sets("pinned_certs", _pins),
        sets("connection_rate_limit", integer),
        Rule(("handshake_first", "first", "immediate"), _handshake_first),
        refused("ocsp_peer", kind=_ocsp_peer),
        _missing_here("cert_store", "cert_match_by", "cert_match", "ca_certs_match", "cert_match_skip_invalid"),
    ]
)


def tls_block(reader: Reader, entry: Entry, path: str, *, mutual: bool = False) -> Tls:
    """The block's settings; `mutual`: of servers among themselves, where both sides show certificates."""
    found = _Reading()
    before = len(reader.errors)
    reader.block(map_of(entry), _TLS, found, f"{path}.", exact=True)
    cert, key = found.pair
    if len(reader.errors) > before:
        return found
    if found.certificates and (cert or key):
        raise Wrong("error parsing tls config, cannot combine 'cert_file' option with 'certs' option")
    if bool(cert) != bool(key):
        raise Wrong(f"missing '{'key_file' if cert else 'cert_file'}' in TLS configuration")
    if cert:
        found.certificates = [(cert, key)]
    insecure = [name for name in found.cipher_suites if name in INSECURE_SUITES]
    if insecure and not found.allow_insecure_cipher_suites:
        text = "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set"
        raise Wrong(f"{text}: {', '.join(insecure)}")
    if found.check_known_urls and not mutual:
        raise Wrong("verify_cert_and_check_known_urls not supported in this context")
    if mutual:
        found.verify = True
    if mutual and not found.certificates:
        reader.refuse(entry.position, "TLS between servers needs cert_file and key_file")
    return found
