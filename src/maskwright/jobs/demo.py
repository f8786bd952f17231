"""From raw text to a measured encoder in one go: every section of a recipe, one after the other.

    <output>/data/                    prepared data
    <output>/pretrain/                the pretraining run
    <output>/finetune-pretrained/     a classifier from the pretrained encoder
    <output>/finetune-random/         the same classifier from random weights, for comparison
    <output>/report.html              all of it on one page
    <output>/results.json             the numbers

Stopped at any moment, the same call goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import Config, apply_overrides, nearest_name, parse_config
from ..core.errors import ConfigError, DataError
from ..core.files import is_remote, read_bytes, read_json, storage_errors, write_json
from ..core.log import get_logger
from ..core.recipes import recipe_sections
from ..report import write_report
from ..tasks.classification.finetune import FinetuneConfig
from ..tasks.classification.metrics import paired_bootstrap
from ..training.pretrain_config import PretrainConfig
from .finetune import finetune_model
from .outputs import claim_output
from .prepare import PrepareConfig, prepare_data
from .pretrain import pretrain_model

__all__ = ["run_demo"]

log = get_logger(__name__)
SECTIONS = ("prepare", "pretrain", "finetune")
RUNS = {"pretrained": "pretrained encoder", "random": "random weights"}


@dataclass(frozen=True)
class _Configs:
    prepare: PrepareConfig
    pretrain: PretrainConfig
    finetune: FinetuneConfig


def run_demo(
    recipe: str, folder: Path, overrides: Sequence[str] = (), *, overwrite: bool = False
) -> dict[str, Any]:
    """Run a recipe from its text to its report, or go on with it.

    Args:
        recipe: path or shipped name; needs the sections prepare, pretrain and finetune.
        folder: where everything goes.
        overrides: `section.key.path=value` texts.
        overwrite: start again instead of going on.

    Returns:
        The numbers of the closing table.

    Raises:
        Interrupted: stopped by a signal; the same call goes on.
        UserError: something given cannot be used.
    """
    configs = _read_configs(recipe, folder, overrides)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _discard(folder)
    log.info("1/4 prepare")
    data = prepare_data(configs.prepare, folder / "data", resume=True)
    log.info("2/4 pretrain")
    model = _unless_done(
        configs.pretrain,
        folder / "pretrain",
        "summary.json",
        lambda part: pretrain_model(configs.pretrain, part, resume=True),
    )
    evaluations = {}
    for number, name in enumerate(RUNS, 3):
        log.info("%d/4 fine-tune: %s", number, RUNS[name])
        config = configs.finetune.replace(random_weights=name == "random")
        evaluations[name] = _unless_done(
            config,
            folder / f"finetune-{name}",
            "evaluation.json",
            lambda part, config=config: finetune_model(config, part, resume=True),
        )
    results = {**_results(data, model, evaluations), "difference": _difference(folder)}
    write_json(folder / "results.json", results)
    write_report(
        folder / "report.html",
        f"Maskwright: {Path(recipe).stem}",
        data=folder / "data",
        pretrain=folder / "pretrain",
        finetune=[(title, folder / f"finetune-{name}") for name, title in RUNS.items()],
        command=" ".join(["maskwright", "demo", recipe, *overrides, "-o", str(folder)]),
    )
    return {**results, "report": str(folder / "report.html")}


def _read_configs(recipe: str, folder: Path, overrides: Sequence[str]) -> _Configs:
    values = resolve_sections(recipe, folder, overrides)
    place = f"{recipe}, section "
    configs = _Configs(
        parse_config(PrepareConfig, values["prepare"], place + "prepare"),
        parse_config(PretrainConfig, values["pretrain"], place + "pretrain"),
        parse_config(FinetuneConfig, values["finetune"], place + "finetune"),
    )
    # A mistyped path should not be found out after hours of pretraining.
    files = configs.finetune.data
    for path in (files.train, files.validation, files.test):
        made_here = path is not None and folder in Path(path).parents
        if path is not None and not made_here and not is_remote(path) and not Path(path).is_file():
            raise DataError(f"{path}: no such file; check finetune.data")
    return configs


def _discard(folder: Path) -> None:
    """Remove the parts that an earlier run made, and nothing else."""
    for part in ("data", "pretrain", *(f"finetune-{name}" for name in RUNS)):
        if (folder / part / "config.yaml").exists():
            shutil.rmtree(folder / part)


def _difference(folder: Path) -> dict[str, Any]:
    """How much better the classifier from pretrained weights is, on the same examples."""
    rows = {
        name: [json.loads(line) for line in _lines(folder / f"finetune-{name}" / "predictions.jsonl")]
        for name in RUNS
    }
    first = rows["pretrained"]
    names = sorted({row[key] for part in rows.values() for row in part for key in ("label", "predicted")})
    number = {name: place for place, name in enumerate(names)}
    return paired_bootstrap(
        [number[row["label"]] for row in first],
        [number[row["predicted"]] for row in first],
        [number[row["predicted"]] for row in rows["random"]],
    )


def _lines(path: Path) -> list[str]:
    return read_bytes(path).decode().splitlines()


def resolve_sections(recipe: str, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The sections of a recipe with overrides, and with each step reading what the last one wrote.

    Raises:
        ConfigError: a section is missing, or an override names an unknown one.
    """
    sections = recipe_sections(recipe)
    for name in SECTIONS:
        if name not in sections:
            raise ConfigError(f'{recipe}: has no section "{name}"; the demo needs {", ".join(SECTIONS)}')
    for text in overrides:
        head = text.partition("=")[0].partition(".")[0]
        if head not in SECTIONS:
            raise ConfigError(f'{text!r}: begins with "{head}"{nearest_name(head, SECTIONS)}')
    values = apply_overrides(sections, overrides)
    values["pretrain"].setdefault("data", str(folder / "data"))
    values["finetune"].setdefault("model", str(folder / "pretrain"))
    topics = folder / "data" / "topics"
    names = ("train", "validation", "test")
    values["finetune"].setdefault("data", {name: str(topics / f"{name}.jsonl") for name in names})
    return values


def _unless_done(config: Config, folder: Path, marker: str, work: Any) -> dict[str, Any]:
    """The result of a step: read back if it is finished with the same settings, else made."""
    if (folder / marker).exists() and (folder / "report.html").exists():
        claim_output(config, folder, resume=True, overwrite=False)
        log.info("%s: is finished already", folder)
        return {"output": str(folder), **read_json(folder / marker)}
    result: dict[str, Any] = work(folder)
    return result


def _results(
    data: dict[str, Any], model: dict[str, Any], evaluations: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    names = ("accuracy", "macro_f1", "count", "majority_accuracy", "seconds")
    return {
        "documents": data["documents_kept"],
        "train_tokens": data["train_tokens"],
        "validation_loss": model["validation_loss"],
        "unigram_loss": model["unigram_loss"],
        "validation_accuracy": model["validation_accuracy"],
        "pretrain_seconds": model["seconds"],
        "tokens_per_second": model["tokens_per_second"],
        "classifier": {
            name: {key: evaluation[key] for key in names} for name, evaluation in evaluations.items()
        },
    }
