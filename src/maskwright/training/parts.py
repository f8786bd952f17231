"""What is plugged into the training loop, and the plan that it follows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..parallel.engine import Engine, Objective
from .checkpoints import Checkpoints
from .hooks import Hook, Record
from .schedules import Schedule
from .spikes import SpikeConfig, SpikeGuard
from .watch import Watch

__all__ = ["MicroBatch", "Parts", "Plan", "Stream"]


class MicroBatch(Protocol):
    """What the loop reads from a micro-batch; the rest is between stream and objective."""

    @property
    def targets(self) -> Mapping[str, int]:
        """Number of predictions that each loss sums over; the main loss is called `loss`."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model computes on."""

    @property
    def counts(self) -> Mapping[str, float]:
        """Further sums for the log."""

    @property
    def samples(self) -> Sequence[int]:
        """Numbers of its samples, to point at when something is wrong."""


class Stream(Protocol):
    """Where batches come from; a seam because each objective has its own."""

    def next_step(self, share_done: float) -> Sequence[Any]:
        """Micro-batches of the next optimiser step, when so much of training is done."""

    def undo_step(self) -> None:
        """Go back before the step that was read last, as it is not done."""

    def state(self) -> dict[str, Any]:
        """JSON-like state."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved state, or refuse it."""


@dataclass(frozen=True)
class Plan:
    """How long to train and how often to look; all in steps.

    Attributes:
        schedule: learning rates, and when the run ends.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints; the last step always has one.
        log_every: steps between training records.
        flops_per_token: arithmetic of training on one token; 0 where unknown.
        peak_flops: measured matrix rate of the device a second; 0 where unknown.
        device: where the model is, for its memory in the log.
        processes: what it runs on, where that is more than one process; told when a run is resumed.
    """

    schedule: Schedule
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    device: str = "cpu"
    processes: str = ""


def _no_profile(step: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Parts:
    """What is plugged into the loop.

    With several processes hooks are for rank 0 alone, everything else is for each; `filler` makes a
    micro-batch that counts nothing, for processes that have fewer than others. `begun` is called on rank 0
    when the first step can be made, from the beginning or from a checkpoint. `finish` gets the result when
    the last step is saved and copied. `check` is called before each step, and ends the run by raising.
    """

    stream: Stream
    objective: Objective
    engine: Engine
    checkpoints: Checkpoints
    evaluate: Callable[[Engine], Record]
    hooks: Sequence[Hook] = ()
    spikes: SpikeGuard = field(default_factory=lambda: SpikeGuard(SpikeConfig(policy="off")))
    profile: Callable[[int], contextlib.AbstractContextManager[None]] = _no_profile
    filler: Callable[[], MicroBatch] | None = None
    begun: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None
    finish: Callable[[Record], Record] = lambda result: result
    watch: Watch = field(default_factory=Watch)
