"""Cross entropy against a vocabulary of which each rank has some rows.

Legend: M predicted positions, D hidden, v rows of the vocabulary that are here.

No rank has the logits of the whole vocabulary. Ranks exchange three numbers a position (the best logit,
the sum of exponentials and the right logit) and, for the count of right guesses, the place of the best.
As in `model/loss.py` logits are kept once and become their own gradient, and sums run in fp32 or wider.

Source: Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3 (cross entropy in parts).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

__all__ = ["shared_cross_entropy"]

_CHUNK_VALUES = 1 << 20


def _chunks(logits_Mv: Tensor) -> list[slice]:
    step = max(1, _CHUNK_VALUES // logits_Mv.shape[1])
    return [slice(start, start + step) for start in range(0, logits_Mv.shape[0], step)]


def _best(logits_Mv: Tensor, first_row: int, num_rows: int, group: Any) -> tuple[Tensor, Tensor]:
    """The best logit of each position and the first entry of the vocabulary that has it."""
    own_M, place_M = logits_Mv.max(-1)
    best_M = own_M.to(torch.promote_types(own_M.dtype, torch.float32))
    own_M = best_M.clone()
    dist.all_reduce(best_M, dist.ReduceOp.MAX, group=group)
    first_M = torch.where(own_M == best_M, place_M + first_row, num_rows)
    dist.all_reduce(first_M, dist.ReduceOp.MIN, group=group)
    return best_M, first_M


def _target(labels_M: Tensor, first_row: int, num_here: int) -> tuple[Tensor, Tensor]:
    """Which labels are here, and their places; those of others are 0."""
    places_M = labels_M - first_row
    here_M = (places_M >= 0) & (places_M < num_here)
    return here_M, torch.where(here_M, places_M, 0)


class _SharedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_MD, weight_vD, bias_v, labels_M, rows, group):  # type: ignore[no-untyped-def]
        first_row, num_here, num_rows = rows
        logits_Mv = F.linear(hidden_MD, weight_vD, bias_v)
        best_M, first_M = _best(logits_Mv, first_row, num_rows, group)
        here_M, places_M = _target(labels_M, first_row, num_here)
        # Sums of exponentials, and the right logits.
        sums_2M = best_M.new_zeros(2, len(labels_M))
        for part in _chunks(logits_Mv):
            sums_2M[0, part] = torch.exp(logits_Mv[part].to(best_M.dtype) - best_M[part, None]).sum(-1)
        right_M = logits_Mv.gather(1, places_M[:, None])[:, 0].to(best_M.dtype)
        sums_2M[1] = torch.where(here_M, right_M, 0)
        dist.all_reduce(sums_2M, group=group)
        log_total_M = best_M + sums_2M[0].log()
        correct = (first_M == labels_M).sum()
        ctx.save_for_backward(hidden_MD, weight_vD, logits_Mv, log_total_M, here_M, places_M)
        ctx.group = group
        ctx.mark_non_differentiable(correct)
        return (log_total_M - sums_2M[1]).sum(), correct

    @staticmethod
    def backward(ctx, grad_loss, _):  # type: ignore[no-untyped-def]
        hidden_MD, weight_vD, logits_Mv, log_total_M, here_M, places_M = ctx.saved_tensors
        wide = log_total_M.dtype
        grad_bias_v = torch.zeros(len(weight_vD), dtype=wide, device=logits_Mv.device)
        for part in _chunks(logits_Mv):
            grad = torch.exp(logits_Mv[part].to(wide) - log_total_M[part, None])
            grad.scatter_add_(1, places_M[part, None], -here_M[part, None].to(wide))
            grad *= grad_loss
            grad_bias_v += grad.sum(0)
            logits_Mv[part] = grad.to(logits_Mv.dtype)
        grad_hidden_MD = logits_Mv @ weight_vD
        dist.all_reduce(grad_hidden_MD, group=ctx.group)
        grad_weight_vD = logits_Mv.t() @ hidden_MD
        return grad_hidden_MD, grad_weight_vD, grad_bias_v.to(weight_vD.dtype), None, None, None


def shared_cross_entropy(
    hidden_MD: Tensor,
    weight_vD: Tensor,
    bias_v: Tensor,
    labels_M: Tensor,
    first_row: int,
    num_rows: int,
    group: Any,
    tile: int = 1,
) -> tuple[Tensor, Tensor]:
    """`model.loss.vocabulary_cross_entropy` by several ranks; can be differentiated once.

    Args:
        hidden_MD: features of the predicted positions, the same on all ranks; so is their gradient.
        weight_vD: this rank's rows of the output embeddings.
        bias_v: and of the output bias.
        labels_M: right ids, int64.
        first_row: id of the first row that is here.
        num_rows: size of the vocabulary.
        group: ranks that share it.
        tile: the rows of this rank are filled up to a multiple of this, which matrix units may need.

    Returns:
        `(loss_sum, num_correct)`, the same on all ranks: fp32 scalar in nats, int64 scalar. A guess is
        right where the label is the first of the best.
    """
    rows = (first_row, len(weight_vD), num_rows)
    extra = -len(weight_vD) % tile
    if extra:
        weight_vD, bias_v = F.pad(weight_vD, (0, 0, 0, extra)), F.pad(bias_v, (0, extra), value=-math.inf)
    loss, correct = _SharedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_MD, weight_vD, bias_v, labels_M, rows, group
    )
    return loss, correct
