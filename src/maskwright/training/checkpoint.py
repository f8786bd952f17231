"""Checkpoints: a fresh folder each, published by one rename, with a manifest of every checksum.

Tensors are written by torch's distributed checkpoint, so a later run may read them with another
number of processes. Nothing appears under its final name before everything is on the device. The
newest whole checkpoint is the one resumed; a damaged one is passed over with a line that says so.
"""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import CheckpointError, DataError, UserError
from ..core.files import publish_folder, read_json, storage_errors, write_json
from ..core.fingerprint import fingerprint
from ..core.inventory import FileEntry, describe_file

__all__ = ["Checkpoints", "LoadedCheckpoint"]

log = logging.getLogger(__name__)
FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})$")
_REMEDY = "use an earlier checkpoint"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint read back: number of its step, tensors, and what the loop said about itself."""

    step: int
    tensors: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds a folder for each.
        keep: how many of the newest stay.
        about: identity of the run (config, versions); kept in every manifest.
    """

    def __init__(self, folder: Path, keep: int, about: dict[str, Any]) -> None:
        self.folder, self.keep, self.about = folder, keep, about

    def steps(self) -> list[int]:
        """Steps that have a published checkpoint, oldest first."""
        names = (_NAME.match(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in names if match)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, tensors: dict[str, Any], progress: dict[str, Any]) -> Path:
        """Write a checkpoint; earlier ones stay whole whatever happens.

        Args:
            step: number of the last finished step.
            tensors: nested dicts of tensors and numbers.
            progress: JSON-like state of the loop.

        Returns:
            Its folder.

        Raises:
            StorageError: the storage refused; nothing was published.
        """
        final = self.path(step)
        temporary = self.folder / f".partial-{final.name}"
        with storage_errors(final):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        try:
            with storage_errors(final):
                self._write(temporary, step, tensors, progress)
                if final.exists():
                    shutil.rmtree(final)
            publish_folder(temporary, final)
        except BaseException:
            # What is left of it may be what fills the disk.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._forget(step)
        return final

    def _write(self, folder: Path, step: int, tensors: dict[str, Any], progress: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        writer = FileSystemWriter(folder, single_file_per_rank=True, thread_count=1)
        _quietly(lambda: save(_flatten(tensors), storage_writer=writer, no_dist=True))
        files = sorted(path.name for path in folder.iterdir())
        entries = [describe_file(folder, name).model_dump() for name in files]
        manifest = {"format_version": FORMAT_VERSION, "step": step, "progress": progress, **self.about}
        manifest["files"] = entries
        write_json(folder / _MANIFEST, {"fingerprint": fingerprint(manifest), **manifest})

    def _forget(self, newest: int) -> None:
        """Remove what is too old. Later steps are damaged ones that were passed over; they stay."""
        for step in [step for step in self.steps() if step <= newest][: -self.keep]:
            shutil.rmtree(self.path(step), ignore_errors=True)
        for leftover in self.folder.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def load_newest(self) -> LoadedCheckpoint | None:
        """Read the newest checkpoint that is whole; None if there is none at all.

        Raises:
            CheckpointError: there are checkpoints, but not one is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.load(step)
            except UserError as error:
                log.warning("%s; going back to the checkpoint before it", error)
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of its {len(steps)} checkpoints is whole; start a new run"
            )
        return None

    def load(self, step: int) -> LoadedCheckpoint:
        """Read one checkpoint after comparing every checksum.

        Raises:
            CheckpointError: it is incomplete, damaged, or of another format.
        """
        path = self.path(step)
        try:
            manifest = dict(read_json(path / _MANIFEST))
            version, claimed = manifest["format_version"], manifest.pop("fingerprint", None)
            entries = [FileEntry.model_validate(entry) for entry in manifest["files"]]
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: has no readable {_MANIFEST} ({error}); {_REMEDY}") from error
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: has format version {version!r}, this Maskwright reads "
                f"{FORMAT_VERSION}; use the version that wrote it"
            )
        if claimed != fingerprint(manifest):
            raise CheckpointError(
                f"{path / _MANIFEST}: was changed after it was written (fingerprint {claimed}); {_REMEDY}"
            )
        for entry in entries:
            entry.check(path, CheckpointError, _REMEDY, content=True)
        return LoadedCheckpoint(manifest["step"], _unflatten(_read_tensors(path)), manifest["progress"])


def _read_tensors(path: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint, by its path in the nested dicts."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(path)
    described: dict[str, Any] = reader.read_metadata().state_dict_metadata
    flat = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in described.items()}
    _quietly(lambda: load(flat, storage_reader=reader, no_dist=True))
    return flat


def _quietly(action: Callable[[], Any]) -> None:
    """Run torch's distributed checkpoint without its warnings and the wrapping of its errors."""
    try:
        with warnings.catch_warnings():
            # A single process is what is meant here, and torch warns about it at every save.
            warnings.simplefilter("ignore")
            action()
    except BaseException as error:  # torch's CheckpointException is no Exception
        cause = _refusal(error)
        if cause is None:
            raise
        raise cause from error


def _refusal(error: BaseException) -> BaseException | None:
    """The refusal of the operating system, or the user's, inside what torch wraps around it."""
    failures = getattr(error, "failures", None)
    cause: BaseException | None = next(iter(failures.values()))[0] if failures else error
    while cause is not None and not isinstance(cause, OSError | KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause


_SEPARATOR = "/"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}{_SEPARATOR}")
        else:
            flat[prefix + name] = value
    return flat


def _unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        *parents, name = path.split(_SEPARATOR)
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree
