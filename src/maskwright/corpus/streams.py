"""Open a source file, local or remote, as a stream of bytes, decompressed and checked, and cut it into lines.

Compression is told by suffix: `.gz`, `.bz2`, `.xz`, `.zst`; files of several compressed frames are
read to their end. A file that ends in the middle of a frame is an error that names the file, never
a short text: the line being read when it breaks off is not handed out. So is a file that changed
while it was read. Memory: one line or, for a whole document, `MAX_RECORD_BYTES`; for a remote file
one block more.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

import zstandard

from ..core.errors import DataError
from ..core.files import is_remote
from .remote import Retry, open_remote, remote_path
from .remote.objects import changed_error, changed_since_listed_error
from .sources import SourceFile, Span, file_version

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "COMPRESSIONS",
    "MAX_RECORD_BYTES",
    "UTF8_MARK",
    "PieceStream",
    "decompressed",
    "file_suffix",
    "is_compressed",
    "open_bytes",
    "open_file",
    "open_stream",
    "read_lines",
    "read_placed_lines",
    "read_whole",
    "skip_to_line",
]

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


def file_suffix(path: Path | str) -> str:
    """The suffix that tells the format, in lower case, with a compression suffix taken away."""
    suffixes = _suffixes(path)
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_compressed(path: Path | str) -> bool:
    """Whether a file's suffix says that it is compressed."""
    return bool({*_suffixes(path)[-1:]} & {*COMPRESSIONS})


@contextlib.contextmanager
def open_bytes(
    path: Path | str, *, version: str = "", start: int = 0, retry: Retry | None = None
) -> Iterator[IO[bytes]]:
    """Open a file for reading as it is stored.

    Args:
        path: a local path, or a remote address as a string. Broken connections are resumed.
        version: what `SourceFile` said about the content; empty takes what is there.
        start: first byte to read.
        retry: pauses between attempts to reach a remote file.

    Yields:
        A binary file that can seek.

    Raises:
        DataError: a local file changed since it was listed; a remote one did, or cannot be reached.
            A change while reading comes out of the end of the `with` block.
    """
    if is_remote(path):
        with open_remote(str(path), version=version, start=start, retry=retry) as remote:
            yield cast(IO[bytes], remote)
        return
    with Path(path).open("rb", _BUFFER_BYTES) as raw:
        before = file_version(os.fstat(raw.fileno()))
        if version and before != version:
            raise changed_since_listed_error(path)
        if start:
            raw.seek(start)
        try:
            yield raw
        except Exception as error:
            # What looks like damage may be half of an old and half of a new version: say that.
            if file_version(os.fstat(raw.fileno())) != before:
                raise changed_error(path) from error
            raise
        if file_version(os.fstat(raw.fileno())) != before:
            raise changed_error(path)


@contextlib.contextmanager
def open_stream(
    path: Path | str, *, version: str = "", start: int = 0, retry: Retry | None = None
) -> Iterator[io.BufferedReader]:
    """Open a file for reading, decompressed as its suffix says, and refuse what is no text.

    Args:
        path: a local path, or a remote address as a string.
        version: as for `open_bytes`.
        start: first byte to read, in a file that is not compressed. Only from 0 is the text judged.
        retry: as for `open_bytes`.

    Yields:
        A buffered stream of bytes.

    Raises:
        DataError: the file is missing, unreadable, binary, damaged, cut off, or it changed. Much of
            this shows while reading, so the error can also come out of the `with` block.
    """
    suffix = _suffixes(path)[-1:]
    try:
        with (
            open_bytes(path, version=version, start=start, retry=retry) as raw,
            decompressed(raw, suffix[0] if suffix else "") as stream,
        ):
            if start == 0:
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


def open_file(file: SourceFile) -> contextlib.AbstractContextManager[io.BufferedReader]:
    """`open_stream` for a planned file: as it was when it was listed, at the place where its span begins.

    A span that does not begin the file is opened one byte early, for `read_lines` to see whether a
    line begins with it.
    """
    start = max(0, file.span.start - 1) if file.span else 0
    return open_stream(file.path, version=file.version, start=start)


def read_lines(stream: IO[bytes], path: Path | str, span: Span | None = None) -> Iterator[tuple[int, bytes]]:
    """Cut a stream into lines.

    Args:
        stream: as `open_file` opened it; a byte-order mark at the file's start is taken away.
        path: for messages.
        span: the part to read: lines that begin in it, the last one to its end.

    Yields:
        Line number from 1, and the line with its line end.

    Raises:
        DataError: a line is longer than `MAX_RECORD_BYTES`.
    """
    stop = span.stop if span else sys.maxsize
    for number, line, _ in read_placed_lines(stream, path, span, stop):
        yield number, line


def read_placed_lines(
    stream: IO[bytes], path: Path | str, span: Span | None, stop: int = sys.maxsize
) -> Iterator[tuple[int, bytes, int]]:
    """Cut a stream into lines from the first of a span on, as `read_lines` does, with their places.

    Args:
        stream: as for `read_lines`.
        path: likewise.
        span: likewise.
        stop: lines that begin here or later are not read.

    Yields:
        Line number from 1, the line with its line end, and the position where it begins.
    """
    position, number = skip_to_line(stream, span)
    limit = MAX_RECORD_BYTES + 1
    readline = stream.readline
    while position < stop and (line := readline(limit)):
        number += 1
        if len(line) == limit:
            raise DataError(
                f"{path}:{number}: the line is longer than {MAX_RECORD_BYTES >> 20} MiB; "
                "cut it into several documents"
            )
        begin, position = position, position + len(line)
        yield number, line.removeprefix(UTF8_MARK) if number == 1 else line, begin


def skip_to_line(stream: IO[bytes], span: Span | None) -> tuple[int, int]:
    """Go from one byte before a span to the first line that begins in it or after it.

    Returns:
        The position reached, and the number of the line before it.
    """
    if span is None or span.start == 0:
        return 0, 0
    position = span.start - 1
    while piece := stream.readline(_BUFFER_BYTES):
        position += len(piece)
        if piece.endswith(b"\n"):
            break
    return position, span.first_line - 1


def read_whole(stream: IO[bytes], path: Path | str) -> bytes:
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


def _suffixes(path: Path | str) -> list[str]:
    name = PurePosixPath(remote_path(path)) if isinstance(path, str) else path
    return [suffix.lower() for suffix in name.suffixes]


@contextlib.contextmanager
def decompressed(raw: IO[bytes], suffix: str) -> Iterator[io.BufferedReader]:
    """The bytes behind a compression suffix (`.gz`, `.bz2`, `.xz`, `.zst`; any other is none).

    Damage raises the error of the library that finds it, or `EOFError` where data is cut off.
    """
    layer: Any = raw
    if suffix == ".gz":
        layer = gzip.GzipFile(fileobj=raw, mode="rb")
    elif suffix == ".bz2":
        layer = bz2.BZ2File(raw)
    elif suffix == ".xz":
        layer = lzma.LZMAFile(raw)  # noqa: SIM115 - the buffer around it closes it
    elif suffix == ".zst":
        layer = _ZstdFrames(raw)
    elif isinstance(raw, io.BufferedReader):
        yield raw  # not closed here: it is still to be asked whether the file changed
        return
    with io.BufferedReader(layer, _BUFFER_BYTES) as stream:
        yield stream


class PieceStream(io.RawIOBase):
    """A stream that is made piece by piece. A subclass makes the pieces; this one cuts them to measure."""

    def __init__(self) -> None:
        super().__init__()
        self._text = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer; 0 at the stream's proper end."""
        target = memoryview(buffer).cast("B")
        while not self._text and self._advance():
            pass
        count = min(len(target), len(self._text))
        target[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _advance(self) -> bool:
        """Put the next piece, perhaps an empty one, into `_text`; False at the end."""
        raise NotImplementedError


class _ZstdFrames(PieceStream):
    """All zstandard frames of a file, one after the other.

    `zstandard`'s own stream reader ends silently where a frame is cut off. This one asks each
    frame whether it came to its end.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""

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


def _refuse_binary(stream: io.BufferedReader, path: Path | str) -> None:
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
