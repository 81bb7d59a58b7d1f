"""Certificates are shown as nats-server shows them, and noise is refused."""

from __future__ import annotations

import base64
import datetime
import random

import pytest
from jscore_server.protocol.certificate import BadCertificate, read_certificate

# openssl req -x509 -newkey ed25519 -nodes -days 36500 -subj "/C=DE/O=Acme, Inc/OU=a+OU=b/CN=client one"
PEM_BODY = """
MIIBrzCCAWGgAwIBAgIUc3xSvGpMPmHDL+VHM27ahD5TEdkwBQYDK2VwMEwxCzAJ
BgNVBAYTAkRFMRIwEAYDVQQKDAlBY21lLCBJbmMxFDAIBgNVBAsMAWEwCAYDVQQL
DAFiMRMwEQYDVQQDDApjbGllbnQgb25lMCAXDTI2MTEyNzA4MzUzM1oYDzIxMjYx
MTAzMDgzNTMzWjBMMQswCQYDVQQGEwJERTESMBAGA1UECgwJQWNtZSwgSW5jMRQw
CAYDVQQLDAFhMAgGA1UECwwBYjETMBEGA1UEAwwKY2xpZW50IG9uZTAqMAUGAytl
cAMhAKQbRrv3tB/D97OOQgPehmmGirScei+kHK9aNEq3VbMxo1MwUTAdBgNVHQ4E
FgQULCDBHTViPaYaWNZBXBws47ZDWLUwHwYDVR0jBBgwFoAULCDBHTViPaYaWNZB
XBws47ZDWLUwDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQBHnSC5ckN+Ns/Ujf4Y
oHR+W6j/XKtalW6afUNvc5wI+E+Kjs0+L+CsNnU1PHL08m7axfXS0RrwqoRqTrob
HtAA
"""
DER = base64.b64decode(PEM_BODY)


def test_the_subject_is_written_as_in_rfc_2253() -> None:
    found = read_certificate(DER)
    assert found.subject == "CN=client one,OU=a+OU=b,O=Acme\\, Inc,C=DE"
    assert found.spki_sha256 == "bbf044244de977f11cfc8cefb53f40f7db42f28e04a746ef9b14e6a84febbd3f"
    assert found.cert_sha256 == "e014f3a80b698d30ef381579bf6c04c066974f40c7688f7d1e8a6bc3acd17fbf"
    assert found.not_after == datetime.datetime(2126, 11, 3, 8, 35, 33, tzinfo=datetime.UTC)


def test_every_cut_is_refused() -> None:
    for size in range(len(DER)):
        with pytest.raises(BadCertificate):
            read_certificate(DER[:size])


def test_flipped_bytes_never_break_anything() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        der = bytearray(DER)
        for _ in range(rng.randint(1, 4)):
            der[rng.randrange(len(der))] = rng.randrange(256)
        try:
            read_certificate(bytes(der))
        except BadCertificate:
            continue
