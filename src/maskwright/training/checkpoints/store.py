"""The checkpoints of a run: a fresh folder each, published by one rename after all ranks have written.

A save copies this rank's part of the tensors to the CPU and returns; a thread writes it, computes
checksums, and agrees with the other ranks over a process group of its own. Nothing appears under its
final name before everything is on the device. The newest whole checkpoint is the one resumed; a
damaged one is passed over with a line that says so.

Cost: a pause for the copy, CPU memory for this rank's part of a checkpoint, and three messages from
rank to rank behind the training.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult

from ...core.errors import CheckpointError, Interrupted, StorageError
from ...core.inventory import FileEntry, describe_file
from ...parallel.world import SOLO, World
from ..checkpoint_config import CheckpointConfig
from ..watch import WorkerLost
from .background import Background
from .copies import Copies, Differs, never_differs
from .fetching import fetch_copy
from .folders import make_room, recover_folders, replace_folder, step_name, steps_below
from .manifest import (
    REMEDY,
    DamagedCheckpointError,
    check_file,
    read_entries,
    read_manifest,
    write_manifest,
)
from .retention import best_steps, steps_that_stay
from .staging import Staging
from .tensors import METADATA, Deal, own_files, read_tensors, write_metadata, write_tensors
from .together import all_do, consult, refusals, tell_all
from .tree import flatten, local_part, number_types, restore_numbers, unflatten
from .uploads import HURRY_SECONDS, Uploads

__all__ = ["Checkpoints", "LoadedCheckpoint"]

log = logging.getLogger(__name__)
_SHARED = "all ranks must see the same folder: put the run on a file system that they share"
Written = tuple[list[WriteResult], list[FileEntry]]
Accept = Callable[[int, Mapping[str, Any]], None]


def _accept_any(step: int, progress: Mapping[str, Any]) -> None:
    """Every checkpoint will do."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint read back: number of its step, tensors, and what the loop said about itself."""

    step: int
    tensors: dict[str, Any]
    progress: dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """All that is needed to write one checkpoint, independent of the run."""

    step: int
    part: SavePlan
    tensors: Mapping[str, Tensor]
    said: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. All ranks call each method at the same time, but `poll` and `close`.

    Args:
        folder: holds a folder for each; on a file system that all ranks share.
        config: what stays, whether training waits, where copies go.
        about: identity of the run (config, versions); kept in every manifest.
        world: the ranks that save together.
        timeout_seconds: how long a rank waits for what another writes before the save is given up.
        differs: what differs between the run that a manifest of a copy speaks of and this one.

    Raises:
        StorageError: the address of the copies is of no known kind.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        about: dict[str, Any],
        world: World = SOLO,
        timeout_seconds: float = 1800.0,
        differs: Differs = never_differs,
    ) -> None:
        self.folder, self.config, self.about = folder, config, about
        self.world = world
        if world.group is not None:
            # What is told behind the training must not come between what the training tells.
            patience = timedelta(seconds=timeout_seconds)
            self.world = dataclasses.replace(world, group=dist.new_group(backend="gloo", timeout=patience))
        self._uploads = None
        if config.upload is not None:
            copies = Copies(config.upload, differs, timeout_seconds)
            self._uploads = Uploads(copies, self.world, self.path, self._tidy, timeout_seconds)
        self._deal, self._staging, self._background = Deal(), Staging(), Background()
        self._scores: dict[int, float | None] = {}
        self._published: int | None = None
        self._tidying = threading.Lock()
        self._untold: list[str] = []
        self._failure: list[str] = []

    def steps(self) -> list[int]:
        """Steps that have a published checkpoint, oldest first."""
        return steps_below(self.folder)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / step_name(step)

    def poll(self) -> list[str]:
        """What went wrong since the last call, to be told; never waits."""
        if self._background.done:
            self._settle()
        told, self._untold = self._untold, []
        return told if self._uploads is None else told + self._uploads.take_messages()

    def finish(self) -> list[str]:
        """Wait for the save that is under way, but not for copies.

        Returns:
            Why the last save failed, told before or not; empty if it is safe. The same on all ranks.
        """
        self._settle()
        return list(self._failure)

    def close(self) -> None:
        """Wait for what is under way; what nobody asked for is logged. Raises nothing but an interrupt.

        Where the run ends well, copies of the newest and the best are waited for; where a signal ends it, a
        minute at most.
        """
        left = sys.exception()
        patience = None if left is None else HURRY_SECONDS if isinstance(left, Interrupted) else 0.0
        try:
            self._settle()
        except Exception as error:
            patience = 0.0
            self._untold.append(f"WARNING: the checkpoint under way was lost: {error}")
        if self._uploads is not None:
            self._uploads.close(self._worth_copying() if self.world.is_main else [], patience)
            self._untold += self._uploads.take_messages()
        # That another process is lost explains the rest, and is what should be read first.
        quiet = not self.world.is_main or isinstance(left, WorkerLost)
        for message in () if quiet else self._untold:
            log.warning(message.removeprefix("WARNING: "))
        self._untold = []

    def _settle(self) -> None:
        """Wait for the save that is under way, and note how it went."""
        try:
            self._background.take()
        except StorageError as error:
            self._failure = [f"WARNING: no checkpoint was saved: {error}"]
            self._untold += self._failure

    def save(
        self,
        step: int,
        tensors: dict[str, Any],
        progress: dict[str, Any],
        *,
        score: float | None = None,
        wait: bool = False,
    ) -> Path:
        """Save; earlier checkpoints stay whole whatever happens.

        A save that is still under way is waited for first.

        Args:
            step: number of the last finished step.
            tensors: nested dicts of tensors and numbers; plain ones are alike on all ranks.
            progress: JSON-like state of the loop; that of rank 0 is kept.
            score: validation loss, by which the best stay.
            wait: return when it is published, with its failure as an error.

        Returns:
            Its folder, which is there once it is published.

        Raises:
            StorageError: `wait`, or the saving is not asynchronous, and the storage of some rank refused;
                nothing was published.
        """
        self._settle()
        flat = flatten(tensors)
        part = self._deal.part(flat, self.world)
        mine = {item.index.fqn: local_part(flat[item.index.fqn]) for item in part.items}
        known = score if score is not None and math.isfinite(score) else None
        said = {"step": step, "score": known, "progress": progress, **self.about}
        self._failure = []
        if self.config.asynchronous and not wait:
            job = _Job(step, part, self._staging.copy(mine), copy.deepcopy(said))
            self._background.start(lambda: self._publish(job))
            return self.path(step)
        try:
            self._publish(_Job(step, part, mine, said))
        except StorageError as error:
            self._failure = [f"WARNING: no checkpoint was saved: {error}"]
            raise
        return self.path(step)

    def _publish(self, job: _Job) -> None:
        """Write a checkpoint with the other ranks."""
        temporary = self.folder / tell_all(self.world, lambda: self._make_room(job.step))
        try:
            consult(
                self.world,
                lambda: self._write(temporary, job),
                lambda written: self._complete(temporary, job, written),
            )
        except BaseException:
            # What is left of it may be what fills the disk.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if self._uploads is not None:
            self._uploads.offer(job.step)
        if self.world.is_main:
            self._published = job.step
            self._scores[job.step] = job.said["score"]
            self._tidy()

    def _make_room(self, step: int) -> str:
        with refusals(self.path(step)):
            return make_room(self.folder, step).name

    def _write(self, temporary: Path, job: _Job) -> Written:
        with refusals(self.path(job.step)):
            if not temporary.is_dir():
                raise StorageError(f"{temporary}: is not there for rank {self.world.rank}; {_SHARED}")
            results = write_tensors(temporary, job.part, job.tensors)
            return results, [describe_file(temporary, name) for name in own_files(temporary, self.world.rank)]

    def _complete(self, temporary: Path, job: _Job, written: list[Written]) -> list[None]:
        """Write the manifest and publish; there is nothing to answer to the ranks."""
        metadata = self._deal.metadata
        assert metadata is not None
        with refusals(self.path(job.step)):
            write_metadata(temporary, metadata, [results for results, _ in written])
            files = [entry for _, entries in written for entry in entries]
            for entry in files:
                entry.check(temporary, StorageError, _SHARED, content=False)
            write_manifest(temporary, job.said, [*files, describe_file(temporary, METADATA)])
            replace_folder(temporary, self.path(job.step))
        return [None] * len(written)

    def _tidy(self) -> None:
        """Remove what need not stay; called when one was published, and when one was copied."""
        with self._tidying, contextlib.suppress(OSError):  # what stays too long does no harm
            steps = self._scored()
            assert self._published is not None
            held = set() if self._uploads is None else self._uploads.held
            stay = steps_that_stay(steps, self._published, self._scores, self.config) | held
            for step in steps:
                if step not in stay:
                    shutil.rmtree(self.path(step), ignore_errors=True)

    def _scored(self) -> list[int]:
        """Steps of all checkpoints, whose scores are known then if they are needed."""
        steps = self.steps()
        if self.config.keep_best:
            for step in steps:
                if step not in self._scores:
                    self._scores[step] = _read_score(self.path(step))
        return steps

    def _worth_copying(self) -> list[int]:
        """The newest checkpoint of this start, and the best."""
        if self._published is None:
            return []
        with self._tidying, contextlib.suppress(OSError):
            steps = [step for step in self._scored() if step <= self._published]
            return [self._published, *best_steps(steps, self._scores, self.config)]
        return [self._published]

    def load_newest(
        self, template: dict[str, Any] | None = None, accept: Accept = _accept_any
    ) -> LoadedCheckpoint | None:
        """Read the newest checkpoint that is whole, here or else where copies are; None if there is none.

        Args:
            template: nested dicts of tensors, plain or sharded in any way, that are overwritten.
            accept: looks at the step and the progress of a whole checkpoint, and refuses it by raising,
                before a tensor is read.

        Raises:
            CheckpointError: there are checkpoints, but not one is whole, or it does not fit the template.
            Interrupted: a signal asked to stop while copies were fetched.
            OutOfReachError: the storage of the copies is needed, and was away for too long.
            StorageError: it is needed, and refused.
        """
        self._settle()
        steps = tell_all(self.world, self._steps_here)
        if self._uploads is None:
            found = self._first_whole(steps, template, accept)
        else:
            self._uploads.wait()
            copies, world = self._uploads.copies, self._uploads.world
            found = self._first_whole(steps, template, accept)
            if found is None:
                there = tell_all(world, lambda: copies.steps(patient=True))
                found = self._first_whole(
                    there, template, accept, lambda step: fetch_copy(copies, step, self.folder, world)
                )
                steps = sorted({*steps, *there})
        if found is None and steps:
            raise CheckpointError(
                f"{self.folder}: none of its {len(steps)} checkpoints is whole; start a new run"
            )
        return found

    def _steps_here(self) -> list[int]:
        with refusals(self.folder):
            recover_folders(self.folder)
            return self.steps()

    def _first_whole(
        self,
        steps: Sequence[int],
        template: dict[str, Any] | None,
        accept: Accept,
        bring: Callable[[int], None] = lambda step: None,
    ) -> LoadedCheckpoint | None:
        for step in reversed(steps):
            try:
                bring(step)
                return self.load(step, template, accept)
            except DamagedCheckpointError as error:
                if self.world.is_main:
                    log.warning("%s; going back to the checkpoint before it", error)
        return None

    def load(
        self, step: int, template: dict[str, Any] | None = None, accept: Accept = _accept_any
    ) -> LoadedCheckpoint:
        """Read one checkpoint after comparing every checksum; each rank computes its share of them.

        Args:
            step: of the checkpoint.
            template: nested dicts of tensors that are overwritten; None reads all of it whole.
            accept: as for `load_newest`.

        Raises:
            CheckpointError: it is incomplete, damaged, of another format, or does not fit the template.
        """
        path, world = self.path(step), self.world
        manifest = tell_all(world, lambda: read_manifest(path))
        entries = sorted(read_entries(manifest), key=lambda entry: -entry.num_bytes)

        def check() -> None:
            for entry in entries[world.rank :: world.size]:
                lost = world.size > 1 and not (path / entry.path).exists()
                check_file(path, entry, f"{REMEDY}; {_SHARED}" if lost else REMEDY)

        all_do(world, check)
        accept(manifest["step"], manifest["progress"])
        if template is None:
            found = unflatten(all_do(world, lambda: read_tensors(path)))
        else:
            flat = flatten(template)
            all_do(world, lambda: read_tensors(path, flat))
            numbers = number_types(template)
            found = {name: {} for name in template} | unflatten(restore_numbers(flat, numbers))
        return LoadedCheckpoint(manifest["step"], found, manifest["progress"])


def _read_score(path: Path) -> float | None:
    """The validation loss that a checkpoint was saved with; None for a damaged one."""
    try:
        score = read_manifest(path).get("score")
    except CheckpointError:
        return None
    return None if score is None else float(score)
