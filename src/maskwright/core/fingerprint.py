"""Short names for content: equal fingerprints mean equal content, on any machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["fingerprint", "sha256_bytes", "sha256_file"]

_CHUNK_BYTES = 1 << 20


def fingerprint(value: Any) -> str:
    """Name a JSON-like value by its content.

    Args:
        value: dicts, lists, strings, numbers, booleans and None. Key order does not matter.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of a byte string, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path, between: Callable[[], None] | None = None) -> str:
    """SHA-256 of a local file, read in pieces of one MiB, as 64 hexadecimal digits.

    Args:
        path: of the file.
        between: called before each piece; where it raises, the reading ends.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if between is not None:
                between()
            digest.update(chunk)
    return digest.hexdigest()
