"""Everything a report is made of, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskwright.core.errors import DataError
from maskwright.core.files import read_bytes

from .values import Metrics, Object, read_metrics, read_object

__all__ = ["Finetuning", "Inputs", "read_config", "read_inputs"]


@dataclass(frozen=True)
class Finetuning:
    """One fine-tuning run.

    Args:
        name: how the report calls it.
        evaluation: its `evaluation.json`.
        problem: what is wrong with that file, or None.
        metrics: its `metrics.jsonl`.
        config: its resolved config as YAML text, or None.
    """

    name: str
    evaluation: Object
    problem: str | None
    metrics: Metrics
    config: str | None


@dataclass(frozen=True)
class Inputs:
    """The files of a run; each `*_problem` says why the object beside it is empty, or is None."""

    manifest: Object
    manifest_problem: str | None
    audit: Object
    audit_problem: str | None
    metrics: Metrics
    summary: Object
    summary_problem: str | None
    config: str | None
    finetuned: Sequence[Finetuning]


def read_inputs(data: Path | None, pretrain: Path | None, finetune: Sequence[tuple[str, Path]]) -> Inputs:
    """Read the files of all parts; a missing or damaged one leaves its part empty.

    Args:
        data: folder with `manifest.json` and `audit.json`.
        pretrain: folder with `config.yaml`, `metrics.jsonl` and `summary.json`.
        finetune: names and folders with `config.yaml`, `metrics.jsonl` and `evaluation.json`.
    """
    manifest, manifest_problem = read_object(data, "manifest.json", "prepared data")
    audit, audit_problem = read_object(data, "audit.json", "prepared data")
    summary, summary_problem = read_object(pretrain, "summary.json", "pretraining run")
    finetuned = []
    for name, folder in finetune:
        evaluation, problem = read_object(folder, "evaluation.json", "fine-tuned model")
        finetuned.append(Finetuning(name, evaluation, problem, read_metrics(folder), read_config(folder)))
    return Inputs(
        manifest=manifest,
        manifest_problem=manifest_problem,
        audit=audit,
        audit_problem=audit_problem,
        metrics=read_metrics(pretrain),
        summary=summary,
        summary_problem=summary_problem,
        config=read_config(pretrain),
        finetuned=finetuned,
    )


def read_config(folder: Path | None) -> str | None:
    """The text of `config.yaml` of a folder; None where there is no folder or no such file."""
    if folder is None:
        return None
    try:
        return read_bytes(folder / "config.yaml").decode("utf-8", "replace")
    except DataError:
        return None
