"""Shards on two ranks: steps as one process does, common refusals, and a state that goes to and fro."""

import numpy as np
import pytest
import torch

from maskwright.core.errors import CheckpointError, ConfigError
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.world import SOLO
from ranks import run_ranks
from tiny_engine import tiny_engine

pytestmark = pytest.mark.distributed


def engine(world, **options):
    return tiny_engine(world, ParallelConfig(engine="fsdp2", **options))


def whole(found):
    """As arrays: a tensor is sent by a process that must still be there when it is read."""
    return {name: weight.numpy() for name, weight in found.weights().items()}


def refused(make):
    try:
        make()
    except (CheckpointError, ConfigError) as error:
        return str(error)
    return None


def work(world):
    found = engine(world)
    before = whole(found)
    state = found.state()
    told = {"replicas": refused(lambda: engine(world, replicas=3))}
    missing = {**state, "model": {k: v for k, v in state["model"].items() if k != "head_bias"}}
    told["missing"] = refused(lambda: found.load(missing))
    told["extra"] = refused(lambda: found.load({**state, "model": {**state["model"], "other": 1}}))
    for weight in found.named.values():
        weight.grad = torch.full_like(weight, float("nan") if world.rank else 1.0)
    outcome = found.step(0.1)
    told["nan"] = outcome.reason, before, whole(found)
    for weight in found.named.values():
        weight.grad = torch.ones_like(weight)
    told["norms"] = found.step(0.1).norms.total
    told["after"] = whole(found)
    told["names"] = sorted(found.state()["optimizer"])
    other = engine(world)
    other.load(found.state())
    told["loaded"] = whole(other)
    return told


@pytest.fixture(scope="module")
def told():
    return run_ranks(2, work)


def test_a_step_is_that_of_one_process(told):
    alone = engine(SOLO)
    for weight in alone.parameters:
        weight.grad = torch.ones_like(weight)
    assert told[0]["norms"] == told[1]["norms"] == pytest.approx(alone.step(0.1).norms.total, rel=1e-6)
    for name, weight in whole(alone).items():
        assert np.allclose(told[0]["after"][name], weight, rtol=1e-6, atol=1e-7), name
        assert np.array_equal(told[0]["loaded"][name], told[0]["after"][name]), name
    assert told[1]["after"] == {}
    assert told[0]["names"] == sorted(alone.state()["optimizer"])


def test_nan_on_one_rank_stops_the_step_of_all(told):
    assert [rank["nan"][0] for rank in told] == ["the gradient is not finite"] * 2
    _, before, after = told[0]["nan"]
    assert before
    assert all((after[name] == value).all() for name, value in before.items())


def test_what_does_not_fit_is_refused(told):
    for rank in told:
        assert rank["replicas"].startswith('"parallel.replicas" is 3, but 2 processes see other samples')
        assert rank["missing"].startswith("head_bias is missing in the checkpoint, expected (61,)")
        assert rank["extra"].startswith("other of the checkpoint is not in the model; resume with")
