"""The encoder layer on N tokens laid end to end.

Legend: N tokens, D hidden, I intermediate.

On the CPU a layer keeps for its backward pass: the two sums before its norms, queries, keys and values,
and the input of gelu; 9 × D values a token instead of some 16. The rest is computed again for little.
Other devices use the framework's own operations, which its compiler can fuse.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import room_of_blocks, self_attention
from .config import EncoderConfig
from .dropout import DropoutKeys, dropout
from .layout import Layout
from .memory import Memory, gelu_into, linear, linear_into, weight_gradient

__all__ = ["EncoderLayer", "Hidden"]

# Places in a layer where something is dropped; a layer's sites are numbered from SITES × (1 + layer).
ATTENTION_SITE, ATTENTION_OUTPUT_SITE, OUTPUT_SITE = range(3)
SITES = 4
# Values that the alignment of the pieces of a workspace may take.
_ALIGNING = 1024


class Hidden(NamedTuple):
    """What a layer hands on: a normalised value, and on the CPU what it can be computed from.

    A matrix product needs its input again for the gradient of its weights. Where the input is a
    layer norm of something that is kept anyway, it is cheaper to normalise again than to keep it.

    Attributes:
        value: of shape (N, D).
        source: what was normalised, (N, D); None where the value has another origin.
        scale: of the layer norm, a copy of shape (D,): engines may move the parameter itself.
        shift: likewise.
        eps: of the layer norm.
    """

    value: Tensor
    source: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    eps: float = 0.0

    @classmethod
    def normalised(cls, source_ND: Tensor, norm: nn.LayerNorm) -> Hidden:
        """The layer norm of a sum of residual and update."""
        if source_ND.device.type != "cpu" or not source_ND.requires_grad:
            return cls(norm(source_ND))
        scale, shift = norm.weight.detach().clone(), norm.bias.detach().clone()
        return cls(norm(source_ND), source_ND.detach(), scale, shift, norm.eps)

    @property
    def kept(self) -> tuple[Tensor | None, ...]:
        """What is saved of the value: itself, or what it can be computed from."""
        return (self.value, None, None) if self.source is None else (self.source, self.scale, self.shift)


def _again(kept: Any, eps: float) -> Tensor:
    """The value of which `Hidden.kept` was saved."""
    source_ND, scale_D, shift_D = kept
    if scale_D is None:
        value: Tensor = source_ND
        return value
    return F.layer_norm(source_ND, scale_D.shape, scale_D, shift_D, eps)


class _Linear(torch.autograd.Function):
    """A linear layer that normalises its input again instead of keeping it."""

    @staticmethod
    def forward(ctx, value_ND, weight, bias, hidden, memory):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight, *hidden.kept)
        ctx.eps, ctx.memory = hidden.eps, memory
        return linear(value_ND, weight, bias, memory)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        weight, *kept = ctx.saved_tensors
        grad_weight = weight_gradient(grad, _again(kept, ctx.eps), ctx.memory)
        return grad @ weight, grad_weight, grad.sum(0), None, None


class _FeedForward(torch.autograd.Function):
    """linear(gelu(linear(x))) that keeps neither gelu's result nor, where asked, its input."""

    @staticmethod
    def forward(ctx, value_ND, weight_ID, bias_I, weight_DI, bias_D, hidden, recompute, memory):  # type: ignore[no-untyped-def]
        kept, _, scratch = memory or (None, None, None)
        inner_NI = linear_into(scratch if recompute else kept, value_ND, weight_ID, bias_I)
        out_ND = linear_into(kept, gelu_into(scratch, inner_NI), weight_DI, bias_D)
        ctx.save_for_backward(weight_ID, bias_I, weight_DI, None if recompute else inner_NI, *hidden.kept)
        ctx.eps, ctx.memory = hidden.eps, memory
        return out_ND

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        weight_ID, bias_I, weight_DI, inner_NI, *kept = ctx.saved_tensors
        scratch = None if ctx.memory is None else ctx.memory.scratch
        value_ND = _again(kept, ctx.eps)
        if inner_NI is None:
            inner_NI = linear_into(scratch, value_ND, weight_ID, bias_I)
        # One buffer: gelu's result, then the gradient of it, then that of its input.
        buffer_NI = gelu_into(scratch, inner_NI)
        grad_weight_DI = weight_gradient(grad_ND, buffer_NI, ctx.memory)
        torch.mm(grad_ND, weight_DI, out=buffer_NI)
        torch.ops.aten.gelu_backward.grad_input(buffer_NI, inner_NI, grad_input=buffer_NI)
        grad_weight_ID = weight_gradient(buffer_NI, value_ND, ctx.memory)
        grads = (buffer_NI @ weight_ID, grad_weight_ID, buffer_NI.sum(0))
        return *grads, grad_weight_DI, grad_ND.sum(0), None, None, None


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each with dropout, residual and layer norm after.

    Source: RoBERTa (arXiv 1907.11692) keeps BERT's layer (arXiv 1810.04805, section 3).
    """

    # Whether the framework's own operations on the same weights are the same layer, so that it may be
    # replaced by them; not where ranks share it.
    is_plain = True

    def __init__(self, config: EncoderConfig, number: int) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.hidden_dropout_prob = config.hidden_dropout_prob
        self.attention_dropout_prob = config.attention_probs_dropout_prob
        self.first_site = SITES * (1 + number)
        # Set from outside: trades about a ninth of a layer's arithmetic for a third of its memory.
        self.recompute_feed_forward = False
        self.memory: Memory | None = None

    def forward(self, hidden: Hidden, layout: Layout, keys: DropoutKeys | None) -> Hidden:
        """Transform N tokens."""
        site, p = self.first_site, self.hidden_dropout_prob
        update_ND = self_attention(
            self._qkv(hidden),
            layout,
            self.num_heads,
            self.attention_output,
            keys,
            site + ATTENTION_SITE,
            self.attention_dropout_prob,
            self._memory,
        )
        update_ND = dropout(update_ND, keys, layout.lengths, site + ATTENTION_OUTPUT_SITE, p, inplace=True)
        hidden = Hidden.normalised(update_ND.add_(hidden.value), self.attention_norm)
        update_ND = self._feed_forward(hidden)
        update_ND = dropout(update_ND, keys, layout.lengths, site + OUTPUT_SITE, p, inplace=True)
        return Hidden.normalised(update_ND.add_(hidden.value), self.output_norm)

    @property
    def _memory(self) -> Memory | None:
        return self.memory if torch.is_grad_enabled() else None

    def make_room(self, layout: Layout, dtype: torch.dtype) -> None:
        """Reserve memory for what the layer keeps, for gradients of its size, and to compute in."""
        if self.memory is None or not torch.is_grad_enabled():
            return
        # Not from the weights, which are not here yet where ranks share them out.
        inner, width = self.intermediate.out_features, self.intermediate.in_features
        num_tokens = sum(layout.lengths)
        kept = num_tokens * (5 * width + (0 if self.recompute_feed_forward else inner)) + _ALIGNING
        matrices = 2 * width * (2 * width + inner) + _ALIGNING
        self.memory.kept.reserve(max(kept, matrices), dtype)
        self.memory.gradients.reserve(matrices, dtype)
        attention = num_tokens * 5 * width + room_of_blocks(layout, self.num_heads, width)
        self.memory.scratch.reserve(max(num_tokens * 2 * inner, attention) + _ALIGNING, dtype)

    def _qkv(self, hidden: Hidden) -> Tensor:
        if hidden.value.device.type != "cpu":
            plain: Tensor = self.qkv(hidden.value)
            return plain
        result: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            hidden.value, self.qkv.weight, self.qkv.bias, hidden, self._memory
        )
        return result

    def _feed_forward(self, hidden: Hidden) -> Tensor:
        if hidden.value.device.type != "cpu":
            plain: Tensor = self.output(F.gelu(self.intermediate(hidden.value)))
            return plain
        result: Tensor = _FeedForward.apply(  # type: ignore[no-untyped-call]
            hidden.value,
            self.intermediate.weight,
            self.intermediate.bias,
            self.output.weight,
            self.output.bias,
            hidden,
            self.recompute_feed_forward,
            self._memory,
        )
        return result
