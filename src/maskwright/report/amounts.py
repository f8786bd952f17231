"""Amounts of an account, written short and exact when pointed at, and the figures made of them.

The section on data in the report of a run and the whole data report show the same things; what
both show is made here. Pure functions of the values of `audit.json` and `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from .bars import histogram
from .markup import Html, details, join, table, tag
from .scale import bytes_text, compact, grouped, percent
from .values import Object, items, mapping, number, numbers

__all__ = [
    "count_of",
    "documents",
    "exact",
    "kept_of",
    "length_figure",
    "meter",
    "ranked",
    "reason_name",
    "repairs_text",
    "samples",
    "splits_table",
    "text_bytes",
    "tokens",
]

UNKNOWN = "–"
ABBREVIATIONS = {"html": "HTML", "json": "JSON", "url": "URL", "urls": "URLs", "utf8": "UTF-8"}
# Sums and rates of counts up to here stay finite.
MOST = 1e21
MAX_SAMPLES = 5
MAX_SAMPLE_CHARACTERS = 400


def exact(value: float | None, write: Callable[[float], str], unit: str) -> Html:
    """An amount made short for reading, with the whole number for those who point at it.

    Args:
        value: the amount, or None where it is not known.
        write: makes it short.
        unit: what it counts, in the plural.
    """
    if value is None:
        return tag("span", UNKNOWN, title="not in the account")
    whole = grouped(value) if value == round(value) else f"{value:,.6g}"
    return tag("span", write(value), title=f"{whole} {unit}")


def documents(value: float | None) -> Html:
    """A number of documents."""
    return exact(value, compact, "documents")


def text_bytes(value: float | None) -> Html:
    """An amount of text, in bytes of UTF-8."""
    return exact(value, bytes_text, "bytes")


def tokens(value: float | None) -> Html:
    """A number of tokens."""
    return exact(value, compact, "tokens")


def count_of(value: object) -> float | None:
    """A number that can be a count: neither negative nor beyond all data; None for everything else."""
    found = number(value)
    return found if found is not None and 0 <= found <= MOST else None


def ranked(counts: Object) -> list[tuple[str, float]]:
    """Names and counts that are usable, largest first."""
    pairs = [(str(name), count_of(count)) for name, count in counts.items()]
    return sorted(
        ((name, count) for name, count in pairs if count is not None),
        key=lambda pair: (-pair[1], pair[0]),
    )


def reason_name(reason: str) -> str:
    """A reason of a drop as words: `malformed_json` becomes `malformed JSON`."""
    return " ".join(ABBREVIATIONS.get(word, word) for word in reason.split("_"))


def kept_of(
    read: float | None, kept: float | None, write: Callable[[float], object] = documents
) -> Html | None:
    """What was kept of what was read, with the share; None where nothing is known."""
    if kept is None:
        return None
    if not read:
        return join([write(kept)])
    return join([write(kept), " of ", write(read), " ", tag("small", f"{percent(kept / read)} kept")])


def repairs_text(repairs: Object) -> str | None:
    """How many records were mended, by reason; None where none was."""
    rows = [f"{grouped(count)} ({reason_name(name)})" for name, count in ranked(repairs) if count]
    return ", ".join(rows) or None


def meter(share: float) -> Html:
    """A short bar for a cell of a table, filled to a share."""
    filled = tag("i", class_="fill-a", style=f"width:{100 * min(1.0, max(0.0, share)):.1f}%")
    return tag("span", filled, class_="meter")


def splits_table(splits: Object) -> Html:
    """Tokens, documents and shards of each part of the data; empty where there is none."""
    rows = []
    for name, split in splits.items():
        counts = [number(mapping(split).get(key)) for key in ("num_tokens", "num_documents")]
        cells = ["" if count is None else grouped(count) for count in counts]
        rows.append([name, *cells, grouped(len(items(mapping(split).get("shards"))))])
    headings = ["Split", "Tokens", "Documents", "Shards"]
    return table(headings, rows, caption="Splits", class_="numbers plain") if rows else Html("")


def samples(summary: object, texts: object, *before: object) -> Html:
    """A folded list of short samples; empty where there is neither a sample nor a word before them."""
    shown = [_sample(text) for text in items(texts)[:MAX_SAMPLES]]
    return details(summary, *before, *shown) if shown or before else Html("")


def _sample(text: object) -> Html:
    words = str(text)
    if len(words) > MAX_SAMPLE_CHARACTERS:
        words = words[:MAX_SAMPLE_CHARACTERS] + " …"
    return tag("blockquote", words, dir="auto", class_="sample")


def length_figure(audit: Object) -> Html:
    """How long the documents are; empty where the account does not say."""
    shape = mapping(audit.get("length_histogram"))
    edges, counts = numbers(shape.get("edges")), numbers(shape.get("counts"))
    if not _is_histogram(edges, counts):
        return Html("")
    return histogram("Length of documents", "documents per bin", edges, counts, "characters")


def _is_histogram(edges: Sequence[float], counts: Sequence[float]) -> bool:
    ascending = all(low < high for low, high in pairwise(edges))
    return bool(counts) and len(edges) == len(counts) + 1 and ascending and min(counts) >= 0
