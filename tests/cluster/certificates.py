"""Certificates for one test run, made by the openssl command: an authority, and what it vouches for."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


class Authority:
    """A certificate authority in a folder; `issue` makes NAME.pem and NAME.key beside it."""

    def __init__(self, home: Path, name: str = "ca") -> None:
        if not shutil.which("openssl"):
            pytest.skip("the openssl command is not on PATH")
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.name = name
        self.pem = home / f"{name}.pem"
        self._key(name)
        self._run("req", "-x509", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-days", "2", "-out", self.pem)

    def _run(self, *arguments: object) -> bytes:
        answer = subprocess.run(
            ["openssl", *map(str, arguments)], cwd=self.home, capture_output=True, timeout=30, check=False
        )
        assert answer.returncode == 0, answer.stderr.decode()
        return answer.stdout

    def _key(self, name: str) -> None:
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def issue(self, name: str, subject: str = "/CN=localhost", names: str = "DNS:localhost,IP:127.0.0.1") -> Path:
        """A certificate for both ends of a connection; the path of its PEM file."""
        self._key(name)
        self._run("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        extensions = self.home / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", self.pem, "-CAkey", f"{self.name}.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", f"{name}.pem"),
        )
        return self.home / f"{name}.pem"

    def pin(self, name: str) -> str:
        """SHA-256 of the public key, as `pinned_certs` takes it."""
        return hashlib.sha256(self._run("pkey", "-in", f"{name}.key", "-pubout", "-outform", "DER")).hexdigest()

    def client(self, own: str = "") -> ssl.SSLContext:
        """A client that trusts this authority; with `own` it shows that certificate."""
        context = ssl.create_default_context(cafile=str(self.pem))
        if own:
            context.load_cert_chain(str(self.home / f"{own}.pem"), str(self.home / f"{own}.key"))
        return context
