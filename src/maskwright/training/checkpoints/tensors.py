"""Tensors to files and back, by the planners and files of torch's distributed checkpoint.

Each rank writes one file with its own shards and its share of what all have. Reading asks for the
parts that this rank needs, whichever ranks wrote them, so engine and number of ranks may change.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    create_default_local_save_plan,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult

from ...core.errors import CheckpointError
from ...parallel.world import World
from .manifest import DamagedCheckpointError
from .together import consult

__all__ = ["METADATA", "Deal", "own_files", "read_tensors", "write_metadata", "write_tensors"]

METADATA = ".metadata"
# fp16 alone has a state of loss scaling; a run may change its precision.
_OPTIONAL = "scaler/"
_REMEDY = "resume with the model and the optimiser that the run began with"


class Deal:
    """Which rank writes what. It is found out once, and again when names, shapes or types change.

    Attributes:
        metadata: on rank 0, where each part of each tensor lies; None before the first deal.
    """

    def __init__(self) -> None:
        self.metadata: Metadata | None = None
        self._asked: list[tuple[Any, ...]] | None = None
        self._part: SavePlan | None = None

    def part(self, tensors: Mapping[str, Tensor], world: World) -> SavePlan:
        """What this rank writes; each part of each tensor is written by one rank.

        Args:
            tensors: by name, plain ones on every rank alike; all ranks call this at the same time.
            world: the ranks that write.
        """
        wanted = create_default_local_save_plan(dict(tensors), world.is_main)
        asked = [_describe(item) for item in wanted.items]
        unchanged = asked == self._asked
        if self._part is None or not all(row[0] for row in world.exchange([float(unchanged)])):
            self._part = consult(world, lambda: wanted, self._deal_out)
            self._asked = asked
        return self._part

    def _deal_out(self, wanted: list[SavePlan]) -> list[SavePlan]:
        planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        parts, self.metadata = planner.create_global_plan(wanted)
        return FileSystemWriter(".").prepare_global_plan(parts)


def _describe(item: Any) -> tuple[Any, ...]:
    data = item.tensor_data
    return item.index, data.chunk.sizes, data.size, data.properties.dtype


class _Given(DefaultSavePlanner):
    """Hands out tensors of this rank by name, instead of shards of distributed ones."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.tensors = tensors

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self.tensors[index.fqn]


def _writer(folder: Path) -> FileSystemWriter:
    # Without copying ahead nothing depends on the current stream of a device.
    return FileSystemWriter(folder, thread_count=1, per_thread_copy_ahead=0)


def write_tensors(folder: Path, part: SavePlan, tensors: Mapping[str, Tensor]) -> list[WriteResult]:
    """Write this rank's part of a checkpoint, and flush it to the device.

    Args:
        folder: exists on a file system that all ranks share.
        part: what to write.
        tensors: what this rank has of each tensor of its part, by name.

    Returns:
        Where everything was written, for `write_metadata`.

    Raises:
        OSError: the storage refused; torch may have wrapped it.
    """
    results = _writer(folder).write_data(part, _Given(tensors)).wait()
    ends: dict[str, int] = {}
    for place in (result.storage_data for result in results):
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    for name, end in ends.items():
        # A checksum is taken of what is in the file, so it would not tell what never came there.
        if (found := (folder / name).stat().st_size) != end:
            raise OSError(errno.EIO, f"{found} of {end} bytes were written", str(folder / name))
    return results


def own_files(folder: Path, rank: int) -> list[str]:
    """Names of the files that a rank wrote."""
    return sorted(path.name for path in folder.glob(f"__{rank}_*"))


def write_metadata(folder: Path, metadata: Metadata, results: Sequence[list[WriteResult]]) -> None:
    """Write which part of which tensor lies where.

    Args:
        folder: of the checkpoint.
        metadata: of the deal.
        results: what the ranks wrote.
    """
    _writer(folder).finish(dataclasses.replace(metadata), list(results))


def read_tensors(folder: Path, template: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read a checkpoint, whole or into tensors that are there.

    Args:
        folder: of the checkpoint, whose files were checked.
        template: tensors to overwrite, by name; None reads every tensor whole, on the CPU.

    Returns:
        The tensors by name: those of the template if there is one.

    Raises:
        CheckpointError: names or shapes are not those of the template; nothing was read.
        DamagedCheckpointError: the storage refused to read.
    """
    try:
        reader = FileSystemReader(folder)
        metadata = reader.read_metadata()
        flat = _empty(metadata) if template is None else _fitting(folder, template, metadata)
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(dict(flat), metadata, True)
        reader.set_up_storage_reader(metadata, True)
        with torch.no_grad():
            reader.read_data(planner.finish_plan(planner.create_local_plan()), planner).wait()
    except OSError as error:
        reason = error.strerror or error
        raise DamagedCheckpointError(f"{folder}: cannot be read ({reason}); check the storage") from error
    return flat if template is None else dict(template)


def _empty(metadata: Metadata) -> dict[str, Tensor]:
    described: dict[str, Any] = metadata.state_dict_metadata
    return {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in described.items()}


def _fitting(folder: Path, template: Mapping[str, Tensor], metadata: Metadata) -> dict[str, Tensor]:
    """Those tensors of the template that are read; refuses a template of another model."""
    described: dict[str, Any] = metadata.state_dict_metadata
    extra = [name for name in described if name not in template and not name.startswith(_OPTIONAL)]
    if extra:
        raise CheckpointError(f"{folder}: {extra[0]} of the checkpoint is not in the run; {_REMEDY}")
    for name, tensor in template.items():
        found = described.get(name)
        if found is None and name.startswith(_OPTIONAL):
            continue
        if found is None or found.size != tensor.shape:
            said = "missing" if found is None else f"of shape {tuple(found.size)}"
            raise CheckpointError(
                f"{folder}: {name} is {said} in the checkpoint, expected {tuple(tensor.shape)}; {_REMEDY}"
            )
    return {name: tensor for name, tensor in template.items() if name in described}
