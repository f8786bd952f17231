import re

import pytest

from maskwright.report.bars import Interval, bars, heat_map, histogram, intervals
from maskwright.report.lines import Chart, Mark, Reference, Series
from maskwright.report.scale import percent_ticks

EVIL = "<script>alert(1)</script>"


def coordinates(markup, class_):
    path = re.search(rf'<path d="([^"]+)" class="{class_}', markup)
    assert path is not None
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path[1])]


def test_points_land_where_they_belong():
    chart = Chart("Loss", "nats", [Series("train", [(0, 0.0), (50, 10.0), (100, 5.0)])])
    assert coordinates(chart.render(), "line ink-a") == [(0, 1000), (500, 0), (1000, 500)]


def test_a_chart_is_named_for_screen_readers_and_has_ticks_in_html():
    markup = Chart("Loss", "nats", [Series("train", [(0, 1.0), (10, 2.0)])]).render()
    assert 'role="img"' in markup
    assert "<title>Loss: train, by step</title>" in markup
    assert '<div class="x-label">step</div>' in markup
    assert "<text" not in markup


def test_gaps_break_the_line():
    points = [(0, 1.0), (1, 2.0), (2, None), (3, 3.0), (4, 1.0)]
    markup = Chart("Loss", "", [Series("train", points)]).render()
    assert re.search(r'd="M[\d. L]+M[\d. L]+" class="line', markup)


def test_a_single_point_is_a_dot_with_whole_steps_on_the_axis():
    markup = Chart("Loss", "", [Series("train", [(7, 2.0)])]).render()
    assert 'd="M500 500h.01" class="dot ink-a"' in markup
    assert re.findall(r'left:[\d.]+%">([^<]+)<', markup) == ["7"]


@pytest.mark.parametrize("points", [[], [(1, None), (2, None)]])
def test_a_series_without_finite_values_says_so(points):
    markup = Chart("Loss", "", [Series("train", points)]).render()
    assert "No finite value was logged." in markup
    assert "<svg" not in markup


def test_no_coordinate_is_ever_nan():
    huge = [(0, 1e308), (1, -1e308), (2, 5e-324)]
    for log in (False, True):
        markup = Chart("x", "", [Series("s", huge), Series("t", [(0, 1e-300), (1, 1e300)])], log=log).render()
        assert "nan" not in markup
        assert "inf" not in markup


def test_references_bands_and_marks_are_drawn_and_named():
    chart = Chart(
        "Rate",
        "",
        [Series("masked", [(0, 0.1), (100, 0.2)])],
        references=[Reference("target", 0.15)],
        band=(0.14, 0.16),
        band_name="interval",
        marks=[Mark(50, "1")],
        format_ticks=percent_ticks,
    )
    markup = chart.render()
    assert 'd="M0 500H1000" class="reference"' in markup
    assert "target 15.0\N{NO-BREAK SPACE}%" in markup
    assert '<rect x="0" y="400" width="1000" height="200" class="band">' in markup
    assert '<path d="M500 0V1000" class="mark">' in markup
    assert "interval</li>" in markup


def test_long_series_are_thinned():
    points = [(float(index), float(index % 7)) for index in range(20_000)]
    markup = Chart("Loss", "", [Series("train", points)]).render()
    assert len(coordinates(markup, "line ink-a")) <= 800


def test_names_in_charts_are_escaped():
    chart = Chart(EVIL, EVIL, [Series(EVIL, [(0, 1.0), (1, 2.0)])], marks=[Mark(0, EVIL)])
    parts = [
        chart.render(),
        bars([(EVIL, 1)], caption=EVIL),
        histogram(EVIL, EVIL, [1, 2], [3], EVIL),
        intervals([Interval(EVIL, 0.5, (0.4, 0.6))], caption=EVIL, reference=(EVIL, 0.1)),
        heat_map([EVIL, "b"], [[1, 2], [0, 3]], caption=EVIL),
    ]
    for markup in parts:
        assert "<script" not in markup
        assert "&lt;script&gt;" in markup


def test_bars_are_proportional_and_the_chosen_row_stands_out():
    markup = bars([("a", 40), ("b", 10)], caption="c", whole=100, chosen=1)
    assert re.findall(r"width:([\d.]+)%", markup) == ["100.00", "25.00"]
    assert "40.0\N{NO-BREAK SPACE}%" in markup
    assert markup.index('class="chosen"') > markup.index(">a<")
    assert re.findall(r"width:([\d.]+)%", bars([("a", 0.25)], caption="c", full=1.0)) == ["25.00"]


def test_bars_without_any_amount():
    assert "width:0.00%" in bars([("a", 0)], caption="c")


def test_a_histogram_trims_empty_ends_and_names_its_bins():
    markup = histogram("Length", "documents", [1, 2, 4, 8, 16], [0, 5, 10, 0], "characters")
    assert markup.count("<rect") == 2
    assert "<title>2 to 4 characters: 5</title>" in markup
    assert re.findall(r'<rect class="fill-a" x="([\d.]+)" y="([\d.]+)"', markup) == [
        ("25", "500"),
        ("525", "0"),
    ]


def test_large_bin_edges_are_powers_of_two():
    markup = histogram("Length", "", [512, 1024, 2048, 1 << 20], [1, 1, 1], "characters")
    assert re.findall(r'left:[\d.]+%">([^<]+)<', markup) == ["512", "1Ki", "2Ki", "1Mi"]


def test_intervals_show_value_ends_and_reference():
    rows = [Interval("ours", 0.8, (0.75, 0.85)), Interval("other", 0.4, None)]
    markup = intervals(rows, caption="Accuracy", reference=("largest class", 0.05))
    assert 'class="whisker" style="left:75.00%;right:15.00%"' in markup
    assert 'class="point" style="left:80.00%"' in markup
    assert "75.0\N{NO-BREAK SPACE}% to 85.0\N{NO-BREAK SPACE}%" in markup
    assert "no interval" in markup
    assert "largest class 5.0\N{NO-BREAK SPACE}%" in markup


def test_a_heat_map_tells_right_from_wrong():
    markup = heat_map(["a", "b"], [[9, 1], [0, 5]], caption="Confusion")
    assert re.findall(r'class="right[ a-z]*" style="--depth:([\d.]+)"', markup) == ["0.91", "1.00"]
    assert 'title="a taken for b: 1 (10.0\N{NO-BREAK SPACE}%)"' in markup
    assert "<td></td>" in markup


def test_only_a_logarithmic_axis_is_called_one():
    wide, narrow = [(0, 1.0), (1, 100.0)], [(0, 1.0), (1, 2.0)]
    assert "exponential, logarithmic" in Chart("P", "exponential", [Series("s", wide)], log=True).render()
    assert "logarithmic" not in Chart("P", "exponential", [Series("s", narrow)], log=True).render()


def test_the_step_axis_begins_at_zero_unless_the_data_begins_far_from_it():
    near = Chart("x", "", [Series("s", [(5, 1.0), (20, 2.0)])]).render()
    far = Chart("x", "", [Series("s", [(1000, 1.0), (1500, 2.0)])]).render()
    assert 'data-x="0.0 20 step"' in near
    assert 'data-x="1000 1500 step"' in far
