import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.report.amounts import exact, kept_of, meter, ranked, reason_name
from maskwright.report.data_page.language_names import language_name
from maskwright.report.data_page.reasons import explain
from maskwright.report.data_page.sources import outcome
from maskwright.report.flow import GAP, Node, fit_heights, flow_chart
from maskwright.report.lines import Chart, Mark, Series
from maskwright.report.markup import Html, missing, tile_list
from maskwright.report.scale import grouped, percent_ticks, share_text

AMOUNTS = st.lists(
    st.lists(st.integers(0, 10**9).map(float), min_size=3, max_size=3), min_size=1, max_size=6
).filter(lambda rows: sum(map(sum, rows)) > 0)


def nodes(names):
    return [Node(name, Html("")) for name in names]


def test_ribbons_say_what_flows_where():
    chart = flow_chart("Flow", nodes("ab"), nodes("xy"), [[3, 0], [1, 2000]], grouped)
    assert re.findall(r"<path [^>]*><title>([^<]+)</title>", chart) == [
        "a → x: 3",
        "b → x: 1",
        "b → y: 2,000",
    ]


def test_nothing_flowing_gives_no_chart():
    assert flow_chart("Flow", nodes("a"), nodes("x"), [[0.0]], grouped) == ""
    assert flow_chart("Flow", [], [], [], grouped) == ""


@given(AMOUNTS)
def test_nodes_stay_inside_in_order_and_ribbons_fill_them(amounts):
    targets = ["x", "y", "z"]
    chart = flow_chart("Flow", nodes("abcdef"[: len(amounts)]), nodes(targets), amounts, grouped)
    boxes = re.findall(r'<rect class="end[^"]*" x="(\d+)" y="([\d.]+)" width="\d+" height="([\d.]+)"', chart)
    assert len(boxes) == len(amounts) + len(targets)
    for side in ("0", "988"):
        ends = [(float(top), float(height)) for x, top, height in boxes if x == side]
        assert all(top >= 0 and top + height <= 1000.5 + 2 for top, height in ends)
        assert all(first[0] + first[1] <= second[0] + 2 for first, second in pairwise(ends))
    places = [float(top) for top in re.findall(r'<li style="top:([\d.]+)%"', chart)]
    least = 100 * 46 / max(250, 66 * max(len(amounts), 3)) - 0.02
    for side in (places[: len(amounts)], places[len(amounts) :]):
        assert all(second - first >= least for first, second in pairwise(side))


def test_heights_leave_room_for_every_label():
    assert fit_heights([1.0], 200) == pytest.approx(1000)
    # Two small nodes take their slots, the large one what is left.
    assert fit_heights([0.98, 0.01, 0.01], 100) * 0.98 == pytest.approx(1000 - 2 * GAP - 200)
    # Slots that do not fit at all still give a scale.
    assert fit_heights([0.25] * 4, 400) == pytest.approx(1, abs=1e-6)


def test_a_chart_may_count_shares_on_its_x_axis():
    chart = Chart(
        title="Curve",
        unit="chance",
        series=[Series("s", [(0.0, 0.0), (0.5, 0.2), (1.0, 1.0)])],
        x_label="similarity",
        x_share=True,
        marks=[Mark(0.8, "here", low=True)],
        format_ticks=percent_ticks,
    ).render()
    for label in ("20", "40", "60", "80", "100"):
        assert f">{label}\N{NO-BREAK SPACE}%</span>" in chart
    assert 'data-x-percent=""' in chart
    assert 'class="mark-label low" style="left:80.00%"' in chart


def test_a_chart_of_steps_stays_as_it_was():
    chart = Chart("Loss", "nats", [Series("s", [(0, 1.0), (10, 2.0)])], marks=[Mark(5, "m")]).render()
    assert "data-x-percent" not in chart
    assert 'class="mark-label"' in chart


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (1e-9, "< 0.1 %"),
        (0.000499, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.5, "50.0 %"),
        (1, "100.0 %"),
    ],
)
def test_a_little_is_not_nothing(share, text):
    assert share_text(share).replace("\N{NO-BREAK SPACE}", " ") == text


def test_amounts_carry_the_exact_value():
    assert exact(1234567.0, lambda value: "1.23 M", "documents") == (
        '<span title="1,234,567 documents">1.23 M</span>'
    )
    assert exact(4.2345678, lambda value: "4.23", "bytes") == '<span title="4.23457 bytes">4.23</span>'
    assert exact(None, grouped, "bytes") == '<span title="not in the account">–</span>'


def test_what_was_kept_is_shown_with_its_share():
    assert "25.0" in kept_of(8, 2)
    assert "small" not in kept_of(0, 2)
    assert kept_of(8, None) is None


def test_unusable_counts_are_left_out():
    counts = {"b": 2, "a": 2, "c": 5, "nan": float("nan"), "less": -1, "text": "7", "none": None}
    assert ranked(counts) == [("c", 5.0), ("a", 2.0), ("b", 2.0)]


def test_reasons_read_as_words():
    assert reason_name("malformed_json") == "malformed JSON"
    assert reason_name("invalid_utf8") == "invalid UTF-8"
    assert reason_name("too_short") == "too short"


def test_a_meter_stays_in_its_cell():
    assert "width:100.0%" in meter(7.0)
    assert "width:0.0%" in meter(-1.0)


def test_languages_have_names_where_they_are_known():
    assert language_name("zh") == "Chinese (zh)"
    assert language_name("xx") == "xx"
    assert language_name("") == "no language named"


def test_tiles_that_are_unknown_are_left_out():
    assert tile_list([None, ("Name", "1", "of 2")]).count("<dt>") == 1
    assert tile_list([None]) == ""


def test_missing_needs_no_command():
    assert missing("Nothing is there.") == '<p class="missing">Nothing is there.</p>'


@pytest.mark.parametrize(
    ("reason", "where", "words"),
    [
        ("exact_duplicate", "exact copies", "letter by letter"),
        ("near_duplicate", "near copies", "Almost the same text"),
        ("contaminated", "test text", "test set"),
        ("other_language", "other languages", "not asked for"),
        ("malformed_row", "no readable text", "number of cells"),
        ("duplicate_lines", "left out by rules", "the same lines again"),
        ("duplicate_paragraph_characters", "left out by rules", "the same paragraphs again"),
        ("duplicate_10gram", "left out by rules", "repeated runs of 10 words"),
        ("top_2gram", "left out by rules", "its most frequent run of 2 words"),
        ("bullets", "left out by rules", "a list rather than text"),
    ],
)
def test_reasons_are_grouped_and_explained(reason, where, words):
    assert outcome(reason) == where
    assert words in explain(reason)


def test_an_unknown_reason_counts_as_a_rule_and_is_not_explained():
    assert outcome("my_rule") == "left out by rules"
    assert explain("my_rule") is None
