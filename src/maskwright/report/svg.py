"""The frame that all charts share: inline SVG whose text keeps its size at every width.

An SVG that scales as a whole shrinks its labels on a phone. Here only the geometry stretches: the
drawing is a square of 1000 by 1000 units without a fixed aspect ratio and with strokes whose width
does not scale, while ticks, legends and labels are HTML laid over it by percentages. Colours are
CSS classes (`ink-a` ... `ink-f`, `ink-quiet`), so light, dark and print are the stylesheet's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, tag
from .scale import Scale

__all__ = ["COLOURS", "SIZE", "Tick", "down", "draw", "frame", "grid", "short", "swatch", "y_ticks"]

COLOURS = ("a", "b", "c", "d", "e", "f")
SIZE = 1000


@dataclass(frozen=True)
class Tick:
    """A label on an axis, at a share of its length."""

    share: float
    label: str


def short(value: float) -> str:
    """A coordinate in drawing units with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def down(scale: Scale, value: float) -> float:
    """Where a value lies in the drawing, counted from the top."""
    return SIZE * (1 - scale.place(value))


def draw(title: str, shapes: Sequence[Html], **data: object) -> Html:
    """An SVG element that fills its box.

    Args:
        title: what a screen reader says.
        shapes: elements in drawing units.
        **data: further attributes.
    """
    return tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        role="img",
        **data,
    )


def grid(scale: Scale, values: Sequence[float], class_: str = "grid") -> list[Html]:
    """Horizontal lines at some values of the y axis."""
    return [tag("path", d=f"M0 {short(down(scale, value))}H{SIZE}", class_=class_) for value in values]


def y_ticks(scale: Scale, values: Sequence[float], labels: Sequence[str]) -> list[Tick]:
    """Pair tick values with their labels."""
    return [Tick(scale.place(value), label) for value, label in zip(values, labels, strict=True)]


def frame(plot: Sequence[object], rows: Sequence[Tick], columns: Sequence[Tick], x_label: str) -> Html:
    """Lay tick labels and the name of the x axis around a drawing.

    Args:
        plot: the drawing, and what is laid over it.
        rows: ticks of the y axis.
        columns: ticks of the x axis.
        x_label: what the x axis counts.
    """
    ys = [tag("span", tick.label, style=f"bottom:{100 * tick.share:.2f}%") for tick in rows]
    xs = [tag("span", tick.label, style=f"left:{100 * tick.share:.2f}%") for tick in columns]
    width = max((len(tick.label) for tick in rows), default=1)
    return tag(
        "div",
        tag("div", *ys, class_="ys", aria_hidden="true"),
        tag("div", *plot, class_="plot"),
        tag("div", *xs, class_="xs", aria_hidden="true"),
        tag("div", x_label, class_="x-label"),
        class_="frame",
        style=f"--y-width:{width}ch",
    )


def swatch(kind: str, colour: str = "") -> Html:
    """The small sample of a line or area in a legend."""
    return tag("i", class_=f"swatch {kind} ink-{colour}" if colour else f"swatch {kind}")
