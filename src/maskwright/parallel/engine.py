"""What the training loop asks of whatever computes its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

__all__ = ["Engine", "Objective", "StepOutcome"]


class Objective(Protocol):
    """Model and micro-batch to `(loss_sum, sums)`; a seam because every task has its own."""

    def __call__(self, model: Any, batch: Any, *, train: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss as a scalar, and further sums as scalars."""


@dataclass(frozen=True)
class StepOutcome:
    """What an optimiser step did.

    Attributes:
        grad_norm: norm of the gradient before clipping.
        applied: False if the gradient was not finite, so that no weight changed.
    """

    grad_norm: float
    applied: bool


class Engine(Protocol):
    """Forward, backward, step, save, load; a seam because single, DDP and FSDP2 differ here alone."""

    model: nn.Module

    def total(self, value: int) -> int:
        """Add a count up over all ranks."""

    def forward_backward(self, objective: Objective, batch: Any, num_targets: int) -> dict[str, float]:
        """Add the gradient of `loss_sum / num_targets`; returns the sums with `loss_sum`."""

    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The sums with `loss_sum`, without a gradient."""

    def step(self, lr: float) -> StepOutcome:
        """Clip, and change the weights."""

    def state(self) -> dict[str, Any]:
        """Weights and optimiser state: nested dicts of fp32 tensors and integers."""

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`."""
