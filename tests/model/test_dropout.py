"""Keyed dropout: the rate, no bias, one mask for both directions, and nothing depends on the batch."""

import math

import numpy as np
import pytest
import torch

from maskwright.model.dropout import DropoutKeys, apply_keep, dropout


def keys(*rows):
    return DropoutKeys(np.array(rows, np.int64))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.05, 1 / 256, 0.001, 0.999])
def test_the_share_that_is_dropped(p):
    rows, size = 400, 4096
    keep = keys(*range(rows)).keep(range(rows), [size] * rows, 3, p, torch.float32)
    # A row's rate is p rounded up or down to 1/256, which adds the variance between rows.
    fraction = p * 256 % 1
    variance = p * (1 - p) / size + fraction * (1 - fraction) / 256**2
    assert abs((1 - keep.double().mean().item()) - p) < 5 * math.sqrt(variance / rows)
    assert set(keep.unique().tolist()) <= {0, 1}


def test_the_mean_stays():
    hidden = torch.ones(400 * 64, 64)
    out = dropout(hidden, keys(*range(400)), (64,) * 400, 0, 0.1)
    assert abs(out.mean().item() - 1) < 0.002
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}


def test_off_means_off():
    hidden = torch.randn(6, 4)
    assert dropout(hidden, None, (6,), 0, 0.5) is hidden
    assert dropout(hidden, keys(1), (6,), 0, 0.0) is hidden


def test_in_place_is_the_same_where_it_lies():
    source = torch.randn(9, 5, requires_grad=True)
    expected = dropout(source * 2, keys(4, 5), (3, 6), 2, 0.4)
    inner = source * 2
    out = dropout(inner, keys(4, 5), (3, 6), 2, 0.4, inplace=True)
    assert out.data_ptr() == inner.data_ptr()
    assert torch.equal(out, expected)
    (wanted,) = torch.autograd.grad(expected.square().sum(), source)
    assert torch.equal(torch.autograd.grad(out.square().sum(), source)[0], wanted)
    # What another operation needs for its backward pass is not overwritten unnoticed.
    squared = inner.square()
    dropout(inner, keys(4, 5), (3, 6), 2, 0.4, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.sum().backward()


def test_gradients_use_the_mask_of_the_forward_pass():
    hidden = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dropout(x, keys(4, 5), (3, 6), 2, 0.4), (hidden,))
    out = dropout(hidden, keys(4, 5), (3, 6), 2, 0.4)
    out.sum().backward()
    assert torch.equal(hidden.grad != 0, out != 0)
    assert hidden.grad[out != 0].unique().tolist() == pytest.approx([1 / 0.6])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_mask_does_not_depend_on_the_batch(dtype):
    lengths = (3, 8, 1, 5)
    hidden = torch.randn(17, 7).to(dtype)
    whole = dropout(hidden, keys(10, 20, 30, 40), lengths, 6, 0.3).split(lengths)
    for row, part in enumerate(hidden.split(lengths)):
        alone = dropout(part, keys(10 * (row + 1)), lengths[row : row + 1], 6, 0.3)
        assert torch.equal(alone, whole[row])


def test_masks_differ_by_sequence_and_by_place():
    ones = torch.ones(64, 64)

    def mask(key, site):
        return dropout(ones, keys(key), (64,), site, 0.5) != 0

    first = mask(1, 0)
    for other in (mask(2, 0), mask(1, 1)):
        equal = (first == other).double().mean().item()
        assert abs(equal - 0.5) < 5 * 0.5 / 64
    assert torch.equal(first, mask(1, 0))


def test_the_input_is_left_alone():
    hidden = torch.randn(4, 4)
    before = hidden.clone()
    dropout(hidden, keys(1), (4,), 0, 0.5)
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropping_is_exact(dtype):
    values = torch.tensor([1.5, -2.0, float("inf"), float("nan"), -0.0]).to(dtype)
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    kept = apply_keep(values.clone(), torch.ones(5, dtype=integers))
    assert torch.equal(kept.view(integers), values.view(integers))
    assert apply_keep(values.clone(), torch.zeros(5, dtype=integers)).tolist() == [0.0] * 5
