"""Attention in blocks against the framework's own, in fp64: values, gradients, dropout, and no leaks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from maskwright.model import layout as layout_module
from maskwright.model.attention import self_attention
from maskwright.model.dropout import DropoutKeys
from maskwright.model.layout import Layout

MIXES = [
    [1],
    [7],
    [8, 8, 8],
    [1, 1, 1],
    [5, 3, 9, 1, 16, 8],
    [17, 2, 17, 2],
    [40, 1],
    [9, 10, 11, 12, 13, 14, 15, 16],
]


def random_qkv(lengths, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 3 * width, dtype=dtype, generator=generator)


def reference(qkv_ND, lengths, heads, keep=None, p=0.0):
    """One sequence at a time with scaled_dot_product_attention, or by hand where something is dropped."""
    outputs = []
    for number, part in enumerate(qkv_ND.split(lengths)):
        query, key, value = part.view(len(part), heads, 3, -1).permute(2, 1, 0, 3)
        if keep is None:
            out = F.scaled_dot_product_attention(query, key, value)
        else:
            shares = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, -1)
            out = shares * keep[number] / (1 - p) @ value
        outputs.append(out.transpose(0, 1).reshape(len(part), -1))
    return torch.cat(outputs)


def attend(qkv_ND, lengths, heads, keys=None, p=0.0, site=5):
    width = qkv_ND.shape[1] // 3
    output = nn.Linear(width, width, dtype=qkv_ND.dtype)
    nn.init.eye_(output.weight)
    nn.init.zeros_(output.bias)
    return self_attention(qkv_ND, Layout(lengths), heads, output, keys, site, p)


def with_gradient(function, qkv_ND, *arguments, **options):
    leaf = qkv_ND.clone().requires_grad_()
    out = function(leaf, *arguments, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


@pytest.mark.parity
@pytest.mark.parametrize("lengths", MIXES, ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_values_and_gradients_equal_the_framework(lengths, heads):
    qkv = random_qkv(lengths, 8)
    ours, expected = with_gradient(attend, qkv, lengths, heads), with_gradient(reference, qkv, lengths, heads)
    assert (ours[0] - expected[0]).abs().max() < 1e-13
    assert (ours[1] - expected[1]).abs().max() < 1e-12


@pytest.mark.parity
@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9), block=st.sampled_from([1, 300, 1 << 22]))
def test_any_mix_of_lengths_and_any_size_of_block(lengths, block):
    qkv = random_qkv(lengths, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_BLOCK_SCORES", block)
        ours = with_gradient(attend, qkv, lengths, 2)
    expected = with_gradient(reference, qkv, lengths, 2)
    assert (ours[0] - expected[0]).abs().max() < 1e-13
    assert (ours[1] - expected[1]).abs().max() < 1e-12


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_equal_finite_differences(p):
    lengths = [3, 1, 5, 3]
    keys = DropoutKeys(np.arange(4, dtype=np.int64)) if p else None
    qkv = random_qkv(lengths, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attend(x, lengths, 2, keys, p), (qkv,))


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 3, 9]], ids=str)
def test_dropout_equals_a_mask_by_hand(lengths):
    p, heads, site = 0.25, 2, 9
    keys = DropoutKeys(np.array([11, 22, 33], np.int64))
    keep = []
    for row, length in enumerate(lengths):
        flat = keys.keep([row], [heads * length * length], site, p, torch.float64)
        keep.append(flat.view(heads, length, length))
    qkv = random_qkv(lengths, 8)
    ours = with_gradient(attend, qkv, lengths, heads, keys, p, site)
    expected = with_gradient(reference, qkv, lengths, heads, keep, p)
    assert (ours[0] - expected[0]).abs().max() < 1e-13
    assert (ours[1] - expected[1]).abs().max() < 1e-12
    assert not torch.equal(ours[0], attend(qkv, lengths, heads))


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("lengths", [[8, 8, 8, 8], [5, 13, 7, 13]], ids=str)
def test_a_sequence_changes_nothing_in_another(lengths, p):
    keys = DropoutKeys(np.arange(4, dtype=np.int64)) if p else None
    qkv = random_qkv(lengths, 8, dtype=torch.float32)
    changed = qkv.clone()
    start = lengths[0]
    changed[start : start + lengths[1]] = random_qkv(lengths[1:2], 8, seed=9, dtype=torch.float32) * 1e3
    before = with_gradient(attend, qkv, lengths, 2, keys, p)
    after = with_gradient(attend, changed, lengths, 2, keys, p)
    others = torch.ones(sum(lengths), dtype=torch.bool)
    others[start : start + lengths[1]] = False
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[others], other[others])
        assert not torch.equal(one[~others], other[~others])
