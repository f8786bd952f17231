"""fp32 masters, whole or as halves: the same numbers either way, whatever the optimiser and the pieces."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from maskwright.parallel import masters
from maskwright.parallel.masters import CopiedMasters, SplitMasters, make_masters
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

FLOAT_MAX = torch.finfo(torch.float32).max


def halves(values):
    """What is kept of fp32 numbers: rounded to bf16, and the missing bits."""
    weight = torch.empty(values.shape, dtype=torch.bfloat16)
    rest = torch.empty(values.shape, dtype=torch.int16)
    masters._split(values, weight, rest, torch.empty_like(values))
    return weight, rest


def joined(weight, rest):
    out = torch.empty(weight.shape)
    masters._join(weight, rest, out)
    return out


def check_halves(values):
    before = values.clone()
    weight, rest = halves(values)
    assert torch.equal(values.view(torch.int32), before.view(torch.int32))
    assert torch.equal(joined(weight, rest).view(torch.int32), values.view(torch.int32))
    # A nearest bf16 number, and of two nearest ones the larger; the framework takes the even one.
    even, exact = values.bfloat16().double(), values.double()
    finite = even.isfinite()
    distance = (weight.double() - exact).abs()
    assert torch.equal(distance[finite], (even - exact).abs()[finite])
    assert (weight.double().abs() >= even.abs())[finite].all()
    assert torch.equal(weight.double()[~finite], even[~finite])
    assert torch.equal(weight.signbit(), values.signbit())


@given(
    arrays.arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=True, allow_subnormal=True),
    )
)
def test_halves_join_to_the_same_number(values):
    check_halves(torch.from_numpy(values))


@given(
    st.lists(st.integers(0, 0x7F80), min_size=1, max_size=40), st.sampled_from([0, 0x7FFF, 0x8000, 0x8001])
)
def test_halves_of_numbers_at_and_beside_a_tie(uppers, lower):
    bits = np.array(uppers, np.uint32) << 16 | lower
    numbers = bits[bits <= 0x7F800000].view(np.float32)
    check_halves(torch.from_numpy(np.concatenate([numbers, -numbers, [0.0]]).astype(np.float32)))


def test_halves_of_the_ends():
    tiny = torch.finfo(torch.float32).smallest_normal
    ends = [0.0, tiny, 2.0**-149, FLOAT_MAX, 1.0, 1 + 2.0**-23, 1 + 2.0**-8, float("inf")]
    values = torch.tensor(ends + [-value for value in ends])
    check_halves(values)
    assert halves(torch.tensor([1 + 2.0**-8]))[0].item() == 1 + 2.0**-7


class Small(nn.Module):
    """A table, a stack of matrices, a matrix and a vector, by the names that optimisers look at."""

    def __init__(self):
        super().__init__()
        chance = torch.Generator().manual_seed(3)
        self.embeddings = nn.Module()
        self.embeddings.word = nn.Embedding(53, 8)
        layer = nn.Module()
        layer.qkv, layer.output, layer.output_norm = nn.Linear(8, 24), nn.Linear(16, 8), nn.LayerNorm(8)
        self.layers = nn.ModuleList([layer])
        for parameter in self.parameters():
            parameter.data.normal_(generator=chance)


def gradients_of(step, scale=0.1):
    """bf16 gradients by parameter, the same at every call."""
    chance = torch.Generator().manual_seed(100 + step)
    return {
        name: (torch.randn(value.shape, generator=chance) * scale).bfloat16()
        for name, value in Small().named_parameters()
    }


class Run:
    """Masters of a small model that are given gradients."""

    def __init__(self, kind, optimizer="adamw"):
        self.model = Small()
        make = optimizer_factory(OptimizerConfig(name=optimizer, weight_decay=0.1), num_heads=2)
        masters_of = {
            "split": lambda: SplitMasters(self.model, make),
            "copied": lambda: CopiedMasters(self.model, make, "bf16"),
        }
        self.masters = masters_of[kind]()

    def step(self, number, factor=1.0, micro_batches=1):
        for part in range(micro_batches):
            self.masters.collect()
            for name, parameter in self.model.named_parameters():
                parameter.grad = gradients_of(1000 * part + number)[name]
        self.masters.gradients()  # as engines do, for the norm
        self.masters.apply(1e-2 / number, factor)
        self.masters.clear()

    def saved(self):
        return copy.deepcopy((self.masters.weights(), self.masters.optimizer_state()))


def assert_same(one, other):
    """Weights and optimiser state agree bit for bit."""
    (weights, state), (other_weights, other_state) = one.saved(), other.saved()
    assert weights.keys() == other_weights.keys() == state.keys() == other_state.keys()
    for name, value in weights.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, other_weights[name]), name
        assert state[name].keys() == other_state[name].keys()
        for key, kept in state[name].items():
            assert torch.equal(torch.as_tensor(kept), torch.as_tensor(other_state[name][key])), (name, key)


@pytest.fixture(params=["whole", "pieces"])
def pieces(request, monkeypatch):
    """Parameters whole, or tables in pieces whose last is shorter."""
    if request.param == "pieces":
        monkeypatch.setattr(masters, "_PIECE_VALUES", 80)
    return request.param


def test_only_the_cpu_in_bf16_has_halves():
    make = optimizer_factory(OptimizerConfig())
    kinds = {
        precision: type(make_masters(Small(), make, precision)) for precision in ("fp32", "bf16", "fp16")
    }
    assert kinds == {"fp32": CopiedMasters, "bf16": SplitMasters, "fp16": CopiedMasters}


@pytest.mark.parametrize("factor", [1.0, 0.37])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_adamw_changes_halves_as_it_changes_copies(pieces, factor, micro_batches):
    split, copied = Run("split"), Run("copied")
    assert_same(split, copied)
    for number in range(1, 21):
        split.step(number, factor, micro_batches)
        copied.step(number, factor, micro_batches)
    assert_same(split, copied)
    assert (len(split.masters.parts[0].pieces) > 1) == (pieces == "pieces")
    assert split.saved()[1]["embeddings.word.weight"]["step"].item() == 20


@pytest.mark.parametrize("optimizer", ["lamb", "muon"])
def test_other_optimisers_get_whole_parameters(pieces, optimizer):
    split, copied = Run("split", optimizer), Run("copied", optimizer)
    assert all(len(part.pieces) == 1 for part in split.masters.parts)
    start = split.saved()[0]
    for number in range(1, 6):
        split.step(number, 0.5)
        copied.step(number, 0.5)
    assert_same(split, copied)
    assert all(not torch.equal(value, start[name]) for name, value in split.saved()[0].items())


def test_the_model_computes_on_the_rounded_masters(pieces):
    split = Run("split")
    for number in range(1, 4):
        split.step(number)
        weights = split.masters.weights()
        for name, parameter in split.model.named_parameters():
            assert parameter.dtype == torch.bfloat16
            assert torch.equal(parameter, halves(weights[name])[0])


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
@pytest.mark.parametrize(
    ("before", "after"), [("copied", "split"), ("split", "copied"), ("split", "split"), ("copied", "copied")]
)
def test_either_goes_on_from_the_state_of_the_other(pieces, before, after, optimizer):
    first, second = Run(before, optimizer), Run(after, optimizer)
    for number in range(1, 4):
        first.step(number)
    second.step(7)  # what it had is to be forgotten
    saved = first.saved()
    second.masters.load(*saved)
    assert_same(first, second)
    for number in range(4, 7):
        first.step(number)
        second.step(number)
    assert_same(first, second)
    # What was loaded is a copy.
    assert not torch.equal(saved[0]["layers.0.qkv.weight"], first.saved()[0]["layers.0.qkv.weight"])


def test_a_state_made_in_pieces_goes_on_whole_and_back(monkeypatch):
    whole = Run("split")
    monkeypatch.setattr(masters, "_PIECE_VALUES", 80)
    cut = Run("split")
    whole.step(1)
    cut.masters.load(*whole.saved())
    cut.step(2)
    whole.step(2)
    assert_same(cut, whole)
    whole.step(9)
    whole.masters.load(*cut.saved())
    assert_same(cut, whole)


@pytest.mark.parametrize("kind", ["split", "copied"])
def test_micro_batches_add_up_in_fp32(kind):
    run = Run(kind)
    large = {name: torch.full_like(value, 256.0) for name, value in gradients_of(0).items()}
    # Each is less than half of the distance between neighbours of 256 in bf16.
    small = {name: torch.full_like(value, 0.5) for name, value in large.items()}
    for gradients in (large, *[small] * 7):
        run.masters.collect()
        for name, parameter in run.model.named_parameters():
            parameter.grad = gradients[name].clone()
    for gradient in run.masters.gradients().values():
        assert gradient.dtype == torch.float32
        assert gradient.eq(259.5).all()


def test_a_single_micro_batch_is_not_copied():
    run = Run("split")
    run.masters.collect()
    given = gradients_of(0)
    for name, parameter in run.model.named_parameters():
        parameter.grad = given[name]
    assert all(value is given[name] for name, value in run.masters.gradients().items())
    run.masters.clear()
    assert run.masters.gradients() == {}


@pytest.mark.parametrize("kind", ["split", "copied"])
def test_what_has_no_gradient_stays(kind):
    run = Run(kind)
    before = run.saved()
    run.model.layers[0].output.weight.grad = torch.ones(8, 16, dtype=torch.bfloat16)
    assert run.masters.gradients().keys() == {"layers.0.output.weight"}
    run.masters.apply(0.1, 1.0)
    after = run.saved()
    changed = {name for name, value in after[0].items() if not torch.equal(value, before[0][name])}
    assert changed == {"layers.0.output.weight"}
    assert after[1]["layers.0.output.bias"]["step"].item() == 0


@pytest.mark.parametrize("kind", ["split", "copied"])
def test_making_the_state_changes_nothing_and_counts_no_step(kind):
    weights, state = Run(kind).saved()
    assert all(torch.equal(value, weights[name]) for name, value in Small().named_parameters())
    for kept in state.values():
        assert kept.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(value.eq(0).all() for value in kept.values())
