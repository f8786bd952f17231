"""What holds for every optimiser: which parameters decay, the engine's demands, and AdamW's formula."""

import logging
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.parallel.single import SingleEngine
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from maskwright.training.optimizers.parameters import chunks, parameter_groups

NAMES = ["adamw", "lamb", "muon"]
HEADS = 2


def tiny_model():
    config = EncoderConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    model = MaskedLM(config)
    initialize(model, 0, 0.1)
    return model


def fill_gradients(model, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_biases_and_norms_do_not_decay(name):
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = weights(model)
    config = OptimizerConfig(name=name, lr=0.5, weight_decay=0.1)
    optimizer = optimizer_factory(config, HEADS)(model.named_parameters())
    fill_gradients(model, 0, scale=0.0)
    optimizer.step()
    for key, value in weights(model).items():
        is_matrix = value.dim() == 2
        if name == "lamb" and is_matrix:
            # All of the update is decay, and the trust ratio makes it as large as the weights.
            expected = before[key] * 0.5
        else:
            expected = before[key] * (0.95 if is_matrix else 1.0)
        assert torch.allclose(value, expected, rtol=1e-6), key


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_group(name):
    model = tiny_model()
    optimizer = optimizer_factory(OptimizerConfig(name=name), HEADS)(model.named_parameters())
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_with_a_gradient_moves(name):
    model = tiny_model()
    before = weights(model)
    optimizer = optimizer_factory(OptimizerConfig(name=name), HEADS)(model.named_parameters())
    fill_gradients(model, 0)
    model.head_bias.grad = None
    optimizer.step()
    moved = {key for key, value in weights(model).items() if not torch.equal(value, before[key])}
    assert moved == before.keys() - {"head_bias"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_engine_can_make_the_state_in_advance(name, precision):
    model = tiny_model()
    before = weights(model)
    engine = SingleEngine(model, optimizer_factory(OptimizerConfig(name=name), HEADS), "cpu", precision, 0.0)
    for key, value in engine.weights().items():
        assert torch.equal(value, before[key]), key
    state = engine.state()["optimizer"]
    assert state.keys() == before.keys()
    for key, values in state.items():
        assert values, key
        for value in values.values():
            assert isinstance(value, torch.Tensor)
            assert not value.any(), key


def pull(model, batch, *, train):
    """Every weight is drawn to a number that differs by step and parameter."""
    loss = sum(
        ((parameter - batch / (2 + number)) ** 2).sum() for number, parameter in enumerate(model.parameters())
    )
    return {"loss": loss}, {}


def run_steps(engine, steps):
    for step in steps:
        engine.forward_backward(pull, float(step), {"loss": 1})
        assert engine.step(1e-2).applied


def copied(tree):
    return {
        key: copied(value) if isinstance(value, dict) else value.clone() if torch.is_tensor(value) else value
        for key, value in tree.items()
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_bit_for_bit(name, precision):
    config = OptimizerConfig(name=name, muon_lr=0.02 if name == "muon" else None)
    factory = optimizer_factory(config, HEADS)
    one = SingleEngine(tiny_model(), factory, "cpu", precision, 0.0)
    run_steps(one, range(3))
    saved = copied(one.state())
    run_steps(one, range(3, 6))
    two = SingleEngine(tiny_model(), factory, "cpu", precision, 0.0)
    two.load(saved)
    run_steps(two, range(3, 6))
    for key, value in one.weights().items():
        assert torch.equal(value, two.weights()[key]), key
        assert not torch.equal(value, saved["model"][key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_frameworks_own_state_goes_round(name):
    def make():
        model = tiny_model()
        return model, optimizer_factory(OptimizerConfig(name=name), HEADS)(model.named_parameters())

    (one, first), (two, second) = make(), make()
    for step in range(2):
        fill_gradients(one, step)
        first.step()
    two.load_state_dict(one.state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    for model, optimizer in ((one, first), (two, second)):
        fill_gradients(model, 7)
        optimizer.step()
    for key, value in weights(one).items():
        assert torch.equal(value, weights(two)[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_the_loss_smaller(name):
    factory = optimizer_factory(OptimizerConfig(name=name), HEADS)
    engine = SingleEngine(tiny_model(), factory, "cpu", "fp32", 0.0)
    losses = []
    for _ in range(30):
        losses.append(engine.forward_backward(pull, 1.0, {"loss": 1})["loss_sum"])
        engine.step(1e-2)
    assert losses[-1] < 0.8 * losses[0]


def test_adamw_against_its_formula():
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    generator = np.random.default_rng(0)
    start, grads = generator.normal(size=(4, 3)), generator.normal(size=(20, 4, 3))
    config = OptimizerConfig(lr=0.03, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.2)
    parameters = {
        name: nn.Parameter(torch.tensor(start if name == "m.weight" else start[0], dtype=torch.float64))
        for name in ("m.weight", "m.bias")
    }
    optimizer = optimizer_factory(config)(parameters.items())
    for grad in grads:
        parameters["m.weight"].grad = torch.tensor(grad)
        parameters["m.bias"].grad = torch.tensor(grad[0])
        optimizer.step()
    for name, decay in (("m.weight", 0.2), ("m.bias", 0.0)):
        x = start if name == "m.weight" else start[0]
        m, v = np.zeros_like(x), np.zeros_like(x)
        for t, whole in enumerate(grads, 1):
            g = whole if name == "m.weight" else whole[0]
            m = 0.8 * m + 0.2 * g
            v = 0.95 * v + 0.05 * g * g
            step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
            x = x - 0.03 * (step + decay * x)
        np.testing.assert_allclose(parameters[name].detach().numpy(), x, rtol=1e-12)


def test_only_adamw_changes_each_value_for_itself():
    assert [optimizer_factory(OptimizerConfig(name=name)).elementwise for name in NAMES] == [
        True,
        False,
        False,
    ]


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ConfigError, match=r'"name" is .sgd., expected .adamw., .lamb. or .muon.'):
        parse_config(OptimizerConfig, {"name": "sgd"}, "recipe")


def test_what_is_ignored_is_said(caplog):
    logging.getLogger("maskwright").propagate = True
    optimizer_factory(OptimizerConfig(name="lamb", muon_lr=0.02))
    assert caplog.messages == [
        "optimizer.muon_lr is ignored: optimizer.name is lamb; set optimizer.name=muon"
    ]
    caplog.clear()
    optimizer_factory(OptimizerConfig(name="muon", muon_lr=0.02, muon_momentum=0.9))
    optimizer_factory(OptimizerConfig())
    assert not caplog.messages


@pytest.mark.parametrize("name", ["lamb", "muon"])
def test_joined_matrices_need_the_number_of_heads(name):
    named = tiny_model().named_parameters()
    with pytest.raises(AssertionError, match=r"qkv\.weight joins three matrices: give .*factory num_heads"):
        optimizer_factory(OptimizerConfig(name=name))(named)


def test_parameters_with_equal_settings_share_a_group():
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    found = parameter_groups([(a, {"x": 1}), (b, {"x": 1, "y": 2}), (c, {"x": 1})])
    assert [{**group, "params": len(group["params"])} for group in found] == [
        {"params": 2, "x": 1},
        {"params": 1, "x": 1, "y": 2},
    ]
    assert found[0]["params"][1] is c


def test_chunks_cover_everything_in_order(monkeypatch):
    monkeypatch.setattr("maskwright.training.optimizers.parameters.CHUNK_ELEMENTS", 10)
    tensors = [torch.zeros(size) for size in (4, 6, 1, 30, 2, 9)]
    assert list(chunks(tensors)) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5), slice(5, 6)]
    assert list(chunks([])) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_weights_of_the_cpu(name):
    factory = optimizer_factory(OptimizerConfig(name=name), HEADS)
    found = {}
    for device in ("cpu", "cuda"):
        engine = SingleEngine(tiny_model(), factory, device, "fp32", 0.0)
        run_steps(engine, range(5))
        found[device] = engine.weights()
    # Muon computes in bf16, whose roundings differ.
    tolerance = 2e-2 if name == "muon" else 1e-4
    before = weights(tiny_model())
    for key, value in found["cpu"].items():
        moved = (value - before[key]).norm()
        assert (found["cuda"][key].cpu() - value).norm() <= tolerance * moved, key
