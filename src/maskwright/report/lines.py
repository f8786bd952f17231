"""Line charts: series, dashed levels, a shaded band, marked moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, figure_heading, tag
from .scale import Formatter, Scale, fit_scale, percent_ticks, plain_ticks, segments, significant, thin
from .svg import SIZE, Tick, down, draw, frame, grid, short, swatch, y_ticks
from .values import Point

__all__ = ["Chart", "Mark", "Reference", "Series"]

MAX_POINTS = 800
MAX_DOTS = 60


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: how the legend calls it.
        points: (x, y); an unknown y breaks the line.
        colour: one of `svg.COLOURS`, or `quiet`.
        kind: `line`, `thin` (a faint line behind others) or `dots` (a line with its points).
        last: show the last value in the legend.
    """

    name: str
    points: Sequence[Point]
    colour: str = "a"
    kind: str = "line"
    last: bool = True


@dataclass(frozen=True)
class Reference:
    """A dashed level to compare with, labelled where it runs."""

    name: str
    value: float


@dataclass(frozen=True)
class Mark:
    """A moment on the x axis, with a short label at the top of the chart, or at its foot if `low`."""

    x: float
    label: str
    low: bool = False


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Args:
        title: what is shown.
        unit: what the y axis counts, in words.
        series: the lines, first drawn first.
        x_label: what the x axis counts.
        x_share: the x axis shows shares as per cent; otherwise it counts whole steps.
        references: dashed levels.
        band: (low, high), a stretch of y that is shaded, or None.
        band_name: how the legend calls the band.
        marks: moments on the x axis.
        format_ticks: writes the y ticks.
        zero: begin the y axis at zero.
        log: logarithmic y axis where the values allow it.
        tall: a chart on its own under a heading that names it, rather than one of a pair.
    """

    title: str
    unit: str
    series: Sequence[Series]
    x_label: str = "step"
    x_share: bool = False
    references: Sequence[Reference] = ()
    band: tuple[float, float] | None = None
    band_name: str = ""
    marks: Sequence[Mark] = ()
    format_ticks: Formatter = plain_ticks
    zero: bool = False
    log: bool = False
    tall: bool = False

    def render(self) -> Html:
        """The chart as a `figure`; a line of text where there is no finite value to draw."""
        known = [series for series in self.series if any(y is not None for _, y in series.points)]
        title = None if self.tall else self.title
        if not known:
            heading = figure_heading(title, self.unit)
            return tag(
                "figure", heading, tag("p", "No finite value was logged.", class_="missing"), class_="chart"
            )
        x_scale = _step_scale([x for series in known for x, _ in series.points])
        y_scale = fit_scale(self._heights(known), zero=self.zero, log=self.log)
        unit = ", ".join(filter(None, (self.unit, "logarithmic" if y_scale.log else "")))
        y_values = y_scale.ticks(5)
        x_values = [value for value in x_scale.ticks(5) if self.x_share or value == round(value)]
        x_labels = percent_ticks(x_values) if self.x_share else plain_ticks(x_values)
        labels = [significant(value, 1) for value in y_values] if y_scale.log else self.format_ticks(y_values)
        columns = [Tick(x_scale.place(value), label) for value, label in zip(x_values, x_labels, strict=True)]
        plot = [_drawing(self, known, (x_scale, y_scale), y_values), *_overlays(self, x_scale, y_scale)]
        body = frame(plot, y_ticks(y_scale, y_values, labels), columns, self.x_label)
        class_ = "chart tall" if self.tall else "chart"
        return tag("figure", figure_heading(title, unit), _legend(self, known), body, class_=class_)

    def _heights(self, known: Sequence[Series]) -> list[float]:
        values = [y for series in known for _, y in series.points if y is not None]
        return [*values, *(reference.value for reference in self.references), *(self.band or ())]


def _step_scale(xs: Sequence[float]) -> Scale:
    """The x axis ends where the data ends, and begins at zero unless the data begins far from it."""
    low, high = min(xs), max(xs)
    low = 0.0 if 0 <= low <= 0.5 * high else low
    return Scale(low, high) if high > low else Scale(low - 0.5, low + 0.5)


def _drawing(
    chart: Chart, known: Sequence[Series], scales: tuple[Scale, Scale], y_values: Sequence[float]
) -> Html:
    x_scale, y_scale = scales
    shapes: list[Html] = []
    if chart.band is not None:
        top, bottom = down(y_scale, max(chart.band)), down(y_scale, min(chart.band))
        shapes.append(tag("rect", x=0, y=short(top), width=SIZE, height=short(bottom - top), class_="band"))
    shapes += grid(y_scale, y_values)
    for mark in chart.marks:
        shapes.append(tag("path", d=f"M{short(SIZE * x_scale.place(mark.x))} 0V{SIZE}", class_="mark"))
    for series in known:
        shapes += _line(series, x_scale, y_scale)
    shapes += grid(y_scale, [reference.value for reference in chart.references], "reference")
    return draw(
        f"{chart.title}: {', '.join(series.name for series in known)}, by {chart.x_label}",
        shapes,
        data_x=f"{x_scale.low!r} {x_scale.high!r} {chart.x_label}",
        data_y=f"{y_scale.low!r} {y_scale.high!r} {int(y_scale.log)}",
        data_percent=None if chart.format_ticks is plain_ticks else "",
        data_x_percent="" if chart.x_share else None,
    )


def _line(series: Series, x_scale: Scale, y_scale: Scale) -> list[Html]:
    runs = list(segments(series.points))
    total = sum(map(len, runs))
    strokes, dots = [], []
    for run in runs:
        kept = thin(run, max(4, MAX_POINTS * len(run) // total))
        places = [f"{short(SIZE * x_scale.place(x))} {short(down(y_scale, y))}" for x, y in kept]
        if len(places) > 1:
            strokes.append("M" + "L".join(places))
        if len(places) == 1 or (series.kind == "dots" and total <= MAX_DOTS):
            # A stroke of almost no length with round ends is a dot that no stretching deforms.
            dots += [f"M{place}h.01" for place in places]
    shapes = []
    for path, class_ in (("".join(strokes), series.kind), ("".join(dots), "dot")):
        if path:
            shapes.append(tag("path", d=path, class_=f"{class_} ink-{series.colour}", data_name=series.name))
    return shapes


def _overlays(chart: Chart, x_scale: Scale, y_scale: Scale) -> list[Html]:
    """The texts inside the plot: names of levels and of marked moments."""
    labels = []
    for reference in chart.references:
        height = y_scale.place(reference.value)
        value = (
            significant(reference.value)
            if chart.format_ticks is plain_ticks
            else _as_tick(chart, reference.value)
        )
        side = "over" if height < 0.9 else "under"
        labels.append(
            tag(
                "span",
                f"{reference.name} {value}",
                class_=f"level {side}",
                style=f"bottom:{100 * height:.2f}%",
            )
        )
    for mark in chart.marks:
        left = f"left:{100 * x_scale.place(mark.x):.2f}%"
        labels.append(
            tag("span", mark.label, class_="mark-label low" if mark.low else "mark-label", style=left)
        )
    return labels


def _as_tick(chart: Chart, value: float) -> str:
    """One value written as finely as ticks a thousandth apart would be."""
    return chart.format_ticks([value, value + 0.001])[0]


def _legend(chart: Chart, known: Sequence[Series]) -> Html:
    entries = []
    for series in known:
        last = next((y for _, y in reversed(series.points) if y is not None), 0.0)
        value = significant(last) if chart.format_ticks is plain_ticks else _as_tick(chart, last)
        shown = [" ", tag("b", value)] if series.last else []
        entries.append(tag("li", swatch(series.kind, series.colour), series.name, *shown))
    if chart.band is not None and chart.band_name:
        entries.append(tag("li", swatch("band"), chart.band_name))
    return tag("ul", *entries, class_="legend")
