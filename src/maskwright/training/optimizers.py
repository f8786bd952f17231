"""Optimisers by name, with the parameter groups that RoBERTa uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from ..core.config import Config

__all__ = ["OptimizerConfig", "optimizer_factory"]


class OptimizerConfig(Config):
    """Which optimiser, with the paper's defaults for pretraining (arXiv 1907.11692, section 3.1)."""

    name: Literal["adamw"] = Field("adamw", description="optimiser")
    lr: float = Field(6e-4, gt=0, description="learning rate at its highest")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(0.98, ge=0, lt=1, description="decay of the mean of squared gradients")
    eps: float = Field(1e-6, gt=0, description="added to the root of the squared mean")
    weight_decay: float = Field(
        0.01, ge=0, description="decay of matrices and tables a unit of learning rate"
    )


def optimizer_factory(
    config: OptimizerConfig,
) -> Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]:
    """A function that makes the optimiser for named parameters; biases and norms do not decay.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def make(named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        parameters = [parameter for _, parameter in named]
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        betas = (config.beta1, config.beta2)
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)

    return make
