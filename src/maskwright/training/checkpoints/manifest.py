"""The manifest of a checkpoint: what it is of, and the length and checksum of every file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import CheckpointError, DataError
from ...core.files import read_json, write_json
from ...core.fingerprint import fingerprint
from ...core.inventory import FileEntry

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "REMEDY",
    "DamagedCheckpointError",
    "check_file",
    "parse_manifest",
    "read_entries",
    "read_manifest",
    "write_manifest",
]

# 2: tensors are split over ranks; queries, keys and values of a head lie side by side.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
REMEDY = "use an earlier checkpoint"


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is incomplete or damaged; an earlier one may be whole."""


def write_manifest(folder: Path, said: dict[str, Any], entries: Sequence[FileEntry]) -> None:
    """Write the manifest, with its own fingerprint.

    Args:
        folder: of the checkpoint.
        said: what it is of, JSON-like.
        entries: its files.

    Raises:
        StorageError: the storage refused.
    """
    manifest = {"format_version": FORMAT_VERSION, **said}
    manifest["files"] = [entry.model_dump() for entry in entries]
    write_json(folder / MANIFEST, {"fingerprint": fingerprint(manifest), **manifest})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint.

    Args:
        folder: of the checkpoint.

    Returns:
        What was written, without the fingerprint.

    Raises:
        DamagedCheckpointError: it is missing, unreadable, or was changed.
        CheckpointError: it is of another version of the format.
    """
    return _checked(lambda: read_json(folder / MANIFEST), folder)


def parse_manifest(content: bytes, place: str) -> dict[str, Any]:
    """The manifest of a checkpoint that lies elsewhere; as `read_manifest`.

    Args:
        content: of its file.
        place: folder of the checkpoint, for messages.
    """
    return _checked(lambda: json.loads(content), place)


def _checked(read: Callable[[], Any], folder: object) -> dict[str, Any]:
    try:
        manifest = dict(read())
        version, claimed = manifest["format_version"], manifest.pop("fingerprint", None)
        _ = read_entries(manifest), manifest["step"], manifest["progress"]
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(f"{folder}: has no readable {MANIFEST} ({error}); {REMEDY}") from error
    if claimed != fingerprint(manifest):
        raise DamagedCheckpointError(
            f"{folder}/{MANIFEST}: was changed after it was written (fingerprint {claimed}); {REMEDY}"
        )
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: has format version {version!r}, this Maskwright reads {FORMAT_VERSION}; use the "
            "version that wrote it, or start a new run"
        )
    return manifest


def read_entries(manifest: dict[str, Any]) -> list[FileEntry]:
    """The files that a manifest lists."""
    return [FileEntry.model_validate(entry) for entry in manifest["files"]]


def check_file(folder: Path, entry: FileEntry, remedy: str = REMEDY) -> None:
    """Compare a file with the manifest.

    Raises:
        DamagedCheckpointError: it is missing, cannot be read, or is not what was written.
    """
    try:
        entry.check(folder, DamagedCheckpointError, remedy, content=True)
    except OSError as error:
        reason = error.strerror or error
        raise DamagedCheckpointError(f"{folder / entry.path}: cannot be read ({reason}); {remedy}") from error
