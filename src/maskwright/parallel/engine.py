"""What the training loop asks of whatever computes its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from .gradient_norms import GradientNorms
from .world import World

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
    """Forward, backward, step, save, load; a seam because single, DDP, FSDP2 and DeepSpeed differ here alone.

    All methods are called by all ranks at the same time.

    Attributes:
        model: what objectives compute with.
        world: the processes of the run.
        equal_micro_batches: whether every rank must compute the same number of micro-batches, because
            ranks talk to each other within each of them.
    """

    model: nn.Module
    world: World
    equal_micro_batches: bool

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int], *, last: bool
    ) -> dict[str, float]:
        """Add the gradient of the losses, each divided by its total count of targets over all ranks.

        Args:
            objective: micro-batch to losses.
            batch: a micro-batch of this rank.
            totals: targets of the whole step by loss.
            last: whether it is the rank's last micro-batch of the step.

        Returns:
            The sums of this rank, and its losses under their names with `_sum`.
        """

    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The same sums without a gradient."""

    def step(self, lr: float, accept: Accept = accept_finite) -> StepOutcome:
        """Clip, and change the weights, if `accept` has no reason against it.

        Norms are those of the gradient of all ranks, so all decide the same.
        """

    def state(self) -> dict[str, Any]:
        """Weights and optimiser state: nested dicts of tensors (plain or DTensor) and integers.

        Names and shapes of the whole tensors are the same for every engine. Tensors may share memory
        with the run.
        """

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state as `state()` gives it, sharded in the same way."""

    def weights(self) -> dict[str, Tensor]:
        """The whole fp32 weights by parameter name, on the CPU, on rank 0; empty on other ranks."""
