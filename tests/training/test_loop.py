"""The loop with the smallest parts there are: records, checkpoints, bad gradients, stops, a full disk."""

import os
import signal
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from maskwright.core.errors import CheckpointError, Interrupted, StorageError, UserError
from maskwright.parallel.single import SingleEngine
from maskwright.training.checkpoint import Checkpoints
from maskwright.training.loop import MAX_SKIPPED_STEPS, Parts, Plan, train


@dataclass(frozen=True)
class Numbers:
    """Two inputs of a line."""

    values: torch.Tensor
    num_targets: int = 2
    num_tokens: int = 6
    counts: dict = field(default_factory=lambda: {"eligible": 20, "real_tokens": 4})


class Stream:
    """Step `i` has the inputs `seed + i` and 1, in two micro-batches."""

    def __init__(self, seed=0):
        self.seed, self.consumed = seed, 0

    def next_step(self):
        self.consumed += 1
        return [Numbers(torch.tensor([float(self.seed + self.consumed), 1.0])) for _ in range(2)]

    def state(self):
        return {"seed": self.seed, "consumed": self.consumed}

    def restore(self, state):
        if state["seed"] != self.seed:
            raise CheckpointError("another seed")
        self.consumed = state["consumed"]


class Hook:
    """Remembers everything, and may do something at a record."""

    def __init__(self, at=None):
        self.records, self.closed, self.at = [], 0, at

    def record(self, record):
        self.records.append(record)
        if self.at is not None:
            self.at(record)

    def close(self):
        self.closed += 1

    def steps(self, kind):
        return [record["step"] for record in self.records if record["kind"] == kind]

    def messages(self):
        return [record["message"] for record in self.records if record["kind"] == "event"]


def objective(model, batch, *, train):
    loss = ((model.weight * batch.values).sum() - 1) ** 2
    return loss, {"correct": torch.tensor(1)}


class Broken:
    """An objective whose loss is not finite at some steps, counted over the run."""

    def __init__(self, bad):
        self.bad, self.calls = bad, 0

    def __call__(self, model, batch, *, train):
        self.calls += 1
        loss, sums = objective(model, batch, train=train)
        return loss * (float("nan") if (self.calls - 1) // 2 + 1 in self.bad else 1.0), sums


def weight_sum(engine):
    return {"loss": engine.model.weight.sum().item()}


def run(folder, steps=10, hook=None, goal=objective, seed=0, keep=2, evaluate=weight_sum, **plan):
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)

    def make(named):
        return torch.optim.AdamW([p for _, p in named], lr=0.1)

    engine = SingleEngine(model, make, "cpu", "fp32", 1.0)
    parts = Parts(
        stream=Stream(seed),
        objective=goal,
        engine=engine,
        checkpoints=Checkpoints(folder / "checkpoints", keep, {}),
        evaluate=evaluate,
        hooks=[hook] if hook else [],
    )
    settings = {"evaluate_every": 4, "checkpoint_every": 3, "log_every": 2, **plan}
    result = train(parts, Plan(total_steps=steps, learning_rate=lambda step: 0.1 / step, **settings))
    return result, model.weight.detach().clone(), parts


def stop_at(step, number=signal.SIGTERM):
    def act(record):
        if record["kind"] == "train" and record["step"] == step:
            os.kill(os.getpid(), number)

    return act


def test_when_it_records_evaluates_and_saves(tmp_path):
    hook = Hook()
    result, weight, parts = run(tmp_path, hook=hook)
    assert hook.steps("train") == [2, 4, 6, 8, 10]
    assert hook.steps("evaluation") == [4, 8, 10]
    assert parts.checkpoints.steps() == [9, 10]
    assert hook.closed == 1
    assert result["loss"] == pytest.approx(weight.sum().item())
    assert (result["step"], result["tokens_seen"]) == (10, 120)


def test_what_a_training_record_says(tmp_path):
    hook = Hook()
    run(tmp_path, hook=hook, steps=2, flops_per_token=3.0, peak_flops=1e9)
    record = next(record for record in hook.records if record["kind"] == "train")
    assert record["mask_rate"] == pytest.approx(8 / 80)
    assert record["eligible"] == 80
    assert record["accuracy"] == pytest.approx(4 / 8)
    assert record["lr"] == pytest.approx((0.1 + 0.05) / 2)
    assert record["tokens_seen"] == 24
    assert record["real_tokens_per_second"] / record["tokens_per_second"] == pytest.approx(4 / 6)
    assert record["peak_share"] == pytest.approx(record["tokens_per_second"] * 3e-9)
    assert 0 <= record["data_wait_share"] <= 1
    assert record["step_seconds"] * 2 == pytest.approx(record["seconds"])


def test_the_loss_of_a_record_is_the_mean_over_its_targets(tmp_path):
    class Constant(Broken):
        def __call__(self, model, batch, *, train):
            return (model.weight * 0).sum() + 6.0, {}

    hook = Hook()
    run(tmp_path, hook=hook, goal=Constant(()))
    assert [record["loss"] for record in hook.records if record["kind"] == "train"] == [3.0] * 5


def test_a_bad_gradient_is_skipped_and_told(tmp_path):
    hook = Hook()
    _, weight, _ = run(tmp_path, hook=hook, goal=Broken({3, 4}))
    assert hook.messages() == ["the gradient is not finite; the step was skipped and no weight changed"] * 2
    assert [r["step"] for r in hook.records if r["kind"] == "event"] == [3, 4]
    assert torch.isfinite(weight).all()


def test_too_many_bad_gradients_stop_the_run(tmp_path):
    hook = Hook()
    said = (
        f"step {4 + MAX_SKIPPED_STEPS - 1}: the gradient was not finite {MAX_SKIPPED_STEPS} times in a row; "
        r"the run has diverged: lower optimizer\.lr or use precision=fp32, and start again"
    )
    with pytest.raises(UserError, match=said):
        run(tmp_path, steps=40, hook=hook, goal=Broken(set(range(4, 40))))
    assert hook.closed == 1
    _, before, _ = run(tmp_path / "other", steps=3)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, {})
    assert torch.equal(checkpoints.load_newest().tensors["model"]["weight"], before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_validation_loss_stops_the_run_before_it_is_saved(tmp_path, bad):
    hook = Hook()
    with pytest.raises(UserError, match=f"step 4: the validation loss is {bad}; the run has diverged: lower"):
        run(tmp_path, hook=hook, evaluate=lambda engine: {"loss": bad}, checkpoint_every=2)
    assert hook.closed == 1
    assert Checkpoints(tmp_path / "checkpoints", 2, {}).steps() == [2]


def test_bad_gradients_with_good_ones_between_do_not_stop_it(tmp_path):
    bad = set(range(1, 60)) - {9, 18, 27, 36, 45, 54}
    hook = Hook()
    run(tmp_path, steps=60, hook=hook, goal=Broken(bad))
    assert len(hook.messages()) == len(bad)


@pytest.mark.parametrize("stop", [2, 4, 6, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, stop, number):
    _, expected, _ = run(tmp_path / "whole")
    hook = Hook(stop_at(stop, number))
    said = f"stopped by {number.name} at step {stop} of 10; a checkpoint was saved"
    with pytest.raises(Interrupted, match=said):
        run(tmp_path / "cut", hook=hook)
    assert hook.messages() == [f"stopped by {number.name} after saving a checkpoint"]
    assert hook.closed == 1
    again = Hook()
    result, weight, _ = run(tmp_path / "cut", hook=again)
    assert again.messages() == [f"resumed from the checkpoint of step {stop}"]
    assert again.steps("train") == [step for step in (2, 4, 6, 8, 10) if step > stop]
    assert torch.equal(weight, expected)
    assert result["tokens_seen"] == 120


def test_a_signal_at_the_last_step_changes_nothing(tmp_path):
    result, _, _ = run(tmp_path, hook=Hook(stop_at(10)))
    assert result["step"] == 10


def test_stopping_where_a_checkpoint_was_just_saved_does_not_replace_it(tmp_path, monkeypatch):
    saved = []
    honest = Checkpoints.save

    def save(self, step, *arguments):
        saved.append(step)
        return honest(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(Interrupted):
        run(tmp_path, hook=Hook(stop_at(6)), keep=1)
    assert saved == [3, 6]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, weight, _ = run(tmp_path)
    hook = Hook()
    second, same, parts = run(tmp_path, hook=hook)
    assert torch.equal(weight, same)
    assert (first, parts.stream.consumed) == (second, 10)
    assert hook.messages() == ["resumed from the checkpoint of step 10"]


def test_a_checkpoint_of_another_stream_is_refused(tmp_path):
    run(tmp_path)
    hook = Hook()
    with pytest.raises(CheckpointError, match="another seed"):
        run(tmp_path, seed=1, hook=hook)
    assert hook.closed == 1


@pytest.fixture
def full_disk(monkeypatch):
    """Saving fails at some steps."""

    def install(*bad):
        honest = Checkpoints.save

        def save(self, step, *arguments):
            if step in bad:
                raise StorageError(f"step {step}: No space left on device; free some space")
            return honest(self, step, *arguments)

        monkeypatch.setattr(Checkpoints, "save", save)

    return install


def test_a_full_disk_in_the_middle_does_not_end_a_run(tmp_path, full_disk):
    full_disk(3, 6)
    hook = Hook()
    _, weight, parts = run(tmp_path, hook=hook)
    assert hook.messages() == [
        f"WARNING: no checkpoint was saved: step {step}: No space left on device; free some space"
        for step in (3, 6)
    ]
    assert parts.checkpoints.steps() == [9, 10]
    assert torch.equal(weight, run(tmp_path / "other")[1])


@pytest.mark.parametrize("hook", [Hook(), Hook(stop_at(6))], ids=["at the end", "when stopping"])
def test_a_full_disk_where_a_checkpoint_is_needed(tmp_path, full_disk, hook):
    full_disk(6, 10)
    with pytest.raises(StorageError, match="No space left on device"):
        run(tmp_path, hook=hook)
    assert hook.closed == 1
    assert Checkpoints(tmp_path / "checkpoints", 2, {}).load_newest().step in (3, 9)
