"""A model that never lay whole in a process has the weights of one that did, and costs its shards."""

import sys

import numpy as np
import pytest
import torch

from heap import handed_out, watcher
from maskwright.model.config import MODEL_SIZES, EncoderConfig
from maskwright.model.encoder import Block, initial_weights
from maskwright.parallel import fsdp
from maskwright.parallel.building import fill, materialize, own_part
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.factory import EngineParts, make_engine
from maskwright.parallel.tensor_parallel.share import placement_of
from maskwright.parallel.world import World
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from ranks import run_ranks
from tiny_engine import UNEVEN, empty_model, whole_model

# About 100 MB, of which the word table is 31.
LARGE = EncoderConfig(
    vocab_size=20_001,
    hidden_size=384,
    num_hidden_layers=10,
    num_attention_heads=6,
    intermediate_size=1_536,
    max_position_embeddings=130,
)
BLOCK_BYTES = 4 << 22
SETTINGS = {
    "shards": {},
    "bf16": {"precision": "bf16"},
    "on the CPU": {"cpu_offload": True},
}
FOUR = {
    "four shards": {},
    "copies": {"replicas": 2},
    "shared layers": {"tensor": 2},
    "shared layers on the CPU": {"tensor": 2, "cpu_offload": True},
}


def make(world, shape, *, whole=False, precision="fp32", factory=None, **options):
    """An engine on a model that is whole at first, or never."""
    model = whole_model(3, shape) if whole else empty_model(shape)
    source = None if whole else lambda: initial_weights(empty_model(shape), 3, 0.1)
    factory = factory or optimizer_factory(OptimizerConfig(weight_decay=0.1), shape.num_attention_heads)
    parts = EngineParts(model, factory, "cpu", precision, 1.0, first_weights=source)
    config = ParallelConfig(engine="fsdp2", **options)
    return make_engine(config, parts, world.share_layers(config.tensor))


def arrays(weights):
    """What a process may send and end."""
    return {name: weight.numpy() for name, weight in weights.items()}


def bits(engine):
    """Shards of weights and of what the optimiser remembers."""
    state = engine.state()
    found = {name: weight.to_local().clone() for name, weight in state["model"].items()}
    for name, kept in state["optimizer"].items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.dim():
                found[f"{name} {key}"] = value.to_local().clone()
    return found


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(engine, shape):
    """A forward and a backward pass, which put layers together, and a step."""
    from maskwright.model.dropout import DropoutKeys
    from maskwright.objectives.mlm import MaskedBatch, masked_lm_loss

    ids = torch.arange(24) % shape.vocab_size
    targets = torch.arange(0, 24, 5)
    batch = MaskedBatch(
        ids_N=ids,
        lengths=(9, 8, 7),
        targets_M=targets,
        labels_M=ids[targets],
        counts={},
        samples=(0, 1, 2),
        dropout=DropoutKeys(np.arange(3)),
    )
    found = []
    for _ in range(2):
        found.append(engine.forward_backward(masked_lm_loss, batch, {"loss": 10}, last=True)["loss_sum"])
        engine.step(1e-2)
    return found


def compare(world, settings):
    told = {}
    for name, options in settings.items():
        one, other = make(world, UNEVEN, **options), make(world, UNEVEN, whole=True, **options)
        told[name] = {
            "weights": arrays(one.weights()),
            "first": same_bits(bits(one), bits(other)),
            "losses": (losses(one, UNEVEN), losses(other, UNEVEN)),
            "last": same_bits(bits(one), bits(other)),
            "devices": {str(weight.device) for weight in one.model.parameters()},
        }
    return told


def most_bytes(world, **options):
    """Bytes at the highest point of building a model, its own, and those of its shards."""
    import gc

    seen = []

    def factory(named, shards=None):
        seen.append(watch.most)  # from here on it is the optimiser's
        return torch.optim.SGD([parameter for _, parameter in named], 0.0)

    gc.collect()
    before = handed_out()
    watch = watcher()
    with watch:
        engine = make(world, LARGE, factory=factory, **options)
    own = sum(weight.to_local().nbytes for weight in engine.named.values())
    return seen[0] - before, own, sum(weight.numel() * 4 for weight in engine.named.values())


def two(world):
    told = compare(world, SETTINGS)
    if sys.platform.startswith("linux"):
        make(world, UNEVEN)  # what the libraries take for themselves
        told["empty"], told["whole"] = most_bytes(world), most_bytes(world, whole=True)
    return told


@pytest.fixture(scope="module")
def told():
    return run_ranks(2, two)


def check(found):
    """That ranks found the same, and what one process has."""
    expected = arrays(whole_model(3).state_dict())
    weights = found[0]["weights"]
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    for rank in found:
        assert rank["first"]
        assert rank["losses"][0] == rank["losses"][1]
        assert rank["losses"][0][0] != rank["losses"][0][1]
        assert rank["last"]
        assert rank["devices"] == {"cpu"}


@pytest.mark.distributed
@pytest.mark.parametrize("name", SETTINGS)
def test_the_weights_are_those_of_one_process(told, name):
    check([rank[name] for rank in told])


@pytest.mark.distributed
@pytest.mark.slow
def test_the_weights_of_four_ranks_are_those_of_one_process():
    found = run_ranks(4, compare, FOUR)
    for name in FOUR:
        check([rank[name] for rank in found])


@pytest.mark.distributed
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc counts what it hands out")
def test_building_costs_the_own_shards_and_one_block(told):
    for rank in told:
        most, own, whole = rank["empty"]
        assert whole > 95e6
        assert 0.49 * whole < own < 0.52 * whole
        assert own <= most < own + BLOCK_BYTES + 4e6 < 0.75 * whole
        # What is counted sees a whole model where there is one.
        assert rank["whole"][0] > whole


class ReachedError(Exception):
    """The model is sharded, and has no memory yet."""


@pytest.fixture
def fake_ranks():
    """Makes this process one of many that are not there."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def begin(rank, size):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        return World(rank, size, group=dist.group.WORLD)

    yield begin
    dist.destroy_process_group()


@pytest.mark.parametrize(("size", "rank", "tensor"), [("xl", 0, 1), ("xl", 7, 2), ("xxl", 15, 2)])
def test_the_largest_shapes_without_memory(fake_ranks, monkeypatch, size, rank, tensor):
    ranks = 8 if size == "xl" else 16
    world = fake_ranks(rank, ranks)
    shape = EncoderConfig(**MODEL_SIZES[size], vocab_size=250_002)

    def stop(model, device):
        raise ReachedError

    monkeypatch.setattr(fsdp, "materialize", stop)
    model = empty_model(shape)
    # All of it is dealt out to ranks that see other samples, and what is large also among those that do not.
    divisors = {name: tensor if placement_of(name).is_shard() else 1 for name, _ in model.named_parameters()}
    share = sum(weight.numel() / divisors[name] for name, weight in model.named_parameters())
    parts = EngineParts(
        model, optimizer_factory(OptimizerConfig()), "cpu", "bf16", 1.0, first_weights=lambda: iter(())
    )
    with pytest.raises(ReachedError):
        make_engine(ParallelConfig(engine="fsdp2", tensor=tensor), parts, world.share_layers(tensor))
    weights = dict(model.named_parameters())
    assert all(weight.is_meta for weight in weights.values())
    own = sum(weight.to_local().numel() for weight in weights.values())
    assert own == pytest.approx(share * tensor / ranks, rel=1e-4)
    for name, weight in weights.items():
        sides = [side.stop - side.start for side in own_part(weight)]
        assert list(weight.to_local().shape) == sides, name


def test_a_model_has_nothing_but_parameters_to_give_values_to():
    assert not list(empty_model().buffers())
    model = empty_model()
    model.register_buffer("table", torch.empty(3, device="meta"))
    with pytest.raises(AssertionError):
        materialize(model, "cpu")


def test_only_what_has_no_memory_gets_some():
    model = empty_model()
    model.head_norm.weight = torch.nn.Parameter(torch.full((20,), 7.0))
    model.register_buffer("table", torch.arange(3))
    materialize(model, "cpu")
    assert {weight.device.type for weight in model.parameters()} == {"cpu"}
    assert model.head_norm.weight.tolist() == [7.0] * 20
    assert model.table.tolist() == [0, 1, 2]


def test_all_rows_must_come():
    model = torch.nn.Linear(3, 4)
    with pytest.raises(AssertionError, match=r"no values for \['weight'\]"):
        fill(model, [Block("weight", 1, torch.ones(3, 3)), Block("bias", 0, torch.ones(4))])
    fill(model, [Block("weight", 0, torch.ones(4, 3)), Block("bias", 0, torch.full((4,), 2.0))])
    assert model.weight.tolist() == [[1.0] * 3] * 4
    assert model.bias.tolist() == [2.0] * 4
