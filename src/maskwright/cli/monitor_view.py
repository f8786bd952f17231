"""One picture of runs for a terminal: a block for each, as wide as the terminal is.

Everything is measured in cells of the terminal, of which a Chinese character takes two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

__all__ = ["duration", "frame", "sparkline"]

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_STATES = {
    "running": "green",
    "stale": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
    "finished": "cyan",
}
_MIN_CHART, _MAX_CHART, _BAR = 8, 60, 20
_GAP = "   "
_EVENTS = 3
Part = tuple[str, str]


def frame(
    found: Sequence[Mapping[str, Any]], width: int, height: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """The lines of a picture.

    Args:
        found: snapshots of runs.
        width: cells of a line.
        height: lines there are; None: as many as it takes. Runs that find no room are counted.
        ascii_only: draw with plain characters.
    """
    width = max(20, width)
    if not found:
        return [Text("no runs yet", "dim")]
    lines: list[Text] = []
    for shown, run in enumerate(found):
        block, last = _block(run, width, ascii_only), shown + 1 == len(found)
        if height is not None and len(lines) + len(block) + (not last) > height:
            return [*lines, Text(f"and {len(found) - shown} more", "dim")] if lines else block[:height]
        lines += block
    return lines


def _block(run: Mapping[str, Any], width: int, ascii_only: bool) -> list[Text]:
    return [
        _title(run, width, ascii_only),
        *_fields(_progress(run, ascii_only), width),
        *_fields(_losses(run, width, ascii_only), width),
        *_fields(_speed(run), width),
        *(_event(event, width, ascii_only) for event in run["events"][-_EVENTS:]),
    ]


def _title(run: Mapping[str, Any], width: int, ascii_only: bool) -> Text:
    state, rule = run["state"], "-" if ascii_only else "─"
    said = state if state != "stale" else f"stale, silent for {duration(run['age_seconds'])}"
    if state == "waiting" and not Path(run["folder"]).exists():
        said = "waiting, there is no such folder yet"
    name = _cut(run["run"], max(4, width - cell_len(said) - 7), ascii_only)
    fill = max(1, width - cell_len(name) - cell_len(said) - 6)
    title = Text.assemble(
        (f"{rule} ", "dim"),
        (name, "bold"),
        (f" {rule * fill} ", "dim"),
        (said, _STATES[state]),
        (f" {rule}", "dim"),
    )
    title.truncate(width)
    return title


def _progress(run: Mapping[str, Any], ascii_only: bool) -> list[Sequence[Part]]:
    step, total, share = run["step"], run["total_steps"], run["share_done"]
    fields: list[Sequence[Part]] = [_field("step", f"{step:,}" + (f"/{total:,}" if total else ""))]
    if share is not None:
        full, empty = ("#", ".") if ascii_only else ("█", "░")
        done = round(share * _BAR)
        fields.append([(full * done, "green"), (empty * (_BAR - done), "dim"), (f" {share:.0%}", "")])
    if run["seconds"] is not None:
        fields.append(_field("for", duration(run["seconds"])))
    if run["seconds_left"] is not None and run["state"] not in ("finished", "stopped"):
        fields.append(_field("left", duration(run["seconds_left"])))
    return fields


def _losses(run: Mapping[str, Any], width: int, ascii_only: bool) -> list[Sequence[Part]]:
    fields: list[Sequence[Part]] = []
    validation = run["validation"]
    if "loss" in run:
        fields.append(_field("loss", f"{run['loss']:.4f}"))
    room = min(_MAX_CHART, width - 16)
    if len(run["losses"]) > 1 and room >= _MIN_CHART:
        chart = sparkline([value for _, value in run["losses"]], room, ascii_only=ascii_only)
        fields.append([(chart, "magenta")])
    if "accuracy" in run:
        fields.append(_field("accuracy", f"{run['accuracy']:.3f}"))
    if "loss" in validation:
        fields.append(_field("validation", f"{validation['loss']:.4f}"))
    if "accuracy" in validation:
        fields.append(_field("validation accuracy", f"{validation['accuracy']:.3f}"))
    return fields


def _speed(run: Mapping[str, Any]) -> list[Sequence[Part]]:
    def shown(name: str, label: str, text: str) -> list[Sequence[Part]]:
        return [_field(label, text.format(run[name]))] if name in run else []

    memory = [
        _bytes(run[name]) for name in ("memory_bytes", "memory_peak_bytes") if run.get(name) is not None
    ]
    device = [
        _bytes(run[name]) for name in ("device_memory_bytes", "device_memory_peak_bytes") if name in run
    ]
    return [
        *shown("lr", "lr", "{:.2e}"),
        *shown("grad_norm", "grad norm", "{:.2f}"),
        *shown("tokens_per_second", "tokens/s", "{:,.0f}"),
        *(shown("padding_share", "padding", "{:.1%}") if run.get("padding_share") else []),
        *shown("peak_share", "of peak", "{:.0%}"),
        *shown("data_wait_share", "data wait", "{:.1%}"),
        *([_field("memory", " peak ".join(memory))] if memory else []),
        *([_field("GPU memory", " peak ".join(device))] if device else []),
    ]


def _field(label: str, value: str) -> Sequence[Part]:
    return [(f"{label} ", "dim"), (value, "")]


def _fields(fields: Sequence[Sequence[Part]], width: int) -> list[Text]:
    """Put fields beside each other, and below where they do not fit; one is never torn apart."""
    lines: list[Text] = []
    for field in fields:
        size = sum(cell_len(text) for text, _ in field)
        if not lines or lines[-1].cell_len + len(_GAP) + size > width:
            lines.append(Text("  "))
        else:
            lines[-1].append(_GAP)
        for text, style in field:
            lines[-1].append(text, style)
    for line in lines:
        line.truncate(width)
    return lines


def _event(event: Mapping[str, Any], width: int, ascii_only: bool) -> Text:
    text = " ".join(f"step {event['step']:,}: {event['message']}".split())
    return Text(f"  {_cut(text, width - 2, ascii_only)}", "bold yellow" if event["warning"] else "dim")


def _cut(text: str, size: int, ascii_only: bool) -> str:
    """Cut to a number of cells, and say that something is missing."""
    if cell_len(text) <= size:
        return text
    mark = "..." if ascii_only else "…"
    return set_cell_size(text, max(0, size - cell_len(mark))).rstrip() + mark


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """A curve in one line: each character the mean of its share of the values.

    Args:
        values: at least one finite number.
        width: most characters.
        ascii_only: draw with plain characters.
    """
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    count = min(width, len(values))
    borders = [number * len(values) // count for number in range(count + 1)]
    means = [sum(values[first:stop]) / (stop - first) for first, stop in pairwise(borders)]
    low, span = min(means), max(means) - min(means)
    return "".join(blocks[round((mean - low) / span * (len(blocks) - 1)) if span else 0] for mean in means)


def duration(seconds: float) -> str:
    """Seconds as people read them: `1:02:03`, and days above a day."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
