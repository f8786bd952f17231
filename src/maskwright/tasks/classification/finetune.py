"""Fine-tune an encoder for classification, and measure it on data it has not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ...core.config import Config, dump_config
from ...core.errors import CheckpointError
from ...core.files import write_json, write_text
from ...core.log import get_logger
from ...core.machine import describe_machine, library_versions, peak_memory_bytes
from ...model.config import EncoderConfig
from ...model.encoder import initialize
from ...model.heads import SequenceClassifier
from ...model.hf import export_model, load_encoder_config, load_weights
from ...parallel.engine import Engine
from ...parallel.single import SingleEngine
from ...parallel.world import require_one_process
from ...tokens.tokenizer import Tokenizer
from ...training.checkpoint_config import CheckpointConfig
from ...training.checkpoints import Checkpoints
from ...training.device import DeviceName, Precision, resolve_device, resolve_precision
from ...training.hooks import Hook, Record, standard_hooks
from ...training.loop import train
from ...training.optimizers import OptimizerConfig, optimizer_factory
from ...training.parts import Parts, Plan
from ...training.schedules import Schedule, ScheduleConfig
from .batches import (
    EncodedTexts,
    ExampleStream,
    PairForm,
    classification_loss,
    encode_texts,
    pair_form,
    sorted_batches,
)
from .data import LabelledDataset, read_labelled, split_dataset
from .metrics import classification_report
from .predictor import class_probabilities

__all__ = [
    "FinetuneConfig",
    "LabelledFiles",
    "evaluation_report",
    "find_model",
    "run_finetuning",
    "write_predictions",
]

log = get_logger(__name__)
VERSIONS = ("maskwright", "torch", "tokenizers", "gigatoken", "numpy")


class LabelledFiles(Config):
    """Where labelled texts are: TSV, CSV or JSON Lines."""

    train: str = Field(description="training examples")
    validation: str | None = Field(None, description="looked at while training; default: a share of train")
    test: str | None = Field(None, description="measured once at the end; default: validation")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="share held out where validation is not given"
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


class FinetuneConfig(Config):
    """Everything that decides a fine-tuning run."""

    model: str = Field(description="pretraining run or Hugging Face folder to start from")
    random_weights: bool = Field(False, description="take only shape and tokenizer from it, for comparison")
    data: LabelledFiles
    max_length: int | None = Field(None, ge=8, description="tokens of a text; default: what the model takes")
    epochs: float = Field(10.0, gt=0, description="passes over the training examples")
    batch_size: int = Field(32, ge=1, description="examples of one optimiser step")
    micro_batch_size: int = Field(32, ge=1, description="examples computed at a time")
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-5, weight_decay=0.1)
    schedule: ScheduleConfig = ScheduleConfig()
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    dropout: float | None = Field(None, ge=0, lt=1, description="of the head; default: the encoder's")
    precision: Precision = Field("auto", description="auto takes bf16 where the device has it")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    seed: int = Field(0, ge=0, description="decides head, order and dropout")
    evaluate_every_epochs: float = Field(1.0, gt=0, description="epochs between validations")
    keep_checkpoints: int = Field(1, ge=1, description="how many of the newest stay")


@dataclass(frozen=True)
class _Data:
    """The three parts of the data, and their texts as ids."""

    train: LabelledDataset
    validation: LabelledDataset
    test: LabelledDataset
    rows: dict[str, EncodedTexts]


def find_model(path: str) -> Path:
    """The Hugging Face folder that a path means: the folder itself, or the `export` of a run.

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(path)
    for candidate in (folder, folder / "export"):
        if (candidate / "config.json").is_file():
            return candidate
    raise CheckpointError(f"{path}: holds no exported model; give a finished run or a Hugging Face folder")


def _read(files: LabelledFiles, path: str, label_names: Sequence[str] | None) -> LabelledDataset:
    return read_labelled(
        path,
        text_field=files.text_field,
        label_field=files.label_field,
        text_b_field=files.text_b_field,
        header=files.header,
        label_names=label_names,
        on_empty=files.on_empty,
    )


def _read_data(config: FinetuneConfig, tokenizer: Tokenizer, max_length: int, form: PairForm) -> _Data:
    files = config.data
    training = _read(files, files.train, None)
    names = training.label_names
    if files.validation is None:
        training, validation = split_dataset(training, files.validation_share, config.seed)
    else:
        validation = _read(files, files.validation, names)
    test = validation if files.test is None else _read(files, files.test, names)
    rows = {}
    for name, part in (("train", training), ("validation", validation), ("test", test)):
        rows[name] = encode_texts(tokenizer, part.texts, part.texts_b, max_length, form)
        if rows[name].num_truncated:
            log.warning(
                "%d of %d %s texts were cut to %d tokens",
                rows[name].num_truncated,
                len(part),
                name,
                max_length,
            )
    return _Data(training, validation, test, rows)


def _build(config: FinetuneConfig, source: Path, shape: EncoderConfig, num_labels: int) -> SequenceClassifier:
    model = SequenceClassifier(shape, num_labels, config.dropout)
    initialize(model, config.seed, shape.initializer_range)
    if not config.random_weights:
        load_weights(model, source, encoder_only=True)
    return model


def _stream(config: FinetuneConfig, data: _Data) -> ExampleStream:
    texts, sizes = data.rows["train"], (config.batch_size, config.micro_batch_size)
    return ExampleStream(texts.rows, data.train.labels, config.seed, *sizes, texts.first_lengths)


def _evaluator(data: _Data, micro_batch_size: int) -> Any:
    def evaluate(engine: Engine) -> Record:
        loss = correct = 0.0
        texts, labels = data.rows["validation"], data.validation.labels
        for _, batch in sorted_batches(texts.rows, labels, micro_batch_size, texts.first_lengths):
            sums = engine.forward(classification_loss, batch)
            loss, correct = loss + sums["loss_sum"], correct + sums["correct"]
        return {"loss": loss / len(labels), "accuracy": correct / len(labels)}

    return evaluate


def _plan(config: FinetuneConfig, num_examples: int) -> Plan:
    total = max(1, math.ceil(config.epochs * num_examples / config.batch_size))
    every = max(1, round(config.evaluate_every_epochs * num_examples / config.batch_size))
    return Plan(
        schedule=Schedule(config.schedule, config.optimizer.lr, total),
        evaluate_every=every,
        checkpoint_every=every,
        log_every=max(1, min(10, total // 20)),
    )


def run_finetuning(
    config: FinetuneConfig,
    folder: Path,
    hooks: Sequence[Hook] = (),
    claim: Callable[[], None] = lambda: None,
) -> Record:
    """Train, export, and measure on the test part.

    Args:
        config: what to do.
        folder: the run's folder. A checkpoint in it is gone on from.
        hooks: further watchers.
        claim: called when everything is opened and checked, before anything is written.

    Returns:
        The evaluation, which is also written to `evaluation.json`.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, model or a value cannot be used; nothing was lost.
    """
    require_one_process("fine-tuning")
    source = find_model(config.model)
    shape, _ = load_encoder_config(source)
    tokenizer = Tokenizer.load(source)
    tokenizer.require_size(shape.vocab_size, str(source))
    max_length = min(config.max_length or shape.max_length, shape.max_length)
    data = _read_data(config, tokenizer, max_length, pair_form(shape))
    device = resolve_device(config.device)
    names = data.train.label_names
    model = _build(config, source, shape, len(names))
    claim()
    engine = SingleEngine(
        model,
        optimizer_factory(config.optimizer, shape.num_attention_heads),
        device,
        resolve_precision(config.precision, device),
        config.max_grad_norm,
    )
    plan = _plan(config, len(data.train))
    about = {"config": dump_config(config), "versions": library_versions(VERSIONS)}
    parts = Parts(
        stream=_stream(config, data),
        objective=classification_loss,
        engine=engine,
        checkpoints=Checkpoints(
            folder / "checkpoints", CheckpointConfig(keep=config.keep_checkpoints), about
        ),
        evaluate=_evaluator(data, config.micro_batch_size),
        hooks=standard_hooks(folder, plan.schedule.total_steps, hooks),
    )
    total = plan.schedule.total_steps
    log.info("%d training examples, %d classes, %d steps", len(data.train), len(names), total)
    result = train(parts, plan)
    final = SequenceClassifier(shape, len(names))
    final.load_state_dict(engine.weights())
    export_model(folder / "export", final, shape, names)
    tokenizer.save(folder / "export", shape.max_length)
    return _measure(final, data, result, folder, "test" if config.data.test else "validation")


def _measure(model: SequenceClassifier, data: _Data, result: Record, folder: Path, split: str) -> Record:
    probabilities = class_probabilities(model, data.rows["test"], "measuring")
    report = evaluation_report(data.test, probabilities)
    report |= {
        "split": split,
        "num_truncated": {name: rows.num_truncated for name, rows in data.rows.items()},
        "num_examples": {
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
        },
        "seconds": result["seconds"],
        "steps": result["step"],
        "peak_memory_bytes": peak_memory_bytes(),
        "machine": describe_machine(),
        "versions": library_versions(VERSIONS),
    }
    write_predictions(folder / "predictions.jsonl", data.test, probabilities)
    write_json(folder / "evaluation.json", report)
    return report


def evaluation_report(dataset: LabelledDataset, probabilities: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Metrics of predicted probabilities, of shape (examples, classes), against a data set."""
    return classification_report(dataset.labels, probabilities.argmax(-1), dataset.label_names)


def write_predictions(path: Path, dataset: LabelledDataset, probabilities: np.ndarray[Any, Any]) -> None:
    """One JSON line an example: true and predicted class, and the probability of the latter."""
    lines = [
        {
            "label": dataset.label_names[label],
            "predicted": dataset.label_names[int(row.argmax())],
            "probability": round(float(row.max()), 6),
        }
        for label, row in zip(dataset.labels, probabilities, strict=True)
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
