"""The training loop. It knows a stream, an objective, an engine and hooks, and nothing else.

Pretraining and fine-tuning are this loop with other parts plugged in. Losses are sums and counts:
each micro-batch adds the gradient of its summed loss divided by the number of targets of the whole
step, so any split of a step gives the same gradient.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.errors import Interrupted, StorageError, UserError
from ..parallel.engine import Engine, Objective, StepOutcome
from .checkpoint import Checkpoints
from .hooks import Hook, Record, memory_fields
from .records import Window
from .schedules import Schedule
from .signals import StopRequest, stop_on_signals
from .spikes import MicroLoss, SpikeConfig, SpikeGuard

__all__ = ["MicroBatch", "Parts", "Plan", "Stream", "train"]

_DIVERGED = "the run has diverged: lower optimizer.lr or use precision=fp32, and start again"


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
    """

    schedule: Schedule
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    device: str = "cpu"


def _no_profile(step: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Parts:
    """What is plugged into the loop."""

    stream: Stream
    objective: Objective
    engine: Engine
    checkpoints: Checkpoints
    evaluate: Callable[[Engine], Record]
    hooks: Sequence[Hook] = ()
    spikes: SpikeGuard = field(default_factory=lambda: SpikeGuard(SpikeConfig(policy="off")))
    profile: Callable[[int], contextlib.AbstractContextManager[None]] = _no_profile


@dataclass
class _Progress:
    """Where the run is, over all starts.

    `seconds` are those of training; `spent` are all of them, with evaluating and saving.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    spent: float = 0.0


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
        self.progress, self.window = _Progress(), Window()
        self.last_evaluation: Record = {}
        self.saved_step = 0
        self._resume()
        self._spent_before, self._started = self.progress.spent, time.monotonic()

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
        told = found.progress
        spent = told.get("spent", told["seconds"])
        self.progress = _Progress(found.step, told["seconds"], told["tokens"], spent)
        self.parts.spikes.restore(told.get("spikes", {}))
        self.last_evaluation = told["evaluation"]
        self._event(f"resumed from the checkpoint of step {found.step}")

    def _share_done(self) -> float:
        """Share of training that is done; where time is the budget, it is looked at here alone."""
        self.progress.spent = self._spent_before + time.monotonic() - self._started
        return self.plan.schedule.share(self.progress.step, self.progress.spent)

    def finish(self) -> Record:
        plan, share = self.plan, self._share_done()
        while share < 1:
            with self.parts.profile(self.progress.step + 1):
                self._step(share)
            share = self._share_done()
            step, last = self.progress.step, share >= 1
            if step % plan.log_every == 0 or last:
                self._log(share)
            if step % plan.evaluate_every == 0 or last:
                self._evaluate()
            if step % plan.checkpoint_every == 0 or last:
                self._save(required=last)
            if self.request.reason and not last:
                self._stop()
        seen = {"seconds": self.progress.seconds, "tokens_seen": self.progress.tokens}
        return {**self.last_evaluation, **seen, "step": self.progress.step}

    def _step(self, share: float) -> None:
        started = time.perf_counter()
        batches = self.parts.stream.next_step(share)
        loaded = time.perf_counter()
        self.progress.step += 1
        rate = self.plan.schedule.rate(self.progress.step, self.progress.spent)
        outcome = self._compute(batches, rate)
        tokens = sum(batch.num_tokens for batch in batches)
        elapsed = time.perf_counter() - started
        self.progress.seconds += elapsed
        self.progress.tokens += tokens
        self.window.seconds += elapsed
        self.window.data_seconds += loaded - started
        self.window.steps += 1
        norms = {f"grad_norm/{name}": norm for name, norm in outcome.norms.groups.items()}
        self.window.add({"lr": rate, "grad_norm": outcome.norms.total, **norms})
        told = self.parts.spikes.report(outcome.reason)
        if told is not None:
            self._event(told)

    def _compute(self, batches: Sequence[MicroBatch], rate: float) -> StepOutcome:
        """Gradients of all micro-batches, and the step, unless the guard or the engine refuses it."""
        engine = self.parts.engine
        counts = {name: sum(batch.targets[name] for batch in batches) for name in batches[0].targets}
        totals = {name: max(1, engine.total(count)) for name, count in counts.items()}
        losses = []
        for batch in batches:
            sums = engine.forward_backward(self.parts.objective, batch, totals)
            losses.append(MicroLoss(sums["loss_sum"], batch.targets["loss"], batch.samples))
            targets = {f"{name}_targets": count for name, count in batch.targets.items()}
            self.window.add({**sums, **targets, "tokens": batch.num_tokens, **batch.counts})
        mean = sum(loss.loss_sum for loss in losses) / totals["loss"]
        self.parts.spikes.watch(self.progress.step, mean, losses)
        return engine.step(rate, self.parts.spikes.accept)

    def _log(self, share: float) -> None:
        plan, progress = self.plan, self.progress
        record: Record = {
            "kind": "train",
            "step": progress.step,
            "share_done": share,
            **self.window.record(plan.flops_per_token, plan.peak_flops),
            "seconds": progress.seconds,
            "tokens_seen": progress.tokens,
            **memory_fields(plan.device),
        }
        left = plan.schedule.steps_left_estimate(progress.step, progress.spent)
        if left is not None:
            record["total_steps"] = progress.step + left
        self._tell(record)
        self.window = Window()

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
            "spent": self.progress.spent,
            "spikes": self.parts.spikes.state(),
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
            f"stopped by {self.request.reason} at step {self.progress.step}{self._of_all()}; "
            "a checkpoint was saved"
        )

    def _of_all(self) -> str:
        schedule = self.plan.schedule
        return "" if schedule.budget_seconds is not None else f" of {schedule.total_steps}"
