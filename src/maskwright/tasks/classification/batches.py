"""Labelled texts as batches of token ids, in keyed order, with nothing padded.

A pair is written as the kind of model was trained to read it: RoBERTa's have two separators between
the texts, BERT's have one and tell the texts apart by token types.

Legend: B examples, N tokens of all of them, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import CheckpointError
from ...core.fingerprint import fingerprint
from ...core.keyed import derive_key, hash64, permute
from ...model.config import EncoderConfig
from ...model.dropout import DropoutKeys
from ...model.heads import SequenceClassifier
from ...model.layout import Layout
from ...tokens.tokenizer import Tokenizer

__all__ = [
    "EncodedTexts",
    "ExampleBatch",
    "ROBERTA_PAIRS",
    "ExampleStream",
    "PairForm",
    "classification_loss",
    "encode_texts",
    "pair_form",
    "sorted_batches",
]


class PairForm(NamedTuple):
    """How two texts become one sequence.

    Attributes:
        num_separators: closing tokens between them.
        token_types: whether the tokens after the first closing one are of type 1.
    """

    num_separators: int
    token_types: bool


ROBERTA_PAIRS = PairForm(num_separators=2, token_types=False)


def pair_form(config: EncoderConfig) -> PairForm:
    """The form of pairs that a kind of model was trained on.

    Args:
        config: its shape. A RoBERTa gets no token types even if its table has two, as its published
            tokenizer gives none.

    Source: Devlin et al., BERT, arXiv 1810.04805, section 3; RoBERTa's as in fairseq.
    """
    if config.model_type != "bert":
        return ROBERTA_PAIRS
    return PairForm(1, config.type_vocab_size > 1)


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as ids with their special tokens.

    Attributes:
        rows: ids of each text, int64, each with `<s>` first and `</s>` last.
        num_truncated: texts that were longer than the model takes and were cut at their end.
        first_lengths: tokens of type 0 at the beginning of each row, int64; None where all are.
    """

    rows: list[npt.NDArray[np.int64]]
    num_truncated: int
    first_lengths: npt.NDArray[np.int64] | None = None


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    texts_b: Sequence[str] | None,
    max_length: int,
    form: PairForm = ROBERTA_PAIRS,
) -> EncodedTexts:
    """Encode texts as `<s> a </s>`, or pairs as `<s> a </s></s> b </s>` or `[CLS] a [SEP] b [SEP]`.

    Of a pair that is too long, the longer text is cut.

    Args:
        tokenizer: the vocabulary.
        texts: first texts.
        texts_b: second texts, or None.
        max_length: tokens of a sequence with its specials; at least 5.
        form: how a pair is written, from `pair_form`.
    """
    first = _encode(tokenizer, texts)
    second = _encode(tokenizer, texts_b) if texts_b is not None else [None] * len(first)
    bos, eos = np.array([tokenizer.bos_id]), np.array([tokenizer.eos_id])
    rows, first_lengths, num_truncated = [], [], 0
    for a, b in zip(first, second, strict=True):
        room = max_length - (2 if b is None else 2 + form.num_separators)
        length_b = 0 if b is None else len(b)
        num_truncated += len(a) + length_b > room
        keep_a = min(len(a), max(room - length_b, (room + 1) // 2))
        parts = [bos, a[:keep_a], eos]
        if b is not None:
            parts += [*[eos] * (form.num_separators - 1), b[: room - keep_a], eos]
        rows.append(np.concatenate(parts).astype(np.int64))
        first_lengths.append(keep_a + 2)
    typed = form.token_types and texts_b is not None
    return EncodedTexts(rows, num_truncated, np.array(first_lengths, np.int64) if typed else None)


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
    ids, counts = tokenizer.encode_batch(texts)
    return np.split(ids, np.cumsum(counts)[:-1]) if len(counts) else []


@dataclass(frozen=True)
class ExampleBatch:
    """A micro-batch.

    Attributes:
        ids_N: ids of all examples, one after the other; int64.
        lengths: tokens of each example.
        labels_B: class numbers; int64.
        dropout: keys for dropout.
        samples: number of each example, counted from the start of training.
        token_types_N: 0 for tokens of a first text, 1 for those of a second; None where all are 0.
    """

    ids_N: Tensor
    lengths: tuple[int, ...]
    labels_B: Tensor
    dropout: DropoutKeys
    samples: tuple[int, ...] = ()
    token_types_N: Tensor | None = None

    @property
    def targets(self) -> dict[str, int]:
        """Number of predictions of each loss."""
        return {"loss": self.num_targets}

    @property
    def num_targets(self) -> int:
        """B: examples."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """N: tokens."""
        return len(self.ids_N)

    @property
    def counts(self) -> dict[str, float]:
        """Nothing besides targets and tokens."""
        return {}


def _batch(
    rows: Sequence[npt.NDArray[np.int64]],
    labels: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    samples: tuple[int, ...] = (),
    first_lengths: npt.NDArray[np.int64] | None = None,
) -> ExampleBatch:
    types = None
    if first_lengths is not None:
        parts = [np.arange(len(row)) >= first for row, first in zip(rows, first_lengths, strict=True)]
        types = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    return ExampleBatch(
        ids_N=torch.from_numpy(np.concatenate(rows)),
        lengths=tuple(len(row) for row in rows),
        labels_B=torch.from_numpy(labels),
        dropout=DropoutKeys(keys),
        samples=samples,
        token_types_N=types,
    )


def _part(
    first_lengths: npt.NDArray[np.int64] | None, chosen: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | None:
    return None if first_lengths is None else first_lengths[chosen]


class ExampleStream:
    """Training examples, each once an epoch, in an order that is a pure function of the seed.

    Args:
        rows: ids of each example.
        labels: class numbers.
        seed: decides order and dropout.
        batch_size: examples of one step.
        micro_batch_size: examples computed at a time.
        first_lengths: tokens of type 0 of each example, where there are pairs with token types.
    """

    def __init__(
        self,
        rows: Sequence[npt.NDArray[np.int64]],
        labels: Sequence[int],
        seed: int,
        batch_size: int,
        micro_batch_size: int,
        first_lengths: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.rows, self.labels = rows, np.asarray(labels, np.int64)
        self.first_lengths = first_lengths
        self.seed, self.batch_size, self.micro_batch_size = seed, batch_size, micro_batch_size
        content: list[Any] = [self.labels.tolist(), [row.tolist() for row in rows]]
        if first_lengths is not None:
            content.append(first_lengths.tolist())
        self.fingerprint = fingerprint(content)
        self.consumed = 0

    def next_step(self, share_done: float = 0.0) -> list[ExampleBatch]:
        """Micro-batches of the next step, which does not depend on the share done."""
        numbers = np.arange(self.consumed, self.consumed + self.batch_size, dtype=np.int64)
        epochs, within = np.divmod(numbers, len(self.rows))
        chosen = np.empty_like(numbers)
        for epoch in np.unique(epochs).tolist():
            key = derive_key(self.seed, "examples", epoch)
            chosen[epochs == epoch] = permute(key, within[epochs == epoch], len(self.rows))
        keys = hash64(derive_key(self.seed, "dropout"), numbers)
        self.consumed += self.batch_size
        return [
            _batch(
                [self.rows[i] for i in chosen[part]],
                self.labels[chosen[part]],
                keys[part],
                tuple(numbers[part].tolist()),
                _part(self.first_lengths, chosen[part]),
            )
            for part in _slices(self.batch_size, self.micro_batch_size)
        ]

    def undo_step(self) -> None:
        """Go back before the step that was read last, as it is not done."""
        self.consumed -= self.batch_size

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next."""
        return {"data": self.fingerprint, "seed": self.seed, "consumed": self.consumed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved place.

        Raises:
            CheckpointError: the place belongs to other examples or another seed.
        """
        for name, value in self.state().items():
            if name != "consumed" and state.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint was made with {name} {state.get(name)!r}, now it is {value!r}; "
                    "resume with what the run began with, or start a new run"
                )
        self.consumed = int(state["consumed"])


def sorted_batches(
    rows: Sequence[npt.NDArray[np.int64]],
    labels: Sequence[int],
    batch_size: int,
    first_lengths: npt.NDArray[np.int64] | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], ExampleBatch]]:
    """Batches of examples of like length, for evaluation; yields their numbers and the batch."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    numbers = np.asarray(labels, np.int64)
    for part in _slices(len(order), batch_size):
        chosen = order[part]
        keys, lengths = np.zeros(len(chosen), np.int64), _part(first_lengths, chosen)
        yield chosen, _batch([rows[i] for i in chosen], numbers[chosen], keys, first_lengths=lengths)


def _slices(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def classification_loss(
    model: SequenceClassifier, batch: ExampleBatch, *, train: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Summed cross entropy of a micro-batch; `sums["correct"]` counts right answers."""
    device = model.head_dense.weight.device
    keys = batch.dropout if train else None
    if train:
        batch.dropout.seed(device)
    types_N = None if batch.token_types_N is None else batch.token_types_N.to(device)
    logits_BC = model(batch.ids_N.to(device), Layout(batch.lengths, device), keys, types_N)
    labels_B = batch.labels_B.to(device)
    correct = (logits_BC.argmax(-1) == labels_B).sum()
    loss = F.cross_entropy(logits_BC, labels_B, reduction="sum")
    return {"loss": loss}, {"correct": correct}
