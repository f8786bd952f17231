"""What is left: which languages, and how long the documents are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from ..amounts import count_of, documents, exact, length_figure, ranked, text_bytes
from ..bars import bars
from ..markup import Html, Section, facts, figure_grid, figure_heading, join, missing, note, part, tag
from ..scale import compact, grouped, share_text
from ..values import mapping, numbers
from .inputs import DataInputs
from .language_names import language_name

__all__ = ["text_section"]

MAX_LANGUAGES = 12


def text_section(inputs: DataInputs) -> Section:
    """Languages and lengths of the documents that stayed."""
    parts = [("languages", "Languages", _languages(inputs)), ("lengths", "Lengths", _lengths(inputs))]
    body = [part(key, title, content) for key, title, content in parts]
    return Section("text", "What is left", join(body), [(key, title) for key, title, _ in parts])


def _languages(inputs: DataInputs) -> Html:
    found = {str(code): mapping(row) for code, row in mapping(inputs.audit.get("languages")).items()}
    figures = [
        _language_bars("Text by language", "bytes of UTF-8", found, "bytes", text_bytes),
        _language_bars("Documents by language", "documents", found, "documents", documents),
    ]
    shown = [figure for figure in figures if figure]
    if not shown:
        return missing("The account names no languages; the rule “language” (corpus.rules.on) finds them.")
    words = note(
        "The language of each document that stayed, as a program guessed it; short texts and code are often "
        "guessed wrong. Worry when a language that you did not expect has more than a few per cent."
    )
    return join([words, figure_grid(*shown)])


def _language_bars(
    title: str, unit: str, found: dict[str, dict[str, object]], key: str, write: Callable[[float], Html]
) -> Html:
    rows = ranked({code: row.get(key) for code, row in found.items()})
    if not rows:
        return Html("")
    total = sum(count for _, count in rows)
    shown, rest = rows[:MAX_LANGUAGES], rows[MAX_LANGUAGES:]
    named = [(language_name(code), count) for code, count in shown]
    chart = bars(named, caption=title, whole=total, write=write)
    more = sum(count for _, count in rest)
    words = note(f"{len(rest)} more languages have {share_text(more / total)}.") if rest and total else ""
    return tag("figure", figure_heading(title, unit), chart, words)


def _lengths(inputs: DataInputs) -> Html:
    figure = length_figure(inputs.audit)
    longest = count_of(inputs.audit.get("longest_document_characters"))
    if not figure:
        return missing("The account holds no lengths of documents.")
    words = note(
        "How many of the documents that stayed have about which length; each bar spans twice the length"
        " of the one before. Worry when one bar stands far above its neighbours: that is often a "
        "template or an error page. Pieces much shorter than the model's sequence length teach little "
        "about context."
    )
    rows: list[tuple[object, object]] = [
        ("Half of the documents", _median(inputs)),
        ("Longest document", _characters(longest) if longest is not None else None),
    ]
    tall = tag("div", figure, class_="tall")
    return join([words, facts(rows), tall])


def _median(inputs: DataInputs) -> str | None:
    """Between which edges the middle document lies."""
    shape = mapping(inputs.audit.get("length_histogram"))
    edges, counts = numbers(shape.get("edges")), numbers(shape.get("counts"))
    half = sum(counts) / 2
    if half <= 0:
        return None
    place = next(index for index, below in enumerate(accumulate(counts)) if below >= half)
    return f"are shorter than {grouped(edges[place + 1])} characters"


def _characters(count: float) -> Html:
    return join([exact(count, compact, "characters"), " characters"])
