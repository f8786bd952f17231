"""Files on a web server, by the standard library alone.

Every block is a request of its own for a range of bytes. A server that knows no ranges sends the
whole file each time: that answer is kept open and read on, and after a break the next one is skipped
to the position reached. The version (`ETag`, else `Last-Modified`, and the size) is compared at
every answer. Proxies are taken from the environment.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from typing import Any, NoReturn

from ...core.errors import DataError
from .objects import BrokenOffError, ObjectStat, changed_error, stat_of

__all__ = ["HttpObject"]

_TIMEOUT_SECONDS = 60.0
_PIECE_BYTES = 1 << 18
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_MAY_PASS = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})


class HttpObject:
    """One address on a web server.

    Args:
        url: `http://` or `https://`.
        timeout_seconds: a server that is silent for so long counts as gone.
    """

    def __init__(self, url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._url, self._timeout = url, timeout_seconds
        self._version: str | None = None
        self._whole: Any = None  # an answer that holds the file from its start, read up to _position
        self._position = 0

    def stat(self) -> ObjectStat:
        """Ask for one byte: not every server answers a HEAD request, and this one tells about ranges."""
        with self._ask(0, 1) as answer:
            stat = _stat(answer)
        self._version = stat.version
        return stat

    def fetch(self, start: int, num_bytes: int) -> bytes:
        """Bytes from `start` on; none at the end."""
        if self._whole is not None and self._position <= start:
            return self._read_on(start, num_bytes)
        self.close()
        answer = self._ask(start, num_bytes)
        try:
            if self._version not in (None, _stat(answer).version):
                raise changed_error(self._url)
            if answer.status == 200:
                self._whole, self._position, answer = answer, 0, None
                return self._read_on(start, num_bytes)
            first, last = _answered_range(answer)
            if first is None:
                return b""
            if first != start:
                raise BrokenOffError(f"the server sent bytes from {first} instead of {start}")
            return self._read(answer, min(num_bytes, last - first + 1), exact=True)
        finally:
            if answer is not None:
                answer.close()

    def close(self) -> None:
        """Close the connection that is kept where the server knows no ranges."""
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    def _read_on(self, start: int, num_bytes: int) -> bytes:
        try:
            while self._position < start:
                skipped = self._read(self._whole, min(_PIECE_BYTES, start - self._position))
                if not skipped:
                    return b""
                self._position += len(skipped)
            data = self._read(self._whole, num_bytes)
        except BrokenOffError:
            self.close()
            raise
        self._position += len(data)
        return data

    def _read(self, answer: Any, num_bytes: int, *, exact: bool = False) -> bytes:
        """Bytes of an answer's body. Those that came before a failure go into the error."""
        data = bytearray()
        reason = "the server closed the connection"
        try:
            while len(data) < num_bytes:
                piece = answer.read(min(_PIECE_BYTES, num_bytes - len(data)))
                data += piece
                if not piece:
                    break
        except http.client.IncompleteRead as error:
            data += error.partial
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
        else:
            # An answer that knows its length says how much of it is still to come.
            if len(data) == num_bytes or not (exact or answer.length):
                return bytes(data)
        raise BrokenOffError(reason, bytes(data))

    def _ask(self, start: int, num_bytes: int) -> Any:
        headers = {
            "Range": f"bytes={start}-{start + num_bytes - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": "maskwright",
        }
        try:
            request = urllib.request.Request(self._url, headers=headers)
            return urllib.request.urlopen(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing lies there: an empty file, or its end
                return error
            error.close()
            self._refuse(error)
        except (http.client.InvalidURL, ValueError) as error:
            raise DataError(f"{self._url}: is no address of a file ({error}); check it") from error
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(_reason(error)) from error

    def _refuse(self, error: urllib.error.HTTPError) -> NoReturn:
        answer = f"{error.code} {error.reason}"
        if error.code in _GONE:
            raise DataError(f"{self._url}: no such file ({answer}); check the address") from error
        if error.code in _REFUSED:
            raise DataError(
                f"{self._url}: the server refuses it ({answer}); check the address and your rights"
            ) from error
        if error.code in _MAY_PASS or error.code >= 500:
            raise BrokenOffError(f"the server answers {answer}") from error
        raise DataError(f"{self._url}: the server answers {answer}; check the address") from error


def _stat(answer: Any) -> ObjectStat:
    ranged = answer.status in (206, 416)
    if ranged:
        match = _RANGE.match(answer.headers.get("Content-Range", ""))
        size = match.group(3) if match else "*"
    else:
        size = answer.headers.get("Content-Length", "*")
    return stat_of(answer.headers, int(size) if size.isdecimal() else None, ranged=ranged)


def _answered_range(answer: Any) -> tuple[int | None, int]:
    """First and last byte that an answer holds; None where nothing lies."""
    if answer.status == 416:
        return None, 0
    match = _RANGE.match(answer.headers.get("Content-Range", ""))
    if match is None or match.group(1) is None:
        raise BrokenOffError("the server does not say which bytes it sends")
    return int(match.group(1)), int(match.group(2))


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
