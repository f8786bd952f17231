"""Copies of checkpoints on any storage that `fsspec` knows: the manifest comes last and is read first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import CheckpointError, StorageError, UserError
from ...core.files import write_bytes
from .folders import parse_step, step_name
from .manifest import (
    MANIFEST,
    REMEDY,
    DamagedCheckpointError,
    check_file,
    read_entries,
    read_manifest,
)

__all__ = ["Copies"]


class Copies:
    """Copies of a run's checkpoints below one address.

    Args:
        address: a folder or any `fsspec` address.

    Raises:
        StorageError: the address is of no known kind.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise StorageError(f"{address}: cannot be reached ({error}); check checkpoint.upload") from error

    def _path(self, step: int, name: str) -> str:
        return f"{self._root}/{step_name(step)}/{name}"

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[Any]:
        """Storages far away refuse with errors of every kind."""
        try:
            yield self._files
        except UserError:
            raise
        except Exception as error:
            said = str(error) or repr(error)
            raise StorageError(f"{self.address}: {said}; check the address and the access") from error

    def steps(self) -> list[int]:
        """Steps that have a finished copy, oldest first.

        Raises:
            StorageError: the storage cannot be reached.
        """
        with self._refusals() as files:
            files.invalidate_cache()
            found = files.glob(f"{self._root}/step-*/{MANIFEST}")
        names = (str(path).split("/")[-2] for path in found)
        return sorted(step for name in names if (step := parse_step(name)) is not None)

    def begin(self, step: int) -> None:
        """Make a place for a copy; one that is there already is no longer finished.

        Raises:
            StorageError: the storage refused.
        """
        with self._refusals() as files:
            files.makedirs(f"{self._root}/{step_name(step)}", exist_ok=True)
            if files.exists(self._path(step, MANIFEST)):
                files.rm_file(self._path(step, MANIFEST))

    def put(self, folder: Path, step: int, names: Sequence[str], moved: Callable[[int], None]) -> None:
        """Copy files of a checkpoint.

        Args:
            folder: of the checkpoint.
            step: its number.
            names: of the files.
            moved: called with the number of bytes, in as many parts as the storage tells of; where it
                raises, the copying ends.

        Raises:
            StorageError: the storage refused.
        """
        from fsspec.callbacks import Callback

        with self._refusals() as files:
            for name in names:
                told = Callback(hooks={"moved": _differences(moved)})
                files.put_file(str(folder / name), self._path(step, name), callback=told)
                told.absolute_update((folder / name).stat().st_size)

    def finish(self, folder: Path, step: int) -> None:
        """Copy the manifest, by which the copy counts as finished.

        Raises:
            StorageError: the storage refused.
        """
        with self._refusals():
            write_bytes(f"{self.address}/{step_name(step)}/{MANIFEST}", (folder / MANIFEST).read_bytes())

    def fetch(self, step: int, folder: Path) -> None:
        """Copy a checkpoint back, and compare every checksum.

        Args:
            step: of the checkpoint.
            folder: empty.

        Raises:
            DamagedCheckpointError: the copy is not whole.
            CheckpointError: it is of another version of the format.
            StorageError: a storage refused.
        """
        place = f"{self.address}/{step_name(step)}"
        self._get(step, folder, MANIFEST)
        try:
            for entry in read_entries(read_manifest(folder)):
                self._get(step, folder, entry.path)
                check_file(folder, entry)
        except CheckpointError as error:
            raise type(error)(str(error).replace(str(folder), place)) from error

    def _get(self, step: int, folder: Path, name: str) -> None:
        with self._refusals() as files:
            try:
                files.get_file(self._path(step, name), str(folder / name))
            except FileNotFoundError:
                raise DamagedCheckpointError(f"{folder / name}: is missing; {REMEDY}") from None


def _differences(moved: Callable[[int], None]) -> Callable[..., None]:
    """Storages tell how much has gone so far; some tell nothing before a file has gone whole."""
    before = 0

    def hook(size: int | None, value: int, **more: Any) -> None:
        nonlocal before
        before, more_bytes = value, value - before
        moved(more_bytes)

    return hook
