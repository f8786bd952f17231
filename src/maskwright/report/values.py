"""Read the files of a run without trusting them.

A report is wanted most when something went wrong, so a missing file, a torn line, a NaN or a
value of the wrong type costs the part that needed it and nothing else. Cost: the metrics of a
run are read into memory once, about one kilobyte a logged step.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.core.errors import DataError
from maskwright.core.files import read_bytes, read_json

__all__ = [
    "Metrics",
    "Object",
    "Point",
    "items",
    "mapping",
    "number",
    "numbers",
    "read_metrics",
    "read_object",
]

Object = dict[str, Any]
Point = tuple[float, float | None]


def number(value: object) -> float | None:
    """A finite number as float; None for everything else (NaN, infinity, text, booleans)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def numbers(value: object) -> list[float]:
    """A list of finite numbers; the empty list when any element is something else."""
    found = [number(element) for element in items(value)]
    kept = [element for element in found if element is not None]
    return kept if len(kept) == len(found) else []


def mapping(value: object) -> Object:
    """A mapping as it is; the empty mapping for everything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A list as it is; the empty list for everything else."""
    return value if isinstance(value, list) else []


def read_object(folder: Path | None, name: str, part: str) -> tuple[Object, str | None]:
    """Read a JSON object of a run.

    Args:
        folder: folder of the part, or None when the part was not given.
        name: file name.
        part: how to call the part when it was not given.

    Returns:
        The object (empty when there is none) and what is wrong with it, as the start of a
        sentence, or None when nothing is.
    """
    if folder is None:
        return {}, f"No {part} was given"
    place = f"{folder.name}/{name}"
    if not (folder / name).is_file():
        return {}, f"{place} is missing"
    try:
        value = read_json(folder / name)
    except DataError as error:
        return {}, f"{place} cannot be used: {str(error).partition(': ')[2]}"
    if not isinstance(value, dict):
        return {}, f"{place} holds a {type(value).__name__}, expected an object"
    return value, None


@dataclass(frozen=True)
class Metrics:
    """The lines of a `metrics.jsonl` by kind, each in the order of its steps.

    Args:
        train: lines of training steps.
        evaluations: lines of evaluations.
        events: resumed, interrupted, skipped and the like.
        unreadable_lines: how many lines were not JSON objects with a step.
        problem: why there are no lines at all, as the start of a sentence, or None.
    """

    train: list[Object] = field(default_factory=list)
    evaluations: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    unreadable_lines: int = 0
    problem: str | None = None

    def trained(self, key: str) -> list[Point]:
        """Points (step, value) of one number in the training lines; None where it is not finite."""
        return [(row["step"], number(row[key])) for row in self.train if key in row]

    def evaluated(self, key: str) -> list[Point]:
        """The same for the evaluation lines."""
        return [(row["step"], number(row[key])) for row in self.evaluations if key in row]


def _is_said_again(row: Object, kept: list[Object]) -> bool:
    return row["kind"] == "event" and row["step"] == 0 and row in kept


def read_metrics(folder: Path | None) -> Metrics:
    """Read the `metrics.jsonl` of a run, whatever state a crash left it in.

    Lines that cannot be read are counted and left out. When the steps of a kind go back (the run
    resumed from an older checkpoint), the earlier lines from there on were lost work, and go too.
    Events are history and all stay, but for what each start says anew of the data before its first step.

    Args:
        folder: folder of the run, or None when there is none.
    """
    if folder is None:
        return Metrics(problem="No pretraining run was given")
    place = f"{folder.name}/metrics.jsonl"
    try:
        lines = read_bytes(folder / "metrics.jsonl").decode("utf-8", "replace").split("\n")
    except DataError:
        return Metrics(problem=f"{place} is missing")
    kinds: dict[str, list[Object]] = {"train": [], "evaluation": [], "event": []}
    unreadable_lines = 0
    for line in filter(str.strip, lines):
        row = _parse_line(line)
        if row is None:
            unreadable_lines += 1
        elif row.get("kind") in kinds:
            kept = kinds[row["kind"]]
            while row["kind"] != "event" and kept and kept[-1]["step"] >= row["step"]:
                kept.pop()
            if not _is_said_again(row, kept):
                kept.append(row)
    return Metrics(
        train=kinds["train"],
        evaluations=kinds["evaluation"],
        events=kinds["event"],
        unreadable_lines=unreadable_lines,
        problem=None if any(kinds.values()) else f"{place} has no usable lines",
    )


def _parse_line(line: str) -> Object | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = number(row.get("step")) if isinstance(row, dict) else None
    if step is None or not isinstance(row.get("kind"), str):
        return None
    return {**row, "step": step}
