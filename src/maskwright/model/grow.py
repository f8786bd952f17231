"""A larger model from a smaller one, and a larger vocabulary for the same model.

Both work on the tensors of a `MaskedLM` by name and return new ones. They cost the memory of what
they return and a second or two.

Legend: D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.keyed import derive_key
from .config import EncoderConfig
from .qkv import join_qkv

__all__ = ["extend_vocabulary", "tile_weights"]

_WORDS = "encoder.embeddings.word.weight"
_POSITIONS = "encoder.embeddings.position.weight"
_BIAS = "head_bias"


def tile_weights(
    small_state: Mapping[str, Tensor],
    small_config: EncoderConfig,
    large_config: EncoderConfig,
    *,
    layers: Literal["spread", "repeat"] = "spread",
) -> dict[str, Tensor]:
    """Initial weights for a larger model, made of those of a smaller one.

    Every axis of a large tensor holds the small one in its middle, and wraps around to fill the
    rest. Attention heads are tiled whole. Positions beyond the small model's begin again at its first.

    Args:
        small_state: tensors of a `MaskedLM` by name.
        small_config: its shape.
        large_config: the shape to fill; no smaller anywhere, with the same kind and vocabulary.
        layers: where the further layers come from. `spread` keeps the order and takes each small
            layer for its share of the large ones; `repeat` begins again with the first.

    Returns:
        Tensors by the same names, with the layers of the large model. Pooler and next-sentence head
        are among them where both models have them.

    Raises:
        ConfigError: the shapes do not fit each other.

    Source: Warner et al., ModernBERT, arXiv 2412.13663, "Weight Initialization and Tiling" (centre
    tiling, after Phi); Rae et al., Gopher, arXiv 2112.11446 (layers spread over the depth). Unlike
    them, heads stay whole and positions are tables.
    """
    _require_growth(small_config, large_config)
    width = _centred(small_config.hidden_size, large_config.hidden_size)
    inner = _centred(small_config.intermediate_size, large_config.intermediate_size)
    heads = _head_rows(small_config, large_config)
    joined = _joined_rows(heads, small_config, large_config)
    # Rows and columns of a tensor, by the layer that it is of; width where nothing else is said.
    rows = {"qkv": joined, "intermediate": inner}
    columns = {"attention_output": heads, "output": inner}
    kept = {_WORDS, _BIAS, "nsp_output.weight", "nsp_output.bias", "encoder.embeddings.token_type.weight"}
    result = {}
    for name, source in _sources(small_state, small_config, large_config, layers).items():
        part = name.split(".")[-2] if "." in name else name
        tensor = small_state[source]
        if name == _POSITIONS:
            tensor = tensor[_position_rows(small_config, large_config)]
        elif name not in kept:
            tensor = tensor[rows.get(part, width)]
        if tensor.dim() == 2:
            tensor = tensor[:, columns.get(part, width)]
        result[name] = tensor.clone()
    return result


def _require_growth(small: EncoderConfig, large: EncoderConfig) -> None:
    for name in ("model_type", "vocab_size", "type_vocab_size", "pad_token_id"):
        before, after = getattr(small, name), getattr(large, name)
        if before != after:
            raise ConfigError(
                f"the small model has {name} {before}, the large one {after}; they must be the same"
            )
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_size",
        "intermediate_size",
        "max_position_embeddings",
    ):
        before, after = getattr(small, name), getattr(large, name)
        if after < before:
            raise ConfigError(
                f"the small model has {name} {before}, the large one {after}; it must be no smaller"
            )


def _centred(small: int, large: int) -> Tensor:
    """For each place of a long axis the place of the short one that fills it; int64 of shape (large,)."""
    return (torch.arange(large) - (large - small) // 2) % small


def _head_rows(small: EncoderConfig, large: EncoderConfig) -> Tensor:
    """The same for the axis of attention heads, which are tiled whole, and inside each of them."""
    whole = _centred(small.num_attention_heads, large.num_attention_heads)
    inside = _centred(small.head_size, large.head_size)
    return (whole[:, None] * small.head_size + inside).flatten()


def _joined_rows(heads: Tensor, small: EncoderConfig, large: EncoderConfig) -> Tensor:
    """The same for the rows of a joined query-key-value matrix, which lie head by head."""
    head, inside = heads // small.head_size, heads % small.head_size
    first = head * (3 * small.head_size) + inside
    return join_qkv([first + part * small.head_size for part in range(3)], large.num_attention_heads)


def _position_rows(small: EncoderConfig, large: EncoderConfig) -> Tensor:
    rows = torch.arange(large.max_position_embeddings)
    first = large.first_position
    return torch.where(rows < first, rows, first + (rows - first) % small.max_length)


def _sources(
    state: Mapping[str, Tensor], small: EncoderConfig, large: EncoderConfig, layers: str
) -> dict[str, str]:
    """The name of every tensor of the large model, and of the small one's tensor that it comes from."""
    before, after = small.num_hidden_layers, large.num_hidden_layers
    sources = {}
    heads = {"pooler": large.has_pooler, "nsp_output": large.next_sentence}
    for name in state:
        if not name.startswith("encoder.layers."):
            if heads.get(name.partition(".")[0], True):
                sources[name] = name
            continue
        number, _, rest = name.removeprefix("encoder.layers.").partition(".")
        for place in range(after):
            taken = place * before // after if layers == "spread" else place % before
            if taken == int(number):
                sources[f"encoder.layers.{place}.{rest}"] = name
    return sources


def extend_vocabulary(
    state: Mapping[str, Tensor],
    config: EncoderConfig,
    num_new: int,
    how: Literal["mean", "random"] = "mean",
    pieces: Sequence[Sequence[int]] = (),
    seed: int = 0,
) -> tuple[dict[str, Tensor], EncoderConfig]:
    """Make room for new entries at the end of the vocabulary.

    Args:
        state: tensors of a `MaskedLM` by name.
        config: its shape.
        num_new: entries to add; their ids follow the old ones.
        how: `mean` gives each new entry the mean of the embeddings of its pieces, so that it means
            at first what they mean together; `random` draws from a normal with the standard
            deviation of the config.
        pieces: for `mean`, the old ids that each new entry was made of.
        seed: for `random`, decides the draw.

    Returns:
        All tensors by name, and the shape with the larger vocabulary. The output bias of a new entry
        is the mean of its pieces' for `mean`, and of all old ones for `random`.

    Raises:
        ConfigError: `num_new` is not positive, or pieces are missing or not in the vocabulary.

    Source: Gee et al., Fast Vocabulary Transfer, EMNLP 2022 (new entries as the mean of their pieces).
    """
    if num_new < 1:
        raise ConfigError(f"num_new is {num_new}, expected at least 1")
    words, bias = state[_WORDS], state[_BIAS]
    if how == "random":
        generator = torch.Generator().manual_seed(derive_key(seed, "extend") & (2**63 - 1))
        drawn = torch.empty(num_new, words.shape[1]).normal_(0, config.initializer_range, generator=generator)
        new_words, new_bias = drawn.to(words.dtype), bias.mean().expand(num_new)
    else:
        _check_pieces(pieces, num_new, config.vocab_size)
        ids = [torch.tensor(list(entry)) for entry in pieces]
        new_words = torch.stack([words[entry].mean(0) for entry in ids])
        new_bias = torch.stack([bias[entry].mean() for entry in ids])
    result = {name: tensor.clone() for name, tensor in state.items()}
    result[_WORDS] = torch.cat([words, new_words])
    result[_BIAS] = torch.cat([bias, new_bias])
    return result, config.replace(vocab_size=config.vocab_size + num_new)


def _check_pieces(pieces: Sequence[Sequence[int]], num_new: int, vocab_size: int) -> None:
    if len(pieces) != num_new:
        raise ConfigError(
            f"pieces are given for {len(pieces)} entries, but num_new is {num_new}; "
            "give the old ids of each new entry"
        )
    for number, entry in enumerate(pieces):
        if not entry or not all(0 <= piece < vocab_size for piece in entry):
            raise ConfigError(
                f"pieces of new entry {number} are {list(entry)}, expected ids from 0 to {vocab_size - 1}"
            )
