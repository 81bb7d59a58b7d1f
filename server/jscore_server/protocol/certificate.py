"""What an X.509 certificate says: its subject, other names, its end, the digests that a pin is made of. Pure.

Only as much of DER is read as leads there. Every length is checked: the bytes come from the other side.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import NamedTuple

__all__ = ["BadCertificate", "Certificate", "escaped", "read_certificate"]

SEQUENCE, SET, OID, CONTEXT_0, UTC_TIME, GENERAL_TIME, BMP_STRING = 0x30, 0x31, 0x06, 0xA0, 0x17, 0x18, 0x1E
OCTETS, EXTENSIONS, EMAIL, DNS, URI = 0x04, 0xA3, 0x81, 0x82, 0x86
SUBJECT_ALT_NAME = "2.5.29.17"
OTHERS_MAX = 256
_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "SERIALNUMBER",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.17": "POSTALCODE",
}


class BadCertificate(Exception):
    """The bytes are no certificate."""


class Certificate(NamedTuple):
    """`subject` as RFC 2253 writes it; the digests are SHA-256 in hex, of the public key's SubjectPublicKeyInfo and of
    the whole.
    """

    subject: str
    spki_sha256: str
    cert_sha256: str
    not_after: datetime.datetime
    names: tuple[tuple[tuple[str, str], ...], ...] = ()
    """The subject as it is in the certificate: sets of (object identifier, value), the first named first."""
    emails: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


class _Part(NamedTuple):
    tag: int
    whole: bytes
    value: bytes


def read_certificate(der: bytes) -> Certificate:
    """Raises: BadCertificate."""
    (outer, *_) = _parts(der, 1)
    if outer.tag != SEQUENCE:
        raise BadCertificate("not a sequence")
    (signed, *_) = _parts(outer.value, 1)
    fields = _parts(signed.value, 10)
    if fields[0].tag == CONTEXT_0:  # the version, there from 2 on
        fields = fields[1:]
    if len(fields) < 6:
        raise BadCertificate("too few fields")
    _, _, _, validity, subject, key = fields[:6]
    others = _alternative_names(fields[6:])
    times = _parts(validity.value, 2)
    if len(times) < 2:
        raise BadCertificate("no validity")
    return Certificate(
        subject=_subject(subject.value),
        spki_sha256=hashlib.sha256(key.whole).hexdigest(),
        cert_sha256=hashlib.sha256(der).hexdigest(),
        not_after=_time(times[1]),
        names=tuple(tuple((oid, _text(value)) for oid, value in group) for group in _names(subject.value)),
        emails=others.get(EMAIL, ()),
        dns=others.get(DNS, ()),
        uris=others.get(URI, ()),
    )


def _parts(data: bytes, most: int) -> list[_Part]:
    """At most the first `most` values in `data`, at least one."""
    found: list[_Part] = []
    at = 0
    while at < len(data) and len(found) < most:
        if at + 2 > len(data):
            raise BadCertificate("cut off")
        tag, size, head = data[at], data[at + 1], 2
        if size >= 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4 or at + 2 + count > len(data):
                raise BadCertificate("bad length")
            size, head = int.from_bytes(data[at + 2 : at + 2 + count], "big"), 2 + count
        end = at + head + size
        if end > len(data):
            raise BadCertificate("cut off")
        found.append(_Part(tag, data[at:end], data[at + head : end]))
        at = end
    if not found:
        raise BadCertificate("empty")
    return found


def _names(data: bytes) -> list[list[tuple[str, _Part]]]:
    """The attributes of a name, set by set."""
    found: list[list[tuple[str, _Part]]] = []
    for group in _parts(data, 64) if data else []:
        values = []
        for attribute in _parts(group.value, 16):
            kind, value = (*_parts(attribute.value, 2), None)[:2]
            if kind is None or value is None or kind.tag != OID:
                raise BadCertificate("bad name")
            values.append((_oid(kind.value), value))
        found.append(values)
    return found


def _alternative_names(fields: list[_Part]) -> dict[int, tuple[str, ...]]:
    """The other names of the subject by their kind."""
    found: dict[int, tuple[str, ...]] = {}
    for field in fields:
        if field.tag != EXTENSIONS:
            continue
        for extension in _parts(_parts(field.value, 1)[0].value, 64):
            kind, *rest = _parts(extension.value, 3)
            if kind.tag != OID or _oid(kind.value) != SUBJECT_ALT_NAME or not rest or rest[-1].tag != OCTETS:
                continue
            for name in _parts(_parts(rest[-1].value, 1)[0].value, OTHERS_MAX):
                found[name.tag] = (*found.get(name.tag, ()), name.value.decode("latin-1"))
    return found


def _subject(data: bytes) -> str:
    """The last named first, the values of one set joined by `+`."""
    names = ["+".join(_attribute(*attribute) for attribute in group) for group in _names(data)]
    return ",".join(reversed(names))


def _text(value: _Part) -> str:
    return value.value.decode("utf-16-be" if value.tag == BMP_STRING else "utf-8", "replace")


def _attribute(oid: str, value: _Part) -> str:
    name = _NAMES.get(oid)
    if name is None:
        return f"{oid}=#{value.whole.hex()}"
    return f"{name}={escaped(_text(value))}"


def escaped(text: str) -> str:
    """A value as RFC 2253 writes it."""
    return re.sub(r'([,+"\\<>;]|\A[# ]| \Z)', r"\\\1", text)


def _oid(data: bytes) -> str:
    numbers: list[int] = []
    value = 0
    for byte in data[:64]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    if not numbers:
        raise BadCertificate("bad object identifier")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _time(part: _Part) -> datetime.datetime:
    text = part.value.decode("ascii", "replace")
    if part.tag == UTC_TIME and len(text) == 13:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280 section 4.1.2.5.1
    elif part.tag != GENERAL_TIME:
        raise BadCertificate("bad time")
    try:
        return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise BadCertificate("bad time") from None
