"""The folders of checkpoints: their names, and how one comes to its place or is given it back."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from pathlib import Path

from ...core.files import publish_folder

__all__ = [
    "FETCHED",
    "make_room",
    "parse_step",
    "recover_folders",
    "replace_folder",
    "step_name",
    "steps_below",
]

_STEP = re.compile(r"step-(\d{8,})$")
_PARTIAL = ".partial-"
_REPLACED = ".replaced-"
FETCHED = ".fetched-"


def step_name(step: int) -> str:
    """Name of the folder of a step's checkpoint."""
    return f"step-{step:08d}"


def parse_step(name: str) -> int | None:
    """The step of a folder of this name; None if it is no checkpoint."""
    match = _STEP.match(name)
    return int(match[1]) if match else None


def steps_below(folder: Path) -> list[int]:
    """Steps that have a published checkpoint, oldest first."""
    found = (parse_step(path.name) for path in folder.glob("step-*"))
    return sorted(step for step in found if step is not None)


def make_room(folder: Path, step: int) -> Path:
    """Clear what a crash left, and make a folder to write into.

    Args:
        folder: of all checkpoints.
        step: what will be written. No two attempts get the same folder, so that a rank which is late
            with removing one does not remove what belongs to the next.

    Raises:
        OSError: the storage refused.
    """
    recover_folders(folder)
    for mark in (_PARTIAL, FETCHED):
        for leftover in folder.glob(f"{mark}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder / f"{_PARTIAL}{step_name(step)}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    return temporary


def replace_folder(temporary: Path, final: Path) -> None:
    """Publish a folder; one that has the name already is put aside until then.

    Raises:
        StorageError: the storage refused; what was there is there still.
        OSError: it refused to put the one before aside.
    """
    aside = final.with_name(f"{_REPLACED}{final.name}")
    if final.exists():
        final.rename(aside)
    try:
        publish_folder(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            recover_folders(final.parent)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def recover_folders(folder: Path) -> None:
    """Give checkpoints that were put aside their names again, unless there are new ones.

    Raises:
        OSError: the storage refused.
    """
    for aside in folder.glob(f"{_REPLACED}step-*"):
        final = folder / aside.name.removeprefix(_REPLACED)
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(final)
