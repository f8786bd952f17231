"""Embeddings and encoder layers on N tokens laid end to end.

Legend: N tokens, D hidden, I intermediate, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import self_attention
from .config import EncoderConfig
from .dropout import DropoutKeys, dropout
from .layout import Layout

__all__ = ["Embeddings", "EncoderLayer"]

# Places in a layer where something is dropped; a layer's sites are numbered from SITES × (1 + layer).
_ATTENTION, _ATTENTION_OUTPUT, _OUTPUT = range(3)
SITES = 4


class _Lookup(torch.autograd.Function):
    """Rows of a table; the gradient is summed in fp32 even when the table is held in bf16.

    A frequent token occurs hundreds of times in a batch, and a sum of hundreds of bf16 numbers
    would lose most of them. Only the rows that occur are held in fp32.
    """

    @staticmethod
    def forward(ctx, weight_VD, ids_N):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(ids_N)
        ctx.shape, ctx.dtype = weight_VD.shape, weight_VD.dtype
        return weight_VD.index_select(0, ids_N)

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        (ids_N,) = ctx.saved_tensors
        used_U, rows_N = torch.unique(ids_N, return_inverse=True)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        sums_UD = grad_ND.new_zeros(len(used_U), ctx.shape[1], dtype=wide)
        sums_UD.index_add_(0, rows_N, grad_ND.to(wide))
        total_VD = grad_ND.new_zeros(ctx.shape, dtype=ctx.dtype)
        return total_VD.index_copy_(0, used_U, sums_UD.to(ctx.dtype)), None


class _GeluLinear(torch.autograd.Function):
    """linear(gelu(x)) that keeps x alone and computes gelu(x) again in the backward pass."""

    @staticmethod
    def forward(ctx, inner_NI, weight_DI, bias_D):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inner_NI, weight_DI)
        return F.linear(F.gelu(inner_NI), weight_DI, bias_D)

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        inner_NI, weight_DI = ctx.saved_tensors
        grad_weight = grad_ND.t() @ F.gelu(inner_NI)
        grad_inner = torch.ops.aten.gelu_backward(grad_ND @ weight_DI, inner_NI)
        return grad_inner, grad_weight, grad_ND.sum(0)


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised, then dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.first_position = config.pad_token_id + 1
        self.dropout_prob = config.hidden_dropout_prob

    def forward(self, ids_N: Tensor, layout: Layout, keys: DropoutKeys | None) -> Tensor:
        """Embed N token ids; returns (N, D)."""
        words_ND = _Lookup.apply(self.word.weight, ids_N)  # type: ignore[no-untyped-call]
        positions_ND = _Lookup.apply(self.position.weight, layout.positions + self.first_position)  # type: ignore[no-untyped-call]
        hidden_ND = self.norm(words_ND + self.token_type.weight[0] + positions_ND)
        return dropout(hidden_ND, keys, layout.lengths, 0, self.dropout_prob)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each with dropout, residual and layer norm after.

    Source: RoBERTa (arXiv 1907.11692) keeps BERT's layer (arXiv 1810.04805, section 3).
    """

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

    def forward(self, hidden_ND: Tensor, layout: Layout, keys: DropoutKeys | None) -> Tensor:
        """Transform N tokens; returns (N, D)."""
        site, p = self.first_site, self.hidden_dropout_prob
        context_ND = self_attention(
            self.qkv(hidden_ND), layout, self.num_heads, keys, site + _ATTENTION, self.attention_dropout_prob
        )
        update_ND = self.attention_output(context_ND)
        update_ND = dropout(update_ND, keys, layout.lengths, site + _ATTENTION_OUTPUT, p)
        hidden_ND = self.attention_norm(hidden_ND + update_ND)
        inner_NI = self.intermediate(hidden_ND)
        update_ND = _GeluLinear.apply(inner_NI, self.output.weight, self.output.bias)  # type: ignore[no-untyped-call]
        update_ND = dropout(update_ND, keys, layout.lengths, site + _OUTPUT, p)
        result: Tensor = self.output_norm(hidden_ND + update_ND)
        return result
