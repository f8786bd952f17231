"""The section on the data: what came in, what was left out and why, how long documents are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from .bars import bars, histogram
from .inputs import Inputs
from .markup import (
    Html,
    Section,
    details,
    facts,
    figure_grid,
    figure_heading,
    join,
    missing,
    note,
    part,
    table,
    tag,
)
from .scale import bytes_text, grouped, percent, significant
from .values import Object, items, mapping, number, numbers

__all__ = ["data_section", "tokens_in_split"]

MAX_SOURCES = 12
MAX_SAMPLES = 5
MAX_SAMPLE_CHARACTERS = 400


def data_section(inputs: Inputs) -> Section:
    """What the model was fed."""
    audit, manifest = inputs.audit, inputs.manifest
    problems = dict.fromkeys((inputs.audit_problem, inputs.manifest_problem))
    body = [missing(text, "maskwright prepare") for text in problems if text]
    parts: list[tuple[str, str, Html]] = []
    if audit or manifest:
        parts.append(("documents", "Documents and tokens", _counts(audit, manifest)))
    if mapping(audit.get("drops")):
        parts.append(("drops", "What was left out", _drops(audit)))
    figures = [figure for figure in (_sources(audit), _lengths(audit)) if figure]
    if figures:
        parts.append(("sources", "Sources and lengths", figure_grid(*figures)))
    body += [part(key, title, content) for key, title, content in parts]
    return Section("data", "Data", join(body), [(key, title) for key, title, _ in parts])


def tokens_in_split(manifest: Object, name: str) -> float | None:
    """How many tokens a split has, or None where the manifest does not say."""
    return number(mapping(mapping(manifest.get("splits")).get(name)).get("num_tokens"))


def _counts(audit: Object, manifest: Object) -> Html:
    read, kept = number(audit.get("documents_read")), number(audit.get("documents_kept"))
    per_token = number(audit.get("bytes_per_token"))
    longest = number(audit.get("longest_document_characters"))
    tokenizer = mapping(manifest.get("tokenizer"))
    vocabulary = number(tokenizer.get("vocab_size"))
    rows: list[tuple[object, object]] = [
        ("Documents kept", _kept(read, kept, grouped)),
        ("Text kept", _kept(number(audit.get("bytes_read")), number(audit.get("bytes_kept")), bytes_text)),
        ("Bytes per token", significant(per_token) if per_token is not None else None),
        ("Vocabulary", f"{grouped(vocabulary)} tokens" if vocabulary is not None else None),
        ("Longest document", f"{grouped(longest)} characters" if longest is not None else None),
        ("Mended and kept", _repairs(mapping(audit.get("repairs")))),
    ]
    return join([facts(rows), _splits(mapping(manifest.get("splits")))])


def _kept(read: float | None, kept: float | None, write: Callable[[float], str]) -> object:
    if kept is None or not read:
        return None if kept is None else write(kept)
    return join([f"{write(kept)} of {write(read)} ", tag("small", f"{percent(kept / read)} kept")])


def _repairs(repairs: Object) -> str | None:
    rows = [f"{grouped(count)} ({name.replace('_', ' ')})" for name, count in _ranked(repairs) if count]
    return ", ".join(rows) or None


def _splits(splits: Object) -> Html:
    rows = []
    for name, split in splits.items():
        counts = [number(mapping(split).get(key)) for key in ("num_tokens", "num_documents")]
        cells = ["" if count is None else grouped(count) for count in counts]
        rows.append([name, *cells, grouped(len(items(mapping(split).get("shards"))))])
    headings = ["Split", "Tokens", "Documents", "Shards"]
    return table(headings, rows, caption="Splits", class_="numbers plain") if rows else Html("")


def _ranked(counts: Object) -> list[tuple[str, float]]:
    """Names and counts that are usable, largest first."""
    pairs = [(str(name), number(count)) for name, count in counts.items()]
    return sorted(
        ((name, count) for name, count in pairs if count is not None and count >= 0),
        key=lambda pair: (-pair[1], pair[0]),
    )


def _drops(audit: Object) -> Html:
    rows = _ranked(mapping(audit.get("drops")))
    shown = [(name.replace("_", " "), count) for name, count in rows]
    read = number(audit.get("documents_read"))
    chart = bars(
        shown, caption="Documents left out, by reason, and their share of all", whole=read, colour="b"
    )
    samples = mapping(audit.get("drop_samples"))
    folded = [
        details(f"Samples: {name.replace('_', ' ')}", *map(_sample, items(samples.get(name))[:MAX_SAMPLES]))
        for name, _ in rows
        if items(samples.get(name))
    ]
    return join([chart, *folded])


def _sample(text: object) -> Html:
    words = str(text)
    if len(words) > MAX_SAMPLE_CHARACTERS:
        words = words[:MAX_SAMPLE_CHARACTERS] + " …"
    return tag("blockquote", words, dir="auto", class_="sample")


def _sources(audit: Object) -> Html:
    counts = {
        name: mapping(source).get("documents") for name, source in mapping(audit.get("sources")).items()
    }
    rows = _ranked(counts)
    if not rows:
        return Html("")
    total = sum(count for _, count in rows) or 1
    shown, rest = rows[:MAX_SOURCES], rows[MAX_SOURCES:]
    chart = bars(shown, caption="Documents by source", whole=total)
    more = sum(count for _, count in rest)
    words = note(f"{len(rest)} more sources have {grouped(more)} documents ({percent(more / total)}).")
    return tag("figure", figure_heading("Sources", "documents"), chart, words if rest else "")


def _lengths(audit: Object) -> Html:
    shape = mapping(audit.get("length_histogram"))
    edges, counts = numbers(shape.get("edges")), numbers(shape.get("counts"))
    if not _is_histogram(edges, counts):
        return Html("")
    return histogram("Length of documents", "documents per bin", edges, counts, "characters")


def _is_histogram(edges: Sequence[float], counts: Sequence[float]) -> bool:
    ascending = all(low < high for low, high in pairwise(edges))
    return bool(counts) and len(edges) == len(counts) + 1 and ascending and min(counts) >= 0
