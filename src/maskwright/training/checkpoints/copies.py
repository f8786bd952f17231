"""Copies of checkpoints on any storage that `fsspec` knows: the manifest comes last and is read first.

An address belongs to one run. Which one is told by the manifests of the copies: they hold its settings.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    OutOfReachError,
    StorageError,
    UserError,
)
from ...core.files import storage_errors, write_bytes
from ...core.inventory import FileEntry
from ..remote_data import patient_retry
from ..signals import asked_to_stop
from .folders import parse_step, step_name
from .manifest import MANIFEST, REMEDY, DamagedCheckpointError, check_file, parse_manifest

__all__ = ["Copies", "Differs", "never_differs", "refuse_used_address"]

T = TypeVar("T")
_SHARE_OF_PATIENCE = 0.75
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What differs between the run that a manifest speaks of and this one; nothing where they are the same.
Differs = Callable[[Mapping[str, Any]], Sequence[str]]


def never_differs(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Every copy is of this run."""
    return ()


class Copies:
    """Copies of a run's checkpoints below one address.

    Args:
        address: a folder or any `fsspec` address.
        differs: compares the manifest of a copy with this run.
        timeout_seconds: how long other ranks wait for this one. Where a run cannot go on without it, a
            storage that does not answer is asked again for a part of that.

    Raises:
        StorageError: the address is of no known kind.
    """

    def __init__(self, address: str, differs: Differs = never_differs, timeout_seconds: float = 0.0) -> None:
        import fsspec

        self.address, self._differs = address.rstrip("/"), differs
        self._patience = _SHARE_OF_PATIENCE * timeout_seconds
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise StorageError(f"{address}: cannot be reached ({error}); check checkpoint.upload") from error

    def _path(self, step: int, name: str) -> str:
        return f"{self._root}/{step_name(step)}/{name}"

    def place(self, step: int) -> str:
        """Address of a step's copy."""
        return f"{self.address}/{step_name(step)}"

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

    def _ask(self, ask: Callable[[Any], T], place: str, *, patient: bool) -> T:
        """Ask a storage, perhaps again and again while it is away.

        Raises:
            FileNotFoundError: there is no such thing.
            Interrupted: it was away, and a signal ended the waiting.
            OutOfReachError: it was away for too long.
            StorageError: it refused.
        """
        from ...corpus.remote.storage import storage_failures

        def attempt() -> T:
            try:
                with storage_failures(place):
                    return ask(self._files)
            except DataError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    raise error.__cause__ from None
                raise StorageError(str(error)) from error

        try:
            return patient_retry(self._patience if patient else 0.0).call(attempt, place)
        except OutOfReachError as error:
            if patient and asked_to_stop():
                raise Interrupted(f"stopped by a signal while {place} could not be reached") from error
            raise

    def steps(self, *, patient: bool = False) -> list[int]:
        """Steps that have a finished copy, oldest first.

        Args:
            patient: whether to ask again and again while the storage is away.

        Raises:
            OutOfReachError: the storage was away for too long.
            StorageError: the storage refused.
        """

        def look(files: Any) -> list[Any]:
            files.invalidate_cache()
            found: list[Any] = files.glob(f"{self._root}/step-*/{MANIFEST}")
            return found

        try:
            found = self._ask(look, self.address, patient=patient)
        except FileNotFoundError:
            found = []
        names = (str(path).split("/")[-2] for path in found)
        return sorted(step for name in names if (step := parse_step(name)) is not None)

    def manifests(self, *, patient: bool = False) -> Iterator[tuple[int, bytes]]:
        """Steps and manifests of finished copies, the newest first, each read when it is asked for.

        Cheaper than `steps` for who wants the newest, as only folders are listed.

        Args:
            patient: whether to ask again and again while the storage is away.

        Raises:
            OutOfReachError: the storage was away for too long.
            StorageError: the storage refused.
        """

        def look(files: Any) -> list[Any]:
            files.invalidate_cache()
            found: list[Any] = files.ls(self._root, detail=False)
            return found

        try:
            found = self._ask(look, self.address, patient=patient)
        except FileNotFoundError:
            return
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        for step in sorted((step for name in names if (step := parse_step(name)) is not None), reverse=True):
            with contextlib.suppress(DamagedCheckpointError):
                yield step, self.manifest(step, patient=patient)

    def manifest(self, step: int, *, patient: bool = False) -> bytes:
        """The manifest of a copy, as it lies there.

        Args:
            step: of the copy.
            patient: whether to ask again and again while the storage is away.

        Raises:
            DamagedCheckpointError: there is none.
            OutOfReachError: the storage was away for too long.
            StorageError: the storage refused.
        """
        try:
            content: bytes = self._ask(
                lambda files: files.cat_file(self._path(step, MANIFEST)), self.place(step), patient=patient
            )
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{self.place(step)}: has no {MANIFEST}; {REMEDY}") from None
        return content

    def check_owner(self, *, patient: bool = False) -> None:
        """See that the address belongs to this run, or to none yet.

        Args:
            patient: whether to ask again and again while the storage is away.

        Raises:
            ConfigError: it holds checkpoints of another run; says what differs.
            OutOfReachError: the storage was away for too long.
            StorageError: the storage refused.
        """
        for step, content in self.manifests(patient=patient):
            try:
                found = self._differs(parse_manifest(content, self.place(step)))
            except CheckpointError:
                continue  # damaged or of another version, so it does not say whose it is
            if found:
                raise ConfigError(
                    f"{self.address}: holds checkpoints of another run, the newest of step {step} "
                    f"({'; '.join(found)}); give each run an address of its own in checkpoint.upload, or add "
                    "--force"
                )
            return

    def begin(self, step: int) -> None:
        """Make a place for a copy; one that is there already is no longer finished.

        Raises:
            ConfigError: the address has come to belong to another run.
            StorageError: the storage refused.
        """
        self.check_owner()
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
            write_bytes(f"{self.place(step)}/{MANIFEST}", (folder / MANIFEST).read_bytes())

    def fetch(
        self, step: int, folder: Path, entries: Sequence[FileEntry], moved: Callable[[int], None]
    ) -> None:
        """Copy files of a checkpoint back, and compare their checksums; those that are here are kept.

        Args:
            step: of the checkpoint.
            folder: perhaps with files that an earlier attempt brought.
            entries: the files.
            moved: called with the number of bytes, as for `put`.

        Raises:
            DamagedCheckpointError: a file of the copy is missing or damaged.
            OutOfReachError: the storage was away for too long.
            StorageError: a storage refused.
        """
        for entry in entries:
            if _is_whole(folder, entry):
                moved(entry.num_bytes)
                continue
            self._get(step, folder, entry.path, moved)
            try:
                check_file(folder, entry)
            except CheckpointError as error:
                raise type(error)(str(error).replace(str(folder), self.place(step))) from error

    def _get(self, step: int, folder: Path, name: str, moved: Callable[[int], None]) -> None:
        from fsspec.callbacks import Callback

        def get(files: Any) -> None:
            told = Callback(hooks={"moved": _differences(moved)})
            try:
                files.get_file(self._path(step, name), str(folder / name), callback=told)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                with storage_errors(folder / name):  # of this disk, so asking again is of no use
                    raise
            told.absolute_update((folder / name).stat().st_size)

        try:
            self._ask(get, f"{self.place(step)}/{name}", patient=True)
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{self.place(step)}/{name}: is missing; {REMEDY}") from None


def _is_whole(folder: Path, entry: FileEntry) -> bool:
    try:
        check_file(folder, entry)
    except DamagedCheckpointError:
        return False
    return True


def refuse_used_address(address: str | None) -> None:
    """See that nothing lies where a new run is to copy its checkpoints.

    Args:
        address: of the copies; None where there are none.

    Raises:
        ConfigError: there are checkpoints.
        StorageError: the storage refused, or the address is of no known kind.
    """
    if address is None:
        return
    for step, _ in Copies(address).manifests():
        raise ConfigError(
            f"{address.rstrip('/')}: holds checkpoints, the newest of step {step}, but this run is a "
            "new one; add --resume to go on from them, or name another address in checkpoint.upload"
        )


def _differences(moved: Callable[[int], None]) -> Callable[..., None]:
    """Storages tell how much has gone so far; some tell nothing before a file has gone whole."""
    before = 0

    def hook(size: int | None, value: int, **more: Any) -> None:
        nonlocal before
        before, more_bytes = value, value - before
        moved(more_bytes)

    return hook
