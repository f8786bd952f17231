"""Fill masks in texts with a masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import DataError
from ..core.progress import track
from ..model.heads import MaskedLM
from ..model.hf import load_encoder_config, load_weights
from ..model.layout import Layout
from ..tokens.tokenizer import Tokenizer

__all__ = ["FillMaskPredictor"]

MASK = "<mask>"


class FillMaskPredictor:
    """A masked language model, loaded from its Hugging Face folder.

    Args:
        folder: holds `config.json`, `model.safetensors` and the tokenizer.
        num_guesses: fills to give for each mask.

    Raises:
        CheckpointError: the folder holds no masked language model, or a damaged one.
        TokenizerError: the tokenizer is missing or does not fit.
    """

    def __init__(self, folder: Path, num_guesses: int = 5) -> None:
        shape, _ = load_encoder_config(folder)
        self.tokenizer = Tokenizer.load(folder)
        self.tokenizer.require_size(shape.vocab_size, str(folder))
        self.model = MaskedLM(shape)
        load_weights(self.model, folder)
        self.model.eval()
        self.max_length, self.num_guesses = shape.max_length, num_guesses

    def _encode(self, text: str) -> np.ndarray[Any, Any]:
        """Ids of a text; here, and only here, `<mask>` in it is the mask."""
        before, *after = text.split(MASK)
        ids = [
            self.tokenizer.bos_id,
            *self.tokenizer.encode(before.rstrip() if after else before).tolist(),
        ]
        for number, part in enumerate(after, 1):
            last = number == len(after)
            ids += [
                self.tokenizer.mask_id,
                *self.tokenizer.encode(part if last else part.rstrip()).tolist(),
            ]
        return np.array([*ids, self.tokenizer.eos_id], np.int64)

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Fill every `<mask>` of each text.

        Args:
            texts: each with at least one `<mask>`.

        Returns:
            For each text `text`, and `fills`: for each mask a list of `{"token", "probability"}`,
            best first.

        Raises:
            DataError: a text has no mask, or is longer than the model takes.
        """
        return [self._fill(text) for text in track(texts, "filling masks", len(texts), "texts")]

    def _fill(self, text: str) -> dict[str, Any]:
        if MASK not in text:
            raise DataError(f"{text[:60]!r}: has no {MASK}; write {MASK} where a word is missing")
        ids = self._encode(text)
        if len(ids) > self.max_length:
            raise DataError(
                f"{text[:60]!r}: has {len(ids)} tokens, the model takes {self.max_length}; shorten it"
            )
        hidden = self.model.encoder(torch.from_numpy(ids), Layout([len(ids)]))
        places = torch.from_numpy(np.flatnonzero(ids == self.tokenizer.mask_id))
        best = self.model.logits(hidden[places]).softmax(-1).topk(self.num_guesses)
        fills = [
            [
                {"token": self.tokenizer.token_text(number), "probability": share}
                for number, share in zip(numbers, shares, strict=True)
            ]
            for numbers, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return {"text": text, "fills": fills}
