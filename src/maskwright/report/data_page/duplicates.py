"""Text that stands in the data more than once: equal documents, repeated lines, near copies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..amounts import MAX_SAMPLE_CHARACTERS, count_of, exact, text_bytes
from ..bars import bars
from ..lines import Chart, Mark, Series
from ..markup import (
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
    tag,
)
from ..scale import grouped, percent, percent_ticks, share_text
from ..values import Object, items, mapping, number
from .inputs import DataInputs

__all__ = ["duplicates_section"]

MAX_CLUSTERS = 20
MAX_IDS = 5
MAX_HEAD_CHARACTERS = 80


def duplicates_section(inputs: DataInputs) -> Section:
    """Exact copies, repeated lines, and near copies."""
    key, title = "duplicates", "Duplicates"
    duplicates = mapping(inputs.audit.get("duplicates"))
    if not duplicates:
        return Section(key, title, missing("The account does not say which documents were copies."))
    near = mapping(duplicates.get("near"))
    parts = [("copies", "How much was repeated", _copies(inputs, duplicates))]
    figures = [figure for figure in (_sizes(near), _curve(near)) if figure]
    if figures:
        parts.append(("near", "Near copies", join([_near_words(near), figure_grid(*figures)])))
    largest = [mapping(cluster) for cluster in items(near.get("largest"))]
    if largest:
        parts.append(("clusters", "The largest groups", _clusters(largest)))
    body = [part(key_, title_, content) for key_, title_, content in parts]
    return Section(key, title, join(body), [(key_, title_) for key_, title_, _ in parts])


def _copies(inputs: DataInputs, duplicates: Object) -> Html:
    read = count_of(inputs.audit.get("documents_read"))
    lines = mapping(duplicates.get("lines"))
    near = mapping(duplicates.get("near"))
    rows: list[tuple[object, object]] = [
        ("Exact copies", _documents(mapping(duplicates.get("exact")), read)),
        ("Repeated lines", _lines(lines)),
        ("Near copies", _documents(near, read)),
        ("Groups of near copies", _count(near.get("clusters"), "groups")),
    ]
    words = note(
        "Repeated text costs training time and teaches by heart. Of each group one document stays; the "
        "others are left out. Worry above 30 % of the documents: then a source was probably read twice,"
        " or is made from a template."
    )
    return join([words, facts(rows)])


def _documents(account: Object, read: float | None) -> Html:
    count = count_of(account.get("documents"))
    if count is None:
        return tag("span", "not looked for")
    share = [" ", tag("small", f"{share_text(count / read)} of those read")] if read else []
    return join([exact(count, grouped, "documents"), *share])


def _lines(account: Object) -> Html:
    lines, size = count_of(account.get("lines")), count_of(account.get("bytes"))
    if lines is None:
        return tag("span", "not looked for")
    share = [" ", tag("small", text_bytes(size), " of text")] if size is not None else []
    return join([exact(lines, grouped, "lines"), *share])


def _count(value: object, unit: str) -> Html | None:
    found = count_of(value)
    return None if found is None else exact(found, grouped, unit)


def _near_words(near: Object) -> Html:
    threshold = number(near.get("threshold"))
    found = f" Here {percent(threshold, 0)} was asked for." if threshold is not None else ""
    return note(
        "Documents count as near copies when they share most of their short runs of words (their similarity)."
        + found
        + " Worry when a few groups are very large: read them below."
    )


def _sizes(near: Object) -> Html:
    counts = {str(name): count_of(count) for name, count in mapping(near.get("cluster_sizes")).items()}
    rows = sorted(
        ((name, count) for name, count in counts.items() if count is not None), key=lambda row: _first(row[0])
    )
    if not rows:
        return Html("")
    chart = bars(
        [(f"{name.replace('-', '–')} documents", count) for name, count in rows],
        caption="Groups of near copies by size",
        write=lambda count: exact(count, grouped, "groups"),
        colour="b",
    )
    words = note("Many groups of two are usual; groups of hundreds are templates or mirrored pages.")
    heading = figure_heading("Size of groups", "number of groups")
    return tag("div", tag("figure", heading, chart), words, class_="noted")


def _first(name: str) -> tuple[float, str]:
    """Sizes such as `2`, `3-4` and `1025+` in the order of their first number."""
    found = re.match(r"\d{1,15}", name)
    return (float(found[0]) if found else float("inf"), name)


def _curve(near: Object) -> Html:
    found = [tuple(map(number, items(point)[:2])) for point in items(near.get("curve"))]
    points = sorted(
        (point[0], point[1])
        for point in found
        if len(point) == 2 and point[0] is not None and point[1] is not None and 0 <= point[0] <= 1
    )
    if len(points) < 2 or any(not 0 <= probability <= 1 for _, probability in points):
        return Html("")
    threshold = number(near.get("threshold"))
    inside = threshold is not None and points[0][0] <= threshold <= points[-1][0]
    chart = Chart(
        title="What the search finds",
        unit="chance that a pair is compared",
        series=[Series("by similarity", points, last=False)],
        x_label="similarity of two documents",
        x_share=True,
        marks=[Mark(threshold, f"asked for: {percent(threshold, 0)}", low=True)]
        if inside and threshold
        else [],
        format_ticks=percent_ticks,
        zero=True,
    ).render()
    words = note(_curve_words(points, threshold if inside else None))
    return tag("div", chart, words, class_="noted")


def _curve_words(points: Sequence[tuple[float, float]], threshold: float | None) -> str:
    text = "The more alike two documents are, the surer they meet and are compared."
    if threshold is not None:
        chance = _between(points, threshold)
        text += f" Of pairs as alike as asked for, {percent(chance, 0)} meet; much below 90 %, copies stay."
    return text


def _between(points: Sequence[tuple[float, float]], place: float) -> float:
    """The height of a curve at a place inside it, on the straight line between its points."""
    above = next(index for index, (x, _) in enumerate(points) if x >= place)
    (x0, y0), (x1, y1) = points[max(0, above - 1)], points[above]
    return y1 if x1 <= x0 else y0 + (y1 - y0) * (place - x0) / (x1 - x0)


def _clusters(clusters: Sequence[Object]) -> Html:
    words = note(
        "The groups with most near copies, each with the start of the document that stayed. Worry when "
        "it is a menu, a notice or an error page: such text is better left out by a rule."
    )
    return join([words, *(_cluster(cluster) for cluster in clusters[:MAX_CLUSTERS])])


def _cluster(cluster: Object) -> Html:
    size = count_of(cluster.get("size"))
    text = str(cluster.get("text", ""))
    excerpt = text[:MAX_SAMPLE_CHARACTERS] + (" …" if len(text) > MAX_SAMPLE_CHARACTERS else "")
    words = " ".join(text.split())
    head = words[:MAX_HEAD_CHARACTERS] + (" …" if len(words) > MAX_HEAD_CHARACTERS else "")
    count = "A group" if size is None else f"{grouped(size)} documents"
    dropped = [str(name) for name in items(cluster.get("dropped"))[:MAX_IDS]]
    kept = cluster.get("kept")
    rows: list[tuple[object, object]] = [
        ("Stayed", None if kept is None else tag("span", str(kept), dir="auto")),
        ("Left out, some of them", join(dropped, ", ") if dropped else None),
    ]
    summary = join([tag("b", count), " · ", tag("span", head, dir="auto", class_="quiet")])
    quote = tag("blockquote", excerpt, dir="auto", class_="sample") if text else ""
    return details(summary, quote, facts(rows))
