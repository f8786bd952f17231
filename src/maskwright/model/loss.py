"""Cross entropy against a vocabulary, without a second copy of the logits.

Legend: M predicted positions, D hidden, V vocabulary. Logits are the largest tensors of a masked
language model. They are kept once, in the model's precision, and turned into their own gradient in
place; sums run in fp32 (or wider) over a few rows at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["vocabulary_cross_entropy"]

_CHUNK_VALUES = 1 << 22


class _VocabularyCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_MD, weight_VD, bias_V, labels_M):  # type: ignore[no-untyped-def]
        logits_MV = F.linear(hidden_MD, weight_VD, bias_V)
        wide = torch.promote_types(logits_MV.dtype, torch.float32)
        log_total_M = torch.empty(len(labels_M), dtype=wide, device=logits_MV.device)
        correct = torch.zeros((), dtype=torch.int64, device=logits_MV.device)
        for rows in _chunks(logits_MV):
            log_total_M[rows] = torch.logsumexp(logits_MV[rows].to(wide), -1)
            correct += (logits_MV[rows].argmax(-1) == labels_M[rows]).sum()
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
        return grad_MV @ weight_VD, grad_MV.t() @ hidden_MD, grad_bias_V.to(weight_VD.dtype), None


def _chunks(logits_MV: Tensor) -> list[slice]:
    step = max(1, _CHUNK_VALUES // logits_MV.shape[1])
    return [slice(start, start + step) for start in range(0, logits_MV.shape[0], step)]


def vocabulary_cross_entropy(
    hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of a softmax over the vocabulary, and how often the best guess is right.

    Can be differentiated once: the logits become their gradient.

    Args:
        hidden_MD: features of the predicted positions.
        weight_VD: output embeddings.
        bias_V: output bias.
        labels_M: right ids, int64.

    Returns:
        `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
    """
    loss, correct = _VocabularyCrossEntropy.apply(hidden_MD, weight_VD, bias_V, labels_M)  # type: ignore[no-untyped-call]
    return loss, correct
