"""The loop with the smallest parts there are: records, checkpoints, stops, a full disk."""

import os
import signal

import pytest
import torch
from loop_parts import Broken, Hook, Stream, run, stop_at

from maskwright.core.errors import CheckpointError, Interrupted, OutOfReachError, StorageError
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.signals import asked_to_stop
from maskwright.training.watch import Watch


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
    assert record["expected_mask_rate"] == pytest.approx(12 / 80)
    assert record["mask_variance"] == pytest.approx(10)
    assert (record["share_done"], record["total_steps"]) == (1, 2)
    assert record["grad_norm"] == pytest.approx(record["grad_norm/head"])
    assert record["grad_norm"] > 0
    assert record["accuracy"] == pytest.approx(4 / 8)
    assert record["lr"] == pytest.approx((0.1 + 0.05) / 2)
    assert record["tokens_seen"] == 24
    assert record["real_tokens_per_second"] / record["tokens_per_second"] == pytest.approx(4 / 6)
    assert record["peak_share"] == pytest.approx(record["tokens_per_second"] * 3e-9)
    assert 0 <= record["data_wait_share"] <= 1
    assert record["step_seconds"] * 2 == pytest.approx(record["seconds"])


def test_the_gradient_is_of_the_mean_over_all_micro_batches(tmp_path):
    hook = Hook()
    run(tmp_path, hook=hook, steps=1)
    torch.manual_seed(0)
    weight = torch.nn.Linear(2, 1, bias=False).weight
    # Two micro-batches, each with the gradient 2 (w x - 1) x of two targets, where x = (1, 1).
    expected = abs(weight.sum().item() - 1) * 2**0.5
    (record,) = [record for record in hook.records if record["kind"] == "train"]
    assert record["grad_norm"] == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_record_is_the_mean_over_its_targets(tmp_path):
    class Constant(Broken):
        def __call__(self, model, batch, *, train):
            return {"loss": (model.weight * 0).sum() + 6.0}, {}

    hook = Hook()
    run(tmp_path, hook=hook, goal=Constant(()))
    assert [record["loss"] for record in hook.records if record["kind"] == "train"] == [3.0] * 5


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

    def save(self, step, *arguments, **how):
        saved.append(step)
        return honest(self, step, *arguments, **how)

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

        def save(self, step, *arguments, **how):
            if step in bad:
                raise StorageError(f"step {step}: No space left on device; free some space")
            return honest(self, step, *arguments, **how)

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
    assert Checkpoints(tmp_path / "checkpoints", CheckpointConfig(), {}).load_newest().step in (3, 9)


def test_the_stream_is_told_how_much_is_done(tmp_path):
    _, _, parts = run(tmp_path, steps=5)
    assert parts.stream.shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("away_at", [2, 4, 5])
def test_data_out_of_reach_saves_what_was_done(tmp_path, away_at):
    _, expected, _ = run(tmp_path / "whole")
    hook = Hook()
    with pytest.raises(OutOfReachError, match="far://data: cannot be read"):
        run(tmp_path / "cut", hook=hook, away_at=away_at)
    assert hook.messages() == ["stopped after saving a checkpoint: far://data: cannot be read"]
    again = Hook()
    result, weight, _ = run(tmp_path / "cut", hook=again)
    assert again.messages() == [f"resumed from the checkpoint of step {away_at - 1}"]
    assert torch.equal(weight, expected)
    assert result["tokens_seen"] == 120


def test_data_out_of_reach_before_anything_was_done_saves_nothing(tmp_path):
    with pytest.raises(OutOfReachError):
        run(tmp_path, away_at=1)
    assert not (tmp_path / "checkpoints").exists()


def test_a_signal_while_data_is_out_of_reach_is_obeyed(tmp_path, monkeypatch):
    honest = Stream.next_step

    def next_step(self, share_done):
        if self.consumed == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, share_done)

    monkeypatch.setattr(Stream, "next_step", next_step)
    with pytest.raises(Interrupted, match="stopped by SIGTERM at step 4 of 10; a checkpoint was saved"):
        run(tmp_path, away_at=5)


def test_what_comes_after_training_is_watched_and_not_held_up_by_signals(tmp_path):
    class Remembering(Watch):
        def __init__(self):
            self.told = []

        def phase(self, name):
            self.told.append(name)

        def failed(self, error):
            self.told.append(str(error))
            return ValueError("told")

        def close(self):
            self.told.append("closed")

    def finish(result):
        assert hook.closed == 1
        assert not asked_to_stop()
        watch.told.append(result["step"])
        return {"made": "of it"}

    hook, watch = Hook(stop_at(10)), Remembering()
    assert run(tmp_path, hook=hook, finish=finish, watch=watch)[0] == {"made": "of it"}
    assert watch.told[-3:] == ["finishing", 10, "closed"]

    def fail(result):
        raise KeyError("made")

    with pytest.raises(ValueError, match="told"):
        run(tmp_path, finish=fail, watch=watch)
    assert watch.told[-3:] == ["finishing", "'made'", "closed"]
