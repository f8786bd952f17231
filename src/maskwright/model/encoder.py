"""The encoder: token ids in, one vector for every real token out. Single-device code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.keyed import derive_key
from .config import EncoderConfig
from .dropout import DropoutKeys
from .layers import Embeddings, EncoderLayer
from .layout import Layout

__all__ = ["Encoder", "initialize"]


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

    def forward(self, ids_N: Tensor, layout: Layout, keys: DropoutKeys | None = None) -> Tensor:
        """Encode sequences.

        Args:
            ids_N: token ids of all sequences, one after the other, int64.
            layout: their lengths.
            keys: keys for dropout, one a sequence; None turns dropout off.

        Returns:
            Tensor of shape (N, D).

        Raises:
            ValueError: a sequence is longer than the position table allows.
        """
        if layout.longest > self.config.max_length:
            raise ValueError(
                f"a sequence has {layout.longest} tokens, but the model holds positions for "
                f"{self.config.max_length}; cut it or raise max_position_embeddings"
            )
        hidden_ND: Tensor = self.embeddings(ids_N, layout, keys)
        for layer in self.layers:
            hidden_ND = layer(hidden_ND, layout, keys)
        return hidden_ND


@torch.no_grad()
def initialize(module: nn.Module, seed: int, std: float) -> None:
    """Set initial weights: normal for matrices and tables, zero for biases, one for norm scales.

    Each tensor has a key of its own, so its values depend on the seed and its name alone.

    Args:
        module: the model; its parameter names are the keys.
        seed: the run's seed.
        std: standard deviation of the normal.
    """
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    for name, parameter in module.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner in norms:
            parameter.fill_(1.0 if kind == "weight" else 0.0)
        elif parameter.dim() < 2:
            parameter.zero_()
        elif parameter.device.type != "meta":
            generator = torch.Generator().manual_seed(derive_key(seed, "init", name) & (2**63 - 1))
            values = torch.empty(parameter.shape, dtype=torch.float32).normal_(0, std, generator=generator)
            parameter.copy_(values)
