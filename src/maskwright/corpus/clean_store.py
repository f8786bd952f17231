"""Clean documents on disk: compressed JSON Lines in numbered parts, and a marker published last.

    folder/part-00000.jsonl.zst   one document a line: id, source, text, meta
    folder/clean.json             the marker: fingerprint, counts, audit, SHA-256 of every part

The same documents give the same bytes. A folder without its marker counts as unfinished and is
written again; one with the right marker is used as it is. Memory: one document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from ..core.errors import DataError
from ..core.files import atomic_open, read_json, storage_errors, write_json
from ..core.fingerprint import sha256_file
from ..core.progress import progress
from .audit import Audit
from .document import Document, utf8_length
from .streams import open_stream

__all__ = ["CleanStore", "find_clean", "read_clean", "write_clean"]

_MARKER = "clean.json"
_PART_PATTERN = "part-*.jsonl.zst"
_FORMAT_VERSION = 1
_LEVEL = 1
_MAX_PART_BYTES = 1 << 26
_REPORT_EVERY = 200


@dataclass(frozen=True, slots=True)
class CleanStore:
    """What the marker of a finished folder says.

    Args:
        folder: where the parts are.
        fingerprint: names the settings and sources that gave the documents.
        documents: how many there are.
        text_bytes: bytes of UTF-8 text in them.
        parts: for each part its `file`, `documents`, `bytes` on disk and `sha256`.
        audit: the account of reading and cleaning; empty if none was kept.
    """

    folder: Path
    fingerprint: str
    documents: int
    text_bytes: int
    parts: tuple[dict[str, Any], ...]
    audit: dict[str, Any]


def write_clean(
    documents: Iterable[Document],
    folder: Path,
    *,
    fingerprint: str,
    audit: Audit | None = None,
    documents_per_part: int = 20_000,
) -> CleanStore:
    """Write documents into a folder, unless it holds the finished result already.

    Args:
        documents: consumed only if there is work to do. Nothing is published if it raises.
        folder: made if missing; only its parts and its marker are touched.
        fingerprint: names the settings and sources; see `corpus_fingerprint`.
        audit: put into the marker as it stands when all documents are written.
        documents_per_part: most documents in a part. A part also ends at 64 MiB of text.

    Returns:
        What the folder holds now.

    Raises:
        StorageError: the storage refused.
        DataError: from `documents`.
    """
    done = find_clean(folder, fingerprint)
    if done is not None:
        return done
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARKER).unlink(missing_ok=True)
    parts = _write_parts(iter(documents), folder, documents_per_part)
    with storage_errors(folder):
        for path in set(folder.glob(_PART_PATTERN)) - {folder / part["file"] for part in parts}:
            path.unlink()
    marker = {
        "format_version": _FORMAT_VERSION,
        "fingerprint": fingerprint,
        "documents": sum(part["documents"] for part in parts),
        "text_bytes": sum(part["text_bytes"] for part in parts),
        "parts": parts,
        "audit": audit.as_dict() if audit else {},
    }
    write_json(folder / _MARKER, marker)
    return _store(folder, marker)


def find_clean(folder: Path, fingerprint: str | None = None) -> CleanStore | None:
    """What a folder holds, if it is finished.

    Args:
        folder: the folder of the parts.
        fingerprint: the content that is wanted; None takes any.

    Returns:
        None if there is no marker, if it names other content, or if a part is missing or has
        another size than it says.

    Raises:
        DataError: the marker is there but damaged, or written by a newer version.
    """
    path = folder / _MARKER
    if not path.exists():
        return None
    marker = read_json(path)
    try:
        version = marker["format_version"]
        store = _store(folder, marker)
        sizes = {part["file"]: part["bytes"] for part in store.parts}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error!r}); remove the folder and prepare it again") from error
    if version != _FORMAT_VERSION:
        raise DataError(
            f"{path}: has format version {version}, this Maskwright reads {_FORMAT_VERSION}; "
            "remove the folder and prepare it again"
        )
    if fingerprint not in (None, store.fingerprint):
        return None
    files = {name: folder / name for name in sizes}
    whole = all(file.is_file() and file.stat().st_size == sizes[name] for name, file in files.items())
    return store if whole else None


def read_clean(folder: Path) -> Iterator[Document]:
    """Read the documents of a finished folder, each part checked before its first document.

    Args:
        folder: written by `write_clean`.

    Yields:
        Documents in the order they were written.

    Raises:
        DataError: the folder is unfinished or a part is damaged.
    """
    store = find_clean(folder)
    if store is None:
        raise DataError(f"{folder}: holds no finished clean documents; run maskwright prepare on it")
    for part in store.parts:
        path = folder / part["file"]
        if sha256_file(path) != part["sha256"]:
            raise DataError(
                f"{path}: its SHA-256 is not {part['sha256']}; remove the folder and prepare it again"
            )
        with open_stream(path) as stream:
            for line in stream:
                yield Document(**json.loads(line))


def _write_parts(documents: Iterator[Document], folder: Path, limit: int) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    with progress("clean documents", None, "documents") as advance:
        first = next(documents, None)
        while first is not None:
            path = folder / f"part-{len(parts):05d}.jsonl.zst"
            parts.append(_write_part(path, first, documents, limit, advance))
            first = next(documents, None)
    return parts


def _write_part(
    path: Path, first: Document, rest: Iterator[Document], limit: int, advance: Callable[[float], None]
) -> dict[str, Any]:
    count = text_bytes = 0
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with atomic_open(path) as file, compressor.stream_writer(file, closefd=False) as writer:
        for document in chain((first,), rest):
            writer.write(_line(document))
            count += 1
            text_bytes += utf8_length(document.text)
            if count % _REPORT_EVERY == 0:
                advance(_REPORT_EVERY)
            if count >= limit or text_bytes >= _MAX_PART_BYTES:
                break
    advance(count % _REPORT_EVERY)
    return {
        "file": path.name,
        "documents": count,
        "text_bytes": text_bytes,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


def _line(document: Document) -> bytes:
    row = {
        "id": document.id,
        "source": document.source,
        "text": document.text,
        "meta": dict(document.meta),
    }
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def _store(folder: Path, marker: dict[str, Any]) -> CleanStore:
    return CleanStore(
        folder=folder,
        fingerprint=marker["fingerprint"],
        documents=marker["documents"],
        text_bytes=marker["text_bytes"],
        parts=tuple(marker["parts"]),
        audit=marker["audit"],
    )
