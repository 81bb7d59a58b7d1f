"""The `tls` block: what it may say and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from jscore_server.config.lexer import ConfigError
from jscore_server.config.load import load
from jscore_server.config.transport import Tls

PAIR = 'cert_file: "c.pem", key_file: "k.pem"'


def read(tmp_path: Path, text: str) -> Tls:
    path = tmp_path / "a.conf"
    path.write_text(text)
    tls = load(str(path), {})[0].tls
    assert tls is not None
    return tls


def test_a_full_block(tmp_path: Path) -> None:
    tls = read(
        tmp_path,
        f"""tls {{ {PAIR}, ca_file: "ca.pem", verify: true, timeout: 0.5, min_version: "1.3", insecure: true
        cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], curve_preferences: [CurveP256, X25519]
        pinned_certs: [{"AB" * 32}], connection_rate_limit: 7 }}""",
    )
    assert tls.certificates == [("c.pem", "k.pem")]
    assert (tls.ca_file, tls.verify, tls.timeout, tls.min_version, tls.insecure) == ("ca.pem", True, 0.5, "1.3", True)
    assert tls.cipher_suites == ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    assert tls.curve_preferences == ["CurveP256", "X25519"]
    assert tls.pinned_certs == {"ab" * 32}
    assert tls.connection_rate_limit == 7


@pytest.mark.parametrize(
    ("text", "first", "fallback"),
    [
        ("true", True, 0.0),
        ("on", True, 0.0),
        ("false", False, 0.0),
        ("off", False, 0.0),
        ("auto", True, 0.05),
        ("auto_fallback", True, 0.05),
        ('"300ms"', True, 0.3),
    ],
)
@pytest.mark.parametrize("name", ["handshake_first", "first", "immediate"])
def test_handshake_first(tmp_path: Path, name: str, text: str, first: bool, fallback: float) -> None:
    tls = read(tmp_path, f"tls {{ {PAIR}, {name}: {text} }}")
    assert (tls.handshake_first, tls.fallback) == (first, pytest.approx(fallback))


def test_mapping_a_certificate_means_to_verify_it(tmp_path: Path) -> None:
    assert read(tmp_path, f"tls {{ {PAIR}, verify_and_map: true }}").verify


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ('cert_file: "c"', "missing 'key_file' in TLS configuration"),
        ('key_file: "c"', "missing 'cert_file' in TLS configuration"),
        (f"{PAIR}, foo: 1", 'unknown field "foo"'),
        (f'{PAIR}, certs: [{{cert_file: "a", key_file: "b"}}]', "cannot combine 'cert_file' option with 'certs'"),
        ('certs: [{cert_file: "a"}]', "both 'cert_file' and 'cert_key' options are required"),
        (f"{PAIR}, cipher_suites: []", "'cipher_suites' cannot be empty"),
        (f'{PAIR}, cipher_suites: ["x"]', "unrecognized cipher x"),
        (f'{PAIR}, cipher_suites: ["TLS_RSA_WITH_RC4_128_SHA"]', "insecure cipher suites configured without"),
        (f'{PAIR}, curve_preferences: ["x"]', "unrecognized curve preference x"),
        (f'{PAIR}, min_version: "1.1"', "unsupported TLS version: TLS 1.1"),
        (f'{PAIR}, pinned_certs: ["aa"]', "does not look like hex-encoded sha256"),
        (f"{PAIR}, handshake_first: bogus", 'field "handshake_first"\'s value "bogus" is invalid'),
        (f"{PAIR}, verify: 3", 'expected a boolean for "verify"'),
        (f"{PAIR}, verify_cert_and_check_known_urls: true", "not supported in this context"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, block: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        read(tmp_path, f"tls {{ {block} }}")
    assert words in str(found.value)
    assert "a.conf:1:" in str(found.value)
