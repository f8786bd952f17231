"""The loop when a loss or a gradient is not a number, is far out of the ordinary, or overflows in fp16."""

from itertools import pairwise

import pytest
import torch
from loop_parts import Broken, Hook, run, stop_at

from maskwright.core.errors import Interrupted, UserError
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.spikes import SpikeConfig


def skipped(fault, step):
    """The first of two micro-batches with equal losses is named."""
    return f"{fault}; the step was skipped and no weight changed; highest loss in samples {2 * step}"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_is_skipped_and_told(tmp_path, bad):
    hook = Hook()
    _, weight, _ = run(tmp_path, hook=hook, goal=Broken({3, 4}, bad))
    assert hook.messages() == [skipped(f"the loss is {bad}", step) for step in (3, 4)]
    assert [r["step"] for r in hook.records if r["kind"] == "event"] == [3, 4]
    assert torch.isfinite(weight).all()


class Steep(Broken):
    """Its loss stays a number where its gradient is none."""

    def __call__(self, model, batch, *, train):
        losses, sums = super().__call__(model, batch, train=train)
        if (self.calls - 1) // 2 + 1 in self.bad:
            return {"loss": (model.weight * 0).sum().sqrt()}, sums
        return losses, sums


def test_a_bad_gradient_is_skipped_and_told(tmp_path):
    hook = Hook()
    _, weight, _ = run(tmp_path, hook=hook, goal=Steep({3, 4}, 1.0))
    fault = "the gradient is not finite (head nan)"
    assert hook.messages() == [skipped(fault, step) for step in (3, 4)]
    assert torch.isfinite(weight).all()


def test_a_skipped_step_changes_no_weight(tmp_path):
    weights = {}

    def remember(engine):
        weights[len(weights) + 1] = engine.model.weight.detach().clone()
        return {"loss": 0.0}

    run(tmp_path, steps=6, goal=Broken({3, 4}), evaluate=remember, evaluate_every=1)
    assert torch.equal(weights[2], weights[3])
    assert torch.equal(weights[3], weights[4])
    assert not torch.equal(weights[4], weights[5])


def test_too_many_bad_losses_stop_the_run(tmp_path):
    hook = Hook()
    most = SpikeConfig().max_skipped
    said = (
        f"step {4 + most - 1}: the loss is nan; it is the last of {most} steps in a row that were skipped; "
        rf"highest loss in samples {2 * (4 + most - 1)}; "
        r"the run has diverged: lower optimizer\.lr or use precision=fp32, and start again"
    )
    with pytest.raises(UserError, match=said):
        run(tmp_path, steps=40, hook=hook, goal=Broken(set(range(4, 40))))
    assert hook.closed == 1
    # Linear decay looks at the number of steps, so the other run has as many and stops by itself.
    with pytest.raises(Interrupted):
        run(tmp_path / "other", steps=40, hook=Hook(stop_at(3)), log_every=1)
    before = Checkpoints(tmp_path / "other" / "checkpoints", CheckpointConfig(), {}).load_newest()
    after = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(), {}).load_newest()
    assert (before.step, after.step) == (3, 12)
    assert torch.equal(after.tensors["model"]["weight"], before.tensors["model"]["weight"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_validation_loss_stops_the_run_before_it_is_saved(tmp_path, bad):
    hook = Hook()
    with pytest.raises(UserError, match=f"step 4: the validation loss is {bad}; the run has diverged: lower"):
        run(tmp_path, hook=hook, evaluate=lambda engine: {"loss": bad}, checkpoint_every=2)
    assert hook.closed == 1
    assert Checkpoints(tmp_path / "checkpoints", CheckpointConfig(), {}).steps() == [2]


def test_bad_gradients_with_good_ones_between_do_not_stop_it(tmp_path):
    bad = set(range(1, 60)) - {9, 18, 27, 36, 45, 54}
    hook = Hook()
    run(tmp_path, steps=60, hook=hook, goal=Broken(bad))
    assert len(hook.messages()) == len(bad)


class TestSpikes:
    """Steps far out of the ordinary, as the loop hands them to the guard."""

    def spiking(self, tmp_path, policy, hook=None, steps=20, **options):
        config = SpikeConfig(policy=policy, window=10)
        goal = Broken({15}, 1e6)
        return run(tmp_path, steps=steps, hook=hook, goal=goal, spikes=config, **options)

    @pytest.mark.parametrize("policy", ["warn", "skip"])
    def test_a_spike_is_told_and_skipped_where_asked(self, tmp_path, policy):
        hook = Hook()
        _, weight, _ = self.spiking(tmp_path / "spike", policy, hook)
        _, plain, _ = self.spiking(tmp_path / "off", "off")
        (message,) = hook.messages()
        assert message.startswith("WARNING: the gradient norm is") == (policy == "warn")
        assert "the median of the last 10 steps is" in message
        assert message.endswith("highest loss in samples 30")
        assert ("the step was skipped" in message) == (policy == "skip")
        assert torch.equal(weight, plain) == (policy == "warn")

    def test_what_the_guard_remembers_is_resumed(self, tmp_path):
        _, expected, parts = self.spiking(tmp_path / "whole", "skip")
        with pytest.raises(Interrupted):
            self.spiking(tmp_path / "cut", "skip", Hook(stop_at(12)))
        hook = Hook()
        config = SpikeConfig(policy="skip", window=10)
        # The calls of a resumed objective count from 13.
        _, weight, again = run(tmp_path / "cut", steps=20, hook=hook, goal=Broken({3}, 1e6), spikes=config)
        assert len(hook.messages()) == 2
        assert "the median of the last 10 steps" in hook.messages()[1]
        assert torch.equal(weight, expected)
        assert again.spikes.state() == parts.spikes.state()


class TestHalfPrecision:
    """fp16, where an overflow is part of the work and no sign of divergence."""

    def run(self, folder, **options):
        return run(folder, steps=20, precision="fp16", log_every=1, **options)

    def test_overflows_are_told_and_the_run_goes_on(self, tmp_path):
        hook = Hook()
        _, weight, parts = self.run(tmp_path, hook=hook, spikes=SpikeConfig(max_skipped=1))
        messages = hook.messages()
        assert 1 <= len(messages) < 15
        scales = [2**16 // 2**number for number in range(len(messages) + 1)]
        assert messages == [
            f"the fp16 gradient overflowed at loss scale {before:g}; it is {after:g} now; "
            "the step was skipped and no weight changed"
            for before, after in pairwise(scales)
        ]
        assert parts.engine.scaler.scale == scales[-1]
        assert weight.isfinite().all()
        overflowed = {record["step"] for record in hook.records if record["kind"] == "event"}
        trained = [record for record in hook.records if record["kind"] == "train"]
        assert overflowed == {one["step"] for one in trained if one["grad_norm"] == float("inf")}

    @pytest.mark.parametrize("stop", [1, 2, 12])
    def test_the_scale_is_resumed(self, tmp_path, stop):
        _, expected, parts = self.run(tmp_path / "whole")
        with pytest.raises(Interrupted):
            self.run(tmp_path / "cut", hook=Hook(stop_at(stop)))
        _, weight, again = self.run(tmp_path / "cut")
        assert torch.equal(weight, expected)
        assert again.engine.scaler.state() == parts.engine.scaler.state()
        assert all(torch.equal(v, again.engine.weights()[k]) for k, v in parts.engine.weights().items())
