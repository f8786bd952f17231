"""Parts: documents that are between two stages, as compressed JSON Lines with a checksum.

One document a line: id, source, text, meta. A part is written whole or not at all, the same
documents give the same bytes, and damage shows when it is read. Memory: one document.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import zstandard

from ..core.errors import DataError
from ..core.files import atomic_open
from .document import Document, utf8_length
from .streams import open_stream

__all__ = ["Part", "read_part", "write_part"]

_LEVEL = 1


@dataclass
class Part:
    """A part that is being written.

    Attributes:
        path: of the file, below the output folder.
        documents: how many it has so far.
        text_bytes: UTF-8 bytes of their texts.
    """

    path: str
    writer: Any
    documents: int = 0
    text_bytes: int = 0

    def add(self, document: Document, num_bytes: int | None = None) -> None:
        """Add one document, with the UTF-8 length of its text if that is known."""
        self.writer.write(_line(document))
        self.documents += 1
        self.text_bytes += utf8_length(document.text) if num_bytes is None else num_bytes


@contextlib.contextmanager
def write_part(folder: Path, path: str) -> Iterator[Part]:
    """Write one part, which appears when the block ends without an error.

    Args:
        folder: the output folder of the run.
        path: of the part below it.

    Raises:
        StorageError: the storage refused.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with atomic_open(folder / path) as file, compressor.stream_writer(file, closefd=False) as writer:
        yield Part(path, writer)


def read_part(path: Path) -> Iterator[Document]:
    """Read a part.

    Yields:
        Its documents in order.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with open_stream(path) as stream:
            for line in stream:
                try:
                    row: dict[str, Any] = orjson.loads(line)
                except orjson.JSONDecodeError:
                    row = dict(json.loads(line))
                yield Document(row["text"], row["id"], row["source"], row["meta"])
    except (ValueError, KeyError) as error:  # also what `open_stream` says of a source
        raise DataError(
            f"{path}: is missing or damaged ({error}); remove it and run the same command again"
        ) from error


def _line(document: Document) -> bytes:
    row = {"id": document.id, "source": document.source, "text": document.text, "meta": dict(document.meta)}
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half of a surrogate pair, which a file name may bring into an id
        return json.dumps(row).encode() + b"\n"
