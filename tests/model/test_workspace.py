"""Buffers that stay: nobody is lent what somebody else still holds, and gradients stay right."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskwright.model import loss as loss_module
from maskwright.model.config import EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout
from maskwright.model.loss import Workspaces, vocabulary_cross_entropy
from maskwright.model.workspace import Workspace, empty


def place(tensor):
    return tensor.untyped_storage().data_ptr()


def room(size, dtype=torch.float32):
    workspace = Workspace()
    workspace.reserve(size, dtype)
    return workspace


class TestLending:
    """Who gets which piece of the buffer."""

    def test_the_same_memory_after_it_came_back(self):
        workspace = room(100)
        first = workspace.take((3, 4), torch.float32)
        where = first.data_ptr()
        del first
        second = workspace.take((2, 5), torch.float32)
        assert (second.data_ptr(), second.shape, second.dtype) == (where, (2, 5), torch.float32)
        assert second.is_contiguous()

    @pytest.mark.parametrize("hold", [lambda lent: lent, lambda lent: lent[1:], lambda lent: lent.detach()])
    def test_what_is_held_is_never_lent_again(self, hold):
        workspace = room(200)
        where = workspace.take((3, 4), torch.float32).data_ptr()
        held = hold(workspace.take((3, 4), torch.float32).fill_(1))
        for _ in range(8):
            workspace.take((3, 4), torch.float32).fill_(2)
        assert held.eq(1).all()
        del held
        assert workspace.take((3, 4), torch.float32).data_ptr() == where

    @given(st.lists(st.integers(0, 90), min_size=1, max_size=12), st.integers(1, 300))
    def test_pieces_never_overlap(self, sizes, size):
        workspace = room(size)
        pieces = [workspace.take((one,), torch.float32) for one in sizes]
        for number, piece in enumerate(pieces):
            piece.fill_(number)
        for number, piece in enumerate(pieces):
            assert piece.eq(number).all()

    def test_what_does_not_fit_is_fresh_memory(self):
        workspace = room(100)
        first, second = (workspace.take((60,), torch.float32) for _ in range(2))
        assert place(first) == place(workspace._buffer) != place(second)

    def test_nothing_is_reserved_yet(self):
        assert Workspace().take((2, 3), torch.float32).shape == (2, 3)
        assert empty(None, (2, 3), torch.bfloat16).dtype == torch.bfloat16

    def test_it_grows_and_then_stays(self):
        workspace = room(10)
        workspace.reserve(2000, torch.float32)
        where = place(workspace._buffer)
        for rows in (50, 10, 1, 40):
            workspace.reserve(rows * 40, torch.float32)
            assert place(workspace.take((rows, 40), torch.float32)) == where

    def test_it_does_not_grow_under_what_is_held(self):
        workspace = room(10)
        held = workspace.take((10,), torch.float32).fill_(1)
        workspace.reserve(2000, torch.float32)
        assert place(workspace._buffer) == place(held)
        assert held.eq(1).all()

    def test_another_type_gets_other_memory(self):
        workspace = room(100)
        narrow = workspace.take((8,), torch.bfloat16)
        assert (narrow.dtype, narrow.numel()) == (torch.bfloat16, 8)
        assert place(narrow) != place(workspace._buffer)
        workspace.reserve(100, torch.bfloat16)
        assert place(workspace.take((8,), torch.bfloat16)) == place(workspace._buffer)

    def test_a_copied_model_has_its_own(self):
        copied = copy.deepcopy(room(100))
        assert copied._buffer is None


def problem(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 6, generator=generator, requires_grad=True)
    return hidden, torch.randint(0, 30, (rows,), generator=generator)


def leaves():
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in ((30, 6), (30,))]


def gradients(workspaces, together):
    """Gradients of two losses over one table, whose backward passes run together or one after the other."""
    table, bias = leaves()
    inputs = [problem(7, 1), problem(9, 2)]
    if together:
        losses = [
            vocabulary_cross_entropy(hidden, table, bias, labels, workspaces)[0] for hidden, labels in inputs
        ]
        (losses[0] * 2 + losses[1]).backward()
    else:
        for (hidden, labels), factor in zip(inputs, (2, 1), strict=True):
            loss, _ = vocabulary_cross_entropy(hidden, table, bias, labels, workspaces)
            (loss * factor).backward()
    return [table.grad, bias.grad, *(hidden.grad for hidden, _ in inputs)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("chunk", [64, 1 << 22])
def test_a_loss_used_twice_before_its_gradients(together, chunk, monkeypatch):
    monkeypatch.setattr(loss_module, "_CHUNK_VALUES", chunk)
    expected = gradients(None, together=False)
    workspaces = Workspaces(logits=Workspace(), table_gradient=Workspace())
    workspaces.reserve(20, leaves()[0])
    for one, other in zip(gradients(workspaces, together), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def small_model():
    model = MaskedLM(
        EncoderConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=20,
        )
    )
    initialize(model, 0, 0.1)
    return model


def forward(model, seed, keys=None):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 60, (15,), generator=generator)
    targets = torch.randperm(15, generator=generator)[: 4 + seed].sort()[0]
    return model(ids, Layout((9, 6)), targets, ids.flip(0)[targets], keys)[0]


def model_gradient(model):
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_model_used_twice_before_its_gradients(order):
    apart, together = small_model(), small_model()
    for seed in (1, 2):
        forward(apart, seed).backward()
    losses = [forward(together, seed) for seed in (1, 2)]
    with torch.no_grad():
        forward(together, 3)  # an evaluation in between
    for number in order:
        losses[number].backward()
    expected = model_gradient(apart)
    for name, value in model_gradient(together).items():
        assert (value - expected[name]).norm() <= 1e-6 * expected[name].norm(), name


@pytest.fixture
def lent(monkeypatch):
    """For each tensor that was asked for: of which workspace, and whether it lies in the buffer."""
    found, honest = [], Workspace.take

    def take(self, *arguments):
        tensor = honest(self, *arguments)
        found.append((self, self._buffer is not None and place(tensor) == place(self._buffer)))
        return tensor

    monkeypatch.setattr(Workspace, "take", take)
    return found


def test_a_step_needs_no_fresh_memory_for_what_is_large(lent):
    model = small_model()
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = None
        lent.clear()
        forward(model, 3, DropoutKeys(np.array([5, 6]))).backward()
        for space in (model.workspaces.logits, model.workspaces.table_gradient):
            found = [inside for asked, inside in lent if asked is space]
            assert found
            assert all(found)


def test_a_gradient_that_is_kept_is_not_written_over():
    model = small_model()
    forward(model, 1).backward()
    table = model.encoder.embeddings.word.weight
    kept, before = table.grad, table.grad.clone()
    table.grad = None
    forward(model, 2).backward()
    assert torch.equal(kept, before)
    assert not torch.equal(table.grad, before)
