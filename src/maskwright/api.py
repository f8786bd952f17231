"""The verbs in Python, with the same names and meaning as on the command line.

Each takes a recipe (a shipped name, a path, or None for the defaults) or a mapping of values, and
changes to it; torch is imported when a verb needs it, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .core.config import Config, apply_overrides, parse_config
from .core.recipes import load_recipe

if TYPE_CHECKING:
    from .corpus.runners import RunnerName
    from .jobs.predict import Predictor

__all__ = [
    "demo",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "import_",
    "inspect",
    "load",
    "monitor",
    "prepare",
    "pretrain",
]

Recipe = str | Mapping[str, Any] | None
ConfigT = TypeVar("ConfigT", bound=Config)


def resolve(cls: type[ConfigT], section: str, recipe: Recipe, overrides: Sequence[str]) -> ConfigT:
    """A config from a recipe's name, a path, or a mapping, with overrides applied."""
    if isinstance(recipe, Mapping):
        return parse_config(cls, apply_overrides(recipe, overrides), f"values of {section}")
    return load_recipe(cls, section, recipe, overrides)


def prepare(
    recipe: Recipe = None,
    *overrides: str,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    runner: RunnerName = "local",
) -> dict[str, Any]:
    """Turn raw text into a data folder.

    With several workers, a script that calls this needs `if __name__ == "__main__":` around the call,
    as everything that starts Python processes does.

    Args:
        recipe: shipped name, path of a YAML file, mapping of values, or None.
        *overrides: `key.path=value` texts.
        output: the data folder.
        resume: go on with what is there.
        overwrite: start again.
        workers: tasks at once; by default one for each CPU.
        runner: `local` for processes here, `ray` for a Ray cluster.

    Returns:
        Counts of documents and tokens.

    Raises:
        UserError: something given cannot be used.
    """
    from .jobs.prepare import PrepareConfig, prepare_data

    config = resolve(PrepareConfig, "prepare", recipe, overrides)
    return prepare_data(
        config, Path(output), resume=resume, overwrite=overwrite, workers=workers, runner=runner
    )


def pretrain(
    recipe: Recipe = None,
    *overrides: str,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Pretrain an encoder on a data folder; arguments as for `prepare`.

    `force` goes on with a run although its settings or data changed since.

    Returns:
        The run's summary.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: something given cannot be used.
    """
    from .jobs.pretrain import pretrain_model
    from .training.pretrain_config import PretrainConfig

    config = resolve(PretrainConfig, "pretrain", recipe, overrides)
    return pretrain_model(config, Path(output), resume=resume, overwrite=overwrite, force=force)


def finetune(
    recipe: Recipe = None,
    *overrides: str,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fine-tune a pretrained encoder on labelled texts; arguments as for `prepare`.

    Returns:
        The evaluation on the test part.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: something given cannot be used.
    """
    from .jobs.finetune import finetune_model
    from .tasks.classification.finetune import FinetuneConfig

    config = resolve(FinetuneConfig, "finetune", recipe, overrides)
    return finetune_model(config, Path(output), resume=resume, overwrite=overwrite)


def evaluate(
    model: str | Path, *overrides: str, data: str | Path, output: str | Path | None = None
) -> dict[str, Any]:
    """Measure an exported model.

    Args:
        model: a finished run or a Hugging Face folder.
        *overrides: `key=value` texts; `task=...` where the data does not tell what to measure.
        data: labelled file for a classifier; data folder, minimal pairs or plain texts for a language
            model.
        output: folder for the numbers; None writes nothing.

    Returns:
        The numbers.

    Raises:
        UserError: something given cannot be used.
    """
    from .jobs.evaluate import EvaluateConfig, evaluate_model

    config = resolve(EvaluateConfig, "evaluate", {"model": str(model), "data": str(data)}, overrides)
    return evaluate_model(config, None if output is None else Path(output))


def load(path: str | Path) -> Predictor:
    """Load a model for prediction: `load(path).predict(texts)`.

    Args:
        path: a finished run or a Hugging Face folder.

    Raises:
        CheckpointError: there is no model.
    """
    from .jobs.predict import load as load_predictor

    return load_predictor(path)


def inspect(
    path: str | Path,
    *,
    document: int | None = None,
    shard: int | None = None,
    split: str = "train",
    verify: bool = False,
    words: bool = False,
    flight: bool = False,
) -> dict[str, Any]:
    """Describe a data folder, a run or a model; see `maskwright inspect --help`."""
    from .jobs.inspect import inspect_folder

    return inspect_folder(
        Path(path), document=document, shard=shard, split=split, verify=verify, words=words, flight=flight
    )


def monitor(*runs: str | Path) -> list[dict[str, Any]]:
    """How runs stand now.

    Args:
        *runs: folders of runs, or folders that hold runs up to two levels below.

    Returns:
        One mapping a run with `run`, `state` (waiting, running, stale, stopped, finished), `step`,
        `total_steps`, `seconds_left`, the newest numbers, `losses`, `validations` and `events`.

    Raises:
        DataError: a path is a file, or holds prepared data.
    """
    from .jobs.monitor import monitor_runs

    return monitor_runs([Path(run) for run in runs])


def export(
    path: str | Path,
    *,
    to: str,
    output: str | Path,
    sequence_length: int | None = None,
    sentences: bool = False,
    tokenizer: str | Path | None = None,
) -> dict[str, Any]:
    """Write a model for `transformers`, or a data folder for other trainers.

    Args:
        path: a run, a checkpoint or a Hugging Face folder for `hf`; else a data folder.
        to: `hf` for a model; `megatron` or `hf-dataset` for data.
        output: folder to write to.
        sequence_length: hf-dataset: tokens of a row; None writes whole documents.
        sentences: megatron: make each sentence a sequence.
        tokenizer: hf: where the model's tokenizer is, if not where the run has it.

    Returns:
        What was written; for a model also how its outputs compare with those of `transformers`.

    Raises:
        UserError: something given cannot be used, or the outputs of the model differ.
    """
    from .jobs.convert import export_folder

    return export_folder(
        Path(path),
        to,
        Path(output),
        sequence_length=sequence_length,
        sentences=sentences,
        tokenizer=_path(tokenizer),
    )


def import_(
    model: str | Path | None = None,
    *,
    output: str | Path,
    train: str | Path | None = None,
    validation: str | Path | None = None,
    tokenizer: str | Path | None = None,
    closing_id: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Bring in a model of Hugging Face or fairseq, or make a data folder of Megatron datasets.

    Args:
        model: a Hugging Face folder, or a `model.pt` of fairseq; None for data.
        output: the folder to make.
        train: path of the training dataset, without `.bin` and `.idx`.
        validation: path of the validation dataset.
        tokenizer: what made the ids: a folder or a `tokenizer.json`; for a model only if it is not
            beside it.
        closing_id: id that closes documents there; that of `</s>` by default.
        sentences: take each sequence as a sentence.

    Returns:
        What was read; for a model also how its outputs compare with those of `transformers`.

    Raises:
        UserError: something given cannot be used, or the outputs of the model differ.
    """
    from .jobs.convert import import_folder

    return import_folder(
        _path(model),
        Path(output),
        train=_path(train),
        validation=_path(validation),
        tokenizer=_path(tokenizer),
        closing_id=closing_id,
        sentences=sentences,
    )


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def doctor(path: str | Path = ".") -> dict[str, Any]:
    """What this machine offers, what is slow or missing, and the remedy."""
    from .jobs.doctor import examine

    return examine(Path(path))


def demo(
    recipe: str = "demo", *overrides: str, output: str | Path = "runs/demo", overwrite: bool = False
) -> dict[str, Any]:
    """Run a recipe from raw text to its report, or go on with it.

    Args:
        recipe: shipped name or path, with sections prepare, pretrain and finetune.
        *overrides: `section.key.path=value` texts.
        output: where everything goes.
        overwrite: start again instead of going on.

    Returns:
        The numbers of the closing table.

    Raises:
        Interrupted: stopped by a signal; the same call goes on.
        UserError: something given cannot be used.
    """
    from .jobs.demo import run_demo

    return run_demo(recipe, Path(output), overrides, overwrite=overwrite)
