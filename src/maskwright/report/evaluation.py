"""The section on the fine-tuned classifiers: comparison, classes, confusions, curves."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import Interval, heat_map, intervals
from .inputs import Finetuning
from .lines import Chart, Series
from .markup import Html, Section, details, figure_grid, join, missing, note, part, table, tag
from .pretraining import MIN_POINTS_TO_SMOOTH
from .scale import grouped, percent, percent_ticks, smooth
from .svg import COLOURS
from .values import Object, items, mapping, number, numbers

__all__ = ["estimate", "evaluation_section"]

MAX_LABELS = 40
MAX_CONFUSIONS = 5
MEASURES = (
    ("accuracy", "Accuracy"),
    ("macro_precision", "Macro precision"),
    ("macro_recall", "Macro recall"),
    ("macro_f1", "Macro F1"),
)


def evaluation_section(runs: Sequence[Finetuning]) -> Section:
    """How well the encoder serves a task, with the uncertainty of each number."""
    key, title = "evaluation", "Evaluation"
    if not runs:
        return Section(key, title, missing("No fine-tuned model was given", "maskwright finetune"))
    body = [
        missing(f"{run.name}: {run.problem}", "maskwright finetune")
        for run in runs
        if run.problem is not None
    ]
    parts: list[tuple[str, str, Html]] = []
    measured = [run for run in runs if estimate(run.evaluation, "accuracy") is not None]
    if measured:
        parts.append(("comparison", "Comparison" if len(measured) > 1 else "Result", _comparison(measured)))
        first = measured[0]
        classes = _classes(first.evaluation)
        if classes:
            parts.append(("classes", f"Classes: {first.name}", classes))
        confusion = _confusion(first.evaluation)
        if confusion:
            parts.append(("confusion", f"Confusion: {first.name}", confusion))
    if any(run.metrics.problem is None for run in runs):
        parts.append(("fine-tuning", "Fine-tuning", _curves(runs)))
    body += [part(key_, title_, content) for key_, title_, content in parts]
    names = [(key_, title_.partition(":")[0]) for key_, title_, _ in parts]
    return Section(key, title, join(body), names)


def estimate(evaluation: Object, name: str) -> tuple[float, tuple[float, float] | None] | None:
    """A measure and the ends of its interval, or None where it was not measured."""
    entry = mapping(evaluation.get(name)) or {"value": evaluation.get(name)}
    value, low, high = (number(entry.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    return value, (low, high) if low is not None and high is not None else None


def _written(evaluation: Object, name: str) -> object:
    found = estimate(evaluation, name)
    if found is None:
        return ""
    value, ends = found
    return tag(
        "span",
        percent(value),
        *([" ", tag("small", f"{percent(ends[0])} to {percent(ends[1])}")] if ends else []),
        class_="estimate",
    )


def _comparison(runs: Sequence[Finetuning]) -> Html:
    evaluation = runs[0].evaluation
    confidence = number(evaluation.get("confidence"))
    share = percent(confidence, 0) if confidence is not None else "bootstrap"
    rows = [Interval(run.name, *found) for run in runs if (found := estimate(run.evaluation, "accuracy"))]
    majority = number(evaluation.get("majority_accuracy"))
    chart = intervals(
        rows,
        caption=f"Accuracy with {share} intervals",
        reference=("always the largest class", majority) if majority is not None else None,
    )
    headings = ["Model", *(title for _, title in MEASURES)]
    cells = [[run.name, *(_written(run.evaluation, key) for key, _ in MEASURES)] for run in runs]
    words = [_setting(evaluation), *([_verdict(runs[0], runs[1])] if len(runs) > 1 else [])]
    measures = table(headings, cells, caption=f"All measures with {share} intervals", class_="numbers")
    return join([note(" ".join(words)), chart, measures])


def _setting(evaluation: Object) -> str:
    count = number(evaluation.get("count"))
    many = f"{grouped(count)} examples" if count is not None else "the examples"
    return (
        f"Task: {evaluation.get('task', 'unknown')}, {len(items(evaluation.get('labels')))} labels, "
        f"measured on {many} of the {evaluation.get('split', 'unknown')} split."
    )


def _verdict(first: Finetuning, second: Finetuning) -> str:
    """One sentence on the first run against the second."""
    left, right = estimate(first.evaluation, "accuracy"), estimate(second.evaluation, "accuracy")
    if left is None or right is None:
        return ""
    gap = left[0] - right[0]
    text = f"“{first.name}” is {abs(100 * gap):.1f} points {'above' if gap >= 0 else 'below'} “{second.name}”"
    if left[1] is None or right[1] is None:
        return text + "."
    overlap = left[1][0] <= right[1][1] and right[1][0] <= left[1][1]
    return text + (", and their intervals overlap." if overlap else ", and their intervals do not overlap.")


def _classes(evaluation: Object) -> Html:
    rows = []
    for entry in map(mapping, items(evaluation.get("per_class"))):
        shares = [number(entry.get(key)) for key in ("precision", "recall", "f1")]
        support = number(entry.get("support"))
        written = ["" if share is None else percent(share) for share in shares]
        filled = tag("i", class_="fill-a", style=f"width:{100 * min(1, max(0, shares[2] or 0)):.1f}%")
        cells = [
            *written[:2],
            join([tag("span", filled, class_="meter"), tag("span", written[2], class_="value")]),
        ]
        rows.append([str(entry.get("label", "")), *cells, "" if support is None else grouped(support)])
    if not rows:
        return Html("")
    headings = ["Label", "Precision", "Recall", "F1", "Count"]
    return table(headings, rows, caption="Measures of each class", class_="numbers plain classes")


def _confusion(evaluation: Object) -> Html:
    labels = [str(label) for label in items(evaluation.get("labels"))]
    counts = [numbers(row) for row in items(evaluation.get("confusion"))]
    if not labels or len(counts) != len(labels) or any(len(row) != len(labels) for row in counts):
        return Html("")
    pairs = sorted(
        (-count, labels[true], labels[predicted])
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count > 0 and true != predicted
    )
    worst = ", ".join(
        f"{true} taken for {predicted} ({grouped(-count)})"
        for count, true, predicted in pairs[:MAX_CONFUSIONS]
    )
    words = ["Blue is right, orange is mistaken; the deeper, the larger the share of its row."]
    if worst:
        words.append(f"Most often: {worst}.")
    if len(labels) > MAX_LABELS:
        ranked = sorted(range(len(labels)), key=lambda index: (-sum(counts[index]), index))[:MAX_LABELS]
        chosen = sorted(ranked)
        words.append(f"Shown are the {MAX_LABELS} most frequent of {len(labels)} labels.")
        labels = [labels[index] for index in chosen]
        counts = [[counts[row][column] for column in chosen] for row in chosen]
    return join([note(" ".join(words)), heat_map(labels, counts, caption="Confusion matrix")])


def _curves(runs: Sequence[Finetuning]) -> Html:
    losses, accuracies = [], []
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)]
        points = run.metrics.trained("loss")
        losses.append(
            Series(run.name, smooth(points) if len(points) >= MIN_POINTS_TO_SMOOTH else points, colour)
        )
        accuracies.append(Series(run.name, run.metrics.evaluated("accuracy"), colour, "dots"))
    charts = figure_grid(
        Chart("Training loss", "nats, smoothed", losses, zero=True).render(),
        Chart(
            "Validation accuracy", "while training", accuracies, format_ticks=percent_ticks, zero=True
        ).render(),
    )
    events = [
        tag(
            "li",
            tag("span", f"{run.name}, step {grouped(event['step'])}", class_="when"),
            event.get("message", ""),
        )
        for run in runs
        for event in run.metrics.events
    ]
    return join([charts, details(f"Events ({len(events)})", tag("ol", *events)) if events else ""])
