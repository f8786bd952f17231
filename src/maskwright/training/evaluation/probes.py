"""What else is asked of a language model, while it trains and after: pseudo-perplexity, minimal pairs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import torch

from ...model.heads import MaskedLM
from ...tokens.tokenizer import Tokenizer
from ..hooks import Record
from .config import EvaluationConfig
from .likelihood import (
    BATCH_TOKENS,
    EncodedText,
    PseudoLikelihood,
    encode_windows,
    pseudo_log_likelihood,
)
from .minimal_pairs import flat_pairs, minimal_pairs, read_minimal_pairs
from .validation import Validation

__all__ = ["Probes", "perplexity_report"]


class Probes:
    """The probes that a run asked for; none by default.

    Args:
        config: what to measure, and how often.
        tokenizer: of the model.
        validation: gives the sequences for pseudo-perplexity.
        batch_tokens: tokens computed at a time.

    Raises:
        DataError: the minimal pairs cannot be read.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        tokenizer: Tokenizer,
        validation: Validation,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.tokenizer, self.batch_tokens, self.every = tokenizer, batch_tokens, config.probe_every
        self.pairs = (
            read_minimal_pairs(config.minimal_pairs, config.pairs_per_paradigm)
            if config.minimal_pairs
            else []
        )
        count = config.pseudo_perplexity_sequences
        self.sequences = encode_windows(tokenizer, validation.windows(count) if count else [])
        self._asked = 0

    def measure(self, model: MaskedLM) -> Record:
        """Everything that was asked for, in full; `pseudo_perplexity` and `minimal_pairs` where it was."""
        record: Record = {}
        with _uncompiled():
            if self.sequences:
                mask_id = self.tokenizer.mask_id
                found = pseudo_log_likelihood(model, self.sequences, mask_id, self.batch_tokens)
                record["pseudo_perplexity"] = found.perplexity
            if self.pairs:
                record["minimal_pairs"] = minimal_pairs(
                    model, self.tokenizer, self.pairs, batch_tokens=self.batch_tokens
                )
        return record

    def while_training(self, model: MaskedLM) -> Record:
        """The same as single numbers for the log, at every so many calls; else nothing."""
        self._asked += 1
        if self._asked % self.every:
            return {}
        record = self.measure(model)
        report = record.pop("minimal_pairs", None)
        return record if report is None else {**record, **flat_pairs(report)}


def _uncompiled() -> contextlib.AbstractContextManager[object]:
    """Let a compiled model run as it was written: every batch of copies has a shape of its own."""
    if "torch._dynamo" not in sys.modules:  # nothing was ever compiled, and importing it takes seconds
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def perplexity_report(found: PseudoLikelihood, texts: Sequence[EncodedText]) -> Record:
    """Pseudo-perplexity of texts as plain values.

    Args:
        found: the scores.
        texts: what was scored.

    Returns:
        `pseudo_perplexity`, `loss` (nats a token), `tokens`, `sequences`.
    """
    return {
        "pseudo_perplexity": found.perplexity,
        "loss": found.loss,
        "tokens": int(found.counts.sum()),
        "sequences": len(texts),
    }
