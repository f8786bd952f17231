"""How shards travel between CPUs: sums in pieces, weights without a copy, buffers that are used again.

Gloo deals sums out by adding up a copy of the whole on every rank, of which each then takes its part: twice
the bytes of a ring, and a buffer of the size of the largest group of weights. Its gather collects in a
buffer of its own, too. Here ranks send each other the pieces that the other one needs and add up what comes,
and each sends its shard to where it is to lie. Cost: the bytes of a ring, and a few MiB beside the buffers.

What stays from one layer to the next, or until the end of a step, is set aside before the first step: between
what comes and goes it would tear the heap into holes that fit nothing else. Layers are alike, so two
buffers are enough to gather them in, and one to lay their gradients out. What only the largest group of
weights needs is too large to keep, and goes back.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ..model.workspace import piece_of, users_of

__all__ = ["Buffers", "GatheredShards", "SummedShards", "lay_out", "use_cpu_messages", "values_to_send"]

# Values that a rank sends and receives at a time.
_PIECE_VALUES = 1 << 20
# A layer that is gathered while what the one before it was taken apart from is still held.
_GATHERED = 2


class Buffers:
    """Memory that is lent again when nobody holds it any more.

    Args:
        sizes: how many values each buffer holds.
        dtype: of the values.
        device: where they lie.
    """

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._sizes, self._dtype, self._device = tuple(sizes), dtype, device
        self._kept: list[tuple[Tensor, int]] = []

    def reserve(self) -> None:
        """Set the memory aside; before that all of it is fresh."""
        buffers = [torch.empty(size, dtype=self._dtype, device=self._device) for size in self._sizes]
        self._kept = [(buffer, users_of(buffer)) for buffer in buffers]

    def take(self, num_values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A vector with undefined content, in a buffer of its size or else in fresh memory.

        Args:
            num_values: its length.
            dtype: of the values.
            device: where it is to lie.
        """
        for buffer, idle_users in self._kept:
            fits = buffer.numel() == num_values and buffer.dtype == dtype and buffer.device == device
            if fits and users_of(buffer) == idle_users:
                return piece_of(buffer, 0, (num_values,))
        return torch.empty(num_values, dtype=dtype, device=device)


class GatheredShards:
    """An all-gather for `set_custom_all_gather`.

    Args:
        buffers: where shards come together.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for the shards of all ranks."""
        return self.buffers.take(math.prod(size), dtype, device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> None:
        """Send the shard of each rank, which lies in its place already, to all others."""
        assert not async_op
        parts = output_tensor.view(group.size(), -1)
        works = [
            dist.broadcast(part, group=group, group_src=rank, async_op=True)
            for rank, part in enumerate(parts)
        ]
        for work in works:
            work.wait()


class SummedShards:
    """A reduce-scatter for `set_custom_reduce_scatter`; only sums, and done when it returns.

    Args:
        buffers: where gradients are laid out by rank, and where their sums stay.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for gradients, and then for their sums."""
        return self.buffers.take(math.prod(size), dtype, device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Add up over the ranks of a group what each has for this one, in the order of ranks."""
        assert op == dist.ReduceOp.SUM
        assert not async_op
        ranks = group.size()
        rows = input_tensor.view(ranks, -1)
        step = max(1, min(_PIECE_VALUES // ranks, output_tensor.numel()))
        room = [input_tensor.new_empty(ranks * step) for _ in range(2)]
        for start in range(0, output_tensor.numel(), step):
            pieces = rows[:, start : start + step]
            mine, theirs = (values[: pieces.numel()].view_as(pieces) for values in room)
            dist.all_to_all_single(theirs, mine.copy_(pieces), group=group)
            torch.sum(theirs, 0, out=output_tensor[start : start + step])


def values_to_send(module: nn.Module, ranks: int) -> int:
    """Values of the weights of a module, each filled up to rows for every rank.

    Args:
        module: not sharded yet.
        ranks: that will have shards.
    """
    tensors = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in module.parameters()]
    return sum(-(-len(tensor) // ranks) * ranks * tensor[0].numel() for tensor in tensors)


def lay_out(tensors: list[Tensor], dim: int, num_chunks: int, *, out: Tensor) -> None:
    """Cut gradients for ranks, and lay them into a buffer.

    Args:
        tensors: of shape (rows, ...).
        dim: 0, in which they are cut.
        num_chunks: ranks, each of which gets as many rows of a tensor; zeros where there are no more.
        out: of shape (ranks, values of a rank), in the type of the sums.
    """
    assert dim == 0
    start = 0
    for tensor in tensors:
        rows, width = -(-len(tensor) // num_chunks), tensor[0].numel()
        for rank in range(num_chunks):
            # The last ranks may get fewer rows, or none.
            chunk = tensor[rank * rows : (rank + 1) * rows].reshape(-1)
            place = out[rank, start : start + rows * width]
            place[: chunk.numel()] = chunk
            place[chunk.numel() :] = 0
        start += rows * width


@cache
def _use_own_layout() -> torch.library.Library:
    """The framework lays gradients out by way of two copies of them all in their own type."""
    library = torch.library.Library("fsdp", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s)Warning only once for all operators.*Overriding")
        library.impl("chunk_cat", lay_out, "CPU")  # type: ignore[no-untyped-call]
    return library


def use_cpu_messages(
    layers: Sequence[Any],
    root: Any,
    sizes: tuple[int, int],
    ranks: int,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> tuple[Buffers, Buffers]:
    """Let sharded modules on CPUs exchange weights and gradients so.

    Args:
        layers: modules that are alike, each sharded for itself.
        root: the sharded module around them, with what is left.
        sizes: `values_to_send` of a layer, and of what is left.
        ranks: that have shards.
        dtypes: in which weights are gathered, and in which gradients are added up.

    Returns:
        What is to be reserved before the first step.
    """
    _use_own_layout()
    cpu, (layer, rest), (gathered, added) = torch.device("cpu"), sizes, dtypes
    # Sums in fp32 are the gradients themselves, and stay until the step; one more is added to them.
    staying = [layer // ranks] * len(layers) + [rest // ranks] if added == torch.float32 else []
    gather = GatheredShards(Buffers([layer] * _GATHERED if ranks > 1 else [], gathered, cpu))
    add_up = SummedShards(Buffers([*staying, layer // ranks, layer], added, cpu))
    for module in (*layers, root):
        assert isinstance(module, FSDPModule)
        module.set_custom_all_gather(gather)  # type: ignore[arg-type]
        module.set_custom_reduce_scatter(add_up)  # type: ignore[arg-type]
    return gather.buffers, add_up.buffers
