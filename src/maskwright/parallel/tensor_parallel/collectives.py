"""What ranks that share a layer send each other within a pass, with its gradient.

Legend: N tokens, T ranks, C = N / T rounded up, the tokens of a rank; the last rank's are filled up.

A matrix that is cut by its outputs needs all tokens and gives each rank some columns; one that is cut by
its inputs gives each rank a share of a sum. Between them hidden values lie on the ranks by tokens: what
is gathered before a block and added up after it is sent once each way in each direction.

Source: Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models",
arXiv 2205.05198, section 4.2.2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gather_columns", "gather_tokens", "scatter_sum", "spread"]

Group = Any  # dist.ProcessGroup, which is not typed
# Their names up to torch 2.12 are deprecated since.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def _gather(part: Tensor, group: Group) -> Tensor:
    out = part.new_empty(len(part) * dist.get_world_size(group), *part.shape[1:])
    _all_gather(out, part.contiguous(), group=group)
    return out


def _fill_up(tokens_ND: Tensor, size: int) -> Tensor:
    """Rows of zeros at the end until ranks have equally many."""
    extra = -len(tokens_ND) % size
    return F.pad(tokens_ND, (0, 0, 0, extra)) if extra else tokens_ND


def _own(tokens_ND: Tensor, group: Group) -> Tensor:
    size = dist.get_world_size(group)
    return _fill_up(tokens_ND, size).chunk(size)[dist.get_rank(group)]


def _add_up(tokens_ND: Tensor, group: Group) -> Tensor:
    """The sum over ranks, of which each has its own tokens."""
    size = dist.get_world_size(group)
    filled = _fill_up(tokens_ND, size)
    out = filled.new_empty(len(filled) // size, *filled.shape[1:])
    _reduce_scatter(out, filled.contiguous(), group=group)
    return out


class _GatherTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own_CD, num_tokens, group, shared):  # type: ignore[no-untyped-def]
        ctx.group, ctx.shared = group, shared
        return _gather(own_CD, group)[:num_tokens]

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        back = _add_up if ctx.shared else _own
        return back(grad_ND, ctx.group), None, None, None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, share_ND, group):  # type: ignore[no-untyped-def]
        ctx.num_tokens, ctx.group = len(share_ND), group
        return _add_up(share_ND, group)

    @staticmethod
    def backward(ctx, grad_CD):  # type: ignore[no-untyped-def]
        return _gather(grad_CD, ctx.group)[: ctx.num_tokens], None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, group):  # type: ignore[no-untyped-def]
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _GatherColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own_Mc, width, group):  # type: ignore[no-untyped-def]
        size, rank = dist.get_world_size(group), dist.get_rank(group)
        most = -(-width // size)
        ctx.columns = slice(rank * most, rank * most + own_Mc.shape[1])
        filled = F.pad(own_Mc, (0, most - own_Mc.shape[1]))
        return _gather(filled.t(), group)[:width].t()

    @staticmethod
    def backward(ctx, grad_MC):  # type: ignore[no-untyped-def]
        return grad_MC[:, ctx.columns], None, None


def gather_tokens(own_CD: Tensor, num_tokens: int, group: Group, *, shared: bool) -> Tensor:
    """The tokens of all ranks, in order.

    Args:
        own_CD: tokens of this rank.
        num_tokens: N, without what fills the last rank up.
        group: ranks that share the layer.
        shared: whether each rank goes on with a share of the work, so that gradients are added up; else
            all ranks do the same with them, and each keeps the gradient of its own tokens.

    Returns:
        Tensor of shape (N, D).
    """
    result: Tensor = _GatherTokens.apply(own_CD, num_tokens, group, shared)  # type: ignore[no-untyped-call]
    return result


def scatter_sum(share_ND: Tensor, group: Group) -> Tensor:
    """Add up the shares of all ranks and keep this rank's tokens of the sum; (N, D) to (C, D)."""
    result: Tensor = _ScatterSum.apply(share_ND, group)  # type: ignore[no-untyped-call]
    return result


def spread(value: Tensor, group: Group) -> Tensor:
    """The same value, with which each rank does a share of the work: gradients are added up."""
    result: Tensor = _Spread.apply(value, group)  # type: ignore[no-untyped-call]
    return result


def gather_columns(own_Mc: Tensor, width: int, group: Group) -> Tensor:
    """The columns of all ranks, with which all ranks do the same.

    Args:
        own_Mc: columns of this rank, cut as tensors are cut between ranks.
        width: columns in all.
        group: ranks that share the layer.

    Returns:
        Tensor of shape (M, width).
    """
    result: Tensor = _GatherColumns.apply(own_Mc, width, group)  # type: ignore[no-untyped-call]
    return result
