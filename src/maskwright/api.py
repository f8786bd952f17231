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
) -> dict[str, Any]:
    """Pretrain an encoder on a data folder; arguments as for `prepare`.

    Returns:
        The run's summary.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: something given cannot be used.
    """
    from .jobs.pretrain import pretrain_model
    from .training.pretrain_config import PretrainConfig

    config = resolve(PretrainConfig, "pretrain", recipe, overrides)
    return pretrain_model(config, Path(output), resume=resume, overwrite=overwrite)


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
        *overrides: `key=value` texts.
        data: labelled file for a classifier, data folder for a language model.
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
) -> dict[str, Any]:
    """Describe a data folder, a run or a model; see `maskwright inspect --help`."""
    from .jobs.inspect import inspect_folder

    return inspect_folder(Path(path), document=document, shard=shard, split=split, verify=verify)


def export(
    path: str | Path,
    *,
    to: str,
    output: str | Path,
    sequence_length: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Write a data folder for other trainers; see `maskwright export --help`.

    Args:
        path: a data folder.
        to: `megatron` or `hf-dataset`.
        output: folder to write to.
        sequence_length: hf-dataset: tokens of a row; None writes whole documents.
        sentences: megatron: make each sentence a sequence.

    Raises:
        UserError: something given cannot be used.
    """
    from .jobs.convert import export_data

    return export_data(Path(path), to, Path(output), sequence_length=sequence_length, sentences=sentences)


def import_(
    *,
    train: str | Path,
    validation: str | Path,
    tokenizer: str | Path,
    output: str | Path,
    closing_id: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Make a data folder of Megatron datasets; see `maskwright import --help`.

    Args:
        train: path of the training dataset, without `.bin` and `.idx`.
        validation: path of the validation dataset.
        tokenizer: what made the ids: a folder or a `tokenizer.json`.
        output: the data folder.
        closing_id: id that closes documents there; that of `</s>` by default.
        sentences: take each sequence as a sentence.

    Raises:
        UserError: something given cannot be used.
    """
    from .jobs.convert import import_data

    return import_data(
        Path(train),
        Path(validation),
        Path(tokenizer),
        Path(output),
        closing_id=closing_id,
        sentences=sentences,
    )


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
