"""Norms of gradients, over all weights and by the part of the model that they belong to.

They are read before any weight changes, so that a bad step can be refused. Values are added up in
fp32, on the CPU in short rows: its running sum over the millions of values of a word table is wrong
in the third digit, and clipping with it. Cost: one reading of each gradient and one wait for the
device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

__all__ = ["GROUPS", "GradientNorms", "accurate_norms", "gradient_norms", "group_of"]

GROUPS = ("embeddings", "attention", "feed_forward", "norms", "head")
# Values that the CPU adds up in one sum.
_ROW = 2048
_ROWS = 512


@dataclass(frozen=True)
class GradientNorms:
    """Euclidean norms of the gradient of one step, before clipping.

    Attributes:
        total: of all weights together.
        groups: by the names of `GROUPS`, those that occur.
    """

    total: float
    groups: dict[str, float]

    @property
    def finite(self) -> bool:
        """Whether every gradient is a number."""
        return math.isfinite(self.total)


def group_of(parameter_name: str) -> str:
    """The part of the model that a parameter belongs to, by its name.

    Args:
        parameter_name: as in `named_parameters`, such as `encoder.layers.3.qkv.weight`.

    Returns:
        One of `GROUPS`. Layer norms are `norms` wherever they stand; what stands outside of
        embeddings and layers is `head`.
    """
    *owners, _ = parameter_name.split(".")
    if owners and owners[-1].endswith("norm"):
        return "norms"
    if "embeddings" in owners:
        return "embeddings"
    if "layers" not in owners:
        return "head"
    inner = owners[owners.index("layers") + 1 :]
    return "attention" if any("qkv" in part or "attention" in part for part in inner) else "feed_forward"


def accurate_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, right to six digits at any size.

    Args:
        tensors: of any shapes and one device; bf16 and fp16 are added up in fp32.

    Returns:
        float64 tensor with one norm each, on their device.
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.float64)
    dtype = reduce(torch.promote_types, {tensor.dtype for tensor in tensors}, torch.float32)
    if tensors[0].device.type == "cpu":
        return torch.stack([_norm(tensor.reshape(-1), dtype) for tensor in tensors])
    # Other devices add up in a tree already.
    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype=dtype)).double()


def _norm(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """Norm of a vector: rows in `dtype`, their sum in float64."""
    whole = flat.numel() // _ROW * _ROW
    squares: Tensor = torch.linalg.vector_norm(flat[whole:], dtype=dtype).double().square()
    if whole:
        # Not all at once: a norm in another type copies its input.
        for part in flat[:whole].view(-1, _ROW).split(_ROWS):  # type: ignore[no-untyped-call]
            rows = torch.linalg.vector_norm(part, dim=1, dtype=dtype)
            squares = squares + rows.double().square().sum()
    return squares.sqrt()


@torch.no_grad()
def gradient_norms(named_grads: Iterable[tuple[str, Tensor]]) -> GradientNorms:
    """Measure the gradient of a step.

    Args:
        named_grads: name of each parameter and its gradient; all on one device.

    Returns:
        Norms in fp32 accuracy; not finite where a gradient is not.
    """
    named = list(named_grads)
    norms: list[float] = accurate_norms([grad for _, grad in named]).tolist()
    squares = dict.fromkeys(GROUPS, 0.0)
    present = set()
    for (name, _), norm in zip(named, norms, strict=True):
        group = group_of(name)
        squares[group] += norm * norm
        present.add(group)
    groups = {group: math.sqrt(squares[group]) for group in GROUPS if group in present}
    return GradientNorms(math.sqrt(sum(squares.values())), groups)
