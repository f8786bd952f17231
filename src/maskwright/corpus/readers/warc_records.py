"""Cut a WARC file into records, in a way that notices every cut and survives damage in the middle.

Our own, because the libraries that read WARC take a file that ends inside a record for a whole one,
and stop for good at the first damaged byte. Here a file that ends too early is an error, and after
damage reading goes on at the next record that can be found: by its version line, and in a `.gz`
file, where each record is packed by itself, by the start of its packing. Memory: one record.

Source: WARC File Format 1.1, section 4 (records) and annex D (packing each record by itself).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from ..streams import PieceStream

__all__ = ["DamagedMemberError", "DamagedRecord", "GzipMembers", "WarcRecord", "read_records"]

_VERSION = re.compile(rb"WARC/\d+\.\d+\r?\n")
_MAX_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_MEMBER_MARK = b"\x1f\x8b\x08"
_RECORD_MARK = b"WARC/"
_TRIAL_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class WarcRecord:
    """One record.

    Args:
        number: its place in the file, from 1, damaged records included.
        fields: the named fields of its header, names in lower case.
        block: its content; None if it is longer than was allowed.
        num_bytes: length of the content.
    """

    number: int
    fields: Mapping[str, str]
    block: bytes | None
    num_bytes: int


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A record that cannot be read: its place in the file, from 1, and what is wrong with it."""

    number: int
    problem: str


class DamagedMemberError(Exception):
    """A packed piece is damaged; the stream goes on with the next one.

    Args:
        problem: what is wrong.
        inside: bytes of the piece had been handed out already.
    """

    def __init__(self, problem: str, inside: bool) -> None:
        super().__init__(problem)
        self.inside = inside


class _MalformedError(Exception):
    """A record's header or length is wrong."""


def read_records(stream: IO[bytes], max_bytes: int) -> Iterator[WarcRecord | DamagedRecord]:
    """Cut a stream into records.

    Args:
        stream: unpacked; it may raise `DamagedMemberError` and be read on.
        max_bytes: longer contents are passed over.

    Yields:
        Records and damaged records in order. A record is held back until what follows it was seen.

    Raises:
        EOFError: the stream ends inside a record.
    """
    number, searching = 0, False
    held: WarcRecord | None = None
    while True:
        try:
            line = _first_line(stream, searching)
        except DamagedMemberError as damage:
            if searching and damage.inside:
                continue  # more damage to what was told already
            # Damage behind a record in the same piece is its own: the check sum does not fit.
            if not (held and damage.inside):
                number += 1
                if held:
                    yield held
            held, searching = None, True
            yield _damaged(number, damage)
            continue
        if held:
            yield held
        held = None
        if not line:
            return
        number += 1
        try:
            held = _record(stream, line, number, max_bytes)
            searching = False
        except (DamagedMemberError, _MalformedError) as damage:
            searching = True
            yield _damaged(number, damage)


def _damaged(number: int, damage: Exception) -> DamagedRecord:
    unpacking = isinstance(damage, DamagedMemberError)
    return DamagedRecord(number, f"cannot be unpacked ({damage})" if unpacking else str(damage))


def _first_line(stream: IO[bytes], searching: bool) -> bytes:
    """The next line that is not blank or, while searching, that begins a record; empty at the end."""
    while line := stream.readline(_PIECE_BYTES):
        if _VERSION.fullmatch(line) if searching else not line.isspace():
            return line
    return b""


def _record(stream: IO[bytes], line: bytes, number: int, max_bytes: int) -> WarcRecord:
    if not line.endswith(b"\n") and len(line) < _PIECE_BYTES:
        raise EOFError("the file ends inside the first line of a record")
    if not _VERSION.fullmatch(line):
        raise _MalformedError("does not begin with WARC/ and a version")
    fields = _fields(stream)
    length = fields.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        raise _MalformedError(f'Content-Length is "{length}", expected a number')
    num_bytes = int(length)
    block = _block(stream, num_bytes, keep=num_bytes <= max_bytes)
    if stream.readline(_PIECE_BYTES).strip():
        raise _MalformedError(f"does not end after its Content-Length of {num_bytes} bytes")
    return WarcRecord(number, fields, block, num_bytes)


def _fields(stream: IO[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    name, left = "", _MAX_HEADER_BYTES
    while line := stream.readline(left):
        left -= len(line)
        if left <= 0:
            raise _MalformedError(f"has a header of more than {_MAX_HEADER_BYTES} bytes")
        if not line.endswith(b"\n"):
            break
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            return fields
        if text[0] in " \t" and name:
            fields[name] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        name = name.strip().lower()
        if not colon:
            raise _MalformedError(f'has the header line "{text[:80]}", expected a name and a colon')
        fields[name] = value.strip()
    raise EOFError("the file ends inside the header of a record")


def _block(stream: IO[bytes], num_bytes: int, *, keep: bool) -> bytes | None:
    if keep:
        block = stream.read(num_bytes)
        num_bytes -= len(block)
    else:
        block = None
        while num_bytes and (piece := stream.read(min(_PIECE_BYTES, num_bytes))):
            num_bytes -= len(piece)
    if num_bytes:
        raise EOFError(f"the file ends inside a record, {num_bytes} bytes too early")
    return block


class GzipMembers(PieceStream):
    """The members of a gzip file, unpacked one after the other, as a raw stream.

    A damaged member raises `DamagedMemberError` once; then reading goes on with the next member that
    begins with a record. If there is none, the end of the file is lost and the damage is an error.

    Args:
        raw: the packed file.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._member = zlib.decompressobj(31)
        self._begun = False  # the member has been given bytes
        self._inside = False  # the member has given bytes
        self._packed = b""

    def _fill(self) -> bool:
        """See to it that there are packed bytes; False at the file's proper end."""
        while True:
            if not self._begun:
                self._packed = self._packed.lstrip(b"\0")  # padding between members
            if self._packed:
                return True
            self._packed = self._raw.read(_PIECE_BYTES)
            if not self._packed:
                if self._begun:
                    raise EOFError("the file ends inside a packed record")
                return False

    def _advance(self) -> bool:
        if not self._fill():
            return False
        fresh, self._begun = not self._begun, True
        try:
            self._text = memoryview(self._member.decompress(self._packed))
        except zlib.error as error:
            self._recover(error, 1 if fresh else 0)
        self._inside = self._inside or len(self._text) > 0
        self._packed = self._member.unused_data
        if self._member.eof:
            self._renew()
        return True

    def _renew(self) -> None:
        self._member, self._begun, self._inside = zlib.decompressobj(31), False, False

    def _recover(self, error: zlib.error, start: int) -> None:
        """Go to the next member that begins with a record, and tell about the damage."""
        while True:
            start = self._packed.find(_MEMBER_MARK, start)
            if start < 0:
                kept = self._packed[-len(_MEMBER_MARK) + 1 :]
                piece = self._raw.read(_PIECE_BYTES)
                if not piece:
                    raise zlib.error(f"{error}, and no record can be found behind it") from error
                self._packed, start = kept + piece, 0
                continue
            if len(self._packed) - start < _TRIAL_BYTES:
                self._packed += self._raw.read(_PIECE_BYTES)
            if _begins_record(self._packed[start : start + _TRIAL_BYTES]):
                break
            start += 1
        self._packed = self._packed[start:]
        inside = self._inside
        self._renew()
        raise DamagedMemberError(str(error), inside) from error


def _begins_record(packed: bytes) -> bool:
    try:
        return zlib.decompressobj(31).decompress(packed, len(_RECORD_MARK)) == _RECORD_MARK
    except zlib.error:
        return False
