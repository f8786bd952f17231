"""Runs of the program for the benchmarks that train: made once, kept, and read back.

Each stage has a folder and a file `stage.json` with everything that decided it. A stage that is there and
was decided by the same, with the same code, is taken as it is, so a benchmark that was stopped goes on with
the same command.
One process at a time: a stage waits for the one before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Curve", "curve_of", "kept", "plain_options", "prepare", "pretrain", "run_python", "time_to"]

# Step, seconds of training until then, and validation loss.
Curve = list[dict[str, float]]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CORPUS = SHARED / "corpora" / "enwiki-train.jsonl.zst"
VOCABULARY = SHARED / "roberta_vocab"


@cache
def _code() -> str:
    """A fingerprint of the program and of the benchmarks that train."""
    here = Path(__file__).parent
    files = [*(here.parent / "src" / "maskwright").rglob("*.py"), here / "peer_trainer_mlm.py"]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(here.parent)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def kept(folder: Path, decides: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The result of a stage, made if it is not there.

    Args:
        folder: of the stage; removed first where it was decided by something else, or was not finished.
        decides: everything that decides the result, as JSON.
        make: makes it in the folder, which is empty.
    """
    mark, decides = folder / "stage.json", {**decides, "code": _code()}
    if mark.exists():
        found: dict[str, Any] = json.loads(mark.read_text())
        if found["decides"] == json.loads(json.dumps(decides)):
            print(f"{folder.name}: kept from before", file=sys.stderr)
            return dict(found["result"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"{folder.name}: begins", file=sys.stderr)
    result = make(folder)
    mark.write_text(json.dumps({"decides": decides, "result": result}, indent=1))
    return result


def run_python(arguments: list[str], log: Path) -> None:
    """Run Python with some arguments and wait for it; what it says goes into a file.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        done = subprocess.run([sys.executable, *arguments], stdout=file, stderr=file, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read_text()[-2000:]}")


def _maskwright(verb: str, values: dict[str, Any], folder: Path, output: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({verb: values}, sort_keys=False))
    command = ["-m", "maskwright", verb, str(recipe), "-o", str(output), "--overwrite"]
    run_python(command, folder / "log.txt")


def prepare(folder: Path, values: dict[str, Any]) -> Path:
    """A data folder of these values of `prepare`."""

    def make(stage: Path) -> dict[str, Any]:
        _maskwright("prepare", values, stage, stage / "data")
        return {}

    kept(folder, values, make)
    return folder / "data"


def pretrain(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A run of these values of `pretrain`.

    Returns:
        `curve`, `summary` and the settings `config` as resolved.
    """

    def make(stage: Path) -> dict[str, Any]:
        _maskwright("pretrain", values, stage, stage / "run")
        summary = json.loads((stage / "run" / "summary.json").read_text())
        result = {"curve": curve_of(stage / "run" / "metrics.jsonl"), "summary": summary}
        for name in ("checkpoints", "export"):  # hundreds of megabytes that nobody reads
            shutil.rmtree(stage / "run" / name, ignore_errors=True)
        return result

    return kept(folder, values, make)


def curve_of(metrics: Path) -> Curve:
    """Validation losses of a run, each with the seconds of training until then.

    The seconds are those of steps, with reading and masking. Evaluating and saving are not among them.
    """
    seconds: dict[int, float] = {}
    curve: Curve = []
    for line in metrics.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            seconds[record["step"]] = record["seconds"]
        elif record["kind"] == "evaluation":
            curve.append({"step": record["step"], "loss": record["loss"], "accuracy": record["accuracy"]})
    return [{**point, "seconds": seconds[int(point["step"])]} for point in curve]


def plain_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options as results keep them: of paths only the last part, as the rest is this machine's."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name != "work"
    }


def time_to(curve: Curve, loss: float) -> float | None:
    """Seconds at which a curve first comes down to a loss, on a straight line between two points.

    Returns:
        None where it never does.
    """
    before = None
    for point in curve:
        if point["loss"] <= loss:
            if before is None or before["loss"] == point["loss"]:
                return point["seconds"]
            share = (before["loss"] - loss) / (before["loss"] - point["loss"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None
