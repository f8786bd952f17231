"""The encoder: token ids in, one vector for every real token out. Single-device code."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.keyed import derive_key
from .config import EncoderConfig
from .dropout import DropoutKeys
from .embeddings import Embeddings
from .layers import EncoderLayer, Hidden
from .layout import Layout
from .memory import Memory
from .workspace import Workspace

__all__ = ["Block", "Encoder", "initial_weights", "initialize"]

# Values drawn at a time. The framework draws so many from a normal together, and the last ones of a tensor
# that is no multiple again: a block has a multiple of them, and the last block no fewer.
_BLOCK_VALUES = 1 << 22
_DRAWN_TOGETHER = 16


class Encoder(nn.Module):
    """RoBERTa's encoder over sequences laid end to end.

    Args:
        config: shape of the model.

    Source: Liu et al., RoBERTa, arXiv 1907.11692; Devlin et al., BERT, arXiv 1810.04805. Unlike
    them, padding is removed before the first layer, which changes no result for real tokens.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(
            EncoderLayer(config, number) for number in range(config.num_hidden_layers)
        )
        self._lay_out_memory()

    def _lay_out_memory(self) -> None:
        """Gradients of a layer lie where the layer above kept its values; the last has room of its own."""
        self.scratch = Workspace()
        spaces = [Workspace() for _ in range(len(self.layers) + 1)]
        for number, layer in enumerate(self.layers):
            layer.memory = Memory(spaces[number], spaces[number + 1], self.scratch)  # type: ignore[assignment]

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None = None,
        token_types_N: Tensor | None = None,
        words_ND: Tensor | None = None,
    ) -> Tensor:
        """Encode sequences.

        Args:
            ids_N: token ids of all sequences, one after the other, int64.
            layout: their lengths.
            keys: keys for dropout, one a sequence; None turns dropout off.
            token_types_N: which segment each token is of, int64; None takes the first for all.
            words_ND: word embeddings of the ids, where the caller has looked them up.

        Returns:
            Tensor of shape (N, D).

        Raises:
            ValueError: a sequence is longer than the position table allows, or token types are given
                to a model that has only one.
        """
        if layout.longest > self.config.max_length:
            raise ValueError(
                f"a sequence has {layout.longest} tokens, but the model holds positions for "
                f"{self.config.max_length}; cut it or raise max_position_embeddings"
            )
        if ids_N.device.type == "cpu":
            # Not of the layers: weights in shards have another type until they are gathered.
            dtype = self.embeddings.norm.weight.dtype
            # From the last: what a layer keeps is more than the gradients that come to lie there.
            for layer in reversed(self.layers):
                assert isinstance(layer, EncoderLayer)
                layer.make_room(layout, dtype)
        hidden = Hidden(self.embeddings(ids_N, layout, keys, token_types_N, words_ND))
        for layer in self.layers:
            hidden = layer(hidden, layout, keys)
        return hidden.value


class Block(NamedTuple):
    """Some rows of a parameter.

    Attributes:
        name: of the parameter in its model.
        first_row: number of the first of them.
        values: of shape (rows, ...), on the CPU.
    """

    name: str
    first_row: int
    values: Tensor


def initial_weights(
    module: nn.Module, seed: int, std: float, without: Container[str] = ()
) -> Iterator[Block]:
    """The values that `initialize` sets, a few rows at a time; costs the memory of one block.

    Args:
        module: the model, on any device; it is not changed.
        seed: the run's seed.
        std: standard deviation of the normal.
        without: names of parameters to leave out.
    """
    norms = _norms(module)
    for name, parameter in module.named_parameters():
        if name not in without:
            yield from _draw(name, parameter.shape, norms, seed, std)


@torch.no_grad()
def initialize(module: nn.Module, seed: int, std: float) -> None:
    """Set initial weights: normal for matrices and tables, zero for biases, one for norm scales.

    Each tensor has a key of its own, so its values depend on the seed and its name alone.

    Args:
        module: the model; its parameter names are the keys. What is on the meta device is left out.
        seed: the run's seed.
        std: standard deviation of the normal.
    """
    norms = _norms(module)
    for name, parameter in module.named_parameters():
        if parameter.device.type != "meta":
            for block in _draw(name, parameter.shape, norms, seed, std):
                parameter[block.first_row : block.first_row + len(block.values)].copy_(block.values)


def _norms(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}


def _draw(name: str, shape: torch.Size, norms: set[str], seed: int, std: float) -> Iterator[Block]:
    owner, _, kind = name.rpartition(".")
    if owner in norms or len(shape) < 2:
        yield Block(name, 0, torch.full(shape, 1.0 if owner in norms and kind == "weight" else 0.0))
        return
    generator = torch.Generator().manual_seed(derive_key(seed, "init", name) & (2**63 - 1))
    for rows in _row_blocks(shape):
        # The values have no name, which would hold them while the next ones are drawn.
        empty = partial(torch.empty, len(rows), *shape[1:], dtype=torch.float32)
        yield Block(name, rows.start, empty().normal_(0, std, generator=generator))


def _row_blocks(shape: torch.Size) -> list[range]:
    """Runs of rows that, drawn one after the other, are what one draw of the whole tensor is."""
    width = shape[1:].numel()
    step = max(1, _BLOCK_VALUES // (width * _DRAWN_TOGETHER)) * _DRAWN_TOGETHER
    starts = list(range(0, shape[0], step))
    if len(starts) > 1 and (shape[0] - starts[-1]) * width < _DRAWN_TOGETHER:
        del starts[-1]
    return [range(start, end) for start, end in pairwise([*starts, shape[0]])]
