"""Shards that are kept on the CPU: the same steps as without, and a state that goes to and fro."""

import numpy as np
import pytest
import torch

from maskwright.model.config import EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.mlm import MaskedBatch, masked_lm_loss
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.factory import EngineParts, make_engine
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from ranks import run_ranks

pytestmark = pytest.mark.distributed

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
STEPS = 4


def engine(world, *, seed=3, precision="fp32", **options):
    model = MaskedLM(EncoderConfig(**SHAPE))
    initialize(model, seed, 0.1)
    make = optimizer_factory(OptimizerConfig(weight_decay=0.1), num_heads=2)
    config = ParallelConfig(engine="fsdp2", **options)
    return make_engine(config, EngineParts(model, make, "cpu", precision, 1.0), world)


def batch(number, rank):
    random = np.random.default_rng([number, rank])
    ids, targets = torch.from_numpy(random.integers(5, 60, 24)), torch.arange(0, 24, 3)
    return MaskedBatch(
        ids_N=ids,
        lengths=(16, 8),
        targets_M=targets,
        labels_M=ids[targets],
        counts={},
        samples=(0, 1),
        dropout=DropoutKeys(np.arange(2) + 2 * (number + rank)),
    )


def train(found, data_rank, first, steps):
    """Steps of two micro-batches; the sum of losses of each."""
    totals = {"loss": 2 * 8 * found.world.data_size}
    seen = []
    for number in range(first, first + steps):
        losses = []
        for half in (0, 1):
            one = batch(2 * number + half, data_rank)
            losses.append(found.forward_backward(masked_lm_loss, one, totals, last=half == 1))
        outcome = found.step(0.01)
        assert outcome.reason is None
        seen.append((sum(one["loss_sum"] for one in losses), outcome.norms.total))
    return seen


def run(world, folder, **options):
    """Some steps; then half of them, a checkpoint, and the other half of an engine that had other weights."""
    shared = world.share_layers(options.get("tensor", 1))
    rank = shared.rank // options.get("tensor", 1)
    whole = engine(shared, **options)
    told = {"losses": train(whole, rank, 0, STEPS)}
    told["weights"] = {name: weight.numpy() for name, weight in whole.weights().items()}
    first = engine(shared, **options)
    train(first, rank, 0, STEPS // 2)
    checkpoints = Checkpoints(folder, CheckpointConfig(), {}, shared)
    checkpoints.save(1, first.state(), {})
    assert not checkpoints.finish()
    second = engine(shared, seed=4, **options)
    second.load(checkpoints.load(1, second.state()).tensors)
    told["resumed"] = train(second, rank, STEPS // 2, STEPS - STEPS // 2)
    checkpoints.close()
    return told


def everything(world, folder):
    """With and without offloading, in shards alone and in shares of layers, in one start of two processes."""
    found = {}
    for name, options in SETUPS.items():
        for offload in (False, True):
            place = folder / f"{name} {offload}"
            found[name, offload] = run(world, place, cpu_offload=offload, **options)
    return found


SETUPS = {
    "shards": {},
    "shards in bf16": {"precision": "bf16"},
    "shards in fp16": {"precision": "fp16"},
    "shares": {"tensor": 2},
    "shares in bf16": {"tensor": 2, "precision": "bf16"},
    "no resharding": {"reshard_after_forward": False},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return run_ranks(2, everything, tmp_path_factory.mktemp("offload"))


@pytest.mark.parametrize("name", SETUPS)
def test_steps_are_the_same_as_without(told, name):
    for rank in told:
        without, offloaded = rank[name, False], rank[name, True]
        assert offloaded["losses"] == without["losses"]
        assert len({loss for loss, _ in offloaded["losses"]}) == STEPS
        assert offloaded["weights"].keys() == without["weights"].keys()
        for weight, other in zip(offloaded["weights"].values(), without["weights"].values(), strict=True):
            assert np.array_equal(weight, other)
    assert told[0][name, True]["weights"]


@pytest.mark.parametrize("name", SETUPS)
def test_a_checkpoint_goes_on_where_it_was_saved(told, name):
    for rank in told:
        found = rank[name, True]
        assert found["resumed"] == found["losses"][STEPS // 2 :]
