"""ZeRO on two ranks: steps as one process does, common refusals, and a state that goes to and fro."""

import json

import numpy as np
import pytest
import torch

from maskwright.core.errors import CheckpointError, ConfigError, MissingDependencyError
from maskwright.model.layout import Layout
from maskwright.parallel import deepspeed_engine
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.factory import EngineParts, make_engine
from maskwright.parallel.world import SOLO
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from ranks import run_ranks
from tiny_engine import tiny_engine

pytestmark = pytest.mark.distributed

STEPS = 5
MICRO = 4
LENGTH = 6


def engine(world, stage=2, precision="fp32", optimizer="adamw", **options):
    config = ParallelConfig(engine="deepspeed", zero_stage=stage, **options)
    # The gradient of the keys' biases is zero but for rounding, which a small eps would blow up.
    return tiny_engine(world, config, precision, name=optimizer, eps=1e-3)


def batches(step):
    """Micro-batches of a step, each of two sequences."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randint(5, 61, (2 * LENGTH,), generator=generator) for _ in range(MICRO)]


def objective(model, ids, *, train):
    assert model.config.vocab_size == 61
    targets = torch.arange(0, 2 * LENGTH, 3)
    loss, correct = model(ids, Layout(np.array([LENGTH, LENGTH])), targets, ids[targets])
    return {"loss": loss}, {"correct": correct}


def backward(found, step):
    mine = batches(step)[found.world.rank :: found.world.size]
    total = {"loss": MICRO * len(range(0, 2 * LENGTH, 3))}
    return sum(
        found.forward_backward(objective, batch, total, last=number == len(mine))["loss_sum"]
        for number, batch in enumerate(mine, start=1)
    )


def train(found, steps=range(STEPS)):
    """Losses of this rank and norms, step by step."""
    told = []
    for step in steps:
        loss = backward(found, step)
        outcome = found.step(0.01)
        told.append((loss, outcome.norms.total, outcome.norms.groups, outcome.reason))
    return told


def whole(found):
    """As arrays: a tensor is sent by a process that must still be there when it is read."""
    return {name: weight.numpy() for name, weight in found.weights().items()}


def arrays(state):
    return {
        "model": {name: value.numpy() for name, value in state["model"].items()},
        "optimizer": {
            name: {key: value.numpy() for key, value in own.items()}
            for name, own in state["optimizer"].items()
        },
    }


def refused(make):
    try:
        make()
    except (CheckpointError, ConfigError) as error:
        return str(error)
    return None


def survey(world, stage, **options):
    """All of one stage: steps, a refusal, a state that another engine takes over, and evaluation."""
    found = engine(world, stage, **options)
    told = {
        "start": whole(found),
        "zero": arrays(found.state()),
        "train": train(found),
        "after": whole(found),
    }
    state = found.state()
    told["state"] = arrays(state)
    backward(found, 77)
    told["refused"] = found.step(0.01, lambda norms: "not this one").reason
    told["still"] = arrays(found.state())
    told["on"] = train(found, range(STEPS, STEPS + 2))
    told["end"] = whole(found)
    other = engine(world, stage, **options)
    train(other, range(50, 51))
    other.load(state)
    train(other, range(STEPS, STEPS + 2))
    told["other"] = whole(other)
    told["eval"] = other.forward(objective, batches(9)[0])
    missing = {**state, "model": {k: v for k, v in state["model"].items() if k != "head_bias"}}
    told["missing"] = refused(lambda: other.load(missing))
    told["extra"] = refused(lambda: other.load({**state, "model": {**state["model"], "other": 1}}))
    return told


def work(world):
    told = {stage: survey(world, stage) for stage in (0, 1, 2, 3)}
    told["offload"] = survey(world, 2, cpu_offload=True)
    told["muon"] = refused(lambda: engine(world, optimizer="muon"))
    for stage in (1, 2, 3):
        found = engine(world, stage, "bf16")
        told["bf16", stage] = train(found), whole(found)
    found = engine(world, 2, "bf16", cpu_offload=True)
    told["bf16", "offload"] = train(found), whole(found)
    before = found.state()
    backward(found, 77)
    found.step(0.01, lambda norms: "not this one")
    told["bf16 refused"] = train(found, range(STEPS, STEPS + 2)), whole(found)
    other = engine(world, 2, "bf16", cpu_offload=True)
    other.load(before)
    told["bf16 other"] = train(other, range(STEPS, STEPS + 2)), whole(other)
    found = engine(world)
    broken = objective
    ids = batches(0)[0]

    def nan(model, batch, *, train):
        losses, sums = broken(model, batch, train=train)
        return {"loss": losses["loss"] * (float("nan") if world.rank else 1.0)}, sums

    before = whole(found)
    found.forward_backward(nan, ids, {"loss": 8}, last=True)
    told["nan"] = found.step(0.01).reason, before, whole(found)
    return told


@pytest.fixture(scope="module")
def told():
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    return run_ranks(2, work)


@pytest.fixture(scope="module")
def alone():
    """The same in one process."""
    found = engine(SOLO)
    steps, after = train(found), {name: value.copy() for name, value in whole(found).items()}
    state = arrays(found.state())
    state = json.loads(json.dumps(state, default=lambda value: value.tolist()))
    more = train(found, range(STEPS, STEPS + 2))
    return steps, after, state, more, whole(found)


def close(mine, others, rtol=1e-5):
    assert mine.keys() == others.keys()
    for name, value in others.items():
        np.testing.assert_allclose(mine[name], value, rtol=rtol, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3, "offload"])
class TestAStage:
    def test_steps_are_those_of_one_process(self, told, alone, stage):
        steps, after, _, more, end = alone
        for expected, found in ((steps, "train"), (more, "on")):
            for (loss, total, groups, reason), *ranks in zip(
                expected, told[0][stage][found], told[1][stage][found], strict=True
            ):
                assert sum(rank[0] for rank in ranks) == pytest.approx(loss, rel=1e-5)
                for _, mine, by_group, why in ranks:
                    assert mine == pytest.approx(total, rel=1e-5)
                    assert by_group == pytest.approx(groups, rel=1e-4)
                    assert why is reason is None
        close(told[0][stage]["after"], after)
        close(told[0][stage]["end"], end)
        assert told[1][stage]["after"] == {}

    def test_its_state_is_that_of_one_process(self, told, alone, stage):
        state = told[0][stage]["state"]
        close(state["model"], {name: np.array(value) for name, value in alone[2]["model"].items()})
        for name, own in alone[2]["optimizer"].items():
            close(state["optimizer"][name], {key: np.array(value) for key, value in own.items()})
            assert int(state["optimizer"][name]["step"]) == STEPS
        for name, own in told[0][stage]["zero"]["optimizer"].items():
            assert all((value == 0).all() for value in own.values()), name

    def test_a_refused_step_changes_nothing(self, told, stage):
        for rank in told:
            assert rank[stage]["refused"] == "not this one"
            before, after = rank[stage]["state"], rank[stage]["still"]
            for name, value in before["model"].items():
                assert np.array_equal(after["model"][name], value), name
                for key, kept in before["optimizer"][name].items():
                    assert np.array_equal(after["optimizer"][name][key], kept), (name, key)

    def test_a_loaded_state_goes_on_as_it_would_have(self, told, stage):
        for name, value in told[0][stage]["end"].items():
            assert np.array_equal(told[0][stage]["other"][name], value), name
        assert told[0][stage]["eval"].keys() == {"loss_sum", "correct"}

    def test_a_state_of_another_model_is_refused(self, told, stage):
        for rank in told:
            assert rank[stage]["missing"].startswith("head_bias is missing in the checkpoint, expected (61,)")
            assert rank[stage]["extra"].startswith("other of the checkpoint is not in the model; resume with")


@pytest.mark.slow
def test_nan_on_one_rank_stops_the_step_of_all(told):
    assert [rank["nan"][0] for rank in told] == ["the gradient is not finite"] * 2
    _, before, after = told[0]["nan"]
    assert before
    assert all(np.array_equal(after[name], value) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3, "offload"])
def test_bf16_stays_near_fp32(told, alone, stage):
    losses, weights = told[0]["bf16", stage]
    for mine, (_, total, _, _) in zip(losses, alone[0], strict=True):
        assert mine[1] == pytest.approx(total, rel=0.05)
    # The masters are fp32: they are no bf16 numbers.
    assert any(
        (torch.from_numpy(value).bfloat16().float().numpy() != value).any() for value in weights.values()
    )


@pytest.mark.slow
def test_a_refused_gradient_is_gone_where_it_was_kept_in_fp32(told):
    (steps, weights), (others, expected) = told[0]["bf16 refused"], told[0]["bf16 other"]
    assert [step[1] for step in steps] == [step[1] for step in others]
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_an_optimizer_of_whole_matrices_is_refused(told):
    for rank in told:
        assert rank["muon"].startswith('"optimizer.name" is one that needs whole matrices')


def test_one_process_without_a_launcher_is_refused():
    make = optimizer_factory(OptimizerConfig(), num_heads=2)
    parts = EngineParts(torch.nn.Linear(2, 2), make, "cpu", "fp32", 1.0)
    with pytest.raises(ConfigError, match="needs a launcher even for one process"):
        make_engine(ParallelConfig(engine="deepspeed"), parts, SOLO)


def test_a_missing_library_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(deepspeed_engine.importlib, "import_module", missing)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("DEEPSPEED_LOG_LEVEL", "warning")
    with pytest.raises(MissingDependencyError, match="deepspeed is not installed"):
        deepspeed_engine._library("cpu", "fp32")


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch):
    library = pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    kind = type(library.accelerator.get_accelerator())
    monkeypatch.setattr(kind, "is_fp16_supported", lambda self: False)
    with pytest.raises(ConfigError, match=r"does not compute on this device \(cpu\); set precision=bf16"):
        deepspeed_engine._library("cpu", "fp16")
    assert deepspeed_engine._library("cpu", "fp32") is library
