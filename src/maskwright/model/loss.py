"""Cross entropy against a vocabulary, without a second copy of the logits.

Legend: M predicted positions, D hidden, V vocabulary. Logits are the largest tensors of a masked
language model. They are kept once, in the model's precision, and turned into their own gradient in
place; sums run in fp32 (or wider) over a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from .workspace import Workspace

__all__ = ["Workspaces", "vocabulary_cross_entropy"]

_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class Workspaces:
    """Where the two largest tensors lie."""

    logits: Workspace
    table_gradient: Workspace = field(default_factory=Workspace)

    def reserve(self, num_targets: int, weight_VD: Tensor) -> None:
        """Make room for both, at best before anything else of a step."""
        # Batches differ by some per cent in what is predicted.
        size = (num_targets + num_targets // 16) * len(weight_VD)
        self.logits.reserve(size, weight_VD.dtype)
        self.table_gradient.reserve(weight_VD.numel(), weight_VD.dtype)


class _VocabularyCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_MD, weight_VD, bias_V, labels_M, workspaces):  # type: ignore[no-untyped-def]
        ctx.workspaces = workspaces
        logits_MV = _product(hidden_MD, weight_VD, bias_V, workspaces)
        wide = torch.promote_types(logits_MV.dtype, torch.float32)
        log_total_M = torch.empty(len(labels_M), dtype=wide, device=logits_MV.device)
        correct = torch.zeros((), dtype=torch.int64, device=logits_MV.device)
        for rows in _chunks(logits_MV):
            log_total_M[rows] = torch.logsumexp(logits_MV[rows].to(wide), -1)
            correct += _num_correct(logits_MV[rows], labels_M[rows])
        target_M = logits_MV.gather(1, labels_M[:, None])[:, 0].to(wide)
        ctx.save_for_backward(hidden_MD, weight_VD, logits_MV, log_total_M, labels_M)
        ctx.mark_non_differentiable(correct)
        return (log_total_M - target_M).sum(), correct

    @staticmethod
    def backward(ctx, grad_loss, _):  # type: ignore[no-untyped-def]
        hidden_MD, weight_VD, logits_MV, log_total_M, labels_M = ctx.saved_tensors
        grad_MV = logits_MV
        wide = log_total_M.dtype
        grad_bias_V = torch.zeros(weight_VD.shape[0], dtype=wide, device=grad_MV.device)
        for rows in _chunks(logits_MV):
            grad = torch.exp(logits_MV[rows].to(wide) - log_total_M[rows, None])
            grad[torch.arange(len(grad), device=grad.device), labels_M[rows]] -= 1
            grad *= grad_loss
            grad_bias_V += grad.sum(0)
            grad_MV[rows] = grad.to(grad_MV.dtype)
        grad_VD = _table_gradient(grad_MV, hidden_MD, ctx.workspaces)
        return grad_MV @ weight_VD, grad_VD, grad_bias_V.to(weight_VD.dtype), None, None


def _product(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, workspaces: Workspaces | None) -> Tensor:
    if workspaces is None or hidden_MD.device.type != "cpu":
        return F.linear(hidden_MD, weight_VD, bias_V)
    shape = (len(hidden_MD), len(weight_VD))
    logits_MV = workspaces.logits.take(shape, hidden_MD.dtype)
    return torch.addmm(bias_V, hidden_MD, weight_VD.t(), out=logits_MV)


def _table_gradient(grad_MV: Tensor, hidden_MD: Tensor, workspaces: Workspaces | None) -> Tensor:
    if workspaces is None or hidden_MD.device.type != "cpu":
        return grad_MV.t() @ hidden_MD
    shape = (grad_MV.shape[1], hidden_MD.shape[1])
    grad_VD = workspaces.table_gradient.take(shape, hidden_MD.dtype)
    return torch.mm(grad_MV.t(), hidden_MD, out=grad_VD)


def _num_correct(logits_MV: Tensor, labels_M: Tensor) -> Tensor:
    """How often the label is the first of the best scores; only rows where it is among them are searched."""
    best_M = logits_MV.amax(-1)
    among = (logits_MV.gather(1, labels_M[:, None])[:, 0] == best_M).nonzero()[:, 0]
    return (logits_MV[among].argmax(-1) == labels_M[among]).sum()


def _chunks(logits_MV: Tensor) -> list[slice]:
    step = max(1, _CHUNK_VALUES // logits_MV.shape[1])
    return [slice(start, start + step) for start in range(0, logits_MV.shape[0], step)]


def vocabulary_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    labels_M: Tensor,
    workspaces: Workspaces | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of a softmax over the vocabulary, and how often the best guess is right.

    Can be differentiated once: the logits become their gradient.

    Args:
        hidden_MD: features of the predicted positions.
        weight_VD: output embeddings.
        bias_V: output bias.
        labels_M: right ids, int64.
        workspaces: buffers to use again; by default fresh memory.

    Returns:
        `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
    """
    loss, correct = _VocabularyCrossEntropy.apply(hidden_MD, weight_VD, bias_V, labels_M, workspaces)  # type: ignore[no-untyped-call]
    return loss, correct
