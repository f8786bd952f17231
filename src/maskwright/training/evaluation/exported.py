"""Validation loss of an exported model on a data folder."""

from __future__ import annotations

from pathlib import Path

import torch

from ...core.errors import ConfigError, TokenizerError
from ...model.heads import MaskedLM
from ...model.hf import load_encoder_config, load_weights
from ...objectives.mlm import MaskedBatch, masked_lm_loss
from ...tokens.shards import open_split
from ...tokens.tokenizer import Tokenizer
from ..hooks import Record
from ..unigram import mixture_counts
from .validation import Validation

__all__ = ["evaluate_export", "open_validation", "validate_model"]

_BATCH_SIZE = 16


def evaluate_export(
    model_folder: Path,
    data_folder: Path,
    *,
    sequence_length: int | None,
    num_sequences: int,
    mlm_probability: float,
    seed: int,
) -> Record:
    """Validation loss of an exported model on a data folder, in fp32.

    Args:
        model_folder: Hugging Face folder.
        data_folder: made by `prepare` with the same tokenizer.
        sequence_length: tokens of a sequence; None takes the longest the model allows.
        num_sequences: validation sequences at most.
        mlm_probability: share of tokens predicted.
        seed: decides the fixed masks; with `evaluation.seed` of a run the numbers are the run's own.

    Returns:
        As `validate_model` does.

    Raises:
        TokenizerError: the data was made with another vocabulary.
        UserError: model or data cannot be used.
    """
    shape, _ = load_encoder_config(model_folder)
    model = MaskedLM(shape)
    load_weights(model, model_folder)
    validation = open_validation(
        model,
        Tokenizer.load(model_folder),
        data_folder,
        place=str(model_folder),
        sequence_length=sequence_length,
        num_sequences=num_sequences,
        mlm_probability=mlm_probability,
        seed=seed,
    )
    return validate_model(model, validation)


def open_validation(
    model: MaskedLM,
    tokenizer: Tokenizer,
    data_folder: Path,
    *,
    place: str,
    sequence_length: int | None,
    num_sequences: int,
    mlm_probability: float = 0.15,
    seed: int = 0,
) -> Validation:
    """The fixed validation sequences of a data folder, for a model that is already there.

    Args:
        model: says which length it takes.
        tokenizer: of the model.
        data_folder: made by `prepare` with the same tokenizer.
        place: where the model comes from, for messages.
        sequence_length: as for `evaluate_export`.
        num_sequences: likewise.
        mlm_probability: likewise.
        seed: likewise.

    Raises:
        TokenizerError: the data was made with another vocabulary.
        UserError: the data cannot be used.
    """
    data = open_split(data_folder, "validation")
    if Tokenizer.load(data_folder / "tokenizer").reference.get_vocab() != tokenizer.reference.get_vocab():
        raise TokenizerError(
            f"{data_folder}: was prepared with another vocabulary than {place} has; "
            "prepare it with tokenizer.path set to the model's folder"
        )
    length = sequence_length or model.config.max_length
    if length > model.config.max_length:
        raise ConfigError(
            f'"sequence_length" is {length}, but {place} takes {model.config.max_length}; lower it'
        )
    return Validation(
        data,
        tokenizer,
        sequence_length=length,
        num_sequences=num_sequences,
        batch_size=_BATCH_SIZE,
        seed=seed,
        mlm_probability=mlm_probability,
    )


@torch.no_grad()
def validate_model(model: MaskedLM, validation: Validation) -> Record:
    """Validation loss of a model, beside that of guessing by token frequency.

    Args:
        model: on any device.
        validation: what to measure on.

    Returns:
        `loss` in nats, `accuracy`, `perplexity`, `unigram_loss`, `targets`, and by source `sources`,
        empty where there is one.

    Raises:
        ShardError: the training split, whose token frequencies are the baseline, cannot be read.
    """

    def forward(batch: MaskedBatch) -> dict[str, float]:
        losses, sums = masked_lm_loss(model, batch, train=False)
        return {"loss_sum": losses["loss"].item(), "correct": sums["correct"].item()}

    found = validation.measure(forward)
    training = open_split(validation.data.folder, "train", validation.data.manifest)
    baseline = validation.baseline(mixture_counts(training))
    keys = ("loss", "accuracy", "perplexity", "targets")
    return {
        **{key: found[key] for key in keys},
        "unigram_loss": baseline["unigram_loss"],
        "sources": validation.sources(found, baseline),
    }
