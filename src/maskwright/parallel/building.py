"""Values for a model that was sharded before it had any, so that no rank ever holds the whole of it.

A model is made on the meta device, where tensors have shapes and no memory; layers are shared and weights
sharded there; then each rank allocates its shards and takes its part of the weights as they come by, some
rows at a time. Cost beside the shards: one block of rows. Every rank sees all values, and draws or reads them
for itself: nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..model.encoder import Block

__all__ = ["fill", "materialize", "own_part"]


def materialize(model: nn.Module, device: str) -> None:
    """Give the parameters of a model memory where they have none; their values are undefined.

    Args:
        model: on the meta device, sharded or not; changed in place.
        device: where its parameters are to lie.
    """
    # One that is computed when a module is made would have to be computed again.
    assert not any(buffer.is_meta for buffer in model.buffers())
    # Private, but what `to_empty` calls as well, which would also empty what is there.
    apply: Callable[[Callable[[Tensor], Tensor]], nn.Module] = model._apply
    apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)


def own_part(weight: Tensor) -> tuple[slice, ...]:
    """Which part of a whole parameter lies on this rank, by dimension.

    Args:
        weight: a parameter, on a mesh whose dimensions are called as those of `fsdp.py`; or a plain tensor.
    """
    ends = [(0, length) for length in weight.shape]
    if isinstance(weight, DTensor):
        mesh = weight.device_mesh
        names = mesh.mesh_dim_names
        assert names is not None
        # Ranks that share a layer divide it first, and others then divide the part of each.
        for axis in ("tensor", "shard"):
            if axis not in names:
                continue
            number = names.index(axis)
            placement = weight.placements[number]
            if not placement.is_replicate():
                dim: int = placement.dim  # type: ignore[attr-defined]
                ends[dim] = _cut(*ends[dim], mesh.size(number), mesh.get_local_rank(number))
    return tuple(slice(first, end) for first, end in ends)


def _cut(first: int, end: int, count: int, number: int) -> tuple[int, int]:
    """One of `count` parts of a run, as tensors are cut: the last ones may be shorter, or empty."""
    length = -(-(end - first) // count)
    first = min(first + number * length, end)
    return first, min(first + length, end)


@torch.no_grad()
def fill(model: nn.Module, blocks: Iterable[Block]) -> None:
    """Copy each rank's part of the weights into its shards.

    Args:
        model: with memory for its shards; changed in place.
        blocks: all rows of all parameters, on every rank.
    """
    shards: dict[str, tuple[Tensor, tuple[slice, ...]]] = {}
    for name, weight in model.named_parameters():
        local = weight.to_local() if isinstance(weight, DTensor) else weight
        part = own_part(weight)
        assert local.shape == tuple(side.stop - side.start for side in part), name
        shards[name] = local, part
    missing = {name: len(weight) for name, weight in model.named_parameters()}
    for name, first_row, values in blocks:
        local, (rows, *others) = shards[name]
        first = max(first_row, rows.start)
        count = min(first_row + len(values), rows.stop) - first
        if count > 0:
            source = (slice(first - first_row, first - first_row + count), *others)
            local.narrow(0, first - rows.start, count).copy_(values[source])
        missing[name] -= len(values)
        del values  # before the next ones are made
    assert not any(missing.values()), f"no values for {[name for name, rows in missing.items() if rows]}"
