"""Objects on storage that `fsspec` knows: S3, Google Cloud Storage, the Hugging Face Hub and others.

The packages behind `fsspec` are loaded when an address asks for them. They raise errors of many
families; what is surely final is told apart here, and everything else may pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...core.errors import DataError, MaskwrightError, MissingDependencyError
from .objects import BrokenOffError, ObjectStat, changed_error, stat_of

__all__ = ["StorageObject", "connect", "info_stat", "storage_failures"]

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
_FINAL = (IsADirectoryError, NotADirectoryError, NotImplementedError, TypeError, ValueError)


class StorageObject:
    """One object on a storage.

    Args:
        url: its address with the protocol.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._filesystem, self._name = connect(url)
        self._file: Any = None
        self._version: str | None = None
        self._broke = False

    def stat(self) -> ObjectStat:
        """Ask the storage itself, not what it said before."""
        with storage_failures(self._url):
            self._filesystem.invalidate_cache()
            info = self._filesystem.info(self._name)
        if info.get("type") == "directory":
            raise DataError(f"{self._url}: is a folder, expected a file; check the path")
        stat = info_stat(info)
        self._version = self._version or stat.version
        return stat

    def fetch(self, start: int, num_bytes: int) -> bytes:
        """Bytes from `start` on; none at the end."""
        if self._broke and self.stat().version != self._version:
            raise changed_error(self._url)
        try:
            with storage_failures(self._url):
                if self._file is None:
                    self._file = self._filesystem.open(self._name, "rb", cache_type="none")
                self._file.seek(start)
                data = bytes(self._file.read(num_bytes))
        except BrokenOffError:
            self.close()
            self._broke = True
            raise
        self._broke = False
        return data

    def close(self) -> None:
        """Let go of the open object, whatever state it is in."""
        with contextlib.suppress(Exception):
            if self._file is not None:
                self._file.close()
        self._file = None


def connect(url: str) -> tuple[Any, str]:
    """The file system behind an address, and the object's name there.

    Raises:
        MissingDependencyError: the package for it is not installed.
        DataError: nobody knows the protocol.
    """
    import fsspec

    protocol = url.partition("://")[0]
    extra = _EXTRAS.get(protocol)
    try:
        filesystem, name = fsspec.core.url_to_fs(url)
    except ImportError as error:
        if extra is None:
            raise DataError(f"{url}: cannot be reached ({error}); install what it needs") from error
        raise MissingDependencyError(_LIBRARIES[extra], extra, f"read {url}") from error
    except ValueError as error:
        raise DataError(
            f"{url}: cannot be understood ({error}); known are s3://, gs://, hf://, http:// and https://"
        ) from error
    return filesystem, str(name)


@contextlib.contextmanager
def storage_failures(url: str) -> Iterator[None]:
    """Turn what a storage raises inside the block into `DataError` if it is final, else `BrokenOffError`."""
    try:
        yield
    except MaskwrightError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file or folder; check the path") from error
    except PermissionError as error:
        raise DataError(
            f"{url}: the storage refuses it ({_reason(error)}); check the path and the credentials"
        ) from error
    except Exception as error:  # of whichever library the storage speaks through
        if "Credential" in type(error).__name__:
            raise DataError(
                f"{url}: no credentials that the storage takes ({_reason(error)}); set them as its "
                "command-line tools need them"
            ) from error
        if isinstance(error, _FINAL):
            raise DataError(f"{url}: cannot be read ({_reason(error)}); check the address") from error
        raise BrokenOffError(_reason(error)) from error


def info_stat(info: dict[str, Any]) -> ObjectStat:
    """Size and version from what a listing says about an object."""
    size = info.get("size")
    return stat_of(info, None if size is None else int(size))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
