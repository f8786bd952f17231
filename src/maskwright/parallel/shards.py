"""What an optimiser that looks at whole matrices can ask of those that lie in shards over ranks.

Sums over a matrix are added up over the ranks that have parts of it: one exchange of a few numbers a step
for all matrices. Where the matrix itself is needed, ranks take turns: in a round each of them puts
together one matrix, works on it, and deals the result out. Cost of the rounds: each matrix travels twice,
in the type that is computed in; memory beside the shards is that of four of the largest matrices, and what
the work on one needs.

Legend: S ranks that share rows, T ranks that share layers; a group has S × T ranks, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .world import World

__all__ = ["Part", "Shards", "copies_of"]


@dataclass(frozen=True)
class Part:
    """Which part of a parameter lies on this rank.

    Attributes:
        shape: of the whole parameter.
        first_row: number of the first row that is here, in what ranks that share a layer (tensor parallel)
            divide first; those parts begin with a whole head.
        copies: how many ranks hold the same part.
    """

    shape: tuple[int, ...]
    first_row: int
    copies: int


def copies_of(weight: DTensor) -> int:
    """How many ranks hold the same shard."""
    count = 1
    for placement, size in zip(weight.placements, weight.device_mesh.shape, strict=True):
        count *= size if placement.is_replicate() else 1
    return count


class Shards:
    """The shards of all parameters, and how their ranks work together.

    Attributes:
        device: where collectives of the ranks work.
        size: ranks that hold one copy of the model together.

    Args:
        weights: of the model, by name; the same names in the same order on every rank.
        masters: the fp32 shards that the optimiser is given, by name.
        world: all processes.
        replicas: copies of the sharded model.
        device: where collectives of the ranks work.
    """

    def __init__(
        self,
        weights: Mapping[str, DTensor],
        masters: Mapping[str, nn.Parameter],
        world: World,
        replicas: int,
        device: str,
    ) -> None:
        self.device, self.size, self._tensor = device, world.size // replicas, world.tensor
        self._group, self._rank = _own_group(world, self.size), world.rank % self.size
        self._numbers = {masters[name]: number for number, name in enumerate(weights)}
        everywhere = world.gather([tuple(masters[name].shape) for name in weights])
        first = world.rank - self._rank
        self._shapes: list[list[tuple[int, ...]]] = everywhere[first : first + self.size]
        # Along which dimension ranks that share a layer divide a parameter.
        self._dims = [_shared_dim(weight) for weight in weights.values()]
        self._parts = {
            masters[name]: Part(tuple(weight.shape), self._first_row(number), copies_of(weight))
            for number, (name, weight) in enumerate(weights.items())
        }

    def _first_row(self, number: int) -> int:
        before = range(self._rank % self._tensor, self._rank, self._tensor)
        return sum(self._shapes[rank][number][0] for rank in before)

    def part(self, master: nn.Parameter) -> Part:
        """Which part of its parameter a shard is."""
        return self._parts[master]

    def add_up(self, values: Tensor) -> Tensor:
        """Add vectors up over all ranks, in float64.

        Args:
            values: as many on every rank; what several ranks hold alike must be divided by their number.
        """
        total = values.to(self.device, torch.float64)
        dist.all_reduce(total)
        return total.to(values.device)

    def transform(
        self, masters: Sequence[nn.Parameter], values: Sequence[Tensor], function: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Apply a function to whole matrices, each on one rank.

        Args:
            masters: whose shards the values are laid out as; the same ones on every rank.
            values: shards of matrices, in the type to compute in.
            function: of a matrix; keeps its shape.

        Returns:
            The shards of the results.
        """
        # Matrices of a size fall into the same round, so that no rank waits for another.
        order = sorted(range(len(masters)), key=lambda number: -math.prod(self._parts[masters[number]].shape))
        results: list[Tensor] = [torch.empty(0)] * len(masters)
        for start in range(0, len(order), self.size):
            turn = order[start : start + self.size]
            numbers = [self._numbers[masters[member]] for member in turn]
            sent = [values[member].reshape(-1).to(self.device) for member in turn]
            mine = numbers[self._rank] if self._rank < len(turn) else None
            sizes = [len(part) for part in sent]
            came = self._trade(torch.cat(sent), sizes, self._sizes(mine))
            if mine is not None:
                whole = self._join(mine, came)
                came = self._cut(mine, function(whole).to(whole.dtype))
            back = self._trade(torch.cat(came), [len(part) for part in came], sizes)
            for member, result in zip(turn, back, strict=False):
                results[member] = result.view(values[member].shape).to(values[member].device)
        return results

    def _sizes(self, number: int | None) -> list[int]:
        """Values that each rank holds of a parameter."""
        return [0 if number is None else math.prod(shapes[number]) for shapes in self._shapes]

    def _trade(self, flat: Tensor, sent: list[int], received: list[int]) -> list[Tensor]:
        """Values for each rank, laid end to end, against those of each rank; lists are filled up with 0."""
        sent, received = ([*sizes, *[0] * (self.size - len(sizes))] for sizes in (sent, received))
        out = flat.new_empty(sum(received))
        dist.all_to_all_single(out, flat, received, sent, group=self._group)
        return list(out.split(received))  # type: ignore[no-untyped-call]

    def _join(self, number: int, parts: Sequence[Tensor]) -> Tensor:
        """A whole matrix of its parts by rank."""
        blocks = [part.view(shapes[number]) for part, shapes in zip(parts, self._shapes, strict=True)]
        columns = [torch.cat(blocks[rank :: self._tensor]) for rank in range(self._tensor)]
        dim = self._dims[number]
        return columns[0] if dim is None else torch.cat(columns, dim)

    def _cut(self, number: int, whole: Tensor) -> list[Tensor]:
        """The parts of a matrix by rank, flat."""
        dim = self._dims[number]
        shares = [whole] * self._tensor if dim is None else whole.chunk(self._tensor, dim)
        ends = [[0] for _ in range(self._tensor)]
        for rank, shapes in enumerate(self._shapes):
            found = ends[rank % self._tensor]
            found.append(found[-1] + shapes[number][0])
        pieces = [
            [share[start:end] for start, end in pairwise(found)]
            for share, found in zip(shares, ends, strict=True)
        ]
        return [pieces[rank % self._tensor][rank // self._tensor].reshape(-1) for rank in range(self.size)]


def _shared_dim(weight: DTensor) -> int | None:
    """Along which dimension ranks that share a layer divide a parameter; None where each has all of it."""
    names: Any = weight.device_mesh.mesh_dim_names
    if "tensor" not in names:
        return None
    placement: Any = weight.placements[names.index("tensor")]
    return None if placement.is_replicate() else int(placement.dim)


def _own_group(world: World, size: int) -> Any:
    """The ranks that hold one copy of the model together; all ranks make all groups."""
    if size == world.size:
        return dist.group.WORLD
    groups = [dist.new_group(list(range(start, start + size))) for start in range(0, world.size, size)]
    return groups[world.rank // size]
