"""Measure an exported model: a classifier on labelled texts, a language model in three ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.config import Config
from ..core.errors import ConfigError
from ..core.files import write_json
from ..core.log import get_logger
from ..tasks.classification.data import read_labelled
from ..tasks.classification.finetune import evaluation_report, write_predictions
from ..tasks.classification.predictor import ClassificationPredictor
from ..training.device import DeviceName, resolve_device
from ..training.evaluation import (
    EncodedText,
    Validation,
    encode_texts,
    encode_windows,
    minimal_pairs,
    open_validation,
    perplexity_report,
    pseudo_log_likelihood,
    read_minimal_pairs,
    read_texts,
    split_long,
    validate_model,
)
from ..training.fill_mask import FillMaskPredictor
from .outputs import CONFIG_NAME
from .predict import load
from .recognise import TaskName, is_data_folder, recognise

__all__ = ["EvaluateConfig", "evaluate_model"]

log = get_logger(__name__)


class EvaluateConfig(Config):
    """What to measure, and on what."""

    model: str = Field(description="a finished run, or a Hugging Face folder")
    data: str = Field(
        description="labelled file for a classifier; for a language model a data folder, minimal pairs "
        "(a file or a folder of them), or texts"
    )
    task: Literal["auto"] | TaskName = Field(
        "auto", description="what to do with the data; auto goes by what it holds"
    )
    text_field: str | int = Field(
        "text", description="column or key of the text; a number counts columns from 0"
    )
    text_b_field: str | int | None = Field(None, description="the same for the second text of a pair")
    label_field: str | int = Field("label", description="the same for the label")
    header: Literal["auto", "yes", "no"] | bool = Field(
        "auto", description="whether a table names its columns"
    )
    on_empty: Literal["error", "skip"] = Field("error", description="what to do with a row without text")
    sequence_length: int | None = Field(
        None, ge=8, description="for masked-lm and pseudo-perplexity: tokens of a sequence; default: longest"
    )
    sequences: int = Field(
        512, ge=1, description="for masked-lm and pseudo-perplexity: validation sequences, or texts, at most"
    )
    mlm_probability: float = Field(0.15, gt=0, lt=1, description="for masked-lm: share predicted")
    seed: int = Field(0, ge=0, description="for masked-lm: decides the fixed masks")
    scoring: Literal["token", "word-l2r"] = Field(
        "token",
        description="for minimal-pairs and pseudo-perplexity: hide one token at a time, or with it the "
        "later tokens of its word",
    )
    pairs_per_paradigm: int | None = Field(
        None, ge=1, description="for minimal-pairs: pairs of each paradigm, the first ones; default: all"
    )
    batch_tokens: int = Field(
        16_384,
        ge=1,
        description="for minimal-pairs and pseudo-perplexity: tokens computed at a time; memory and speed",
    )
    device: DeviceName = Field("auto", description="for a language model; auto takes CUDA where there is one")


def evaluate_model(config: EvaluateConfig, folder: Path | None) -> dict[str, Any]:
    """Measure a model.

    Args:
        config: model and data.
        folder: where to write `evaluation.json` and, for a classifier, `predictions.jsonl`; None
            writes nothing. In the folder of a run, whose own files have these names, the task is
            added to them: `evaluation-minimal-pairs.json`.

    Returns:
        The numbers, with `task`.

    Raises:
        UserError: model or data cannot be used, or do not fit each other.
    """
    predictor = load(config.model)
    if not isinstance(predictor, ClassificationPredictor | FillMaskPredictor):
        raise ConfigError(f"{config.model}: evaluate knows classifiers and masked language models")
    task = _task(config, is_classifier=isinstance(predictor, ClassificationPredictor))
    if isinstance(predictor, ClassificationPredictor):
        return _classifier(config, predictor, folder)
    predictor.model.to(resolve_device(config.device))
    measure = {
        "masked-lm": _masked_lm,
        "minimal-pairs": _minimal_pairs,
        "pseudo-perplexity": _pseudo_perplexity,
    }
    result: dict[str, Any] = {"task": task, **measure[task](config, predictor)}
    if folder is not None:
        write_json(folder / _name(folder, "evaluation.json", task), result)
    return result


def _task(config: EvaluateConfig, *, is_classifier: bool) -> TaskName:
    kind = "classifier" if is_classifier else "masked language model"
    task, reason = config.task, "asked for"
    if task == "auto":
        task, reason = recognise(config.data, config.text_field, config.label_field, is_classifier)
        log.info("%s: taken for %s (%s)", config.data, task, reason)
    if (task == "classification") != is_classifier:
        remedy = (
            "give a masked language model, or labelled data"
            if is_classifier
            else "give a classifier, or set task=pseudo-perplexity to score the texts"
        )
        raise ConfigError(
            f"{config.data}: is for {task} ({reason}), but {config.model} is a {kind}; {remedy}"
        )
    return task


def _name(folder: Path, name: str, task: str) -> str:
    """The name of a file; a run keeps its own, so there the task is added."""
    if not (folder / CONFIG_NAME).exists():
        return name
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{task}{dot}{suffix}"


def _masked_lm(config: EvaluateConfig, predictor: FillMaskPredictor) -> dict[str, Any]:
    return validate_model(predictor.model, _validation(config, predictor))


def _validation(config: EvaluateConfig, predictor: FillMaskPredictor) -> Validation:
    return open_validation(
        predictor.model,
        predictor.tokenizer,
        Path(config.data),
        place=config.model,
        sequence_length=config.sequence_length,
        num_sequences=config.sequences,
        mlm_probability=config.mlm_probability,
        seed=config.seed,
    )


def _minimal_pairs(config: EvaluateConfig, predictor: FillMaskPredictor) -> dict[str, Any]:
    pairs = read_minimal_pairs(config.data, config.pairs_per_paradigm)
    report = minimal_pairs(
        predictor.model,
        predictor.tokenizer,
        pairs,
        words=config.scoring == "word-l2r",
        batch_tokens=config.batch_tokens,
    )
    return {"scoring": config.scoring, **report}


def _pseudo_perplexity(config: EvaluateConfig, predictor: FillMaskPredictor) -> dict[str, Any]:
    pieces = _windows(config, predictor) if is_data_folder(config.data) else _pieces(config, predictor)
    found = pseudo_log_likelihood(predictor.model, pieces, predictor.tokenizer.mask_id, config.batch_tokens)
    return {"scoring": config.scoring, **perplexity_report(found, pieces)}


def _windows(config: EvaluateConfig, predictor: FillMaskPredictor) -> list[EncodedText]:
    if config.scoring != "token":
        raise ConfigError(
            f'"scoring" is "{config.scoring}", but {config.data} is a data folder, whose windows may begin '
            "inside a word; set scoring=token, or give texts"
        )
    return encode_windows(predictor.tokenizer, _validation(config, predictor).windows(config.sequences))


def _pieces(config: EvaluateConfig, predictor: FillMaskPredictor) -> list[EncodedText]:
    longest = config.sequence_length or predictor.max_length
    if longest > predictor.max_length:
        raise ConfigError(
            f'"sequence_length" is {longest}, but {config.model} takes {predictor.max_length}; lower it'
        )
    texts = read_texts(config.data, str(config.text_field), config.sequences)
    encoded = encode_texts(predictor.tokenizer, texts, words=config.scoring == "word-l2r")
    return split_long(encoded, longest)


def _classifier(
    config: EvaluateConfig, predictor: ClassificationPredictor, folder: Path | None
) -> dict[str, Any]:
    dataset = read_labelled(
        config.data,
        text_field=config.text_field,
        label_field=config.label_field,
        text_b_field=config.text_b_field,
        header=config.header,
        label_names=predictor.labels,
        on_empty=config.on_empty,
    )
    probabilities = predictor.probabilities(dataset.texts, dataset.texts_b)
    report = {**evaluation_report(dataset, probabilities), "split": Path(config.data).name}
    if folder is not None:
        predictions = _name(folder, "predictions.jsonl", "classification")
        write_predictions(folder / predictions, dataset, probabilities)
        write_json(folder / _name(folder, "evaluation.json", "classification"), report)
    return report
