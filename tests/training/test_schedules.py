"""Learning rates by the step and by time: borders, ends, resuming, and what the shapes ignore."""

import logging
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.training.schedules import (
    Schedule,
    ScheduleConfig,
    parse_duration,
    rate_at,
)

SHAPES = ["linear", "cosine", "constant", "wsd", "inverse-sqrt"]


def rates(total=10, **settings):
    return [
        rate_at(ScheduleConfig(**settings), 1.0, step=step, total_steps=total) for step in range(1, total + 1)
    ]


def by_time(config, seconds, budget):
    return rate_at(config, 1.0, step=1, total_steps=1, seconds=seconds, budget=budget)


@st.composite
def configs(draw):
    name = draw(st.sampled_from(SHAPES))
    warmup = draw(st.integers(1 if name == "inverse-sqrt" else 0, 100))
    return ScheduleConfig(
        name=name,
        warmup_share=warmup / 100,
        final_share=draw(st.integers(0, 100)) / 100,
        decay_share=draw(st.integers(0, 100 - warmup)) / 100 if name == "wsd" else 0.2,
        decay=draw(st.sampled_from(["linear", "1-sqrt"])),
    )


def test_linear_warm_up_and_decay():
    assert rates(warmup_share=0.2) == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )


def test_a_share_of_the_rate_is_left_at_the_end():
    found = rates(total=1000, warmup_share=0.0, final_share=0.1)
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.1 + 0.9 / 1000)


def test_constant_after_the_warm_up():
    assert rates(name="constant", warmup_share=0.4) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


def test_cosine():
    found = rates(name="cosine", warmup_share=0.2)
    expected = [(1 + math.cos(math.pi * done / 8)) / 2 for done in range(8)]
    assert found == pytest.approx([0.5, 1.0, *expected])


def test_warm_up_stable_decay():
    expected = [0.5, 1, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert rates(name="wsd", warmup_share=0.2, decay_share=0.4) == pytest.approx(expected)
    expected[-3:] = [1 - math.sqrt(done / 4) for done in (1, 2, 3)]
    assert rates(name="wsd", warmup_share=0.2, decay_share=0.4, decay="1-sqrt") == pytest.approx(expected)


def test_shares_that_fill_the_run_are_accepted():
    """In binary, 0.35 and 0.65 are not always exactly one."""
    for warmup in range(101):
        ScheduleConfig(name="wsd", warmup_share=warmup / 100, decay_share=(100 - warmup) / 100)


def test_wsd_without_a_decay_is_constant():
    assert rates(name="wsd", warmup_share=0.1, decay_share=0.0) == [1.0] * 10


def test_inverse_square_root():
    found = rates(name="inverse-sqrt", warmup_share=0.4)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0] + [math.sqrt(4 / step) for step in range(5, 11)])
    assert rates(name="inverse-sqrt", warmup_share=0.4, final_share=0.9)[-1] == 0.9


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("share", [0.01, 0.06, 0.5, 0.8])
@pytest.mark.parametrize("total", [1, 2, 17])
def test_no_step_is_without_a_rate(name, share, total):
    found = rates(total=total, name=name, warmup_share=share)
    assert all(0 < rate <= 1 for rate in found)


@given(configs(), st.integers(1, 400), st.floats(1e-5, 10))
def test_rates_by_the_step_rise_then_fall(config, total, highest):
    found = [rate_at(config, highest, step=step, total_steps=total) / highest for step in range(1, total + 1)]
    assert found[0] > 0
    assert all(0 <= rate <= 1 + 1e-9 for rate in found)
    peak = found.index(max(found))
    assert all(a <= b + 1e-9 for a, b in pairwise(found[: peak + 1]))
    assert all(a >= b - 1e-9 for a, b in pairwise(found[peak:]))


@given(configs(), st.floats(0, 1), st.floats(1, 1e6))
def test_rates_by_time_have_no_jumps(config, share, budget):
    """A step of a billionth of the time, over the borders of phases as elsewhere, is a small step."""
    for border in (config.warmup_share, 1 - config.decay_share, share):
        near = [by_time(config, budget * (border + shift), budget) for shift in (-1e-9, 0.0, 1e-9)]
        assert all(0 <= value <= 1 + 1e-9 for value in near)
        # The steepest there is: a square root at its beginning, in a phase of a hundredth.
        assert max(near) - min(near) <= math.sqrt(2e-9 / 0.01)


@given(configs().filter(lambda config: config.name in ("linear", "cosine", "wsd")))
def test_all_that_decays_ends_at_its_final_share(config):
    never_falls = config.warmup_share == 1 or (config.name == "wsd" and config.decay_share == 0)
    expected = 1.0 if never_falls else config.final_share
    assert by_time(config, 50.0, 50.0) == pytest.approx(expected, abs=1e-9)
    total = 10**6
    assert rate_at(config, 1.0, step=total, total_steps=total) == pytest.approx(
        expected, abs=2 / (total / 100)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_time_and_steps_have_the_same_shape(name):
    config = ScheduleConfig(name=name, warmup_share=0.1, final_share=0.1)
    for step in range(2, 1001):
        # The warm-up counts the step itself, by time only what is spent; a square root counts it too.
        spent = step if step <= 100 or name == "inverse-sqrt" else step - 1
        assert by_time(config, spent, 1000.0) == pytest.approx(
            rate_at(config, 1.0, step=step, total_steps=1000)
        )


def test_time_alone_decides_by_time():
    """Scripted clocks: a run of fast and one of slow steps have the same rate at the same time."""
    schedule = Schedule(ScheduleConfig(warmup_share=0.1, budget_seconds=100), 2.0, 7)
    assert schedule.rate(1, 0.0) == 2.0 * 1e-3
    assert schedule.rate(2, 5.0) == schedule.rate(50, 5.0) == 1.0
    assert schedule.rate(3, 10.0) == 2.0
    assert schedule.rate(4, 55.0) == schedule.rate(999, 55.0) == pytest.approx(1.0)
    assert schedule.rate(5, 100.0) == schedule.rate(6, 1e9) == 0.0
    # A clock that went backwards could not make a rate below zero either.
    assert schedule.rate(5, -3.0) == schedule.rate(1, 0.0)


def scripted_run(schedule, durations, step=0, seconds=0.0):
    """What the loop does, with scripted seconds for each step."""
    found = []
    while not schedule.done(step, seconds):
        step += 1
        found.append(schedule.rate(step, seconds))
        seconds += durations[step - 1]
    return found, step, seconds


def test_a_budget_ends_the_run_and_resuming_goes_on():
    schedule = Schedule(ScheduleConfig(name="cosine", budget_seconds="60s"), 1e-3, 3)
    durations = [9.0, 1.0] + [2.0] * 100
    found, step, seconds = scripted_run(schedule, durations)
    assert (step, seconds) == (27, 60.0)
    again, *end = scripted_run(schedule, durations, 10, sum(durations[:10]))
    assert again == found[10:]
    assert end == [step, seconds]
    assert all(rate > 0 for rate in found)


def test_steps_end_the_run_whatever_the_clock_says():
    schedule = Schedule(ScheduleConfig(), 1e-3, 4)
    found, step, _ = scripted_run(schedule, [1e9] * 4)
    assert step == 4
    assert found == [rate_at(ScheduleConfig(), 1e-3, step=step, total_steps=4) for step in range(1, 5)]


def test_how_much_is_done_and_left():
    steps = Schedule(ScheduleConfig(), 1.0, 8)
    assert [steps.share(step, 0.0) for step in (0, 2, 8, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert [steps.steps_left_estimate(step, 5.0) for step in (0, 2, 8, 9)] == [8, 6, 0, 0]
    time = Schedule(ScheduleConfig(budget_seconds=100), 1.0, 8)
    assert [time.share(9, seconds) for seconds in (0.0, 25.0, 100.0, 170.0)] == [0.0, 0.25, 1.0, 1.0]
    assert time.steps_left_estimate(0, 0.0) is None
    assert time.steps_left_estimate(10, 20.0) == 40
    assert time.steps_left_estimate(10, 130.0) == 0
    assert time.budget_seconds == 100
    assert steps.budget_seconds is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400),
        ("90m", 5400),
        ("3600", 3600),
        ("1h30m", 5400),
        ("1d 12h", 129600),
        ("0.5H", 1800),
        ("45s", 45),
        ("1.5", 1.5),
        (90, 90),
        (None, None),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds
    assert ScheduleConfig(budget_seconds=text).budget_seconds == seconds


@pytest.mark.parametrize("text", ["", "one day", "24 hours", "h", "-3h", "3h-", "1:30"])
def test_what_is_no_duration_is_refused(text):
    said = f'"budget_seconds": is {text!r}, expected a duration such as 24h, 1h30m, 90m or 3600'
    with pytest.raises(ConfigError, match=said):
        parse_config(ScheduleConfig, {"budget_seconds": text}, "recipe")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"name": "wsd", "warmup_share": 0.5, "decay_share": 0.6},
            r"warmup_share 0.5 and decay_share 0.6 are more than the whole run; lower one of them",
        ),
        (
            {"name": "inverse-sqrt", "warmup_share": 0},
            r"warmup_share is 0, but inverse-sqrt falls from the end of the warm-up; raise it",
        ),
        ({"budget_seconds": 0}, r'"budget_seconds" is 0, expected .*greater than 0'),
        ({"name": "step"}, r'"name" is .step., expected'),
    ],
)
def test_schedules_that_make_no_sense(values, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(ScheduleConfig, values, "recipe")


def test_settings_that_a_shape_ignores_are_said(caplog):
    logging.getLogger("maskwright").propagate = True
    Schedule(ScheduleConfig(name="constant", decay_share=0.3, final_share=0.1), 1.0, 5)
    assert caplog.messages == [
        "schedule.decay_share is ignored: schedule.name is constant; set schedule.name=wsd",
        "schedule.final_share is ignored: schedule.name is constant; set schedule.name=linear",
    ]
    caplog.clear()
    Schedule(ScheduleConfig(name="wsd", decay_share=0.3, decay="1-sqrt", final_share=0.1), 1.0, 5)
    assert not caplog.messages
