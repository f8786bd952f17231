"""The parts on sources and on language probes: what they say, and what they do with nonsense."""

import json
import math
from pathlib import Path

import pytest
from synthetic_run import make_pretraining, write_lines, write_object

from maskwright.report import build_report
from maskwright.report.by_source import by_source
from maskwright.report.inputs import read_inputs
from maskwright.report.minimal_pairs import language_probes

EVIL = "<script>alert('x')</script>"
SOURCES = {"enwiki": (0.62, 2.9), "books": (0.25, 3.3), "zhwiki": (0.13, 4.4)}
PHENOMENA = {
    "anaphor_agreement": (0.971, 2000),
    "binding": (0.793, 7000),
    "island_effects": (0.704, 8000),
    "quantifiers": (0.5, 4000),
}


def interval(value, count):
    half = 1.96 * math.sqrt(value * (1 - value) / count)
    return {"value": value, "low": value - half, "high": value + half}


def entry(name, value, count, ties=0):
    return {"name": name, "field": "syntax", "count": count, "ties": ties, "accuracy": interval(value, count)}


def pairs_report():
    paradigms = [
        entry(f"{name}_{number}", value, count // 2, ties=number)
        for name, (value, count) in PHENOMENA.items()
        for number in (1, 2)
    ]
    return {
        "count": 21000,
        "ties": 12,
        "accuracy": interval(0.731, 21000),
        "macro_accuracy": 0.742,
        "confidence": 0.95,
        "phenomena": [entry(name, *values) for name, values in PHENOMENA.items()],
        "paradigms": paradigms,
    }


def make_probed(folder: Path) -> Path:
    """A run that measured its sources and minimal pairs."""
    make_pretraining(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "evaluation":
            for name, (_, level) in SOURCES.items():
                row[f"loss/{name}"] = row["loss"] - 3.2 + level
                row[f"accuracy/{name}"] = row["accuracy"] - 0.1 * (level - 3)
            row["minimal_pairs"] = 0.731 - 0.2 * math.exp(-row["step"] / 900)
            row["pseudo_perplexity"] = 11.4
    write_lines(folder / "metrics.jsonl", rows)
    summary = json.loads((folder / "summary.json").read_text())
    sources = {
        name: {"share": share, "sequences": 170, "loss": loss, "accuracy": 0.4, "unigram_loss": 7.1}
        for name, (share, loss) in SOURCES.items()
    }
    probes = {"minimal_pairs": pairs_report(), "pseudo_perplexity": 11.43}
    write_object(folder / "summary.json", {**summary, "validation_sources": sources, **probes})
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return read_inputs(None, make_probed(tmp_path_factory.mktemp("probed")), [])


def words_of(html):
    text = "".join(part.partition(">")[2] + " " for part in f">{html}".split("<"))
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def test_sources_are_drawn_and_listed_by_their_share(inputs):
    html = by_source(inputs)
    text = words_of(html)
    assert [html.count(f'data-name="{name}"') for name in SOURCES] == [2, 2, 2]
    assert "enwiki 62.0 % 2.90 7.10 4.20 40.0 % 170" in text
    assert text.index("enwiki 62.0 %") < text.index("books 25.0 %") < text.index("zhwiki 13.0 %")


def test_a_run_that_goes_on_shows_its_last_evaluation(inputs, tmp_path):
    folder = make_probed(tmp_path)
    (folder / "summary.json").unlink()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "evaluation"][-1]
    text = words_of(by_source(read_inputs(None, folder, [])))
    assert f"books {last['loss/books']:.2f} {100 * last['accuracy/books']:.1f} %" in text


def test_many_sources_are_listed_and_the_largest_drawn(tmp_path):
    folder = make_pretraining(tmp_path, steps=60)
    sources = {f"source {number}": {"share": number / 100, "loss": 3.0} for number in range(1, 10)}
    rows = [{"kind": "evaluation", "step": 60, "loss": 3.0, **{f"loss/{name}": 3.0 for name in sources}}]
    write_lines(folder / "metrics.jsonl", rows)
    write_object(folder / "summary.json", {"validation_sources": sources})
    html = by_source(read_inputs(None, folder, []))
    assert "Drawn are the 6 largest of 9 sources." in html
    assert 'data-name="source 9"' in html
    assert 'data-name="source 1"' not in html
    assert words_of(html).count("source ") >= 9


def test_phenomena_have_counts_and_intervals_the_best_first(inputs):
    text = words_of(language_probes(inputs))
    assert "Of 21,000 pairs of an acceptable sentence" in text
    assert "likelier in 73.1 % (72.5 % to 73.7 %); guessing gives 50 %. 12 ties count half." in text
    assert "anaphor agreement, 2,000 pairs 97.1 % 96.4 % to 97.8 %" in text
    assert text.index("anaphor agreement,") < text.index("binding,") < text.index("quantifiers,")
    assert "All 8 paradigms" in text
    assert "binding 2 79.3 % 78.0 % to 80.6 % 3,500 2" in text
    assert "hidden in turn 11.4" in text


def test_a_run_without_them_has_no_heading_for_them(tmp_path):
    page = build_report("x", pretrain=make_pretraining(tmp_path, steps=60))
    assert "Validation by source" not in page
    assert "Language probes" not in page


def test_the_page_names_both_parts(tmp_path):
    page = build_report("x", pretrain=make_probed(tmp_path))
    assert page.count('id="by-source"') == page.count('id="probes"') == 1
    assert page.count('href="#by-source"') == page.count('href="#probes"') == 1


NONSENSE = [None, 3, "x", [], [3], {}, {"accuracy": 3}, {"accuracy": {"value": math.inf}}, {EVIL: EVIL}]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_nonsense_costs_its_part_and_is_escaped(nonsense, tmp_path):
    folder = make_pretraining(tmp_path, steps=60)
    report = {"count": nonsense, "phenomena": nonsense, "paradigms": [nonsense, {"name": EVIL}]}
    values = {
        "minimal_pairs": {**report, "accuracy": nonsense},
        "validation_sources": {EVIL: nonsense, "b": {"loss": nonsense, "share": nonsense}},
        "pseudo_perplexity": nonsense if isinstance(nonsense, dict) else None,
    }
    (folder / "summary.json").write_text(json.dumps(values))
    page = build_report("x", pretrain=folder)
    assert EVIL not in page
    assert "Validation by source" in page
