"""The pretraining objective: batches with masks in place, and their summed losses.

Masked-language modelling, and next-sentence prediction where samples are pairs.

Legend: B samples, N tokens of a micro-batch laid end to end, M predicted positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.errors import CheckpointError
from ..core.keyed import derive_key, hash64
from ..core.log import get_logger
from ..model.dropout import DropoutKeys
from ..model.heads import MaskedLM
from ..model.layout import Layout
from ..tokens.lookahead import Lookahead
from ..tokens.stream import SampleStream, TokenBatch
from .masking import FIXED_EPOCH, Masker
from .step_sizes import StepSizes

__all__ = [
    "Attention",
    "MaskedBatch",
    "MaskedLMStream",
    "document_lengths",
    "fixed_batches",
    "mask_batch",
    "masked_lm_loss",
]

log = get_logger(__name__)
Attention = Literal["document", "window"]


@dataclass(frozen=True)
class MaskedBatch:
    """A micro-batch ready for the model.

    Attributes:
        ids_N: what the model sees; int64.
        lengths: number of tokens of each sequence, within which tokens see each other.
        targets_M: which of the N positions are predicted; int64.
        labels_M: the right ids; int64.
        counts: what the loop adds up for its log besides targets and tokens.
        samples: number of each sample, counted from the start of training.
        dropout: keys for dropout, one a sequence.
        token_types_N: segment of each token, where samples are pairs; int64.
        next_labels_B: 0 where the second segment follows the first, 1 where it is random; int64.
        filler: whether it is computed only because other processes compute one, and counts nothing.
    """

    ids_N: Tensor
    lengths: tuple[int, ...]
    targets_M: Tensor
    labels_M: Tensor
    counts: dict[str, float]
    samples: tuple[int, ...]
    dropout: DropoutKeys
    token_types_N: Tensor | None = None
    next_labels_B: Tensor | None = None
    filler: bool = False

    @property
    def num_targets(self) -> int:
        """M: predicted positions that count."""
        return 0 if self.filler else len(self.labels_M)

    @property
    def targets(self) -> dict[str, int]:
        """Number of predictions of each loss."""
        if self.next_labels_B is None:
            return {"loss": self.num_targets}
        pairs = 0 if self.filler else len(self.next_labels_B)
        return {"loss": self.num_targets, "next_sentence_loss": pairs}

    @property
    def num_tokens(self) -> int:
        """N: tokens that the model learns from."""
        return 0 if self.filler else len(self.ids_N)


def document_lengths(batch: TokenBatch, closing_id: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Cut samples where documents end; the specials around a sample stay with the token beside them.

    Args:
        batch: B samples.
        closing_id: id that closes a document in the data.

    Returns:
        Lengths of the pieces, and the row of the sample of each; both int64.
    """
    closed = (batch.ids == closing_id) & (batch.positions >= 0)
    # A piece ends behind a closing id, unless nothing of the data follows in the same sample.
    goes_on = np.append(batch.positions[1:] >= 0, False)
    ends = np.flatnonzero(closed & goes_on) + 1
    ends = np.union1d(ends, np.cumsum(batch.lengths))
    rows = np.searchsorted(np.cumsum(batch.lengths), ends, side="left")
    return np.diff(ends, prepend=0).astype(np.int64), rows.astype(np.int64)


def _dropout_keys(seed: int, samples: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> DropoutKeys:
    """A key for each sequence: of its sample, and of its place among the pieces of the sample."""
    keys = hash64(derive_key(seed, "dropout"), samples)[rows]
    piece = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
    # The first piece has the key of its sample, whether or not others follow: the split must not matter.
    further = hash64(derive_key(seed, "dropout piece"), keys + piece)
    return DropoutKeys(np.where(piece == 0, keys, further))


def mask_batch(
    stream: SampleStream,
    masker: Masker,
    first: int,
    count: int,
    epoch: int | None,
    *,
    rate: float | None = None,
    attention: Attention = "window",
    next_sentence: bool = True,
) -> MaskedBatch:
    """Make a micro-batch of samples `first` to `first + count`.

    Args:
        stream: gives the samples.
        masker: masks them.
        first: number of the first sample.
        count: number of samples.
        epoch: epoch of the masks; None takes each sample's own.
        rate: share of tokens that is predicted; None takes the masker's.
        attention: whether a token sees its whole sample or only its document there.
        next_sentence: whether pairs keep their labels of next-sentence prediction.
    """
    batch = stream.batch(first, count)
    epochs_N = np.repeat(batch.epoch, batch.lengths)
    selected, seen = np.zeros(len(batch.ids), bool), batch.ids.copy()
    counts = {"eligible": 0.0, "expected_targets": 0.0, "mask_variance": 0.0}
    for number in np.unique(batch.epoch).tolist():
        rows = epochs_N == number
        found = masker.mask(batch.ids[rows], batch.positions[rows], number if epoch is None else epoch, rate)
        selected[rows], seen[rows] = found.selected, found.seen
        expected = found.expectation()
        counts["eligible"] += expected.num_eligible
        counts["expected_targets"] += expected.targets
        counts["mask_variance"] += expected.variance
    has_next = next_sentence and batch.next_labels is not None
    lengths, owners = batch.lengths, np.arange(count, dtype=np.int64)
    if attention == "document":
        lengths, owners = document_lengths(batch, stream.eos_id)
    return MaskedBatch(
        ids_N=torch.from_numpy(seen),
        lengths=tuple(lengths.tolist()),
        targets_M=torch.from_numpy(np.flatnonzero(selected)),
        labels_M=torch.from_numpy(batch.ids[selected]),
        counts={**counts, "real_tokens": len(seen)},
        samples=tuple(batch.samples.tolist()),
        dropout=_dropout_keys(stream.seed, batch.samples, owners),
        token_types_N=None if batch.token_types is None else torch.from_numpy(batch.token_types),
        next_labels_B=torch.from_numpy(batch.next_labels) if has_next else None,
    )


class MaskedLMStream:
    """The batches of a run, one optimiser step after the other.

    Args:
        samples: samples in order.
        masker: masks them.
        sizes: how many samples a step takes, and how they are cut into micro-batches.
        attention: whether a token sees its whole sample or only its document there.
        next_sentence: whether next-sentence prediction is part of the objective.
        rank: number of this process.
        world_size: number of processes.
        force: go on from a place that belongs to other data or another order, with a warning.
    """

    def __init__(
        self,
        samples: SampleStream,
        masker: Masker,
        sizes: StepSizes,
        attention: Attention = "window",
        next_sentence: bool = False,
        rank: int = 0,
        world_size: int = 1,
        force: bool = False,
    ) -> None:
        self.samples, self.masker, self.sizes, self.attention = samples, masker, sizes, attention
        self.next_sentence = next_sentence
        self.rank, self.world_size, self.force = rank, world_size, force
        self.consumed = self._before = 0
        self._ahead = Lookahead(samples.data.place.steps_told, self._reads, samples.expect)

    def next_step(self, share_done: float = 0.0) -> list[MaskedBatch]:
        """This rank's micro-batches of the next step.

        Args:
            share_done: share of training that is done, which decides the rate where it changes.
        """
        self._ahead.at(self.consumed)
        count = self.sizes.samples_at(self.consumed)
        rate = self.masker.config.rate_at(share_done)
        pieces = self.sizes.micro_batches(self.consumed, count, self.rank, self.world_size)
        batches = [self.batch(first, size, rate) for first, size in pieces]
        self._before = self.consumed
        self.consumed += count
        return batches

    def undo_step(self) -> None:
        """Go back before the step that was read last, as it is not done."""
        self.consumed = self._before

    def batch(self, first: int, count: int, rate: float | None = None) -> MaskedBatch:
        """Any samples of the run as a micro-batch."""
        return mask_batch(
            self.samples,
            self.masker,
            first,
            count,
            None,
            rate=rate,
            attention=self.attention,
            next_sentence=self.next_sentence,
        )

    def _reads(self, first: int) -> tuple[list[tuple[int, int]], int]:
        """What this rank reads of the step that begins with a sample, and where the next one begins."""
        count = self.sizes.samples_at(first)
        return list(self.sizes.micro_batches(first, count, self.rank, self.world_size)), first + count

    def filler(self) -> MaskedBatch:
        """A micro-batch that counts nothing, for a process that has fewer than others."""
        batch = self.batch(0, 1)
        return replace(batch, counts=dict.fromkeys(batch.counts, 0.0), samples=(), filler=True)

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next; neither processes nor micro-batches do."""
        return {
            "data": self.samples.data.manifest.fingerprint,
            "seed": self.samples.seed,
            "sequence_length": self.samples.sequence_length,
            "format": self.samples.format.model_dump(),
            "attention": self.attention,
            "masking": self.masker.config.model_dump(),
            "batch": dict(self.sizes.about),
            "consumed": self.consumed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved place.

        Raises:
            CheckpointError: the place belongs to other data or another order; says which.
        """
        mine = self.state()
        for name, value in mine.items():
            if name == "consumed" or state.get(name) == value:
                continue
            found = f"the checkpoint was made with {name} {state.get(name)!r}, now it is {value!r}"
            if not self.force:
                raise CheckpointError(
                    f"{found}; resume with what the run began with, add --force, or start a new run"
                )
            log.warning("%s; going on from sample %s, as forced", found, state["consumed"])
        self.consumed = self._before = int(state["consumed"])


def fixed_batches(
    stream: SampleStream,
    masker: Masker,
    num_sequences: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[MaskedBatch]:
    """Validation batches: the first sequences in order, with masks that never change.

    Args:
        stream: gives the sequences.
        masker: masks them.
        num_sequences: how many at most.
        batch_size: sequences of a batch.
        rank: number of this process; batches are dealt out in turn.
        world_size: number of processes. Each gets equally many, the last perhaps fillers.
    """
    total = min(num_sequences, stream.samples_per_epoch)
    firsts = range(0, total, batch_size)
    for number in range(rank, -(-len(firsts) // world_size) * world_size, world_size):
        first = firsts[min(number, len(firsts) - 1)]
        batch = mask_batch(stream, masker, first, min(batch_size, total - first), FIXED_EPOCH)
        yield replace(batch, filler=number >= len(firsts))


def masked_lm_loss(
    model: MaskedLM, batch: MaskedBatch, *, train: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Summed losses of a micro-batch.

    Args:
        model: on any device; the batch follows it.
        batch: from the stream.
        train: whether to drop values.

    Returns:
        `(losses, sums)`: `losses["loss"]` is an fp32 scalar in nats, and `sums["correct"]` counts right
        best guesses; for pairs also `next_sentence_loss` and `next_sentence_correct`.
    """
    device = model.head_bias.device
    if train:
        batch.dropout.seed(device)
    types = batch.token_types_N if model.config.type_vocab_size > 1 else None
    labels = batch.next_labels_B if model.config.next_sentence else None
    loss, correct, *following = model(
        batch.ids_N.to(device),
        Layout(batch.lengths, device),
        batch.targets_M.to(device),
        batch.labels_M.to(device),
        batch.dropout if train else None,
        None if types is None else types.to(device),
        None if labels is None else labels.to(device),
    )
    if batch.filler:
        # Not left out: its backward pass is what other processes wait for.
        loss, correct, *following = (value * 0 for value in (loss, correct, *following))
    if not following:
        return {"loss": loss}, {"correct": correct}
    return (
        {"loss": loss, "next_sentence_loss": following[0]},
        {"correct": correct, "next_sentence_correct": following[1]},
    )
