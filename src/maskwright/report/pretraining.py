"""The section on pretraining: loss, accuracy, sources, minimal pairs, optimiser, speed, mask rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .by_source import by_source
from .inputs import Inputs
from .lines import Chart, Mark, Reference, Series
from .markup import Html, Section, code, details, facts, figure_grid, join, missing, note, part, tag
from .minimal_pairs import language_probes
from .scale import bytes_text, compact, duration, grouped, percent, percent_ticks, significant, smooth
from .values import Metrics, Object, Point, number, numbers

__all__ = ["pretraining_section", "trend"]

MIN_POINTS_TO_SMOOTH = 20
MAX_MARKS = 12


def pretraining_section(inputs: Inputs) -> Section:
    """What happened while the encoder learned, step by step."""
    metrics, summary = inputs.metrics, inputs.summary
    if metrics.problem is not None:
        return Section("pretraining", "Pretraining", missing(metrics.problem, "maskwright pretrain"))
    parts = [
        ("loss", "Loss", _loss(metrics, summary)),
        ("accuracy", "Accuracy and perplexity", _accuracy(metrics)),
        ("by-source", "Validation by source", by_source(inputs)),
        ("probes", "Language probes", language_probes(inputs)),
        ("optimiser", "Optimiser", _optimiser(metrics)),
        ("speed", "Speed", _speed(metrics, summary)),
        ("mask-rate", "Mask rate", _mask_rate(metrics, summary)),
    ]
    # What a run did not measure has no heading either.
    parts = [(key, title, content) for key, title, content in parts if content]
    notes = [missing(inputs.summary_problem, "maskwright pretrain")] if inputs.summary_problem else []
    if metrics.unreadable_lines:
        words = (
            "line could not be read and is"
            if metrics.unreadable_lines == 1
            else "lines could not be read and are"
        )
        notes.append(
            note(
                code("metrics.jsonl"),
                f": {grouped(metrics.unreadable_lines)} {words} left out; a crash can tear one.",
            )
        )
    body = join([*notes, *(part(key, title, content) for key, title, content in parts)])
    return Section("pretraining", "Pretraining", body, [(key, title) for key, title, _ in parts])


def trend(name: str, points: Sequence[Point], colour: str = "a", *, log: bool = False) -> list[Series]:
    """A noisy series as a faint line with a smooth one before it; short ones as they are.

    Args:
        name: how the legend calls it.
        points: the series.
        colour: as in `Series`.
        log: smooth the logarithms, so that one spike does not lift its whole surroundings.
    """
    if len(points) < MIN_POINTS_TO_SMOOTH:
        return [Series(name, points, colour)]
    if log:
        logs: list[Point] = [(x, math.log(y) if y is not None and y > 0 else None) for x, y in points]
        curve: list[Point] = [(x, None if y is None else math.exp(y)) for x, y in smooth(logs)]
    else:
        curve = smooth(points)
    return [Series(name, points, colour, "thin", last=False), Series(f"{name}, smoothed", curve, colour)]


def known(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The points whose value is a finite number."""
    return [(x, y) for x, y in points if y is not None]


def _loss(metrics: Metrics, summary: Object) -> Html:
    unigram = number(summary.get("unigram_loss"))
    validation = metrics.evaluated("loss")
    train = metrics.trained("loss")
    events = metrics.events
    numbers_at: dict[float, list[str]] = {}
    for index, event in enumerate(events, 1):
        numbers_at.setdefault(event["step"], []).append(str(index))
    marks = [Mark(step, ", ".join(found)) for step, found in numbers_at.items()]
    chart = Chart(
        "Loss",
        "cross-entropy, nats per masked token",
        [*trend("train", train), Series("validation", validation, "b", "dots")],
        references=[Reference("unigram baseline", unigram)] if unigram is not None else [],
        marks=marks if len(marks) <= MAX_MARKS else [],
        tall=True,
    )
    return join([chart.render(), _loss_words(known(validation), unigram), _broken(train), _events(events)])


def _loss_words(validation: Sequence[tuple[float, float]], unigram: float | None) -> Html:
    if not validation:
        return note("No evaluation was logged, so there is no validation loss.")
    (_, first), (step, last) = validation[0], validation[-1]
    best_step, best = min(validation, key=lambda point: (point[1], point[0]))
    if len(validation) == 1:
        start = f"Validation loss is {significant(last)}"
    else:
        start = f"Validation loss went from {significant(first)} to {significant(last)}"
    text = f"{start} at step {grouped(step)}"
    if unigram is not None:
        side = "below" if last < unigram else "above"
        text += f", {significant(abs(unigram - last))} nats {side} what token frequencies alone give"
    text += "." if best == last else f". It was lowest at step {grouped(best_step)}: {significant(best)}."
    return note(text)


def _broken(points: Sequence[Point]) -> Html:
    steps = [grouped(x) for x, y in points if y is None]
    if not steps:
        return Html("")
    shown = ", ".join(steps[:5]) + (" and more" if len(steps) > 5 else "")
    return note(f"The training loss was not finite in {len(steps)} logged steps ({shown}).")


def _events(events: Sequence[Object]) -> Html:
    if not events:
        return Html("")
    lines = [
        tag("li", tag("span", f"step {grouped(event['step'])}", class_="when"), str(event.get("message", "")))
        for event in events
    ]
    title = f"Events of this run ({len(events)})"
    return details(title, tag("ol", *lines, class_="events"), open_=len(events) <= 5)


def _accuracy(metrics: Metrics) -> Html:
    validation = metrics.evaluated("accuracy")
    perplexity = metrics.evaluated("perplexity") or [
        (x, None if y is None or y > 700 else math.exp(y)) for x, y in metrics.evaluated("loss")
    ]
    accuracy_chart = Chart(
        "Accuracy",
        "share of masked tokens guessed right",
        [*trend("train", metrics.trained("accuracy")), Series("validation", validation, "b", "dots")],
        format_ticks=percent_ticks,
        zero=True,
    )
    perplexity_chart = Chart(
        "Perplexity",
        "exponential of the validation loss",
        [Series("validation", perplexity, "b", "dots")],
        log=True,
    )
    return figure_grid(accuracy_chart.render(), perplexity_chart.render())


def _optimiser(metrics: Metrics) -> Html:
    rate = Chart("Learning rate", "", [Series("learning rate", metrics.trained("lr"), "c")], zero=True)
    norm = metrics.trained("grad_norm")
    heights = [y for _, y in known(norm)]
    wide = bool(heights) and min(heights) > 0 and max(heights) / min(heights) > 30
    curves = trend("gradient norm", norm, "d", log=wide)
    gradient = Chart("Gradient norm", "before clipping", curves, zero=not wide, log=wide)
    return figure_grid(rate.render(), gradient.render())


def _speed(metrics: Metrics, summary: Object) -> Html:
    speed, real_speed = metrics.trained("tokens_per_second"), metrics.trained("real_tokens_per_second")
    throughput = trend("all positions", speed)
    if real_speed != speed:
        throughput.append(trend("without padding", real_speed, "c")[-1])
    peak = number(summary.get("matrix_peak_flops"))
    unit = f"of {compact(peak)}FLOP/s, measured" if peak else "of the measured matrix rate"
    charts = figure_grid(
        Chart("Tokens per second", "", throughput, zero=True).render(),
        Chart(
            "Share of the matrix peak",
            unit,
            trend("model FLOP/s", metrics.trained("peak_share"), "e"),
            format_ticks=percent_ticks,
            zero=True,
        ).render(),
    )
    waits = [y for _, y in known(metrics.trained("data_wait_share"))]
    memory = [y for _, y in known(metrics.trained("memory_bytes"))]
    memory += numbers([summary.get("peak_memory_bytes")])
    seconds = number(summary.get("seconds"))
    tokens_per_second = number(summary.get("tokens_per_second"))
    rows = [
        ("Mean speed", f"{compact(tokens_per_second)} tokens/s" if tokens_per_second is not None else None),
        ("Waiting for data", percent(sum(waits) / len(waits), 2) if waits else None),
        ("Largest memory", bytes_text(max(memory)) if memory else None),
        ("Time", duration(seconds) if seconds is not None else None),
    ]
    return join([charts, facts(rows)])


def _mask_rate(metrics: Metrics, summary: Object) -> Html:
    points = metrics.trained("mask_rate")
    target = number(summary.get("mask_rate_target"))
    ends = numbers(summary.get("mask_rate_interval"))
    band = (ends[0], ends[1]) if len(ends) == 2 else None
    chart = Chart(
        "Mask rate",
        "share of tokens chosen as targets",
        trend("masked", points, "c"),
        references=[Reference("target", target)] if target is not None else [],
        band=band,
        band_name="binomial interval",
        format_ticks=percent_ticks,
        tall=True,
    )
    if band is None or not known(points):
        return chart.render()
    inside = sum(band[0] <= y <= band[1] for _, y in known(points))
    words = note(
        f"{grouped(inside)} of {grouped(len(known(points)))} logged steps lie inside the interval "
        f"of {percent(band[0], 2)} to {percent(band[1], 2)} that chance allows around the target."
    )
    return join([chart.render(), words])
