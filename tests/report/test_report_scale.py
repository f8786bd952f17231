import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.report.scale import (
    Scale,
    bytes_text,
    compact,
    duration,
    fit_scale,
    percent,
    percent_ticks,
    plain_ticks,
    segments,
    significant,
    smooth,
    thin,
)

NBSP = "\N{NO-BREAK SPACE}"
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(finite, max_size=20), st.booleans(), st.booleans())
def test_a_fitted_scale_holds_its_values_and_has_few_ticks(values, zero, log):
    scale = fit_scale(values, zero=zero, log=log)
    assert scale.low < scale.high
    for value in values:
        assert 0.0 <= scale.place(value) <= 1.0
    if values and not scale.log:
        slack = 1e-6 * (scale.high - scale.low)
        assert scale.low - slack <= min(values)
        assert max(values) <= scale.high + slack
    ticks = scale.ticks(5)
    assert ticks == sorted(ticks)
    assert 0 <= len(ticks) <= 12


def test_ends_and_ticks_are_round():
    scale = fit_scale([0.13, 8.7], zero=True)
    assert (scale.low, scale.high) == (0.0, 10.0)
    assert scale.ticks(5) == [0, 2, 4, 6, 8, 10]


def test_one_value_gets_room_on_both_sides():
    scale = fit_scale([5.0])
    assert scale.low < 5.0 < scale.high
    assert fit_scale([0.0]).place(0.0) == pytest.approx(0.5)


def test_logarithms_only_where_they_help():
    assert fit_scale([0.5, 40.0], log=True).log
    assert not fit_scale([0.0, 40.0], log=True).log
    assert not fit_scale([7.0, 8.0], log=True).log
    scale = Scale(1.0, 100.0, log=True)
    assert scale.place(10.0) == pytest.approx(0.5)
    assert scale.place(-1.0) == 0.0
    assert scale.ticks(5) == [1, 2, 5, 10, 20, 50, 100]
    assert Scale(1e-9, 1e9, log=True).ticks(5)[0] == pytest.approx(1e-9)


def test_segments_are_cut_at_unknown_values():
    points = [(0, None), (1, 1.0), (2, 2.0), (3, None), (4, None), (5, 5.0)]
    assert list(segments(points)) == [[(1, 1.0), (2, 2.0)], [(5, 5.0)]]


@given(st.lists(finite, min_size=1, max_size=400), st.integers(4, 50))
def test_thinning_keeps_ends_extremes_and_order(values, limit):
    points = [(float(index), value) for index, value in enumerate(values)]
    kept = thin(points, limit)
    assert len(kept) <= max(limit, min(len(points), limit) + 2)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)
    assert {min(values), max(values)} <= {value for _, value in kept}


def test_a_long_series_keeps_its_spike():
    points = [(float(index), 1.0) for index in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    kept = thin(points)
    assert len(kept) <= 800
    assert (54_321.0, 99.0) in kept


def test_smoothing_leaves_lines_straight_to_the_ends():
    points = [(float(index), 3.0 + 0.5 * index) for index in range(200)]
    smoothed = [(x, y) for x, y in smooth(points) if y is not None]
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    for (_, expected), (_, found) in zip(points, smoothed, strict=True):
        assert found == pytest.approx(expected)


def test_smoothing_averages_noise_away_and_respects_gaps():
    noisy = [(float(index), 1.0 + (-1) ** index) for index in range(400)]
    noisy[200] = (200.0, None)
    smoothed = smooth(noisy)
    inner = [y for x, y in smoothed if y is not None and 20 < x < 180]
    assert max(abs(y - 1.0) for y in inner) < 0.1
    assert 200.0 not in [x for x, y in smoothed if y is not None]


def test_smoothing_never_leaves_the_range():
    points = [(float(index), 0.0 if index < 3 else math.sqrt(index)) for index in range(300)]
    assert min(y for _, y in smooth(points) if y is not None) >= 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14159, "3.14"),
        (0.0123, "0.0123"),
        (1234.5, "1,234"),
        (6e-4, "6e-4"),
        (1.23456e-5, "1.23e-5"),
        (-2.5e9, "-2.5e9"),
    ],
)
def test_significant(value, text):
    assert significant(value) == text


def test_amounts_are_short():
    assert compact(934) == "934"
    assert compact(12_340) == f"12.3{NBSP}k"
    assert compact(4.38e6) == f"4.38{NBSP}M"
    assert compact(0.5) == "0.500"
    assert bytes_text(12) == f"12{NBSP}B"
    assert bytes_text(1.5 * 2**30) == f"1.50{NBSP}GiB"
    assert percent(0.1234) == f"12.3{NBSP}%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.250 s"), (59, "59.0 s"), (192, "3 min 12 s"), (7261, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds).replace(NBSP, " ") == text


def test_ticks_are_written_alike():
    assert plain_ticks([0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert plain_ticks([0, 5000, 10_000]) == ["0", "5k", "10k"]
    assert plain_ticks([0, 2e-4, 4e-4]) == ["0", "2e-4", "4e-4"]
    assert plain_ticks([0, 1e-3, 2e-3]) == ["0", "0.001", "0.002"]
    assert plain_ticks([]) == []
    assert percent_ticks([0.145, 0.15, 0.155]) == [f"14.5{NBSP}%", f"15.0{NBSP}%", f"15.5{NBSP}%"]
