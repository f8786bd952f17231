"""What the model knows of the language by minimal pairs: by phenomenon, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import Interval, intervals
from .inputs import Inputs
from .lines import Chart, Reference, Series
from .markup import Html, details, facts, join, note, table, tag
from .scale import grouped, percent, percent_ticks, significant
from .values import Object, Point, items, mapping, number

__all__ = ["language_probes"]

CHANCE = 0.5


def language_probes(inputs: Inputs) -> Html:
    """Minimal pairs and pseudo-perplexity; empty where the run measured neither."""
    report = mapping(inputs.summary.get("minimal_pairs"))
    logged = inputs.metrics.evaluated("minimal_pairs")
    parts = [_words(report), _curve(logged), _phenomena(report), _paradigms(report), _perplexity(inputs)]
    return join(parts)


def _accuracy(entry: Object) -> tuple[float, tuple[float, float] | None] | None:
    """A share and the ends of its interval; None where it is no share."""
    found = mapping(entry.get("accuracy"))
    value, low, high = (number(found.get(key)) for key in ("value", "low", "high"))
    if value is None or not 0 <= value <= 1:
        return None
    return value, (low, high) if low is not None and high is not None else None


def _words(report: Object) -> Html:
    found, count = _accuracy(report), number(report.get("count"))
    if found is None or count is None:
        return Html("")
    value, ends = found
    reach = f" ({percent(ends[0])} to {percent(ends[1])})" if ends else ""
    ties = number(report.get("ties")) or 0
    tied = f" {grouped(ties)} ties count half." if ties else ""
    return note(
        f"Of {grouped(count)} pairs of an acceptable sentence and one that is almost it, the model finds the "
        f"acceptable one likelier in {percent(value)}{reach}; guessing gives {percent(CHANCE, 0)}.{tied}"
    )


def _curve(logged: Sequence[Point]) -> Html:
    if len(logged) < 2:
        return Html("")
    return Chart(
        "Minimal pairs",
        "share of pairs told right while training",
        [Series("all phenomena", logged, "b", "dots")],
        references=[Reference("chance", CHANCE)],
        format_ticks=percent_ticks,
        tall=True,
    ).render()


def _phenomena(report: Object) -> Html:
    rows = []
    for entry in _entries(report, "phenomena"):
        found = _accuracy(entry)
        if found is not None:
            count = number(entry.get("count"))
            pairs = "" if count is None else f", {grouped(count)} pairs"
            rows.append(Interval(f"{_plain(entry)}{pairs}", *found))
    if not rows:
        return Html("")
    caption = "Accuracy by phenomenon with 95 % intervals"
    words = note("The best first. A phenomenon whose interval holds 50 % cannot be told from guessing.")
    return join([words, intervals(rows, caption=caption, reference=("chance", CHANCE))])


def _paradigms(report: Object) -> Html:
    rows = []
    for entry in _entries(report, "paradigms"):
        found = _accuracy(entry)
        if found is None:
            continue
        value, ends = found
        count, ties = number(entry.get("count")), number(entry.get("ties"))
        rows.append(
            [
                tag("span", _plain(entry), title=_plain(entry)),
                percent(value),
                f"{percent(ends[0])} to {percent(ends[1])}" if ends else "",
                "" if count is None else grouped(count),
                "" if ties is None else grouped(ties),
            ]
        )
    if not rows:
        return Html("")
    headings = ["Paradigm", "Accuracy", "95 % interval", "Pairs", "Ties"]
    words = "1 paradigm" if len(rows) == 1 else f"All {grouped(len(rows))} paradigms"
    return details(words, table(headings, rows, caption="Accuracy by paradigm", class_="numbers plain"))


def _entries(report: Object, key: str) -> list[Object]:
    """Entries of a list, the best first."""
    entries = [mapping(entry) for entry in items(report.get(key))]
    return sorted(entries, key=lambda entry: (-(_accuracy(entry) or (0.0,))[0], _plain(entry)))


def _plain(entry: Object) -> str:
    """`anaphor_agreement` as words."""
    return str(entry.get("name", "")).replace("_", " ")


def _perplexity(inputs: Inputs) -> Html:
    value = number(inputs.summary.get("pseudo_perplexity"))
    if value is None:
        return Html("")
    return facts([("Pseudo-perplexity, each token hidden in turn", significant(value))])
