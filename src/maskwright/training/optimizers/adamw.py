"""AdamW: the framework's own, in one pass over the weights.

Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, with
the learning rate before the decay, as everybody implements it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .config import OptimizerConfig
from .parameters import decays, parameter_groups

__all__ = ["make_adamw"]


def make_adamw(
    config: OptimizerConfig, named: Iterable[tuple[str, nn.Parameter]], num_heads: int | None = None
) -> torch.optim.Optimizer:
    """AdamW over named parameters; biases and norms do not decay, and heads make no difference."""
    groups = parameter_groups(
        (parameter, {"weight_decay": config.weight_decay if decays(parameter) else 0.0})
        for _, parameter in named
    )
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
