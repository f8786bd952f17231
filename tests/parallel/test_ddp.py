"""Copies on several ranks: gradients are summed, refusals are common, and unused weights stay as they are."""

import pytest
import torch
from torch import nn

from maskwright.core.errors import MaskwrightError
from maskwright.parallel.ddp import DataParallelEngine
from maskwright.parallel.single import SingleEngine
from ranks import run_ranks

pytestmark = pytest.mark.distributed


class Lines(nn.Module):
    """Two lines that are learned, and one that nothing depends on."""

    def __init__(self, offset=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Parameter(torch.randn(5, 7, generator=generator) + offset)
        self.second = nn.Parameter(torch.randn(7, generator=generator))
        self.unused = nn.Parameter(torch.ones(3))


def make(named):
    return torch.optim.AdamW([p for _, p in named], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)


def objective(model, batch, *, train):
    values = batch.to(model.first.dtype)
    loss = (torch.tanh(values @ model.first) @ model.second - 1).float().square().sum()
    return {"loss": loss}, {"correct": torch.tensor(1)}


def batches(count, seed=0):
    return list(torch.randn(count, 4, 5, generator=torch.Generator().manual_seed(seed)))


def engine(world, precision="fp32", limit=1.0, offset=0.0, **options):
    return DataParallelEngine(
        Lines(offset), make, "cpu", precision, limit, world=world, bucket_bytes=64, **options
    )


def steps(found, mine, count=3, total=20):
    outcomes = []
    for _ in range(count):
        for number, batch in enumerate(mine, start=1):
            found.forward_backward(objective, batch, {"loss": total}, last=number == len(mine))
        outcomes.append(found.step(0.1))
    return outcomes


def facts(found, outcomes):
    weights = {name: weight.clone() for name, weight in found.masters.weights().items()}
    return weights, [(one.norms.total, one.norms.groups, one.reason) for one in outcomes]


def work(world):
    """Everything on two ranks in one go; rank 0 has three of five micro-batches."""
    mine = batches(5)[: 3 if world.rank == 0 else 5][0 if world.rank == 0 else 3 :]
    told = {}
    for precision in ("fp32", "bf16"):
        found = engine(world, precision)
        told[precision] = facts(found, steps(found, mine))
    found = engine(world, reduce_precision="bf16")
    told["sent in bf16"] = facts(found, steps(found, mine))

    broken = [batch * (float("nan") if world.rank == 1 else 1.0) for batch in mine]
    found = engine(world)
    told["nan"] = facts(found, steps(found, broken, 1))
    found = engine(world, "fp16")
    told["overflow"] = facts(found, steps(found, [batch * 3e4 for batch in mine], 1))

    found = engine(world)
    state = found.state()
    found.load(state)
    told["weights"] = found.weights()
    try:
        engine(world, offset=float(world.rank))
    except MaskwrightError as error:
        told["different"] = str(error)
    return told


@pytest.fixture(scope="module")
def told():
    return run_ranks(2, work)


def alone(precision):
    found = SingleEngine(Lines(), make, "cpu", precision, 1.0)
    return facts(found, steps(found, batches(5)))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 2e-2)])
def test_as_one_process_with_all_micro_batches(told, precision, tolerance):
    weights, outcomes = alone(precision)
    for rank in (0, 1):
        mine, norms = told[rank][precision]
        for name in weights:
            assert torch.allclose(mine[name], weights[name], rtol=tolerance, atol=tolerance)
        assert [total for total, _, _ in norms] == pytest.approx([o[0] for o in outcomes], rel=tolerance)
        assert all(reason is None for _, _, reason in norms)
    for name in weights:
        assert torch.equal(told[0][precision][0][name], told[1][precision][0][name])


def test_sums_may_be_sent_in_bf16(told):
    weights, _ = alone("fp32")
    assert torch.allclose(told[0]["sent in bf16"][0]["second"], weights["second"], rtol=2e-2, atol=2e-2)


def test_what_nothing_depends_on_stays_as_it_is(told):
    assert torch.equal(told[0]["fp32"][0]["unused"], torch.ones(3))


def test_one_rank_with_nan_stops_the_step_of_all(told):
    for rank in (0, 1):
        weights, [(total, _, reason)] = told[rank]["nan"]
        assert reason == "the gradient is not finite"
        assert total != total
        assert all(torch.equal(weights[name], value) for name, value in Lines().state_dict().items())


def test_fp16_overflow_is_met_by_all(told):
    reasons = [told[rank]["overflow"][1][0][2] for rank in (0, 1)]
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("the fp16 gradient overflowed at loss scale 65536")


def test_rank_0_gives_the_weights_away(told):
    assert told[0]["weights"].keys() == {"first", "second", "unused"}
    assert told[1]["weights"] == {}


def test_copies_that_differ_are_refused(told):
    for rank in (0, 1):
        assert told[rank]["different"].startswith("the weights of rank 1 are not those of rank 0; start all")
