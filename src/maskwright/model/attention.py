"""Self-attention over sequences laid end to end; a token sees its own sequence and nothing else.

Legend: N tokens, D hidden, H heads, L length of a block, E head width, G = rows × H of a block.
Queries, keys and values come head by head: E values of each for the first head, then for the second.

On the CPU a block of scores is small enough for the cache, is computed with plain matrix products,
and is computed again in the backward pass instead of being kept; measured against the fused kernel
of the framework this takes less than half the time, and it can drop attention values, which that
kernel cannot. Neither probabilities nor context vectors are kept: queries, keys and values are all that
the backward pass needs. Elsewhere the framework's fused attention is used.

Source: Vaswani et al. 2017, section 3.2; the recomputation follows Dao et al. 2022, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dropout import DropoutKeys, apply_keep
from .fused_attention import fused_attention
from .layout import Block, Layout
from .memory import Memory, linear, weight_gradient
from .workspace import empty

__all__ = ["attend_and_project", "self_attention"]


def self_attention(
    qkv_ND: Tensor,
    layout: Layout,
    num_heads: int,
    output: nn.Linear,
    keys: DropoutKeys | None,
    site: int,
    p: float,
    memory: Memory | None = None,
) -> Tensor:
    """Attend within each sequence and project the result.

    Args:
        qkv_ND: queries, keys and values, head by head, of shape (N, 3 × D).
        layout: lengths of the sequences.
        num_heads: H.
        output: the projection, D to D. It is part of the operation because its gradient needs the
            context vectors, which come for one more product when the scores are computed again.
        keys: keys for dropout; None turns it off.
        site: number of the place in the model.
        p: share of attention probabilities to drop.
        memory: where the result and the gradient of the projection lie; by default anywhere.

    Returns:
        Tensor of shape (N, D).
    """
    if qkv_ND.device.type != "cpu":
        context_ND = fused_attention(qkv_ND, layout, num_heads, p if keys is not None else 0.0)
        projected: Tensor = output(context_ND)
        return projected
    return attend_and_project(qkv_ND, layout, num_heads, output.weight, output.bias, keys, site, p, memory)


def attend_and_project(
    qkv_ND: Tensor,
    layout: Layout,
    num_heads: int,
    weight_DD: Tensor,
    bias_D: Tensor | None,
    keys: DropoutKeys | None,
    site: int,
    p: float,
    memory: Memory | None = None,
) -> Tensor:
    """Attention in blocks, on the CPU, for all heads or for some of them.

    Args:
        qkv_ND: queries, keys and values, head by head, of shape (N, 3 × H × E).
        layout: lengths of the sequences.
        num_heads: H, those that are here.
        weight_DD: columns of the projection for these heads, of shape (D, H × E).
        bias_D: its bias; None leaves it out, and needs no `memory`.
        keys: keys for dropout; None turns it off.
        site: number of the place in the model.
        p: share of attention probabilities to drop.
        memory: where the result and the gradient of the projection lie; by default anywhere.

    Returns:
        Tensor of shape (N, D); of some heads their share of the sum.
    """
    if p == 0:
        keys = None
    result: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        qkv_ND, weight_DD, bias_D, layout, num_heads, keys, site, p, memory
    )
    return result


def _take(tensor_ND: Tensor, block: Block, parts: int, num_heads: int) -> Tensor:
    """The rows of a block as (parts, G, L, E), contiguous."""
    if block.index is None:
        rows = tensor_ND[block.start : block.start + len(block.rows) * block.length]
    else:
        rows = tensor_ND.index_select(0, block.index.flatten())
    split = rows.view(len(block.rows), block.length, num_heads, parts, -1).permute(3, 0, 2, 1, 4)
    return split.reshape(parts, len(block.rows) * num_heads, block.length, -1)


def _put(target_ND: Tensor, values: Tensor, block: Block, num_heads: int) -> None:
    """Write (parts, G, L, E) back to the tokens of a block, leaving padding out."""
    parts, _, length, width = values.shape
    rows = values.view(parts, len(block.rows), num_heads, length, width).permute(1, 3, 2, 0, 4)
    if block.index is None:
        stop = block.start + len(block.rows) * length
        target_ND[block.start : stop].view(rows.shape).copy_(rows)
        return
    flat = rows.reshape(len(block.rows), length, -1)
    for row, (index, real) in enumerate(zip(block.index, block.lengths, strict=True)):
        start = int(index[0])
        target_ND[start : start + real] = flat[row, :real]


def _probabilities(query: Tensor, key: Tensor, block: Block, num_heads: int) -> Tensor:
    """Softmax of scaled scores, of shape (G, L, L); padded keys get nothing."""
    scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
    if min(block.lengths) < block.length:
        rows = scores.view(len(block.rows), num_heads, block.length, block.length)
        for row, real in enumerate(block.lengths):
            rows[row, :, :, real:] = float("-inf")
    return torch.softmax(scores, -1, out=scores)


def _keep(keys: DropoutKeys, block: Block, num_heads: int, site: int, p: float, dtype: torch.dtype) -> Tensor:
    """Which probabilities stay, of shape (G, L, L); drawn by real length, so padding changes nothing."""
    sizes = [num_heads * real * real for real in block.lengths]
    flat = keys.keep(block.rows, sizes, site, p, dtype)
    if min(block.lengths) == block.length:
        return flat.view(-1, block.length, block.length)
    keep = flat.new_zeros(len(block.rows), num_heads, block.length, block.length)
    for row, (part, real) in enumerate(zip(torch.split(flat, sizes), block.lengths, strict=True)):
        keep[row, :, :real, :real] = part.view(num_heads, real, real)
    return keep.view(-1, block.length, block.length)


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv_ND, weight_DD, bias_D, layout, num_heads, keys, site, p, memory):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(qkv_ND, weight_DD)
        ctx.memory = memory
        ctx.arguments = (layout, num_heads, keys, site, p)
        space = None if memory is None else memory.scratch
        context_ND = empty(space, (qkv_ND.shape[0], weight_DD.shape[1]), qkv_ND.dtype)
        for block in layout.blocks(num_heads):
            query, key, value = _take(qkv_ND, block, 3, num_heads)
            probabilities = _probabilities(query, key, block, num_heads)
            if keys is not None:
                apply_keep(probabilities, _keep(keys, block, num_heads, site, p, qkv_ND.dtype))
                value = value * (1 / (1 - p))
            _put(context_ND, torch.bmm(probabilities, value)[None], block, num_heads)
        return linear(context_ND, weight_DD, bias_D, memory)

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        qkv_ND, weight_DD = ctx.saved_tensors
        layout, num_heads, keys, site, p = ctx.arguments
        space = None if ctx.memory is None else ctx.memory.scratch
        shape = (len(grad_ND), weight_DD.shape[1])
        grad_context_ND, context_ND, grad_qkv_ND = (
            empty(space, size, qkv_ND.dtype) for size in (shape, shape, tuple(qkv_ND.shape))
        )
        torch.mm(grad_ND, weight_DD, out=grad_context_ND)
        for block in layout.blocks(num_heads):
            query, key, value = _take(qkv_ND, block, 3, num_heads)
            grad_out = _take(grad_context_ND, block, 1, num_heads)[0]
            if min(block.lengths) < block.length:
                _clear_padding(grad_out, block, num_heads)
            probabilities = _probabilities(query, key, block, num_heads)
            keep, dropped = None, probabilities
            if keys is not None:
                keep = _keep(keys, block, num_heads, site, p, qkv_ND.dtype)
                dropped = apply_keep(probabilities.clone(), keep)
                value = value * (1 / (1 - p))
            _put(context_ND, torch.bmm(dropped, value)[None], block, num_heads)
            grads = _block_backward(probabilities, dropped, keep, (query, key, value), grad_out)
            if keys is not None:
                grads[2] *= 1 / (1 - p)
            _put(grad_qkv_ND, grads, block, num_heads)
        grad_weight_DD = weight_gradient(grad_ND, context_ND, ctx.memory)
        grad_bias_D = grad_ND.sum(0) if ctx.needs_input_grad[2] else None
        return grad_qkv_ND, grad_weight_DD, grad_bias_D, *(None,) * 6


def _clear_padding(grad_out: Tensor, block: Block, num_heads: int) -> None:
    """Padded queries repeat a real token; their gradient must not count twice."""
    rows = grad_out.view(len(block.rows), num_heads, block.length, -1)
    for row, real in enumerate(block.lengths):
        rows[row, :, real:] = 0


def _block_backward(
    probabilities: Tensor,
    dropped: Tensor,
    keep: Tensor | None,
    qkv: tuple[Tensor, Tensor, Tensor],
    grad_out: Tensor,
) -> Tensor:
    """Gradients of query, key and value of one block, stacked as (3, G, L, E)."""
    query, key, value = qkv
    grads = query.new_empty(3, *query.shape)
    torch.bmm(dropped.transpose(1, 2), grad_out, out=grads[2])
    grad_scores = torch.bmm(grad_out, value.transpose(1, 2))
    if keep is not None:
        apply_keep(grad_scores, keep)
    grad_scores = torch._softmax_backward_data(grad_scores, probabilities, -1, query.dtype)
    grad_scores_scaled = grad_scores.mul_(query.shape[-1] ** -0.5)
    torch.bmm(grad_scores_scaled, key, out=grads[0])
    torch.bmm(grad_scores_scaled.transpose(1, 2), query, out=grads[1])
    return grads
