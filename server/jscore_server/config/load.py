"""Reads a configuration file, with its includes and the environment, into Options."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .lexer import ConfigError
from .options import Options
from .parser import digest, parse
from .schema import Warning, options_from

__all__ = ["load"]

MAX_FILE_BYTES = 64 << 20


def load(path: str, environ: Mapping[str, str] | None = None) -> tuple[Options, list[Warning]]:
    """Options and warnings of a file; `environ` None = this process's. Raises: ConfigError."""
    try:
        text = _read(path)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise ConfigError(f"open {path}: {(reason or str(err)).lower()}") from None
    tree = parse(text, path, read=_read, environ=os.environ if environ is None else environ)
    options, warnings = options_from(tree, path)
    options.config_digest = digest(tree)
    return options, warnings


def _read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError("file is too large")
    # Bytes that are not UTF-8 are kept as they are; what they mean is up to the key.
    return data.decode("utf-8", "surrogateescape")
