"""Compiled, checkpointed and converted models: the same losses, gradients and names, and few graphs."""

import copy
import logging
import math
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.utils import counters

from maskwright.core.errors import ConfigError, MissingDependencyError
from maskwright.model import acceleration
from maskwright.model.acceleration import (
    TargetCapacity,
    accelerate_model,
    capacity_for,
    convert_to_fp8,
    pad_targets,
    plain_masked_loss,
)
from maskwright.model.config import EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.layout import Layout

# The tracer looks at `grad` of inner values and warns about it; the CPU's code generator imports a
# module that is deprecated. Both are the framework's own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
]
SHAPE = EncoderConfig(
    vocab_size=101,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=34,
)
EQUAL, UNEQUAL = [16, 16, 16, 16], [16, 5, 11, 1, 16]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make_model(kind=MaskedLM, dtype=torch.float64, dropout=0.0, **more):
    values = SHAPE.model_dump() | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = kind(EncoderConfig(**values), **more)
    initialize(model, 1, 0.3)
    return model.to(dtype)


def make_batch(lengths, num_targets, seed=0):
    generator = np.random.default_rng(seed)
    ids = torch.from_numpy(generator.integers(5, 101, sum(lengths)))
    targets = torch.from_numpy(np.sort(generator.permutation(sum(lengths))[:num_targets]))
    labels = torch.from_numpy(generator.integers(5, 101, num_targets))
    return ids, Layout(lengths), targets, labels


def run(model, batch, keys=None):
    """Loss, correct guesses and gradients by name."""
    model.zero_grad()
    loss, correct = model(*batch, keys)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), int(correct), gradients


def assert_same(ours, expected, tolerance=1e-10):
    assert ours[0] == pytest.approx(float(expected[0]), rel=tolerance)
    assert ours[1] == expected[1]
    assert ours[2].keys() == expected[2].keys()
    scale = max(gradient.abs().max() for gradient in expected[2].values())
    for name, gradient in expected[2].items():
        assert (ours[2][name] - gradient).abs().max() < tolerance * scale, name


def keys_of(lengths):
    return DropoutKeys(np.arange(len(lengths), dtype=np.int64))


@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_compiled_layers_and_head_give_the_same_losses_and_gradients(lengths):
    model = make_model()
    batch = make_batch(lengths, 9)
    expected = run(model, batch)
    accelerate_model(model, compile=True, backend="aot_eager")
    assert_same(run(model, batch), expected)
    assert counters["stats"]["unique_graphs"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_generated_code_gives_the_same_losses_and_gradients(lengths):
    model = make_model(dtype=torch.float32)
    ids, layout, targets, labels = make_batch(lengths, 9)
    expected = run(model, (ids, layout, targets, labels))
    accelerate_model(model, compile=True)
    ours = run(model, (ids, layout, *pad_targets(targets, labels, 16)))
    assert_same(ours, expected, 2e-5)


@pytest.mark.parametrize(("checkpointing", "recomputed"), [("full", [0, 1, 2]), ("selective", [0, 2])])
@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_checkpointed_layers_draw_the_same_masks_again(lengths, checkpointing, recomputed):
    model = make_model(dropout=0.2)
    batch, keys = make_batch(lengths, 9), keys_of(lengths)
    expected = run(model, batch, keys)
    calls = []
    for number, layer in enumerate(model.encoder.layers):
        layer.attention_norm.register_forward_hook(lambda *_, number=number: calls.append(number))
    accelerate_model(model, activation_checkpointing=checkpointing)
    assert_same(run(model, batch, keys), expected)
    assert calls[:3] == [0, 1, 2]
    assert sorted(calls[3:]) == recomputed
    with torch.no_grad():
        assert model(*batch, keys)[0] == pytest.approx(float(expected[0]), rel=1e-12)
    assert len(calls) == 6 + len(recomputed)


@pytest.mark.parametrize(
    "lengths", [EQUAL, pytest.param(UNEQUAL, marks=pytest.mark.slow)], ids=["equal", "unequal"]
)
def test_compiled_and_checkpointed_layers_draw_the_same_masks_again(lengths):
    batch, keys, found = make_batch(lengths, 9), keys_of(lengths), {}
    for checkpointing in ("none", "full"):
        model = make_model(dropout=0.2)
        accelerate_model(model, compile=True, activation_checkpointing=checkpointing, backend="aot_eager")
        torch.manual_seed(5)
        found[checkpointing] = run(model, batch, keys)
        torch.manual_seed(6)
        other = run(model, batch, keys)
        assert other[0] != found[checkpointing][0]
    assert_same(found["full"], found["none"])


def test_other_numbers_of_targets_make_no_further_graphs():
    model = make_model()
    accelerate_model(model, compile=True, backend="aot_eager")
    capacity = TargetCapacity(16)
    made = []
    for number in (9, 3, 16, 1, 12, 16, 0, 17, 30):
        ids, layout, targets, labels = make_batch(EQUAL, number, seed=number)
        run(model, (ids, layout, *capacity.pad(targets, labels)))
        made.append(counters["stats"]["unique_graphs"])
    # One for all layers and one for the head, then one more head for twice the capacity.
    assert made == [2] * 7 + [3] * 2
    assert capacity.overflows == 2
    assert not counters["graph_break"]


def test_other_numbers_of_tokens_make_no_further_graphs():
    model = make_model()
    accelerate_model(model, compile=True, backend="aot_eager")
    made = []
    for seed, lengths in enumerate([[16, 5, 12], [9, 16, 3], [7, 2, 16, 14], [16, 1, 8, 8, 13], [12, 16]]):
        ids, layout, targets, labels = make_batch(lengths, 6, seed)
        run(model, (ids, layout, *pad_targets(targets, labels, 16)))
        made.append(counters["stats"]["unique_graphs"])
    # One for all layers, one for the head; no N is one of the fixed sizes, which would be taken for it.
    assert made == [2] * 5
    assert not counters["graph_break"]


def test_many_shapes_of_equal_lengths_end_in_code_for_any_shape(monkeypatch):
    monkeypatch.setattr(acceleration, "_STATIC_SHAPES", 1)
    model = make_model()
    accelerate_model(model, compile=True, backend="aot_eager")
    made = []
    for rows in (7, 3, 5, 7, 9):
        ids, layout, targets, labels = make_batch([8] * rows, 3, rows)
        run(model, (ids, layout, *pad_targets(targets, labels, 16)))
        made.append(counters["stats"]["unique_graphs"])
    # The first shape of layers and the head, then one for all other shapes.
    assert made == [2, 3, 3, 3, 3]


def test_passes_without_a_gradient_are_not_compiled():
    model = make_model()
    batch = make_batch(EQUAL, 9)
    expected = model(*batch)
    accelerate_model(model, compile=True, backend="aot_eager")
    with torch.no_grad():
        found = model(*batch)
    assert not counters["stats"]["unique_graphs"]
    assert float(found[0]) == pytest.approx(float(expected[0].detach()), rel=1e-12)
    assert int(found[1]) == int(expected[1])


def test_names_and_weights_stay_and_copies_are_whole():
    model = make_model()
    names = list(model.state_dict())
    accelerate_model(model, compile=True, activation_checkpointing="full", backend="aot_eager")
    assert list(model.state_dict()) == names
    accelerate_model(model, activation_checkpointing="full")
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    batch = make_batch(EQUAL, 9)
    assert twin(*batch)[0].item() == pytest.approx(9 * math.log(101))
    assert not counters["stats"]["unique_graphs"]
    assert model(*batch)[0].item() != pytest.approx(9 * math.log(101))


@pytest.mark.slow
def test_a_classifier_is_compiled_too():
    model = make_model(SequenceClassifier, num_labels=3)
    ids, layout, _, _ = make_batch(UNEQUAL, 1)
    expected = model(ids, layout)
    accelerate_model(model, compile=True, backend="aot_eager")
    assert (model(ids, layout) - expected).abs().max() < 1e-6
    assert counters["stats"]["unique_graphs"] == 1


def test_checkpoint_every_zero_is_refused():
    with pytest.raises(ConfigError, match='"checkpoint_every" is 0, expected at least 1'):
        accelerate_model(make_model(), activation_checkpointing="selective", checkpoint_every=0)


def test_rows_that_fill_up_change_neither_loss_nor_gradient():
    found = []
    for capacity in (9, 16, 5):
        model = make_model()
        model.masked_loss = lambda hidden, targets, labels, table, model=model: plain_masked_loss(
            model, hidden.index_select(0, targets), labels, table
        )
        ids, layout, targets, labels = make_batch(EQUAL, 9)
        found.append(run(model, (ids, layout, *pad_targets(targets, labels, capacity))))
    expected = run(make_model(), make_batch(EQUAL, 9))
    for ours in found:
        assert_same(ours, expected)


@pytest.mark.parametrize(("number", "size"), [(0, 8), (1, 8), (8, 8), (9, 16), (17, 24)])
def test_filling_up_leaves_no_target_out(number, size):
    targets, labels = torch.arange(number) + 3, torch.arange(number) + 50
    padded = pad_targets(targets, labels, 8)
    assert [len(part) for part in padded] == [size, size]
    assert torch.equal(padded[0][:number], targets)
    assert torch.equal(padded[1][:number], labels)
    assert padded[0][number:].eq(0).all()
    assert padded[1][number:].eq(-100).all()


def test_too_many_targets_are_said_once(caplog):
    caplog.set_level(logging.WARNING, logger="maskwright")
    capacity = TargetCapacity(8)
    for number in (8, 9, 20, 3):
        capacity.pad(torch.arange(number), torch.arange(number))
    assert capacity.overflows == 2
    assert caplog.messages == [
        "a micro-batch has 9 predicted positions, planned were 8; it is computed with a multiple of that, "
        "compiled on its own; later ones are counted in silence"
    ]


@given(st.integers(1, 100_000), st.floats(1e-3, 1.0), st.floats(1.0, 10.0))
def test_a_capacity_holds_mean_and_six_deviations(num_tokens, rate, run_length):
    found = capacity_for(num_tokens, rate, run_length)
    wanted = num_tokens * rate + 6 * math.sqrt(num_tokens * rate * (1 - rate) * run_length)
    assert found % 64 == 0
    assert found >= min(wanted, num_tokens)
    assert found < min(wanted + 1, num_tokens) + 64


def test_the_capacity_of_a_usual_micro_batch():
    # 32 x 512 tokens at 15 %: mean 2457.6, deviation 45.7.
    assert capacity_for(32 * 512, 0.15) == 2752


@pytest.mark.parametrize("values", [(0, 0.15, 1.0), (8, 0.0, 1.0), (8, 1.5, 1.0), (8, 0.5, 0.5)])
def test_a_capacity_of_nonsense_is_refused(values):
    with pytest.raises(ConfigError, match=r"capacity_for got .* expected at least 1 token, a rate above 0"):
        capacity_for(*values)


@dataclass(frozen=True)
class FakeConfig:
    """As torchao's: frozen, with a maker by name."""

    recipe: str
    pad_inner_dim: bool = False

    @classmethod
    def from_recipe_name(cls, name):
        return cls(name)


class Fp8Linear(nn.Linear):
    """What torchao would put in the place of a linear layer."""


def fake_torchao(seen):
    def convert(module, *, module_filter_fn, config):
        seen.append(config)
        for name, child in list(module.named_children()):
            if module_filter_fn(child, name):
                child.__class__ = Fp8Linear
        return module

    found = types.ModuleType("torchao.float8")
    found.Float8LinearConfig, found.convert_to_float8_training = FakeConfig, convert
    return found


@pytest.fixture
def hopper(monkeypatch):
    """A device that says it can multiply fp8."""
    monkeypatch.setattr(acceleration, "_require_fp8_units", lambda device: None)


@pytest.mark.usefixtures("hopper")
def test_fp8_takes_the_matrices_of_layers_that_fit_and_not_the_head(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.float8", fake_torchao(seen))
    model = make_model()
    model.encoder.layers[1].output = nn.Linear(64, 40)
    assert convert_to_fp8(model, "rowwise") == 3 * 4 - 1
    kinds = {name: type(part) for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    plain = sorted(name for name, kind in kinds.items() if kind is nn.Linear)
    assert plain == ["encoder.layers.1.output", "head_dense"]
    assert set(seen) == {FakeConfig("rowwise", pad_inner_dim=True)}


@pytest.mark.usefixtures("hopper")
def test_fp8_without_torchao_names_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(MissingDependencyError, match=r"torchao is not installed.*maskwright\[fp8\]"):
        convert_to_fp8(make_model())


def test_fp8_off_hopper_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match='"fp8" is on, but the model is on the cpu; set fp8=false'):
        convert_to_fp8(make_model())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(ConfigError, match=r'"fp8" is on, but A100 has compute capability 8\.0, and 9\.0'):
        acceleration._require_fp8_units(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    acceleration._require_fp8_units(torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_a_gpu_gives_the_losses_and_gradients_of_the_cpu(lengths, compiled):
    model = make_model(dtype=torch.float32)
    ids, layout, targets, labels = make_batch(lengths, 9)
    expected = run(model, (ids, layout, targets, labels))
    model = model.cuda()
    accelerate_model(model, compile=compiled, activation_checkpointing="selective")
    padded = pad_targets(targets, labels, 16) if compiled else (targets, labels)
    batch = (ids.cuda(), Layout(lengths, "cuda"), *(part.cuda() for part in padded))
    loss, correct, gradients = run(model, batch)
    on_cpu = {name: gradient.cpu() for name, gradient in gradients.items()}
    assert_same((loss.cpu(), correct, on_cpu), expected, 1e-4)
