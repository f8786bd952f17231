"""Token ids to vectors: word, position and token-type tables, summed and normalised.

Legend: N tokens, D hidden, V vocabulary, U rows of a table that occur.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import EncoderConfig
from .dropout import DropoutKeys, dropout
from .layout import Layout

__all__ = ["Embeddings", "tied_lookup"]


def _row_sums(ids_N: Tensor, grad_ND: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of a table that occur, and the sums of their gradients, added up in fp32 or wider.

    A frequent token occurs hundreds of times in a batch, and a sum of hundreds of bf16 numbers
    would lose most of them. Only the rows that occur are held in fp32.
    """
    used_U, rows_N = torch.unique(ids_N, return_inverse=True)
    wide = torch.promote_types(dtype, torch.float32)
    sums_UD = grad_ND.new_zeros(len(used_U), grad_ND.shape[1], dtype=wide)
    sums_UD.index_add_(0, rows_N, grad_ND.to(wide))
    return used_U, sums_UD.to(dtype)


class _Lookup(torch.autograd.Function):
    """Rows of a table."""

    @staticmethod
    def forward(ctx, weight_VD, ids_N):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(ids_N)
        ctx.shape, ctx.dtype = weight_VD.shape, weight_VD.dtype
        return weight_VD.index_select(0, ids_N)

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        (ids_N,) = ctx.saved_tensors
        used_U, rows_UD = _row_sums(ids_N, grad_ND, ctx.dtype)
        return grad_ND.new_zeros(ctx.shape, dtype=ctx.dtype).index_copy_(0, used_U, rows_UD), None


class _TiedLookup(torch.autograd.Function):
    """Rows of a table, and the table itself for the output layer.

    The gradient of the output layer is dense and comes first; those of the rows are added into it
    in place. Autograd alone would make a second dense gradient of zeros and a third for the sum.
    """

    @staticmethod
    def forward(ctx, weight_VD, ids_N):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(ids_N)
        return weight_VD.index_select(0, ids_N), weight_VD.view_as(weight_VD)

    @staticmethod
    def backward(ctx, grad_ND, grad_VD):  # type: ignore[no-untyped-def]
        (ids_N,) = ctx.saved_tensors
        return grad_VD.index_add_(0, *_row_sums(ids_N, grad_ND, grad_VD.dtype)), None


def tied_lookup(weight_VD: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the word table, and the table as the output layer is to use it.

    Args:
        weight_VD: the word table.
        ids_N: token ids, int64.

    Returns:
        `(words_ND, table_VD)`.
    """
    words_ND, table_VD = _TiedLookup.apply(weight_VD, ids_N)  # type: ignore[no-untyped-call]
    return words_ND, table_VD


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised, then dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.first_position = config.first_position
        self.dropout_prob = config.hidden_dropout_prob

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None,
        token_types_N: Tensor | None = None,
        words_ND: Tensor | None = None,
    ) -> Tensor:
        """Embed N token ids.

        Args:
            ids_N: token ids, int64.
            layout: lengths of their sequences.
            keys: keys for dropout; None turns it off.
            token_types_N: type of each token, int64; None takes 0 for all.
            words_ND: word embeddings of the ids, where the caller has looked them up.

        Returns:
            Tensor of shape (N, D).

        Raises:
            ValueError: there are token types, but the model has only one.
        """
        if words_ND is None:
            words_ND = _Lookup.apply(self.word.weight, ids_N)  # type: ignore[no-untyped-call]
        positions_ND = _Lookup.apply(self.position.weight, layout.positions + self.first_position)  # type: ignore[no-untyped-call]
        types = self.token_type.weight[0] if token_types_N is None else self._types(token_types_N)
        hidden_ND = self.norm(words_ND + types + positions_ND)
        return dropout(hidden_ND, keys, layout.lengths, 0, self.dropout_prob, inplace=True)

    def _types(self, token_types_N: Tensor) -> Tensor:
        if self.token_type.num_embeddings == 1:
            raise ValueError(
                "token types were given, but the model has only one; set type_vocab_size to 2 or give none"
            )
        types_ND: Tensor = _Lookup.apply(self.token_type.weight, token_types_N)  # type: ignore[no-untyped-call]
        return types_ND
