"""Object storage in memory that fails as it is told to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

PROTOCOL = "flaky"


class NoCredentialsError(Exception):
    """As libraries of storages name it when nobody has signed in."""


class FlakyFiles(MemoryFileSystem):
    """Files under `flaky://`; each call raises the next of `troubles`, where there is one."""

    protocol = PROTOCOL
    cachable = False
    troubles: list[Exception] = []  # noqa: RUF012 - one list for all
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace(f"{PROTOCOL}://", "memory://"))

    def _open(self, path, mode="rb", **settings):
        if mode == "rb" and self.troubles:
            raise self.troubles.pop(0)
        return super()._open(path, mode, **settings)

    def info(self, path, **settings):
        if self.troubles and isinstance(self.troubles[0], PermissionError | NoCredentialsError):
            raise self.troubles.pop(0)
        return super().info(path, **settings)


@contextmanager
def flaky_storage(files: Mapping[str, bytes]) -> Iterator[FlakyFiles]:
    """A storage with these files by path, without troubles; empty again afterwards."""
    fsspec.register_implementation(PROTOCOL, FlakyFiles, clobber=True)
    filesystem = FlakyFiles()
    for path, content in files.items():
        filesystem.pipe_file(path, content)
    FlakyFiles.troubles.clear()
    yield filesystem
    FlakyFiles.store.clear()
    FlakyFiles.pseudo_dirs[:] = [""]
