"""The masked-language-model objective: batches with masks in place, and their summed loss.

Legend: B sequences, S tokens of a sequence, N = B × S, M predicted positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import CheckpointError
from ..core.keyed import derive_key, hash64
from ..model.dropout import DropoutKeys
from ..model.heads import MaskedLM
from ..model.layout import Layout
from ..tokens.stream import SampleStream
from .masking import FIXED_EPOCH, Masker

__all__ = ["MaskedBatch", "MaskedLMStream", "fixed_batches", "mask_batch", "masked_lm_loss"]


@dataclass(frozen=True)
class MaskedBatch:
    """A micro-batch ready for the model.

    Attributes:
        ids_N: what the model sees; int64.
        lengths: number of tokens of each sequence.
        targets_M: which of the N positions are predicted; int64.
        labels_M: the right ids; int64.
        num_eligible: tokens that could have been selected.
        samples: number of each sequence, counted from the start of training.
        dropout: keys for dropout.
    """

    ids_N: Tensor
    lengths: tuple[int, ...]
    targets_M: Tensor
    labels_M: Tensor
    num_eligible: int
    samples: tuple[int, ...]
    dropout: DropoutKeys

    @property
    def num_targets(self) -> int:
        """M: predicted positions."""
        return len(self.labels_M)

    @property
    def num_tokens(self) -> int:
        """N: tokens that the model computes on."""
        return len(self.ids_N)

    @property
    def counts(self) -> dict[str, int]:
        """What the loop adds up for its log besides targets and tokens."""
        return {"eligible": self.num_eligible, "real_tokens": self.num_tokens}


def mask_batch(
    stream: SampleStream, masker: Masker, first: int, count: int, epoch: int | None
) -> MaskedBatch:
    """Make a micro-batch of samples `first` to `first + count`.

    Args:
        stream: gives the windows.
        masker: masks them.
        first: number of the first sample.
        count: number of samples.
        epoch: epoch of the masks; None takes each sample's own.
    """
    batch = stream.batch(first, count)
    selected = np.zeros(batch.ids.shape, bool)
    seen = batch.ids.copy()
    for number in np.unique(batch.epoch).tolist():
        rows = batch.epoch == number
        ids, positions = batch.ids[rows], batch.positions[rows]
        chosen = masker.select(ids, positions, number if epoch is None else epoch)
        replaced = masker.replace(ids, positions, number if epoch is None else epoch)
        selected[rows] = chosen
        seen[rows] = np.where(chosen, replaced, ids)
    return MaskedBatch(
        ids_N=torch.from_numpy(seen.reshape(-1)),
        lengths=(batch.ids.shape[1],) * count,
        targets_M=torch.from_numpy(np.flatnonzero(selected)),
        labels_M=torch.from_numpy(batch.ids[selected]),
        num_eligible=int(masker.eligible(batch.ids, batch.positions).sum()),
        samples=tuple(batch.samples.tolist()),
        dropout=DropoutKeys(hash64(derive_key(stream.seed, "dropout"), batch.samples)),
    )


class MaskedLMStream:
    """The batches of a run, one optimiser step after the other.

    Args:
        samples: windows in order.
        masker: masks them.
        batch_size: sequences of one step over all ranks.
        micro_batch_size: sequences that one rank computes at a time.
        rank: number of this process.
        world_size: number of processes; divides `batch_size`.
    """

    def __init__(
        self,
        samples: SampleStream,
        masker: Masker,
        batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert batch_size % world_size == 0
        self.samples, self.masker = samples, masker
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.rank, self.share = rank, batch_size // world_size
        self.consumed = 0

    def next_step(self) -> list[MaskedBatch]:
        """This rank's micro-batches of the next step."""
        first = self.consumed + self.rank * self.share
        batches = [
            mask_batch(
                self.samples, self.masker, first + done, min(self.micro_batch_size, self.share - done), None
            )
            for done in range(0, self.share, self.micro_batch_size)
        ]
        self.consumed += self.batch_size
        return batches

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next."""
        return {
            "data": self.samples.data.manifest.fingerprint,
            "seed": self.samples.seed,
            "sequence_length": self.samples.sequence_length,
            "masking": self.masker.config.model_dump(),
            "consumed": self.consumed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved place.

        Raises:
            CheckpointError: the place belongs to other data or another order; says which.
        """
        mine = self.state()
        for name, value in mine.items():
            if name != "consumed" and state.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint was made with {name} {state.get(name)!r}, now it is {value!r}; "
                    "resume with what the run began with, or start a new run"
                )
        self.consumed = int(state["consumed"])


def fixed_batches(
    stream: SampleStream, masker: Masker, num_sequences: int, batch_size: int
) -> Iterator[MaskedBatch]:
    """Validation batches: the first sequences in order, with masks that never change."""
    total = min(num_sequences, stream.samples_per_epoch)
    for first in range(0, total, batch_size):
        yield mask_batch(stream, masker, first, min(batch_size, total - first), FIXED_EPOCH)


def masked_lm_loss(model: MaskedLM, batch: MaskedBatch, *, train: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Summed loss of a micro-batch.

    Args:
        model: on any device; the batch follows it.
        batch: from the stream.
        train: whether to drop values.

    Returns:
        `(loss_sum, sums)`: fp32 scalar in nats; `sums["correct"]` counts right best guesses.
    """
    device = model.head_bias.device
    if train:
        batch.dropout.seed(device)
    loss, correct = model(
        batch.ids_N.to(device),
        Layout(batch.lengths, device),
        batch.targets_M.to(device),
        batch.labels_M.to(device),
        batch.dropout if train else None,
    )
    return loss, {"correct": correct}
