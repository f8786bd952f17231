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

import math

import torch
from torch import Tensor, nn

from .dropout import DropoutKeys, apply_keep
from .fused_attention import fused_attention
from .layout import Block, Layout
from .memory import Memory, linear, weight_gradient
from .workspace import Workspace, empty

__all__ = ["attend_and_project", "room_of_blocks", "self_attention"]

# What the backward pass holds of a block: queries, keys, values and their gradients, the context and its
# gradient; scores and their gradient.
_ROWS_OF_BLOCK, _SCORES_OF_BLOCK = 8, 2


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


class _Room:
    """Memory for what is computed of a block; the next block of the layer uses it again.

    Values of blocks in memory of their own would tear the heap into pieces that fit nothing else.
    """

    def __init__(
        self,
        space: Workspace | None,
        dtype: torch.dtype,
        blocks: tuple[Block, ...],
        num_heads: int,
        width: int,
    ) -> None:
        self._space, self._dtype, self._heads, self._width = space, dtype, num_heads, width
        self._places = num_heads * max(len(block.rows) * block.length for block in blocks)
        self._scores = num_heads * max(len(block.rows) * block.length**2 for block in blocks)
        self._buffers: dict[str, Tensor] = {}

    def rows(self, name: str, block: Block, parts: int = 1) -> Tensor:
        """Undefined values of shape (parts, G, L, E)."""
        shape = (parts, len(block.rows) * self._heads, block.length, self._width)
        return self._buffer(name, parts * self._places * self._width, shape)

    def scores(self, name: str, block: Block) -> Tensor:
        """Undefined values of shape (G, L, L)."""
        shape = (len(block.rows) * self._heads, block.length, block.length)
        return self._buffer(name, self._scores, shape)

    def _buffer(self, name: str, size: int, shape: tuple[int, ...]) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = empty(self._space, (size,), self._dtype)
        return self._buffers[name][: math.prod(shape)].view(shape)


def room_of_blocks(layout: Layout, num_heads: int, width: int) -> int:
    """Values that attention computes in at a time, at most.

    Args:
        layout: lengths of the sequences.
        num_heads: H.
        width: D.
    """
    blocks = layout.blocks(num_heads)
    places = max(len(block.rows) * block.length for block in blocks)
    scores = num_heads * max(len(block.rows) * block.length**2 for block in blocks)
    return _ROWS_OF_BLOCK * places * width + _SCORES_OF_BLOCK * scores


def _take(tensor_ND: Tensor, block: Block, num_heads: int, out: Tensor) -> Tensor:
    """The rows of a block, head by head, into a tensor of shape (parts, G, L, E)."""
    if block.index is None:
        rows = tensor_ND[block.start : block.start + len(block.rows) * block.length]
    else:
        rows = tensor_ND.index_select(0, block.index.flatten())
    split = rows.view(len(block.rows), block.length, num_heads, len(out), -1).permute(3, 0, 2, 1, 4)
    out.view(split.shape).copy_(split)
    return out


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


def _probabilities(scaled: Tensor, key: Tensor, block: Block, num_heads: int, room: _Room) -> Tensor:
    """Softmax of the scores of scaled queries, of shape (G, L, L); padded keys get nothing."""
    scores = torch.bmm(scaled, key.transpose(1, 2), out=room.scores("scores", block))
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
        blocks, width = layout.blocks(num_heads), weight_DD.shape[1] // num_heads
        room = _Room(space, qkv_ND.dtype, blocks, num_heads, width)
        for block in blocks:
            query, key, value = _take(qkv_ND, block, num_heads, room.rows("qkv", block, 3))
            probabilities = _probabilities(query.mul_(width**-0.5), key, block, num_heads, room)
            if keys is not None:
                apply_keep(probabilities, _keep(keys, block, num_heads, site, p, qkv_ND.dtype))
                value.mul_(1 / (1 - p))
            context = room.rows("context", block)
            torch.bmm(probabilities, value, out=context[0])
            _put(context_ND, context, block, num_heads)
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
        blocks, width = layout.blocks(num_heads), weight_DD.shape[1] // num_heads
        room = _Room(space, qkv_ND.dtype, blocks, num_heads, width)
        for block in blocks:
            values = _take(qkv_ND, block, num_heads, room.rows("qkv", block, 3))
            grad_out = _take(grad_context_ND, block, num_heads, room.rows("grad_out", block))[0]
            if min(block.lengths) < block.length:
                _clear_padding(grad_out, block, num_heads)
            keep = None
            if keys is not None:
                keep = _keep(keys, block, num_heads, site, p, qkv_ND.dtype)
                values[2] *= 1 / (1 - p)
            context, grads = _block_backward(values, grad_out, keep, block, num_heads, room)
            if keys is not None:
                grads[2] *= 1 / (1 - p)
            _put(context_ND, context, block, num_heads)
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
    values: Tensor, grad_out: Tensor, keep: Tensor | None, block: Block, num_heads: int, room: _Room
) -> tuple[Tensor, Tensor]:
    """The context of a block as (1, G, L, E), and gradients of queries, keys and values as (3, G, L, E)."""
    query, key, value = values
    scale = query.shape[-1] ** -0.5
    query.mul_(scale)
    probabilities = _probabilities(query, key, block, num_heads, room)
    grad_scores, dropped = room.scores("grad_scores", block), probabilities
    if keep is not None:
        # What is dropped of the probabilities is needed no longer than until the gradient takes its place.
        dropped = apply_keep(grad_scores.copy_(probabilities), keep)
    context, grads = room.rows("context", block), room.rows("grads", block, 3)
    torch.bmm(dropped, value, out=context[0])
    torch.bmm(dropped.transpose(1, 2), grad_out, out=grads[2])
    torch.bmm(grad_out, value.transpose(1, 2), out=grad_scores)
    if keep is not None:
        apply_keep(grad_scores, keep)
    # In place: a row is read before it is written.
    torch._softmax_backward_data(grad_scores, probabilities, -1, query.dtype, grad_input=grad_scores)
    torch.bmm(grad_scores, key, out=grads[0])
    grads[0] *= scale
    torch.bmm(grad_scores.transpose(1, 2), query, out=grads[1])
    return context, grads
