"""The loss scaler as a state machine, and a step in fp16 on top of it."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import UserError
from maskwright.parallel.loss_scaling import LossScaler, ScaleChange


def test_it_halves_on_overflow_and_doubles_after_a_quiet_time():
    scaler = LossScaler(initial=8.0, growth_interval=3)
    assert scaler.update(True) == "the fp16 gradient overflowed at loss scale 8; it is 4 now"
    assert [scaler.update(False) for _ in range(3)] == [None, None, None]
    assert scaler.scale == 8.0
    assert list(scaler.history) == [ScaleChange(1, 8.0, 4.0), ScaleChange(4, 4.0, 8.0)]


def test_an_overflow_starts_the_quiet_time_anew():
    scaler = LossScaler(initial=8.0, growth_interval=2)
    for found in (False, True, False):
        scaler.update(found)
    assert scaler.scale == 4.0
    scaler.update(False)
    assert scaler.scale == 8.0


def test_it_does_not_grow_beyond_the_largest():
    scaler = LossScaler(initial=4.0, growth_interval=1, maximum=8.0)
    for _ in range(5):
        scaler.update(False)
    assert scaler.scale == 8.0
    assert len(scaler.history) == 1


def test_collapse_names_step_scale_and_remedy():
    scaler = LossScaler(initial=0.5, minimum=0.25)
    scaler.update(False)
    scaler.update(True)
    with pytest.raises(
        UserError,
        match=r"step 3: the gradient is not finite even at the smallest loss scale, 0\.25 "
        r"\(0\.25 since step 2\); the run diverges or fp16 is too narrow for it: set precision=bf16 or "
        r"fp32, or lower optimizer\.lr",
    ):
        scaler.update(True)


def test_collapse_at_once_says_that_nothing_changed_before():
    with pytest.raises(UserError, match=r"step 1: .* loss scale, 1 \(never changed\)"):
        LossScaler(initial=1.0, minimum=1.0).update(True)


def test_every_change_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="maskwright")
    LossScaler(initial=4.0).update(True)
    assert caplog.messages == ["step 1: loss scale 4 -> 2"]


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40))
def test_a_restored_scaler_goes_on_as_if_nothing_had_happened(events, cut):
    def new():
        return LossScaler(growth_interval=3, minimum=2.0**-40)

    whole, first, second = new(), new(), new()
    for found in events:
        whole.update(found)
    for found in events[:cut]:
        first.update(found)
    second.load(first.state())
    for found in events[cut:]:
        second.update(found)
    assert second.state() == whole.state()
    assert second.scale == whole.scale


def test_its_state_is_integers():
    scaler = LossScaler()
    scaler.update(True)
    assert scaler.state() == {"exponent": 15, "good_steps": 0, "steps": 1}
    assert all(type(value) is int for value in scaler.state().values())


def test_a_gradient_too_small_for_fp16_survives_with_a_scale():
    weight = torch.full((4,), 0.5, dtype=torch.float16, requires_grad=True)
    gradients = []
    for scale in (1.0, LossScaler().scale):
        (weight.float().sum() * 2.0**-26 * scale).backward()
        gradients.append(weight.grad.float() / scale)
        weight.grad = None
    assert gradients[0].eq(0).all()
    assert gradients[1].eq(2.0**-26).all()
