"""Which optimiser, with which constants."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...core.config import Config
from ...core.log import get_logger

__all__ = ["OptimizerConfig", "warn_of_ignored"]

log = get_logger(__name__)
_MUON_ONLY = ("muon_lr", "muon_momentum", "muon_scale")


class OptimizerConfig(Config):
    """Which optimiser, with the paper's defaults for pretraining (arXiv 1907.11692, section 3.1)."""

    name: Literal["adamw", "lamb", "muon"] = Field(
        "adamw", description="adamw; lamb for batches of 8k sequences and more; muon for hidden matrices"
    )
    lr: float = Field(6e-4, gt=0, description="learning rate at its highest")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(0.98, ge=0, lt=1, description="decay of the mean of squared gradients")
    eps: float = Field(1e-6, gt=0, description="added to the root of the squared mean")
    weight_decay: float = Field(
        0.01, ge=0, description="decay of matrices and tables a unit of learning rate"
    )
    muon_lr: float | None = Field(
        None, gt=0, description="learning rate of hidden matrices at its highest, instead of lr"
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="decay of the mean gradient of a matrix")
    muon_scale: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw",
        description="size of a matrix update: as large as AdamW's at the same rate, or Jordan's, "
        "which needs a muon_lr of about 0.02",
    )


def warn_of_ignored(config: OptimizerConfig) -> None:
    """Say which settings do nothing for the chosen optimiser."""
    if config.name == "muon":
        return
    for name in _MUON_ONLY:
        if getattr(config, name) != OptimizerConfig.model_fields[name].default:
            log.warning(
                "optimizer.%s is ignored: optimizer.name is %s; set optimizer.name=muon", name, config.name
            )
