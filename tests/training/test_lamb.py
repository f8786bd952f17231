"""LAMB against the paper's algorithm written down a second time, in float64 NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

SHAPES = {
    "encoder.embeddings.word.weight": (11, 4),
    "encoder.layers.0.qkv.weight": (12, 4),
    "encoder.layers.0.qkv.bias": (12,),
    "encoder.layers.0.attention_norm.weight": (4,),
    "encoder.layers.0.intermediate.weight": (8, 4),
    "encoder.layers.0.output.weight": (4, 8),
    "head_bias": (11,),
}
CONFIG = OptimizerConfig(name="lamb", lr=0.02, beta1=0.9, beta2=0.97, eps=1e-4, weight_decay=0.05)
STEPS = 20
HEADS = 2


def reference(start, grads, *, decay, adapt):
    """You et al. 2020, algorithm 2, for one layer; `adapt` False leaves the ratio at 1."""
    x, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(grads, 1):
        m = CONFIG.beta1 * m + (1 - CONFIG.beta1) * g
        v = CONFIG.beta2 * v + (1 - CONFIG.beta2) * g**2
        r = (m / (1 - CONFIG.beta1**t)) / (np.sqrt(v / (1 - CONFIG.beta2**t)) + CONFIG.eps)
        u = r + decay * x
        ratio = np.linalg.norm(x) / np.linalg.norm(u) if adapt and np.any(x) and np.any(u) else 1.0
        x = x - CONFIG.lr * ratio * u
    return x


def numbers(dtype=np.float64):
    generator = np.random.default_rng(0)
    start = {name: generator.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    # As at the beginning of training; and one matrix of zeros, whose norm is zero.
    start["encoder.layers.0.output.weight"][:] = 0
    grads = {name: generator.normal(size=(STEPS, *shape)).astype(dtype) for name, shape in SHAPES.items()}
    return start, grads


def trained(start, grads):
    parameters = {name: nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    optimizer = optimizer_factory(CONFIG, HEADS)(parameters.items())
    for step in range(STEPS):
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(grads[name][step])
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in parameters.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 2e-5)])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
def test_twenty_steps_of_the_paper(dtype, tolerance, chunk, monkeypatch):
    monkeypatch.setattr("maskwright.training.optimizers.parameters.CHUNK_ELEMENTS", chunk)
    start, grads = numbers(dtype)
    found = trained(start, grads)
    for name, value in found.items():
        wide, history = start[name].astype(np.float64), grads[name].astype(np.float64)
        if name.endswith("qkv.weight"):
            # Query, key and value are three layers to the paper; here they lie head by head.
            wide, history = wide.reshape(HEADS, 3, 2, 4), history.reshape(STEPS, HEADS, 3, 2, 4)
            parts = [reference(wide[:, n], history[:, :, n], decay=0.05, adapt=True) for n in range(3)]
            expected = np.stack(parts, 1).reshape(value.shape)
        else:
            is_matrix = value.ndim == 2
            expected = reference(wide, history, decay=0.05 if is_matrix else 0.0, adapt=is_matrix)
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=name)


def test_a_step_has_the_size_of_what_it_changes():
    """Each matrix moves by the rate times its norm, however large its gradient is."""
    weights = [torch.full((2, 2), size) for size in (0.01, 1.0, 50.0)]
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    config = CONFIG.replace(weight_decay=0.0)
    optimizer = optimizer_factory(config)([(f"{n}.weight", p) for n, p in enumerate(parameters)])
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full((2, 2), 10.0 ** (3 * number))
    optimizer.step()
    for weight, parameter in zip(weights, parameters, strict=True):
        assert (weight - parameter).norm().item() == pytest.approx(CONFIG.lr * weight.norm().item(), rel=1e-5)


def test_gradients_that_come_late_are_corrected_by_their_own_count():
    """A weight without a gradient in the first steps counts its own steps."""
    early, late = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = optimizer_factory(CONFIG)([("early", early), ("late", late)])
    for step in range(3):
        early.grad = torch.full((1,), 2.0, dtype=torch.float64)
        late.grad = early.grad.clone() if step == 2 else None
        optimizer.step()
    assert late.item() == pytest.approx(reference(np.ones(1), [np.full(1, 2.0)], decay=0, adapt=False)[0])
    assert early.item() == pytest.approx(
        reference(np.ones(1), [np.full(1, 2.0)] * 3, decay=0, adapt=False)[0]
    )
