"""Gradient norms: right at any size, by the part of the model, and honest about what is no number."""

import math

import numpy as np
import pytest
import torch

from maskwright.model.config import EncoderConfig
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.parallel.gradient_norms import GROUPS, accurate_norms, gradient_norms, group_of

CONFIG = EncoderConfig(
    vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("encoder.embeddings.word.weight", "embeddings"),
        ("encoder.embeddings.position.weight", "embeddings"),
        ("encoder.embeddings.norm.weight", "norms"),
        ("encoder.layers.0.qkv.weight", "attention"),
        ("encoder.layers.11.qkv.bias", "attention"),
        ("encoder.layers.3.attention_output.weight", "attention"),
        ("encoder.layers.3.attention_norm.bias", "norms"),
        ("encoder.layers.3.intermediate.weight", "feed_forward"),
        ("encoder.layers.3.output.bias", "feed_forward"),
        ("encoder.layers.3.output_norm.weight", "norms"),
        ("head_dense.weight", "head"),
        ("head_norm.weight", "norms"),
        ("head_bias", "head"),
        ("weight", "head"),
    ],
)
def test_the_part_of_the_model(name, group):
    assert group_of(name) == group


@pytest.mark.parametrize("model", [MaskedLM(CONFIG), SequenceClassifier(CONFIG, 2)], ids=["mlm", "classes"])
def test_every_part_occurs_in_our_models(model):
    found = {name: group_of(name) for name, _ in model.named_parameters()}
    assert set(found.values()) == set(GROUPS)
    norms = {name for name, part in model.named_modules() if isinstance(part, torch.nn.LayerNorm)}
    assert {name for name, group in found.items() if group == "norms"} == {
        f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")
    }


def test_norms_of_groups_and_of_all():
    grads = [
        ("encoder.layers.0.qkv.weight", torch.tensor([[3.0, 0.0]])),
        ("encoder.layers.1.qkv.weight", torch.tensor([[0.0, 4.0]])),
        ("head_bias", torch.tensor([12.0])),
    ]
    found = gradient_norms(grads)
    assert found.groups == {"attention": pytest.approx(5), "head": pytest.approx(12)}
    assert found.total == pytest.approx(13)
    assert found.finite


def test_no_gradient_has_no_norm():
    found = gradient_norms([])
    assert found.total == 0
    assert found.groups == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 1), (300, 700)])
def test_against_numpy(dtype, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    (found,) = accurate_norms([tensor]).tolist()
    assert found == pytest.approx(float(np.linalg.norm(tensor.double().numpy().ravel())), rel=1e-6)


def test_large_tables_are_added_up_accurately():
    table = torch.full((4096, 4096), 1.1)
    expected = pytest.approx(4096 * table[0, 0].item(), rel=1e-6)
    # The framework's own norm is why ours exists: it is wrong in the third digit here.
    assert torch.linalg.vector_norm(table).item() != expected
    assert gradient_norms([("head_bias", table)]).total == expected


def test_tensors_that_are_not_contiguous():
    matrix = torch.arange(12.0).view(3, 4)
    expected = [matrix.norm().item(), matrix[:, 1].norm().item()]
    assert accurate_norms([matrix.t(), matrix[:, 1]]).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_seen(bad):
    grads = [("head_bias", torch.tensor([1.0, bad])), ("encoder.layers.0.qkv.bias", torch.ones(1))]
    found = gradient_norms(grads)
    assert not found.finite
    assert not math.isfinite(found.groups["head"])
    assert found.groups["attention"] == 1
