"""Parts of a model that compute with a share of their weights; they take the places of the whole ones.

A module changes its class and keeps everything else: its parameters, which are DTensors now, its name and
what is put around it later. Weights are read at every pass, because what shards them further puts
them there only for a pass.

Legend: N tokens, T ranks, C = N / T rounded up, D hidden, I intermediate, H heads.

Between blocks a rank has C tokens, of which it computes dropout, residuals and norms. A block gathers all
tokens, computes H / T heads or I / T inner values of them, and adds the shares up while it deals the
tokens out again. Activation memory between blocks is a T-th; what is gathered is kept for the backward
pass unless activations are checkpointed.

Source: Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3; Korthikanti et al. 2022, arXiv
2205.05198, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...model.attention import attend_and_project
from ...model.dropout import DropoutKeys, dropout
from ...model.embeddings import Embeddings, tied_lookup
from ...model.encoder import Encoder
from ...model.fused_attention import Packing, attend, pack
from ...model.layers import ATTENTION_OUTPUT_SITE, ATTENTION_SITE, OUTPUT_SITE, EncoderLayer, Hidden
from ...model.layout import Layout
from .collectives import gather_tokens, scatter_sum
from .group import SharingGroup, TokenPart, local

__all__ = ["LocalLinear", "LocalNorm", "SharedEmbeddings", "SharedEncoder", "SharedLayer"]


class LocalLinear(nn.Linear):
    """A linear layer that computes with the part of it that is here."""

    def forward(self, value: Tensor) -> Tensor:
        """Multiply by the weights of this rank; returns its outputs."""
        return F.linear(value, local(self.weight), local(self.bias))


class LocalNorm(nn.LayerNorm):
    """A layer norm whose parameters may be copies of one on each rank."""

    def forward(self, value: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(value, self.normalized_shape, local(self.weight), local(self.bias), self.eps)


def _attention_share(
    tokens_ND: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    packing: Packing,
    num_heads: int,
    p: float,
) -> Tensor:
    """Some heads of attention and their share of the projection, on devices other than the CPU."""
    qkv_weight, qkv_bias, output_weight = weights
    qkv = F.linear(tokens_ND, qkv_weight, qkv_bias)
    return F.linear(attend(qkv, packing, num_heads, p), output_weight)


def _feed_forward_share(tokens_ND: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Some inner values of the feed-forward block and their share of its result."""
    inner_weight, inner_bias, output_weight = weights
    return F.linear(F.gelu(F.linear(tokens_ND, inner_weight, inner_bias)), output_weight)


class SharedLayer(EncoderLayer):
    """An encoder layer with a share of the heads and of the inner values; hidden values are C tokens."""

    share: SharingGroup
    is_plain = False
    compiled = False
    attention_share: Callable[..., Tensor] = staticmethod(_attention_share)
    feed_forward_share: Callable[..., Tensor] = staticmethod(_feed_forward_share)

    def make_room(self, layout: Layout, dtype: torch.dtype) -> None:
        """Shares of a layer have no memory of their own."""

    def compile_shares(self, backend: str) -> None:
        """Compile what lies between two exchanges; attention then draws masks by the device's generator."""
        self.compiled = True
        self.attention_share = torch.compile(_attention_share, backend=backend)
        self.feed_forward_share = torch.compile(_feed_forward_share, backend=backend)

    def forward(self, hidden: Hidden, layout: Layout, keys: DropoutKeys | None) -> Hidden:
        """Transform the C tokens of this rank, together with the others."""
        part, group = self.share.tokens(layout), self.share.group
        token_keys = self.share.token_keys(keys, part)
        site, p, own_CD = self.first_site, self.hidden_dropout_prob, hidden.value
        tokens_ND = gather_tokens(own_CD, part.num_tokens, group, shared=True)
        share_ND = self._attend(tokens_ND, layout, keys)
        update_CD = scatter_sum(share_ND, group) + local(self.attention_output.bias)
        update_CD = dropout(
            update_CD, token_keys, part.lengths, site + ATTENTION_OUTPUT_SITE, p, inplace=True
        )
        own_CD = self.attention_norm(update_CD + own_CD)
        again = self.recompute_feed_forward and torch.is_grad_enabled()
        share_ND = (
            checkpoint(self._feed_forward_of, own_CD, part, use_reentrant=False, preserve_rng_state=False)
            if again
            else self._feed_forward_of(own_CD, part)
        )
        update_CD = scatter_sum(share_ND, group) + local(self.output.bias)
        update_CD = dropout(update_CD, token_keys, part.lengths, site + OUTPUT_SITE, p, inplace=True)
        return Hidden(self.output_norm(update_CD + own_CD))

    def _feed_forward_of(self, own_CD: Tensor, part: TokenPart) -> Tensor:
        tokens_ND = gather_tokens(own_CD, part.num_tokens, self.share.group, shared=True)
        inner = self.intermediate
        weights = (local(inner.weight), local(inner.bias), local(self.output.weight))
        return self.feed_forward_share(tokens_ND, weights)

    def _attend(self, tokens_ND: Tensor, layout: Layout, keys: DropoutKeys | None) -> Tensor:
        heads, p = self.num_heads // self.share.size, self.attention_dropout_prob
        output_weight = local(self.attention_output.weight)
        if tokens_ND.device.type == "cpu" and not self.compiled:
            qkv, keys = self.qkv(tokens_ND), self.share.head_keys(keys)
            site = self.first_site + ATTENTION_SITE
            return attend_and_project(qkv, layout, heads, output_weight, None, keys, site, p)
        packing = pack(layout, tokens_ND.dtype, self.qkv.in_features // self.num_heads)
        weights = (local(self.qkv.weight), local(self.qkv.bias), output_weight)
        return self.attention_share(tokens_ND, weights, packing, heads, p if keys is not None else 0.0)


class SharedEmbeddings(Embeddings):
    """Embeddings of the C tokens of this rank, with its rows of the word table."""

    share: SharingGroup

    def lookup(self, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """Word embeddings of this rank's tokens, and its rows of the table for the output layer.

        Args:
            ids_N: token ids of all ranks, int64.

        Returns:
            `(words_CD, table_vD)`.
        """
        weight_vD = local(self.word.weight)
        rows_N = ids_N - self.share.first_row(self.word.num_embeddings)
        here_N = (rows_N >= 0) & (rows_N < len(weight_vD))
        found_ND, table_vD = tied_lookup(weight_vD, torch.where(here_N, rows_N, 0))
        words_ND = torch.where(here_N[:, None], found_ND, 0)
        return scatter_sum(words_ND, self.share.group), table_vD

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None,
        token_types_N: Tensor | None = None,
        words_ND: Tensor | None = None,
    ) -> Tensor:
        """Embed the tokens of this rank.

        Args:
            ids_N: token ids of all ranks, int64.
            layout: lengths of their sequences.
            keys: keys for dropout; None turns it off.
            token_types_N: type of each token, int64; None takes 0 for all.
            words_ND: word embeddings of this rank's tokens, where the caller has looked them up.

        Returns:
            Tensor of shape (C, D).

        Raises:
            ValueError: there are token types, but the model has only one.
        """
        part = self.share.tokens(layout)
        words_CD = self.lookup(ids_N)[0] if words_ND is None else words_ND
        positions_C = part.take(layout.positions) + self.first_position
        positions_CD, _ = tied_lookup(local(self.position.weight), positions_C)
        types = local(self.token_type.weight)[0]
        if token_types_N is not None:
            if self.token_type.num_embeddings == 1:
                raise ValueError(
                    "token types were given, but the model has only one; set type_vocab_size to 2 or "
                    "give none"
                )
            types, _ = tied_lookup(local(self.token_type.weight), part.take(token_types_N))
        hidden_CD = self.norm(words_CD + types + positions_CD)
        return dropout(
            hidden_CD, self.share.token_keys(keys, part), part.lengths, 0, self.dropout_prob, inplace=True
        )


class SharedEncoder(Encoder):
    """An encoder of shared layers; takes all tokens and returns all tokens on every rank."""

    share: SharingGroup

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None = None,
        token_types_N: Tensor | None = None,
        words_ND: Tensor | None = None,
    ) -> Tensor:
        """Encode sequences; see `Encoder.forward`. `words_ND` are those of this rank's tokens."""
        if keys is not None:
            self.share.seed(keys, ids_N.device)
        own_CD = super().forward(ids_N, layout, keys, token_types_N, words_ND)
        return gather_tokens(own_CD, layout.num_tokens, self.share.group, shared=False)
