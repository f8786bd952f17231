"""The loss over the vocabulary against the framework's, with gradients."""

import pytest
import torch
from torch.nn import functional as F

from maskwright.model import loss as loss_module
from maskwright.model.loss import vocabulary_cross_entropy


def inputs(rows=23, width=6, vocabulary=50, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (
        (torch.randn(shape, dtype=torch.float64, generator=generator) * scale).to(dtype).requires_grad_()
        for shape in ((rows, width), (vocabulary, width), (vocabulary,))
    )
    return hidden, weight, bias, torch.randint(0, vocabulary, (rows,), generator=generator)


@pytest.mark.parity
@pytest.mark.parametrize("chunk", [1, 120, 1 << 22])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_loss_and_gradients_equal_the_framework(chunk, scale, monkeypatch):
    monkeypatch.setattr(loss_module, "_CHUNK_VALUES", chunk)
    hidden, weight, bias, labels = inputs(scale=scale)
    loss, correct = vocabulary_cross_entropy(hidden, weight, bias, labels)
    ours = torch.autograd.grad(loss / 7, (hidden, weight, bias))
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    theirs = torch.autograd.grad(expected / 7, (hidden, weight, bias))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert correct.item() == (logits.argmax(-1) == labels).sum().item()
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-12 * max(1.0, other.abs().max().item())


def test_gradients_equal_finite_differences():
    *leaves, labels = inputs(rows=5, vocabulary=9)
    gradients = torch.autograd.grad(vocabulary_cross_entropy(*leaves, labels)[0], leaves)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        for place in range(leaf.numel()):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    leaf.view(-1)[place] += step
                    values.append(vocabulary_cross_entropy(*leaves, labels)[0].item())
                    leaf.view(-1)[place] -= step
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(gradient.view(-1)[place].item(), abs=1e-7)


def test_sums_run_in_fp32_when_the_model_is_in_bf16():
    hidden, weight, bias, labels = inputs(rows=300, vocabulary=700, dtype=torch.bfloat16)
    loss, _ = vocabulary_cross_entropy(hidden, weight, bias, labels)
    assert loss.dtype == torch.float32
    logits = F.linear(hidden, weight, bias).double()
    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels, reduction="sum").item(), rel=1e-5)
    loss.backward()
    expected = (torch.softmax(logits, -1) - F.one_hot(labels, 700)).sum(0)
    assert (bias.grad - expected).abs().max() <= 0.02 * expected.abs().max()


def test_nothing_to_predict():
    hidden, weight, bias, labels = inputs(rows=0)
    loss, correct = vocabulary_cross_entropy(hidden, weight, bias, labels)
    loss.backward()
    assert (loss.item(), correct.item()) == (0.0, 0)
    assert weight.grad.abs().sum() == 0


def test_a_second_backward_pass_is_refused_and_not_wrong():
    hidden, weight, bias, labels = inputs()
    loss, _ = vocabulary_cross_entropy(hidden, weight, bias, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
