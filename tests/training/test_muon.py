"""Muon against the framework's on plain matrices, and what it makes of joined ones and of the rest."""

import numpy as np
import pytest
import torch
from torch import nn

from maskwright.model.config import EncoderConfig
from maskwright.model.heads import MaskedLM
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from maskwright.training.optimizers.muon import orthogonalize, update_scale

NATIVE = "maskwright.training.optimizers.muon.native_bf16"
SHAPES = {"intermediate": (24, 8), "output": (8, 24), "attention_output": (8, 8)}
CONFIG = OptimizerConfig(name="muon", lr=0.01, weight_decay=0.1)


def matrices(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"encoder.layers.0.{name}.weight": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def trained(config, start, gradients, num_heads=None):
    parameters = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    optimizer = optimizer_factory(config, num_heads)(parameters.items())
    for grads in gradients:
        for name, parameter in parameters.items():
            parameter.grad = grads[name].clone()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_the_frameworks_muon_on_plain_matrices(scale, monkeypatch):
    monkeypatch.setattr(NATIVE, lambda: True)
    start, gradients = matrices(0), [matrices(seed) for seed in range(1, 6)]
    found = trained(CONFIG.replace(muon_scale=scale), start, gradients)
    for name, value in start.items():
        parameter = nn.Parameter(value.clone())
        theirs = torch.optim.Muon([parameter], lr=0.01, weight_decay=0.1, adjust_lr_fn=scale)
        for grads in gradients:
            parameter.grad = grads[name].clone()
            theirs.step()
        # Both compute in bf16; products of several matrices at once may round differently.
        assert (found[name] - parameter).norm() <= 0.01 * (value - parameter).norm(), name


def newton_schulz(matrix):
    """Jordan et al. 2024, the quintic iteration, in float64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 3)])
def test_the_iteration_in_float64(shape):
    stack = np.random.default_rng(0).normal(size=(3, *shape))
    found = orthogonalize(torch.tensor(stack))
    for matrix, ours in zip(stack, found.numpy(), strict=True):
        np.testing.assert_allclose(ours, newton_schulz(matrix), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_one(dtype, scale):
    matrix = scale * torch.randn(2, 30, 50, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix.to(dtype)).float())
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_zeros_stay_zeros():
    assert not orthogonalize(torch.zeros(1, 3, 4)).any()


def test_a_slow_processor_computes_in_fp32(monkeypatch):
    """One step from zero momentum by hand: the update is the iteration of the gradient."""
    monkeypatch.setattr(NATIVE, lambda: False)
    start, gradient = matrices(0), matrices(1)
    found = trained(CONFIG.replace(weight_decay=0.0), start, [gradient])
    for name, value in found.items():
        update = newton_schulz(gradient[name].double().numpy()) * update_scale(
            *value.shape, CONFIG.muon_scale
        )
        np.testing.assert_allclose((start[name] - value).numpy(), 0.01 * update, rtol=1e-3, atol=2e-6)


def test_joined_query_key_and_value_are_three_matrices(monkeypatch):
    monkeypatch.setattr(NATIVE, lambda: False)
    joined = "encoder.layers.0.qkv.weight"
    shapes = {"query": (8, 8), "key": (8, 8), "value": (8, 8)}

    def join(parts):
        # Two heads of four rows each: rows 0 to 3 of all three matrices, then rows 4 to 7.
        halves = (slice(4), slice(4, 8))
        return {joined: torch.cat([part[rows] for rows in halves for part in parts.values()])}

    start, gradients = matrices(0, shapes), [matrices(seed, shapes) for seed in range(1, 4)]
    found = trained(CONFIG, join(start), [join(grads) for grads in gradients], num_heads=2)[joined]
    # By these names they are attention matrices as well.
    names = {name: name.replace("layers.0.", "layers.0.attention.") for name in start}
    parts = trained(
        CONFIG,
        {names[name]: value for name, value in start.items()},
        [{names[name]: value for name, value in grads.items()} for grads in gradients],
    )
    assert torch.allclose(found, join(parts)[joined], rtol=1e-5, atol=1e-6)


def muon_names(model):
    optimizer = optimizer_factory(CONFIG, num_heads=2)(model.named_parameters())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        (names[id(parameter)], group["heads"])
        for group in optimizer.param_groups
        if group["muon"]
        for parameter in group["params"]
    }


def test_hidden_matrices_and_nothing_else():
    config = EncoderConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    expected = {
        (f"encoder.layers.{layer}.{name}.weight", 2 if name == "qkv" else 0)
        for layer in range(2)
        for name in ("qkv", "attention_output", "intermediate", "output")
    }
    assert muon_names(MaskedLM(config)) == expected


def test_the_rest_is_adamw():
    shapes = {"word": (5, 4), "position": (3, 4)}
    start = {f"encoder.embeddings.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    start |= {"head_bias": torch.randn(5), "encoder.layers.0.qkv.bias": torch.randn(6)}
    gradients = [{name: torch.randn_like(value) for name, value in start.items()} for _ in range(4)]
    found = trained(CONFIG, start, gradients)
    expected = trained(CONFIG.replace(name="adamw"), start, gradients)
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("muon_lr", "scale"), [(None, 1.0), (0.02, 2.0)])
def test_hidden_matrices_may_have_a_rate_of_their_own(muon_lr, scale):
    names = {"encoder.layers.0.qkv.weight": (9, 3), "encoder.layers.0.qkv.bias": (9,)}
    parameters = [(name, nn.Parameter(torch.ones(shape))) for name, shape in names.items()]
    optimizer = optimizer_factory(CONFIG.replace(muon_lr=muon_lr), num_heads=1)(parameters)
    hidden, rest = optimizer.param_groups
    assert hidden["muon"]
    assert (hidden["lr_scale"], hidden["lr"]) == (scale, 0.01 * scale)
    assert (rest["lr_scale"], rest["lr"]) == (1.0, 0.01)


def test_updates_are_as_large_as_adamws():
    """With every singular value at one, entries of the update have a root mean square of 0.2."""
    for rows, columns in ((6, 6), (4, 16), (16, 4)):
        square, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(max(rows, columns),) * 2))
        update = square[:rows, :columns] * update_scale(rows, columns, "match_rms_adamw")
        assert np.sqrt((update**2).mean()) == pytest.approx(0.2)
    assert update_scale(16, 4, "original") == 2
    assert update_scale(4, 16, "original") == 1
