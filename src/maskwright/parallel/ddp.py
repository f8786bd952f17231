"""Whole copies of the model on every rank, whose gradients are added up once a step (data parallel).

A rank adds its micro-batches up by itself, in fp32, and need not have as many as another. While the
last of them runs backward, gradients are sent in buckets as soon as they are ready, the last layers
first. Unlike the framework's own wrapper, sums are taken in fp32 where the model computes in 16 bits,
and the gradients of earlier micro-batches are part of what is sent. Cost a step: each gradient is sent
and received about twice, 8 bytes a parameter in fp32.

Source: Li et al. 2020, "PyTorch distributed", arXiv 2006.15704, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core.errors import MaskwrightError
from .engine import Objective
from .masters import MakeOptimizer, Masters
from .single import SingleEngine
from .world import World

__all__ = ["DataParallelEngine", "GradientBuckets"]


@dataclass
class _Bucket:
    """Parameters whose gradients are sent together."""

    numbers: tuple[int, ...]
    sizes: tuple[int, ...]
    waiting: set[int] = field(default_factory=set)
    unused: set[int] = field(default_factory=set)
    values: Tensor | None = None
    work: Any = None


class GradientBuckets:
    """Adds gradients up over ranks, bucket by bucket, while later ones are still computed.

    Args:
        parameters: of the model, in their order.
        masters: hold the gradients.
        bucket_bytes: size of a bucket; a larger tensor has one for itself.
        dtype: type of the sums.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], masters: Masters, bucket_bytes: int, dtype: torch.dtype
    ) -> None:
        self.masters, self.dtype, self.device = masters, dtype, parameters[0].device
        self.buckets = _fill(parameters, max(1, bucket_bytes // dtype.itemsize))
        self._bucket_of = {number: bucket for bucket in self.buckets for number in bucket.numbers}
        self._sent, self._armed = 0, False
        for number, parameter in enumerate(parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._on_gradient, number))  # type: ignore[no-untyped-call]

    def arm(self) -> None:
        """From now on gradients are final: the next backward pass is the last of the step."""
        self._armed, self._sent = True, 0
        for bucket in self.buckets:
            bucket.waiting = set(bucket.numbers)

    def _on_gradient(self, number: int, _: Tensor) -> None:
        if not self._armed:
            return
        self._bucket_of[number].waiting.discard(number)
        # All ranks send in the same order, whatever becomes ready first.
        while self._sent < len(self.buckets) and not self.buckets[self._sent].waiting:
            self._send(self.buckets[self._sent])

    @torch.no_grad()
    def _send(self, bucket: _Bucket) -> None:
        values = torch.empty(sum(bucket.sizes), dtype=self.dtype, device=self.device)
        bucket.unused = set()
        for number, part in zip(bucket.numbers, values.split(bucket.sizes), strict=True):  # type: ignore[no-untyped-call]
            # What the loss does not depend on has no gradient on any rank, and stays as it is.
            if not self.masters.take_gradient(number, part):
                bucket.unused.add(number)
        bucket.values, bucket.work = values, dist.all_reduce(values, async_op=True)
        self._sent += 1

    def finish(self) -> None:
        """Send what is left, and put the sums in the place of the gradients."""
        if not self._armed:
            self.arm()
        for bucket in self.buckets[self._sent :]:
            self._send(bucket)
        self._armed = False
        for bucket in self.buckets:
            assert bucket.values is not None
            bucket.work.wait()
            for number, part in zip(bucket.numbers, bucket.values.split(bucket.sizes), strict=True):  # type: ignore[no-untyped-call]
                if number not in bucket.unused:
                    self.masters.put_gradient(number, part)
            bucket.values = bucket.work = None


def _fill(parameters: Sequence[nn.Parameter], most: int) -> list[_Bucket]:
    """Deal parameters out from the last to the first, as their gradients become ready."""
    groups: list[list[int]] = [[]]
    size = 0
    for number in reversed(range(len(parameters))):
        values = parameters[number].numel()
        if groups[-1] and size + values > most:
            groups.append([])
            size = 0
        groups[-1].append(number)
        size += values
    return [_Bucket(tuple(group), tuple(parameters[number].numel() for number in group)) for group in groups]


class DataParallelEngine(SingleEngine):
    """Runs steps on whole copies of the model, one a rank.

    Args:
        model: fp32, on the CPU, the same on every rank; it is moved and cast in place.
        make_optimizer: makes an optimiser of named fp32 parameters.
        device: where to compute.
        precision: `fp32`, `bf16` or `fp16`.
        max_grad_norm: gradients are scaled down to this norm; 0 turns that off.
        world: the processes of the run.
        reduce_precision: type of the sums over ranks, `fp32` or `bf16`.
        bucket_bytes: gradients sent at a time.

    Raises:
        MaskwrightError: the ranks do not begin with the same weights.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        device: str,
        precision: str,
        max_grad_norm: float,
        *,
        world: World,
        reduce_precision: str = "fp32",
        bucket_bytes: int = 64 << 20,
    ) -> None:
        super().__init__(model, make_optimizer, device, precision, max_grad_norm)
        self.world = world
        dtype = torch.float32 if reduce_precision == "fp32" else torch.bfloat16
        self.buckets = GradientBuckets(self.parameters, self.masters, bucket_bytes, dtype)
        self._check_copies()

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int], *, last: bool = True
    ) -> dict[str, float]:
        """As one process does; gradients are sent during the last micro-batch."""
        if last:
            self.buckets.arm()
        return super().forward_backward(objective, batch, totals, last=last)

    def _gather_gradients(self) -> None:
        self.buckets.finish()

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`; all ranks must have the same one."""
        super().load(state)
        self._check_copies()

    def _check_copies(self) -> None:
        """Copies that differ would drift apart and never say so."""
        mine = [sum(float(weight.detach().double().sum()) for weight in self.parameters)]
        rows = self.world.exchange(mine)
        different = [rank for rank, row in enumerate(rows) if row != rows[0]]
        if different:
            raise MaskwrightError(
                f"the weights of rank {different[0]} are not those of rank 0; start all ranks with the same "
                "code, settings and checkpoint"
            )
