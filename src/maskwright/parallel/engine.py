"""What the training loop asks of whatever computes its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from .gradient_norms import GradientNorms

__all__ = ["Accept", "Engine", "Objective", "StepOutcome", "accept_finite"]

Accept = Callable[[GradientNorms], str | None]


class Objective(Protocol):
    """Model and micro-batch to losses; a seam because every task has its own."""

    def __call__(self, model: Any, batch: Any, *, train: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Summed losses by name as scalars, and further sums as scalars.

        The main loss is called `loss`. Each is divided by its own count of targets, then all are added.
        """


@dataclass(frozen=True)
class StepOutcome:
    """What an optimiser step did.

    Attributes:
        norms: norms of the gradient before clipping.
        reason: why no weight changed; None if the weights changed.
    """

    norms: GradientNorms
    reason: str | None = None

    @property
    def applied(self) -> bool:
        """Whether weights changed."""
        return self.reason is None


def accept_finite(norms: GradientNorms) -> str | None:
    """Refuse a gradient that is not finite; what every engine does at least."""
    return None if norms.finite else "the gradient is not finite"


class Engine(Protocol):
    """Forward, backward, step, save, load; a seam because single, DDP and FSDP2 differ here alone."""

    model: nn.Module

    def total(self, value: int) -> int:
        """Add a count up over all ranks."""

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int]
    ) -> dict[str, float]:
        """Add the gradient of the losses, each divided by its total count of targets.

        Returns:
            The sums, and the losses under their names with `_sum`.
        """

    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The same sums without a gradient."""

    def step(self, lr: float, accept: Accept = accept_finite) -> StepOutcome:
        """Clip, and change the weights, if `accept` has no reason against it."""

    def state(self) -> dict[str, Any]:
        """Weights and optimiser state: nested dicts of fp32 tensors and integers."""

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`."""
