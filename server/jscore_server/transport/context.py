"""TLS settings as the data plane wants them, from a `tls` block. Reads the files it names."""

from __future__ import annotations

import ssl

from jscore_server.config.options import Options
from jscore_server.config.tls import CURVES, INSECURE_SUITES, SUITES
from jscore_server.config.transport import Tls as TlsOptions
from jscore_server.dataplane import Tls

__all__ = ["context", "faults", "http_context"]

HYBRID = "X25519MLKEM768"


def context(options: TlsOptions, *, server: bool) -> Tls:
    """Settings for accepted (`server`) or dialled connections. Raises: ValueError naming the file at fault."""
    if not options.cipher_suites:
        ciphers, tls13_only = None, options.min_version == "1.3"
    else:
        named = [SUITES.get(name) or INSECURE_SUITES.get(name) for name in options.cipher_suites]
        ciphers = ":".join(name for name in named if name) or None
        tls13_only = options.min_version == "1.3" or ciphers is None  # only suites that TLS 1.3 has anyway
    curves = [CURVES[name] for name in options.curve_preferences]

    def build(groups: list[str]) -> Tls:
        return Tls(
            server=server,
            verify=options.verify if server else not options.insecure,
            tls13_only=tls13_only,
            certificates=options.certificates,
            ca_file=options.ca_file or None,
            ciphers12=ciphers,
            groups=":".join(groups) or None,
            pins=[bytes.fromhex(pin) for pin in sorted(options.pinned_certs)],
        )

    try:
        return build(curves)
    except ValueError as err:
        # OpenSSL before 3.5 does not know the hybrid: the others are what is left to agree on.
        if HYBRID not in curves or "curve_preferences" not in str(err):
            raise
        return build([name for name in curves if name != HYBRID])


def http_context(options: TlsOptions) -> ssl.SSLContext:
    """The same certificate for HTTP pages. Raises: ValueError."""
    if not options.certificates:
        raise ValueError("TLS cert and key required for HTTPS")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3 if options.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(*options.certificates[0], password="")
    except OSError as err:
        raise ValueError(f"cert_file {options.certificates[0][0]}: {err}") from None
    return made


def faults(options: Options) -> list[str]:
    """What is wrong with the files of the `tls` blocks, one line each, with the block's place where it has one."""
    found = []
    for key, block in (
        ("tls", options.tls),
        ("websocket.tls", options.websocket.tls),
        ("cluster.tls", options.cluster.tls),
    ):
        try:
            if block is not None:
                context(block, server=True)
        except ValueError as err:
            place = options.places.get(key)
            found.append(f"{place}: {err}" if place else str(err))
    return found
