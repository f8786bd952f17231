"""The training loop. It knows a stream, an objective, an engine and hooks, and nothing else.

Pretraining and fine-tuning are this loop with other parts plugged in. Losses are sums and counts:
each micro-batch adds the gradient of its summed loss divided by the number of targets of the whole
step, so any split of a step gives the same gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.errors import Interrupted, StorageError, UserError
from ..parallel.engine import Engine, Objective
from .checkpoint import Checkpoints
from .hooks import Hook, Record
from .signals import StopRequest, stop_on_signals

__all__ = ["MicroBatch", "Parts", "Plan", "Stream", "train"]

MAX_SKIPPED_STEPS = 10
_DIVERGED = "the run has diverged: lower optimizer.lr or use precision=fp32, and start again"


class MicroBatch(Protocol):
    """What the loop reads from a micro-batch; the rest is between stream and objective."""

    @property
    def num_targets(self) -> int:
        """Number of predictions that the loss sums over."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model computes on."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Further counts for the log."""


class Stream(Protocol):
    """Where batches come from; a seam because each objective has its own."""

    def next_step(self) -> Sequence[Any]:
        """Micro-batches of the next optimiser step."""

    def state(self) -> dict[str, Any]:
        """JSON-like state."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved state, or refuse it."""


@dataclass(frozen=True)
class Plan:
    """How long to train and how often to look; all in steps.

    Attributes:
        total_steps: optimiser steps of the run.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints; the last step always has one.
        log_every: steps between training records.
        learning_rate: rate of a step.
        flops_per_token: arithmetic of training on one token; 0 where unknown.
        peak_flops: measured matrix rate of the device a second; 0 where unknown.
    """

    total_steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    learning_rate: Callable[[int], float]
    flops_per_token: float = 0.0
    peak_flops: float = 0.0


@dataclass(frozen=True)
class Parts:
    """What is plugged into the loop."""

    stream: Stream
    objective: Objective
    engine: Engine
    checkpoints: Checkpoints
    evaluate: Callable[[Engine], Record]
    hooks: Sequence[Hook] = ()


@dataclass
class _Window:
    """Sums since the last training record."""

    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    data_seconds: float = 0.0
    steps: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


@dataclass
class _Progress:
    """Where the run is; `seconds` and `tokens` count over all starts."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    skipped_in_a_row: int = 0


def train(parts: Parts, plan: Plan) -> Record:
    """Run until the last step, going on from the newest checkpoint if there is one.

    Args:
        parts: what to train with.
        plan: how long.

    Returns:
        The last evaluation, with `seconds` and `tokens_seen` of the whole run.

    Raises:
        Interrupted: a signal asked to stop; a checkpoint was written first.
        UserError: the run has diverged, or the checkpoint does not fit.
    """
    with stop_on_signals() as request:
        try:
            return _Run(parts, plan, request).finish()
        finally:
            for hook in parts.hooks:
                hook.close()


class _Run:
    def __init__(self, parts: Parts, plan: Plan, request: StopRequest) -> None:
        self.parts, self.plan, self.request = parts, plan, request
        self.progress, self.window = _Progress(), _Window()
        self.last_evaluation: Record = {}
        self.saved_step = 0
        self._resume()

    def _tell(self, record: Record) -> None:
        for hook in self.parts.hooks:
            hook.record(record)

    def _event(self, message: str) -> None:
        self._tell({"kind": "event", "step": self.progress.step, "message": message})

    def _resume(self) -> None:
        found = self.parts.checkpoints.load_newest()
        if found is None:
            return
        self.parts.stream.restore(found.progress["stream"])
        self.parts.engine.load(found.tensors)
        self.progress = _Progress(found.step, found.progress["seconds"], found.progress["tokens"])
        self.last_evaluation = found.progress["evaluation"]
        self._event(f"resumed from the checkpoint of step {found.step}")

    def finish(self) -> Record:
        while self.progress.step < self.plan.total_steps:
            self._step()
            step, last = self.progress.step, self.progress.step == self.plan.total_steps
            if step % self.plan.log_every == 0 or last:
                self._log()
            if step % self.plan.evaluate_every == 0 or last:
                self._evaluate()
            if step % self.plan.checkpoint_every == 0 or last:
                self._save(required=last)
            if self.request.reason and not last:
                self._stop()
        seen = {"seconds": self.progress.seconds, "tokens_seen": self.progress.tokens}
        return {**self.last_evaluation, **seen, "step": self.progress.step}

    def _step(self) -> None:
        started = time.perf_counter()
        batches = self.parts.stream.next_step()
        loaded = time.perf_counter()
        engine = self.parts.engine
        num_targets = engine.total(sum(batch.num_targets for batch in batches))
        for batch in batches:
            sums = engine.forward_backward(self.parts.objective, batch, max(1, num_targets))
            self.window.add(sums)
            self.window.add({"targets": batch.num_targets, "tokens": batch.num_tokens, **batch.counts})
        self.progress.step += 1
        rate = self.plan.learning_rate(self.progress.step)
        outcome = engine.step(rate)
        self.window.add({"lr": rate, "grad_norm": outcome.grad_norm})
        elapsed = time.perf_counter() - started
        self.progress.seconds += elapsed
        self.progress.tokens += sum(batch.num_tokens for batch in batches)
        self.window.seconds += elapsed
        self.window.data_seconds += loaded - started
        self.window.steps += 1
        self._guard(outcome.applied)

    def _guard(self, applied: bool) -> None:
        if applied:
            self.progress.skipped_in_a_row = 0
            return
        self.progress.skipped_in_a_row += 1
        self._event("the gradient is not finite; the step was skipped and no weight changed")
        if self.progress.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            raise UserError(
                f"step {self.progress.step}: the gradient was not finite {MAX_SKIPPED_STEPS} times in a row; "
                f"{_DIVERGED}"
            )

    def _log(self) -> None:
        window, sums = self.window, self.window.sums
        targets, seconds = max(1.0, sums["targets"]), max(window.seconds, 1e-9)
        speed = sums["tokens"] / seconds
        record: Record = {
            "kind": "train",
            "step": self.progress.step,
            "loss": sums["loss_sum"] / targets,
            "accuracy": sums.get("correct", 0.0) / targets,
            "lr": sums["lr"] / window.steps,
            "grad_norm": sums["grad_norm"] / window.steps,
            "tokens_per_second": speed,
            "real_tokens_per_second": sums.get("real_tokens", sums["tokens"]) / seconds,
            "data_wait_share": window.data_seconds / seconds,
            "step_seconds": seconds / window.steps,
            "seconds": self.progress.seconds,
            "tokens_seen": self.progress.tokens,
        }
        if "eligible" in sums:
            record |= {
                "mask_rate": sums["targets"] / max(1.0, sums["eligible"]),
                "eligible": sums["eligible"],
            }
        if self.plan.peak_flops:
            record["peak_share"] = speed * self.plan.flops_per_token / self.plan.peak_flops
        self._tell(record)
        self.window = _Window()

    def _evaluate(self) -> None:
        result = self.parts.evaluate(self.parts.engine)
        if not math.isfinite(result["loss"]):
            raise UserError(
                f"step {self.progress.step}: the validation loss is {result['loss']}; {_DIVERGED}"
            )
        self.last_evaluation = {"kind": "evaluation", "step": self.progress.step, **result}
        self._tell(self.last_evaluation)

    def _save(self, *, required: bool) -> None:
        """Save; a full disk does not end a run in its middle, as earlier checkpoints are whole."""
        state = {
            "stream": self.parts.stream.state(),
            "seconds": self.progress.seconds,
            "tokens": self.progress.tokens,
            "evaluation": self.last_evaluation,
        }
        try:
            self.parts.checkpoints.save(self.progress.step, self.parts.engine.state(), state)
            self.saved_step = self.progress.step
        except StorageError as error:
            if required:
                raise
            self._event(f"WARNING: no checkpoint was saved: {error}")

    def _stop(self) -> None:
        if self.saved_step != self.progress.step:
            self._save(required=True)
        self._event(f"stopped by {self.request.reason} after saving a checkpoint")
        raise Interrupted(
            f"stopped by {self.request.reason} at step {self.progress.step} of {self.plan.total_steps}; "
            "a checkpoint was saved"
        )
