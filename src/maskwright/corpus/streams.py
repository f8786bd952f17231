"""Open a source file as a stream of bytes, decompressed and checked, and cut it into lines.

Compression is told by suffix: `.gz`, `.bz2`, `.xz`, `.zst`; files of several compressed frames are
read to their end. A file that ends in the middle of a frame is an error that names the file, never
a short text: the line being read when it breaks off is not handed out. Memory: one line or, for a
whole document, `MAX_RECORD_BYTES`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import zstandard

from ..core.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["COMPRESSIONS", "MAX_RECORD_BYTES", "file_suffix", "open_stream", "read_lines", "read_whole"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
MAX_RECORD_BYTES = 1 << 28
UTF8_MARK = b"\xef\xbb\xbf"

_BUFFER_BYTES = 1 << 18
_COMPRESSED_PIECE_BYTES = 1 << 14
_SNIFF_BYTES = 1 << 16
_MIN_JUDGED_BYTES = 256
_MAX_NUL_SHARE = 0.01
_MAX_INVALID_SHARE = 0.3
_MAGIC = {
    b"\x1f\x8b": "gzip data (name it .gz)",
    b"BZh91AY&SY": "bzip2 data (name it .bz2)",
    b"\xfd7zXZ\x00": "xz data (name it .xz)",
    b"\x28\xb5\x2f\xfd": "zstandard data (name it .zst)",
    b"PK\x03\x04": "a ZIP archive (unpack it first)",
    b"%PDF-": "a PDF document (extract its text first)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xfe": "UTF-16 text (convert it to UTF-8)",
    b"\xfe\xff": "UTF-16 text (convert it to UTF-8)",
}


def file_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case, with a compression suffix taken away."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, decompressed as its suffix says, and refuse what is no text.

    Args:
        path: a local file.

    Yields:
        A buffered stream of bytes at the file's start.

    Raises:
        DataError: the file is missing, unreadable, binary, damaged or cut off. Damage shows while
            reading, so the error can also come out of the `with` block.
    """
    try:
        with path.open("rb") as raw, _decompressed(raw, path.suffix.lower()) as stream:
            _refuse_binary(stream, path)
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the compressed data is damaged or cut off ({error}); fetch or pack the file again"
        ) from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """Cut a stream into lines.

    Args:
        stream: at the file's start; a byte-order mark there is taken away.
        path: for messages.

    Yields:
        Line number from 1, and the line with its line end.

    Raises:
        DataError: a line is longer than `MAX_RECORD_BYTES`.
    """
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES:
            raise DataError(
                f"{path}:{number}: the line is longer than {MAX_RECORD_BYTES >> 20} MiB; "
                "cut it into several documents"
            )
        yield number, line.removeprefix(UTF8_MARK) if number == 1 else line


def read_whole(stream: IO[bytes], path: Path) -> bytes:
    """Read a stream that is one document.

    Raises:
        DataError: it is longer than `MAX_RECORD_BYTES`.
    """
    data = stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise DataError(
            f"{path}: the document is longer than {MAX_RECORD_BYTES >> 20} MiB; "
            "set split_documents to line or block"
        )
    return data.removeprefix(UTF8_MARK)


def _decompressed(raw: IO[bytes], suffix: str) -> io.BufferedReader:
    layer: Any = raw
    if suffix == ".gz":
        layer = gzip.GzipFile(fileobj=raw, mode="rb")
    elif suffix == ".bz2":
        layer = bz2.BZ2File(raw)
    elif suffix == ".xz":
        layer = lzma.LZMAFile(raw)  # noqa: SIM115 - the buffer around it closes it
    elif suffix == ".zst":
        layer = _ZstdFrames(raw)
    return io.BufferedReader(cast(io.RawIOBase, layer), _BUFFER_BYTES)


class _ZstdFrames(io.RawIOBase):
    """All zstandard frames of a file, one after the other.

    `zstandard`'s own stream reader ends silently where a frame is cut off. This one asks each
    frame whether it came to its end.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        while not self._text and self._advance():
            pass
        count = min(len(target), len(self._text))
        target[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _advance(self) -> bool:
        """Decompress one more piece; False at the file's proper end."""
        self._compressed = self._compressed or self._raw.read(_COMPRESSED_PIECE_BYTES)
        if not self._compressed:
            if self._frame is not None:
                raise EOFError("the file ends inside a frame")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._text = memoryview(self._frame.decompress(self._compressed))
        self._compressed = b""
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = None
        return True


def _refuse_binary(stream: io.BufferedReader, path: Path) -> None:
    """Judge a file by its first bytes.

    A few stray NUL or invalid bytes are left to the decoding policy. Past the shares below it is
    no UTF-8 text at all.
    """
    head = stream.peek(_SNIFF_BYTES)[:_SNIFF_BYTES]
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is {kind}, expected UTF-8 text")
    if head.count(0) > _MAX_NUL_SHARE * len(head):
        raise DataError(f"{path}: is binary ({head.count(0)} NUL bytes at its start), expected UTF-8 text")
    if len(head) < _MIN_JUDGED_BYTES:
        return
    invalid = head.decode(errors="replace").count("\ufffd")
    if invalid > _MAX_INVALID_SHARE * len(head):
        raise DataError(
            f"{path}: is binary or in another encoding ({invalid} of its first {len(head)} bytes "
            "are not UTF-8); convert it to UTF-8"
        )
