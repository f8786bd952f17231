"""Parameters and arithmetic of a RoBERTa encoder, counted from its shape.

Only matrix products are counted, a multiplication and an addition as two operations; the rest
(norms, activations, softmax, dropout, the optimiser) is some percent of the time and a fraction of
a percent of the arithmetic. Dividing operations per second by the machine's peak gives the model
FLOPs utilisation. The counts are exact: they equal what torch counts for the same model.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigError

__all__ = ["TokenFlops", "model_flops_per_token", "num_parameters"]


@dataclass(frozen=True)
class TokenFlops:
    """Floating-point operations of the forward pass, for one token of the input.

    Args:
        linear: the projections and feed-forward blocks of all layers.
        attention: the products of queries with keys, and of weights with values.
        head: the language-model head, averaged over all tokens.
    """

    linear: float
    attention: float
    head: float

    @property
    def forward(self) -> float:
        """Operations of the forward pass."""
        return self.linear + self.attention + self.head

    @property
    def training(self) -> float:
        """Operations of forward and backward: each product has two more, one a gradient."""
        return 3 * self.forward


def model_flops_per_token(
    *,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    vocab_size: int,
    sequence_length: int,
    head_positions_share: float = 1.0,
) -> TokenFlops:
    """Count the operations that one token of the input costs.

    Args:
        hidden_size: width of the residual stream.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads a layer; the count does not depend on it, but it must divide
            the width.
        intermediate_size: width inside the feed-forward block.
        vocab_size: entries of the vocabulary.
        sequence_length: tokens that each token attends to. With packed documents this is the
            average length, weighted by tokens.
        head_positions_share: share of tokens that go through the language-model head: 1 when all
            do, `mlm_probability` when only the masked ones do, 0 without a head.

    Raises:
        ConfigError: a size is not positive, the heads do not divide the width, or the share is
            outside 0 to 1.

    Source: Narayanan et al., "Efficient large-scale language model training on GPU clusters",
    2021, appendix; here without recomputation, and with the head as in RoBERTa.
    """
    _check_shape(
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        sequence_length=sequence_length,
    )
    if not 0 <= head_positions_share <= 1:
        raise ConfigError(f"head_positions_share is {head_positions_share}, expected 0 to 1")
    projections = 4 * hidden_size**2  # query, key, value, output
    feed_forward = 2 * hidden_size * intermediate_size
    head = hidden_size**2 + hidden_size * vocab_size  # dense, decoder
    return TokenFlops(
        linear=2.0 * num_hidden_layers * (projections + feed_forward),
        attention=2.0 * num_hidden_layers * 2 * sequence_length * hidden_size,
        head=2.0 * head_positions_share * head,
    )


def num_parameters(
    *,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    vocab_size: int,
    max_position_embeddings: int,
    type_vocab_size: int = 1,
    lm_head: bool = True,
) -> int:
    """Count the parameters of a RoBERTa encoder, without a pooler.

    Args:
        hidden_size: width of the residual stream.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads a layer; must divide the width.
        intermediate_size: width inside the feed-forward block.
        vocab_size: entries of the vocabulary.
        max_position_embeddings: rows of the position table.
        type_vocab_size: rows of the token-type table.
        lm_head: count the language-model head too: dense, layer norm and the bias of the decoder,
            whose matrix is that of the word embeddings.

    Raises:
        ConfigError: a size is not positive, or the heads do not divide the width.
    """
    _check_shape(
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=type_vocab_size,
    )
    layer_norm = 2 * hidden_size
    dense = hidden_size**2 + hidden_size
    tables = (vocab_size + max_position_embeddings + type_vocab_size) * hidden_size
    feed_forward = 2 * hidden_size * intermediate_size + intermediate_size + hidden_size
    layer = 4 * dense + feed_forward + 2 * layer_norm
    head = dense + layer_norm + vocab_size if lm_head else 0
    return tables + layer_norm + num_hidden_layers * layer + head


def _check_shape(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}, expected at least 1")
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % heads:
        raise ConfigError(f"hidden_size {width} is not a multiple of num_attention_heads {heads}")
