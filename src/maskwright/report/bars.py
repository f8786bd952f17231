"""Amounts side by side: bars, a histogram, values with intervals, and a heat map.

Bars, intervals and the heat map are HTML tables whose cells are drawn by the stylesheet: they can
be read aloud, searched and copied, and their text keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Html, figure_heading, tag
from .scale import fit_scale, grouped, percent, plain_ticks, share_text
from .svg import COLOURS, SIZE, Tick, down, draw, frame, grid, short, y_ticks

__all__ = ["Interval", "bars", "heat_map", "histogram", "intervals"]

MAX_EDGE_LABELS = 7


def bars(
    rows: Sequence[tuple[str, float]],
    *,
    caption: str,
    whole: float | None = None,
    full: float | None = None,
    write: Callable[[float], str] = grouped,
    colour: str = "a",
    chosen: int | None = None,
) -> Html:
    """Horizontal bars as a table: name, bar, amount, share.

    Args:
        rows: name and amount (not negative) of each bar, in the order shown.
        caption: what is shown.
        whole: what the amounts are parts of; adds a column with the share.
        full: amount whose bar has the full length; None is the largest.
        write: writes an amount.
        colour: one of `svg.COLOURS`.
        chosen: index of a row that stands out, or None.
    """
    full = full or max((amount for _, amount in rows), default=0) or 1
    body = []
    for index, (name, amount) in enumerate(rows):
        bar = tag("i", style=f"width:{min(100, 100 * amount / full):.2f}%", class_=f"fill-{colour}")
        cells = [
            tag("th", tag("span", name, dir="auto"), scope="row", title=name),
            tag("td", bar, class_="bar"),
            tag("td", write(amount)),
        ]
        if whole:
            cells.append(tag("td", share_text(amount / whole), class_="share"))
        body.append(tag("tr", *cells, class_="chosen" if index == chosen else None))
    return tag("table", tag("caption", caption), tag("tbody", *body), class_="bars")


def histogram(title: str, unit: str, edges: Sequence[float], counts: Sequence[float], x_label: str) -> Html:
    """Bars of equal width over bins that may be of unequal width.

    Args:
        title: what is shown.
        unit: what the bars count, in words.
        edges: bin edges, ascending, one more than there are counts.
        counts: how many fell into each bin. Empty bins at both ends are left out.
        x_label: what the edges are measured in.
    """
    used = [index for index, count in enumerate(counts) if count > 0] or [0]
    edges, counts = edges[used[0] : used[-1] + 2], counts[used[0] : used[-1] + 1]
    scale = fit_scale(list(counts), zero=True)
    values, width = scale.ticks(4), SIZE / len(counts)
    shapes = grid(scale, values)
    for index, count in enumerate(counts):
        span = f"{_edge(edges[index])} to {_edge(edges[index + 1])} {x_label}: {grouped(count)}"
        top = down(scale, count)
        box = {
            "x": short((index + 0.05) * width),
            "y": short(top),
            "width": short(0.9 * width),
            "height": short(SIZE - top),
        }
        shapes.append(tag("rect", tag("title", span), class_="fill-a", **box))
    every = -(-len(edges) // MAX_EDGE_LABELS)
    columns = [Tick(index / len(counts), _edge(edges[index])) for index in range(0, len(edges), every)]
    rows = y_ticks(scale, values, plain_ticks(values))
    return tag(
        "figure",
        figure_heading(title, unit),
        frame([draw(title, shapes)], rows, columns, x_label),
        class_="chart",
    )


def _edge(value: float) -> str:
    """A bin edge in few characters; powers of two read as such: 512, 1Ki, 64Ki."""
    for size, unit in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Interval:
    """A named estimate in [0, 1] with both ends of its interval, where they are known."""

    name: str
    value: float
    ends: tuple[float, float] | None


def intervals(rows: Sequence[Interval], *, caption: str, reference: tuple[str, float] | None = None) -> Html:
    """Estimates as dots on a scale from 0 to 100 %, with their intervals as lines.

    Args:
        rows: the estimates, in the order shown; each takes the next colour.
        caption: what is shown.
        reference: name and value of a level to compare with, or None.
    """
    body = []
    for index, row in enumerate(rows):
        parts = [tag("i", class_="level", style=f"left:{_left(reference[1])}")] if reference else []
        written = "no interval"
        if row.ends:
            right = _left(1 - row.ends[1])
            parts.append(tag("i", class_="whisker", style=f"left:{_left(row.ends[0])};right:{right}"))
            written = f"{percent(row.ends[0])} to {percent(row.ends[1])}"
        parts.append(tag("i", class_="point", style=f"left:{_left(row.value)}"))
        colour = COLOURS[index % len(COLOURS)]
        body.append(
            tag(
                "tr",
                tag("th", tag("span", row.name, dir="auto"), scope="row"),
                tag("td", tag("div", *parts, class_=f"track ink-{colour}"), class_="bar"),
                tag("td", percent(row.value), tag("small", written)),
            )
        )
    if reference:
        key = tag("i", class_="swatch reference")
        body.append(
            tag("tr", tag("td", key, f"{reference[0]} {percent(reference[1])}", colspan=3, class_="key"))
        )
    return tag("table", tag("caption", caption), tag("tbody", *body), class_="bars intervals")


def _left(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def heat_map(labels: Sequence[str], counts: Sequence[Sequence[float]], *, caption: str) -> Html:
    """A confusion matrix: rows are the truth, columns the prediction, depth the share of the row.

    Args:
        labels: names of the classes.
        counts: as many rows and columns as labels.
        caption: what is shown.
    """
    columns = [tag("th", tag("span", label), scope="col", title=label) for label in labels]
    body = []
    for true, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row) or 1
        cells = [
            _cell(count, count / total, None if true == predicted else labels[predicted], label)
            for predicted, count in enumerate(row)
        ]
        body.append(tag("tr", tag("th", tag("span", label), scope="row", title=label), *cells))
    corner = tag("td", tag("span", "predicted →"), tag("span", "true ↓"), class_="corner")
    head = tag("thead", tag("tr", corner, *columns))
    inner = tag("table", tag("caption", caption), head, tag("tbody", *body), class_="heat")
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(count: float, share: float, mistaken_for: str | None, label: str) -> Html:
    if not count:
        return tag("td")
    # Mistakes spread over many cells; the square root keeps small shares apart from none.
    depth = 0.1 + 0.9 * share if mistaken_for is None else 0.08 + 0.92 * share**0.5
    kind = "right" if mistaken_for is None else "wrong"
    what = f"{label}, right" if mistaken_for is None else f"{label} taken for {mistaken_for}"
    return tag(
        "td",
        grouped(count),
        class_=kind + " deep" * (depth > 0.6) + " deepest" * (depth > 0.8),
        style=f"--depth:{depth:.2f}",
        title=f"{what}: {grouped(count)} ({percent(share)})",
    )
