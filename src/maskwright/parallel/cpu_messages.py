"""How shards travel between CPUs: sums in pieces, weights without a copy, buffers that are used again.

Gloo deals sums out by adding up a copy of the whole on every rank, of which each then takes its part: twice
the bytes of a ring, and a buffer of the size of the largest group of weights. Its gather collects in a
buffer of its own, too. Here ranks send each other the pieces that the other one needs and add up what comes,
and each sends its shard to where it is to lie. Cost: the bytes of a ring, and a few MiB beside the buffers.

Layers are alike, so their buffers are lent to one after the other: fresh ones for each would tear the heap
into holes that fit nothing else. Those of the largest group are too large to keep, and go back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

__all__ = ["Buffers", "GatheredShards", "SummedShards", "use_cpu_messages"]

# Values that a rank sends and receives at a time.
_PIECE_VALUES = 1 << 20
# A layer that is gathered while what the one before it was taken apart from is still held.
_GATHERED = 2


class Buffers:
    """Memory that is lent again when nobody holds it any more.

    Args:
        count: how many are kept; what is asked for beyond is fresh memory.
    """

    def __init__(self, count: int) -> None:
        self._kept: list[tuple[Tensor, int] | None] = [None] * count

    def take(self, num_values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A vector with undefined content.

        Args:
            num_values: its length.
            dtype: of the values.
            device: where it is to lie.
        """
        for place, kept in enumerate(self._kept):
            if kept is not None and _users(kept[0]) > kept[1]:
                continue
            if kept is None or kept[0].numel() < num_values or kept[0].dtype != dtype:
                self._kept[place] = kept = None  # first free, then allocate
                buffer = torch.empty(num_values, dtype=dtype, device=device)
                self._kept[place] = kept = (buffer, _users(buffer))
            # Not a view, which would hold the buffer itself for longer than its own user.
            lent: Any = torch.empty(0, dtype=dtype, device=device)
            result: Tensor = lent.set_(kept[0].untyped_storage(), 0, (num_values,))
            return result
        return torch.empty(num_values, dtype=dtype, device=device)


def _users(buffer: Tensor) -> int:
    storage: Any = buffer.untyped_storage()
    users: int = torch._C._storage_Use_Count(storage._cdata)
    return users


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
        buffers: where gradients are laid out by rank.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for gradients, and then, while the first is held, for their sums."""
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
        step = max(1, _PIECE_VALUES // ranks)
        for start in range(0, output_tensor.numel(), step):
            mine = rows[:, start : start + step].contiguous()
            theirs = torch.empty_like(mine)
            dist.all_to_all_single(theirs, mine, group=group)
            torch.sum(theirs, 0, out=output_tensor[start : start + step])
            del mine, theirs


def use_cpu_messages(layers: Sequence[Any], root: Any) -> None:
    """Let sharded modules on CPUs exchange weights and gradients so.

    Args:
        layers: modules that are alike, each sharded for itself.
        root: the sharded module around them, with what is left.
    """
    shared = GatheredShards(Buffers(_GATHERED)), SummedShards(Buffers(1))
    for module in (*layers, root):
        assert isinstance(module, FSDPModule)
        gather, add_up = (GatheredShards(Buffers(0)), SummedShards(Buffers(0))) if module is root else shared
        module.set_custom_all_gather(gather)  # type: ignore[arg-type]
        module.set_custom_reduce_scatter(add_up)  # type: ignore[arg-type]
