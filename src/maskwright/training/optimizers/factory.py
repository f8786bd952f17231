"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .adamw import make_adamw
from .config import OptimizerConfig, warn_of_ignored
from .lamb import make_lamb
from .muon import make_muon

if TYPE_CHECKING:
    from ...parallel.shards import Shards

__all__ = ["OptimizerFactory", "optimizer_factory"]


@dataclass(frozen=True)
class OptimizerFactory:
    """Makes the optimiser for named parameters; biases and norms never decay.

    The state is plain tensors by parameter. Whoever sets the rate of a step gives every group
    `lr * group.get("lr_scale", 1.0)`.
    """

    config: OptimizerConfig
    num_heads: int | None = None

    @property
    def elementwise(self) -> bool:
        """Whether each value is changed for itself, so that a table may be cut into pieces."""
        return self.config.name == "adamw"

    def __call__(
        self, named: Iterable[tuple[str, nn.Parameter]], shards: Shards | None = None, /
    ) -> torch.optim.Optimizer:
        """The optimiser of `(name, parameter)` pairs, whole ones or shards over ranks."""
        if self.config.name == "adamw":
            return make_adamw(self.config, named)
        make = {"lamb": make_lamb, "muon": make_muon}[self.config.name]
        return make(self.config, named, self.num_heads, shards)


def optimizer_factory(config: OptimizerConfig, num_heads: int | None = None) -> OptimizerFactory:
    """What makes the optimiser of a config; settings that it ignores are said in the log.

    Args:
        config: which optimiser.
        num_heads: attention heads of a layer. LAMB and Muon take joined matrices apart with it; without
            it they refuse a model that has some.
    """
    warn_of_ignored(config)
    return OptimizerFactory(config, num_heads)
