"""Measure an exported model on data: a classifier on labelled texts, a language model on shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.config import Config
from ..core.errors import ConfigError
from ..core.files import write_json
from ..tasks.classification.data import read_labelled
from ..tasks.classification.finetune import evaluation_report, find_model, write_predictions
from ..tasks.classification.predictor import ClassificationPredictor
from ..training.fill_mask import FillMaskPredictor
from ..training.mlm_evaluation import evaluate_export
from .predict import load

__all__ = ["EvaluateConfig", "evaluate_model"]


class EvaluateConfig(Config):
    """What to measure, and on what."""

    model: str = Field(description="a finished run, or a Hugging Face folder")
    data: str = Field(description="labelled file for a classifier, data folder for a language model")
    text_field: str | int = Field(
        "text", description="column or key of the text; a number counts columns from 0"
    )
    text_b_field: str | int | None = Field(None, description="the same for the second text of a pair")
    label_field: str | int = Field("label", description="the same for the label")
    header: Literal["auto", "yes", "no"] | bool = Field(
        "auto", description="whether a table names its columns"
    )
    on_empty: Literal["error", "skip"] = Field("error", description="what to do with a row without text")
    sequence_length: int | None = Field(None, ge=8, description="for a language model; default: its longest")
    sequences: int = Field(512, ge=1, description="for a language model: validation sequences to measure on")
    mlm_probability: float = Field(0.15, gt=0, lt=1, description="for a language model: share predicted")
    seed: int = Field(0, ge=0, description="for a language model: decides the fixed masks")


def evaluate_model(config: EvaluateConfig, folder: Path | None) -> dict[str, Any]:
    """Measure a model.

    Args:
        config: model and data.
        folder: where to write `evaluation.json` and, for a classifier, `predictions.jsonl`; None
            writes nothing.

    Returns:
        The numbers.

    Raises:
        UserError: model or data cannot be used, or do not fit each other.
    """
    predictor = load(config.model)
    if isinstance(predictor, ClassificationPredictor):
        return _classifier(config, predictor, folder)
    if not isinstance(predictor, FillMaskPredictor):
        raise ConfigError(f"{config.model}: evaluate knows classifiers and masked language models")
    result = evaluate_export(
        find_model(config.model),
        Path(config.data),
        sequence_length=config.sequence_length,
        num_sequences=config.sequences,
        mlm_probability=config.mlm_probability,
        seed=config.seed,
    )
    if folder is not None:
        write_json(folder / "evaluation.json", result)
    return result


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
        write_predictions(folder / "predictions.jsonl", dataset, probabilities)
        write_json(folder / "evaluation.json", report)
    return report
