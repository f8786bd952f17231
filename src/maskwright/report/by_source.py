"""The validation loss of each source of the data: how it went, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence

from .inputs import Inputs
from .lines import Chart, Series
from .markup import Html, details, join, note, table, tag
from .scale import grouped, percent, significant
from .svg import COLOURS
from .values import Metrics, Object, mapping, number

__all__ = ["by_source"]

_PREFIX = "loss/"


def by_source(inputs: Inputs) -> Html:
    """Curves and a table; empty where the run measured no sources."""
    logged = {
        key.removeprefix(_PREFIX): None
        for row in inputs.metrics.evaluations
        for key in row
        if key.startswith(_PREFIX)
    }
    sources = {name: mapping(value) for name, value in _summary(inputs).items()}
    # The largest first, as far as that is known; a run that goes on has no summary yet.
    shares = {name: number(sources.get(name, {}).get("share")) or 0.0 for name in {**sources, **logged}}
    names = sorted(shares, key=lambda name: (-shares[name], name))
    if not names:
        return Html("")
    drawn = names[: len(COLOURS)]
    series = [
        Series(name, inputs.metrics.evaluated(_PREFIX + name), colour, "dots")
        for name, colour in zip(drawn, COLOURS, strict=False)
    ]
    chart = Chart("Validation loss by source", "nats per masked token", series, tall=True)
    more = len(names) - len(drawn)
    words = note(f"Drawn are the {len(drawn)} largest of {len(names)} sources.") if more else Html("")
    return join([chart.render(), words, _table(inputs.metrics, sources, names), _explained()])


def _summary(inputs: Inputs) -> Object:
    return mapping(inputs.summary.get("validation_sources"))


def _table(metrics: Metrics, sources: Object, names: Sequence[str]) -> Html:
    rows = []
    for name in names:
        values = mapping(sources.get(name))
        loss = number(values.get("loss")) or _last(metrics, _PREFIX + name)
        unigram, accuracy = (number(values.get(key)) for key in ("unigram_loss", "accuracy"))
        accuracy = accuracy if accuracy is not None else _last(metrics, f"accuracy/{name}")
        share, sequences = (number(values.get(key)) for key in ("share", "sequences"))
        gain = unigram - loss if unigram is not None and loss is not None else None
        rows.append(
            [
                tag("span", name, title=name),
                "" if share is None else percent(share),
                *("" if value is None else significant(value) for value in (loss, unigram, gain)),
                "" if accuracy is None else percent(accuracy),
                "" if sequences is None else grouped(sequences),
            ]
        )
    headings = ["Source", "Share", "Loss", "Unigram loss", "Gain", "Accuracy", "Sequences"]
    return table(headings, rows, caption="Validation by source at the end", class_="numbers plain")


def _last(metrics: Metrics, key: str) -> float | None:
    return next((y for _, y in reversed(metrics.evaluated(key)) if y is not None), None)


def _explained() -> Html:
    return details(
        "How this is measured",
        note(
            "Each source is measured on as many sequences as the others, if it has them. Its share is "
            "that of the validation text; the loss of the whole weighs the sources by it. Gain is what the "
            "model knows beyond token frequencies."
        ),
    )
