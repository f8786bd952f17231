"""What the model says in place of some masked tokens, for people to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..model.heads import MaskedLM
from ..model.layout import Layout
from ..objectives.masking import FIXED_EPOCH, Masker
from ..tokens.stream import SampleStream
from ..tokens.tokenizer import Tokenizer

__all__ = ["sample_predictions"]

_CONTEXT_TOKENS = 24
_NUM_GUESSES = 5


@torch.no_grad()
def sample_predictions(
    model: MaskedLM, tokenizer: Tokenizer, stream: SampleStream, masker: Masker, count: int = 6
) -> list[dict[str, Any]]:
    """Predict one masked token in each of the first validation windows.

    Args:
        model: in fp32 on the CPU.
        tokenizer: turns ids into text.
        stream: validation windows.
        masker: chooses the token.
        count: number of examples at most.

    Returns:
        For each: `position_text` (text around the mask), `answer`, and `predictions`, a list of
        `{"token", "probability"}`, best first.
    """
    batch = stream.batch(0, min(count, stream.samples_per_epoch))
    examples = []
    ends = np.cumsum(batch.lengths)[:-1]
    for ids, positions in zip(np.split(batch.ids, ends), np.split(batch.positions, ends), strict=True):
        chosen = np.flatnonzero(masker.select(ids, positions, FIXED_EPOCH))
        if not len(chosen):
            continue
        place = int(chosen[np.argmin(np.abs(chosen - len(ids) // 2))])
        seen = ids.copy()
        seen[place] = tokenizer.mask_id
        hidden = model.encoder(torch.from_numpy(seen), Layout([len(seen)]))
        probabilities = model.logits(hidden[place : place + 1])[0].softmax(-1)
        best = probabilities.topk(_NUM_GUESSES)
        answer = tokenizer.token_text(int(ids[place]))
        before = tokenizer.decode(ids[max(1, place - _CONTEXT_TOKENS) : place])
        after = tokenizer.decode(ids[place + 1 : place + 1 + _CONTEXT_TOKENS])
        examples.append(
            {
                "position_text": before + (" " if answer.startswith(" ") else "") + "<mask>" + after,
                "answer": answer,
                "predictions": [
                    {"token": tokenizer.token_text(number), "probability": share}
                    for number, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ],
            }
        )
    return examples
