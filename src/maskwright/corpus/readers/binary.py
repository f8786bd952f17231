"""What the readers of binary formats share: opening a file as it is stored, and bytes into text.

The readers of lines have `streams.open_stream`, which refuses whatever is no text. Memory: one buffer.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import cast

import zstandard

from ...core.errors import DataError
from ..audit import Audit
from ..document import Drop
from ..sources import SourceFile
from ..streams import open_bytes
from .reader import ReadOptions

__all__ = ["decode_record", "open_binary"]


@contextlib.contextmanager
def open_binary(file: SourceFile) -> Iterator[io.BufferedReader]:
    """Open a file as it is stored, local or remote, and turn what goes wrong into `DataError`.

    Args:
        file: its span is not looked at.

    Yields:
        A buffered file that can seek.

    Raises:
        DataError: the file is missing, unreadable, or changed; or the code inside the block met
            compressed data that is damaged or cut off.
    """
    try:
        with open_bytes(file.path, version=file.version) as raw:
            yield raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise DataError(
            f"{file.path}: the data is damaged or cut off ({error}); fetch or write the file again"
        ) from error
    except FileNotFoundError:
        raise DataError(f"{file.path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror or error})") from error


def decode_record(raw: bytes, encoding: str, place: str, options: ReadOptions, audit: Audit) -> str | None:
    """Decode a record under the source's policy for bytes that do not fit.

    Args:
        raw: bytes of the record.
        encoding: a name that Python knows.
        place: file and number of the record, for messages.
        options: has the policy.
        audit: told about repairs and drops (`invalid_utf8`, or `invalid_bytes` in another encoding).

    Returns:
        The text, or None if the record is to be skipped.

    Raises:
        DataError: the policy is `strict`.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        is_utf8 = error.encoding == "utf-8"
        name = "UTF-8" if is_utf8 else error.encoding
        problem = f"byte 0x{raw[error.start]:02x} is not {name}"
    reason = "invalid_utf8" if is_utf8 else "invalid_bytes"
    if options.encoding_errors == "strict":
        raise DataError(f"{place}: {problem} (set encoding_errors to replace or skip, or convert the file)")
    if options.encoding_errors == "skip":
        audit.count_unread(options.source, place, Drop(reason, problem), raw)
        return None
    audit.count_repair(reason)
    return raw.decode(encoding, errors="replace")
