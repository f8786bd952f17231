"""Classify texts with a fine-tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...core.errors import CheckpointError
from ...core.progress import progress
from ...model.heads import SequenceClassifier
from ...model.hf import load_encoder_config, load_weights
from ...model.layout import Layout
from ...tokens.tokenizer import Tokenizer
from .batches import EncodedTexts, encode_texts, pair_form, sorted_batches

__all__ = ["ClassificationPredictor", "class_probabilities"]

BATCH_SIZE = 64


@torch.no_grad()
def class_probabilities(
    model: SequenceClassifier, texts: EncodedTexts, label: str = "classifying"
) -> npt.NDArray[np.float32]:
    """Probabilities of the classes for encoded texts.

    Args:
        model: on any device.
        texts: what `encode_texts` returned.
        label: what the progress bar says.

    Returns:
        fp32 of shape (len(texts.rows), C), in the order of `texts.rows`.
    """
    rows, device = texts.rows, model.head_dense.weight.device
    result = np.empty((len(rows), model.num_labels), np.float32)
    with progress(label, len(rows), "texts") as advance:
        for numbers, batch in sorted_batches(rows, [0] * len(rows), BATCH_SIZE, texts.first_lengths):
            types_N = None if batch.token_types_N is None else batch.token_types_N.to(device)
            logits_BC = model(batch.ids_N.to(device), Layout(batch.lengths, device), None, types_N)
            result[numbers] = logits_BC.softmax(-1).cpu().numpy()
            advance(len(numbers))
    return result


class ClassificationPredictor:
    """A fine-tuned classifier, loaded from its Hugging Face folder.

    Args:
        folder: holds `config.json`, `model.safetensors` and the tokenizer.

    Raises:
        CheckpointError: the folder holds no classifier, or a damaged one.
        TokenizerError: the tokenizer is missing or does not fit.
    """

    def __init__(self, folder: Path) -> None:
        shape, values = load_encoder_config(folder)
        kinds = values.get("architectures") or []
        # transformers leaves its default out: two classes.
        names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        if not names or not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
            raise CheckpointError(f"{folder}: is not a classifier; fine-tune one with maskwright finetune")
        try:
            self.labels = [str(names[str(number)]) for number in range(len(names))]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder}: id2label in config.json does not number its labels from 0; export the model again"
            ) from error
        self.tokenizer = Tokenizer.load(folder)
        self.tokenizer.require_size(shape.vocab_size, str(folder))
        self.model = SequenceClassifier(shape, len(self.labels))
        load_weights(self.model, folder)
        self.model.eval()
        self.max_length = shape.max_length

    def probabilities(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None
    ) -> npt.NDArray[np.float32]:
        """Probabilities of the classes; fp32 of shape (len(texts), C)."""
        # Training texts were stripped when they were read.
        first = [text.strip() for text in texts]
        second = None if texts_b is None else [text.strip() for text in texts_b]
        form = pair_form(self.model.config)
        return class_probabilities(
            self.model, encode_texts(self.tokenizer, first, second, self.max_length, form)
        )

    def predict(self, texts: Sequence[str], texts_b: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Classify texts.

        Args:
            texts: any number of them.
            texts_b: second texts, for a model of pairs.

        Returns:
            For each text `label`, its `probability`, and `scores` of all classes, best first.
        """
        results = []
        for row in self.probabilities(texts, texts_b):
            order = np.argsort(-row, kind="stable")
            scores = {self.labels[i]: float(row[i]) for i in order}
            results.append(
                {"label": self.labels[order[0]], "probability": float(row[order[0]]), "scores": scores}
            )
        return results
