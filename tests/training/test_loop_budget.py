"""The loop when time is its budget."""

import time

import pytest
import torch
from loop_parts import Hook, objective, run, stop_at, weight_sum

from maskwright.core.errors import Interrupted
from maskwright.training.schedules import ScheduleConfig


class Clock:
    """A monotonic clock that goes on by what each step is to take."""

    def __init__(self, monkeypatch, step_seconds, start=1000.0):
        self.now, self.step_seconds = start, step_seconds
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def __call__(self, model, batch, *, train):
        self.now += self.step_seconds / 2  # there are two micro-batches
        return objective(model, batch, train=train)


class TestBudget:
    """Runs that end with their time."""

    def budgeted(self, folder, clock, seconds=40, hook=None, **plan):
        schedule = ScheduleConfig(name="linear", warmup_share=0.25, budget_seconds=seconds)
        return run(folder, steps=1, goal=clock, hook=hook, schedule=schedule, log_every=1, **plan)

    def test_it_ends_when_the_time_is_spent(self, tmp_path, monkeypatch):
        hook = Hook()
        result, _, parts = self.budgeted(tmp_path, Clock(monkeypatch, 4), hook=hook)
        assert result["step"] == 10
        assert parts.checkpoints.steps()[-1] == 10
        trained = [record for record in hook.records if record["kind"] == "train"]
        assert [record["share_done"] for record in trained] == pytest.approx(
            [0.1 * step for step in range(1, 11)]
        )
        assert [record["total_steps"] for record in trained] == [10] * 10
        # The rate is that of the time before the step: it rises to 10 s, then falls to the 40th.
        expected = [0.1 * max(1e-3, min(4 * k / 10, (40 - 4 * k) / 30)) for k in range(10)]
        assert [record["lr"] for record in trained] == pytest.approx(expected)
        assert parts.stream.shares == pytest.approx([0.1 * step for step in range(10)])

    def test_the_time_of_evaluations_counts(self, tmp_path, monkeypatch):
        clock = Clock(monkeypatch, 4)

        def slow(engine):
            clock.now += 6
            return weight_sum(engine)

        # Time is looked at behind each step: 4, 14, 24, 34 and 44 seconds.
        result, _, _ = self.budgeted(tmp_path, clock, evaluate=slow, evaluate_every=1)
        assert result["step"] == 5

    def test_a_resumed_run_has_only_the_rest_of_the_time(self, tmp_path, monkeypatch):
        _, expected, _ = self.budgeted(tmp_path / "whole", Clock(monkeypatch, 4))
        with pytest.raises(Interrupted, match="stopped by SIGTERM at step 4; a checkpoint was saved"):
            self.budgeted(tmp_path / "cut", Clock(monkeypatch, 4), hook=Hook(stop_at(4)))
        result, weight, _ = self.budgeted(tmp_path / "cut", Clock(monkeypatch, 4, start=5.0))
        assert result["step"] == 10
        assert torch.equal(weight, expected)

    def test_a_step_longer_than_the_budget_still_ends_whole(self, tmp_path, monkeypatch):
        result, _, parts = self.budgeted(tmp_path, Clock(monkeypatch, 1000))
        assert (result["step"], parts.checkpoints.steps()) == (1, [1])
