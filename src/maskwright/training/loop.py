"""The training loop. It knows a stream, an objective, an engine and hooks, and nothing else.

Pretraining and fine-tuning are this loop with other parts plugged in. Losses are sums and counts:
each micro-batch adds the gradient of its summed loss divided by the number of targets of the whole
step, so any split of a step gives the same gradient.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..core.errors import ConfigError, Interrupted, OutOfReachError, StorageError, UserError
from ..parallel.engine import StepOutcome
from .agreement import DataAwayError, StepSize, agree_on_reason, agree_on_size, report_missing_data
from .hooks import Record, memory_fields
from .parts import MicroBatch, Parts, Plan
from .records import Window
from .signals import StopRequest, stop_on_signals
from .spikes import MicroLoss
from .watch import WorkerLost

__all__ = ["train"]

_DIVERGED = "the run has diverged: lower optimizer.lr or use precision=fp32, and start again"


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
        What `parts.finish` makes of the last evaluation, with `seconds` and `tokens_seen` of the whole run.

    Raises:
        Interrupted: a signal asked to stop; a checkpoint was written first.
        UserError: the run has diverged, or the checkpoint does not fit.
    """
    try:
        with stop_on_signals() as request:
            try:
                result = _Run(parts, plan, request).finish()
            except Exception as error:
                raise parts.watch.failed(error) from error.__cause__
            finally:
                parts.checkpoints.close()
                for hook in parts.hooks:
                    hook.close()
        return _finish(parts, result)
    finally:
        parts.watch.close()


def _finish(parts: Parts, result: Record) -> Record:
    """Do what comes after training. Everything is saved, so a signal ends it at once."""
    parts.watch.phase("finishing")
    try:
        return parts.finish(result)
    except Exception as error:
        raise parts.watch.failed(error) from error.__cause__


class _Run:
    def __init__(self, parts: Parts, plan: Plan, request: StopRequest) -> None:
        self.parts, self.plan, self.request = parts, plan, request
        self.world = parts.engine.world
        self.asked_to_stop: str | None = None
        self.progress, self.window = _Progress(), Window()
        self.last_evaluation: Record = {}
        self.num_losses: int | None = None
        self.saved_step, self.last_loss, self.busy_since = 0, math.nan, time.process_time()
        self._resume()
        if self.world.is_main:
            parts.begun()
        self._spent_before, self._started = self.progress.spent, time.monotonic()

    def _tell(self, record: Record) -> None:
        for hook in self.parts.hooks:
            hook.record(record)

    def _event(self, message: str) -> None:
        self._tell({"kind": "event", "step": self.progress.step, "message": message})

    def _resume(self) -> None:
        self.parts.watch.phase("resuming")
        found = self.parts.checkpoints.load_newest(self.parts.engine.state(), self._check)
        if found is None:
            return
        self.parts.engine.load(found.tensors)
        told = found.progress
        spent = told.get("spent", told["seconds"])
        self.progress = _Progress(found.step, told["seconds"], told["tokens"], spent)
        self.parts.spikes.restore(told.get("spikes", {}))
        self.last_evaluation = told["evaluation"]
        where = f" on {self.plan.processes}" if self.plan.processes else ""
        self._event(f"resumed from the checkpoint of step {found.step}{where}")

    def _check(self, step: int, told: Mapping[str, Any]) -> None:
        """Compare the place of a checkpoint with the plan and the data, before its tensors are read."""
        self.parts.stream.restore(told["stream"])
        schedule = self.plan.schedule
        if schedule.budget_seconds is None and step > schedule.total_steps:
            raise ConfigError(
                f'the checkpoint is of step {step}, but "steps" is {schedule.total_steps}; give at least as '
                "many steps, or start a new run"
            )

    def _share_done(self) -> float:
        """Share of training that is done; where time is the budget, it is looked at here alone."""
        self.progress.spent = self._spent_before + time.monotonic() - self._started
        if self.plan.schedule.budget_seconds is not None:
            # One clock decides for all.
            self.progress.spent = self.world.exchange([self.progress.spent])[0][0]
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
            if self._reason_to_stop() and not last:
                self._stop()
        if self.last_evaluation.get("step") != self.progress.step:
            self._evaluate()
        for message in self.parts.checkpoints.poll():
            self._event(message)
        seen = {"seconds": self.progress.seconds, "tokens_seen": self.progress.tokens}
        return {**self.last_evaluation, **seen, "step": self.progress.step}

    def _step(self, share: float) -> None:
        started = time.perf_counter()
        self.parts.watch.begin(self.progress.step + 1)
        batches = self._read(share)
        loaded = time.perf_counter()
        self.parts.watch.phase("computing")
        size = self._agree_on_size(batches)
        self.progress.step += 1
        rate = self.plan.schedule.rate(self.progress.step, self.progress.spent)
        outcome = self._compute(batches, size, rate)
        elapsed = time.perf_counter() - started
        self.progress.seconds += elapsed
        self.window.seconds += elapsed
        self.window.data_seconds += loaded - started
        self.window.steps += 1
        norms = {f"grad_norm/{name}": norm for name, norm in outcome.norms.groups.items()}
        self.window.note({"lr": rate, "grad_norm": outcome.norms.total, **norms})
        self.parts.watch.end(loss=self.last_loss, grad_norm=outcome.norms.total, lr=rate, seconds=elapsed)
        self.parts.spikes.blame(self.world.gather)
        told = self.parts.spikes.report(outcome.reason)
        for message in [*([told] if told else ()), *self.parts.checkpoints.poll()]:
            self._event(message)

    def _read(self, share: float) -> Sequence[MicroBatch]:
        self.parts.check()
        try:
            return self.parts.stream.next_step(share)
        except OutOfReachError as error:
            if self.num_losses is None:
                raise  # nothing was done in this start that could be lost
            with contextlib.suppress(DataAwayError):
                report_missing_data(self.world, self.num_losses)
            self._leave_without_data(error)

    def _agree_on_size(self, batches: Sequence[MicroBatch]) -> StepSize:
        equally_many = self.parts.engine.equal_micro_batches
        try:
            size = agree_on_size(self.world, batches, self.parts.filler, equally_many=equally_many)
        except DataAwayError as error:
            self.parts.stream.undo_step()
            lost = WorkerLost(f"{error} of step {self.progress.step + 1}; start the run again")
            self._leave_without_data(lost)
        self.num_losses = len(size.totals)
        return size

    def _compute(self, batches: Sequence[MicroBatch], size: StepSize, rate: float) -> StepOutcome:
        """Gradients of all micro-batches, and the step, unless the guard or the engine refuses it."""
        engine, found = self.parts.engine, []
        for number, batch in enumerate(size.batches, start=1):
            sums = engine.forward_backward(
                self.parts.objective, batch, size.totals, last=number == len(size.batches)
            )
            found.append(MicroLoss(sums["loss_sum"], batch.targets["loss"], batch.samples))
            targets = {f"{name}_targets": count for name, count in batch.targets.items()}
            self.window.add({**sums, **targets, "tokens": batch.num_tokens, **batch.counts})
        self.parts.watch.phase("losses")
        mine = {
            "loss": sum(loss.loss_sum for loss in found),
            "tokens": sum(batch.num_tokens for batch in batches),
        }
        total, self.asked_to_stop = agree_on_reason(self.world, mine, self.request.reason)
        self.progress.tokens += int(total["tokens"])
        self.last_loss = total["loss"] / size.totals["loss"]
        self.parts.spikes.watch(self.progress.step, self.last_loss, found)
        self.parts.watch.phase("optimizer step")
        return engine.step(rate, self.parts.spikes.accept)

    def _reason_to_stop(self) -> str | None:
        """The signal that somebody got; several processes look at it together, once a step."""
        return self.request.reason if self.world.size == 1 else self.asked_to_stop

    def _log(self, share: float) -> None:
        plan, progress = self.plan, self.progress
        sums = self.world.sums(self.window.sums)
        busy = self.world.exchange([time.process_time() - self.busy_since])
        fields, told = self.parts.watch.busy([row[0] for row in busy])
        record: Record = {
            "kind": "train",
            "step": progress.step,
            "share_done": share,
            **self.window.record(plan.flops_per_token, plan.peak_flops * self.world.size, sums),
            "seconds": progress.seconds,
            "tokens_seen": progress.tokens,
            **memory_fields(plan.device),
            **fields,
        }
        left = plan.schedule.steps_left_estimate(progress.step, progress.spent)
        if left is not None:
            record["total_steps"] = progress.step + left
        self._tell(record)
        if told is not None:
            self._event(told)
        self.window, self.busy_since = Window(), time.process_time()

    def _evaluate(self) -> None:
        self.parts.watch.phase("evaluating")
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
        self.parts.watch.phase("saving")
        try:
            self.parts.checkpoints.save(
                self.progress.step,
                self.parts.engine.state(),
                state,
                score=self.last_evaluation.get("loss"),
                wait=required,
            )
            self.saved_step = self.progress.step
        except StorageError as error:
            if required:
                raise
            self._event(f"WARNING: no checkpoint was saved: {error}")

    def _leave_without_data(self, error: Exception) -> NoReturn:
        """Save what was done so far, which all processes do when one of them has no data, and end."""
        _, self.asked_to_stop = agree_on_reason(self.world, {}, self.request.reason)
        if self._reason_to_stop():
            self._stop()
        self._save_now()
        self._event(f"stopped after saving a checkpoint: {error}")
        raise error

    def _stop(self) -> NoReturn:
        self._save_now()
        reason = self._reason_to_stop()
        self._event(f"stopped by {reason} after saving a checkpoint")
        raise Interrupted(
            f"stopped by {reason} at step {self.progress.step}{self._of_all()}; a checkpoint was saved"
        )

    def _save_now(self) -> None:
        if self.saved_step != self.progress.step or self.parts.checkpoints.finish():
            self._save(required=True)

    def _of_all(self) -> str:
        schedule = self.plan.schedule
        return "" if schedule.budget_seconds is not None else f" of {schedule.total_steps}"
