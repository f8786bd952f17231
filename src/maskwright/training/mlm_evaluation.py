"""Validation loss of a masked language model, in a run or of an exported model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..core.errors import ConfigError, TokenizerError
from ..model.heads import MaskedLM
from ..model.hf import load_encoder_config, load_weights
from ..objectives.masking import Masker, MaskingConfig
from ..objectives.mlm import MaskedBatch, fixed_batches, masked_lm_loss
from ..tokens.shards import open_split
from ..tokens.stream import SampleStream
from ..tokens.tokenizer import Tokenizer
from .hooks import Record
from .unigram import unigram_loss

__all__ = ["evaluate_export", "measure"]


def measure(batches: Iterable[MaskedBatch], forward: Callable[[MaskedBatch], dict[str, float]]) -> Record:
    """Loss, accuracy and perplexity over batches; nothing but sums is kept."""
    sums: dict[str, float] = {"loss_sum": 0.0, "correct": 0.0, "targets": 0.0}
    for batch in batches:
        for name, value in forward(batch).items():
            sums[name] += value
        sums["targets"] += batch.num_targets
    loss = sums["loss_sum"] / max(1.0, sums["targets"])
    accuracy = sums["correct"] / max(1.0, sums["targets"])
    return {"loss": loss, "accuracy": accuracy, "perplexity": math.exp(min(loss, 700.0))}


@torch.no_grad()
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
        seed: decides the fixed masks; with the run's seed the numbers are the run's own.

    Returns:
        `loss` in nats, `accuracy`, `perplexity`, `unigram_loss`, `targets`.

    Raises:
        TokenizerError: the data was made with another vocabulary.
        UserError: model or data cannot be used.
    """
    shape, _ = load_encoder_config(model_folder)
    tokenizer = Tokenizer.load(model_folder)
    data = open_split(data_folder, "validation")
    if Tokenizer.load(data_folder / "tokenizer").reference.get_vocab() != tokenizer.reference.get_vocab():
        raise TokenizerError(
            f"{data_folder}: was prepared with another vocabulary than {model_folder} has; "
            "prepare it with tokenizer.path set to the model's folder"
        )
    model = MaskedLM(shape)
    load_weights(model, model_folder)
    masking = MaskingConfig(mlm_probability=mlm_probability)
    masker = Masker(masking, seed, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
    length = sequence_length or shape.max_length
    if length > shape.max_length:
        raise ConfigError(
            f'"sequence_length" is {length}, but {model_folder} takes {shape.max_length}; lower it'
        )
    stream = SampleStream(data, length, tokenizer.bos_id, tokenizer.eos_id, seed, shuffle=False)
    batches = list(fixed_batches(stream, masker, num_sequences, 16))

    def forward(batch: MaskedBatch) -> dict[str, float]:
        loss, sums = masked_lm_loss(model, batch, train=False)
        return {"loss_sum": loss.item(), "correct": sums["correct"].item()}

    labels = [batch.labels_M.numpy() for batch in batches]
    baseline = unigram_loss(data.token_counts(), labels, tokenizer.special_ids)
    return {
        "task": "masked-lm",
        **measure(batches, forward),
        "unigram_loss": baseline,
        "targets": sum(len(batch) for batch in labels),
    }
