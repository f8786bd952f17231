"""The order of samples and the batches made of them, as pure functions of a few integers.

Sample `i` is the window of `sequence_length - 2` tokens that starts there, with `<s>` before and
`</s>` after it, so every token is used once an epoch (the last incomplete window is left out and
counted). The order of an epoch is a keyed permutation; windows of different epochs start at
different offsets, so a document is not cut at the same place each time. The state is the number of
samples consumed: any step is reached at once, and nothing depends on how batches are split.

Source: "full-sentences" packing of RoBERTa (arXiv 1907.11692, section 4.2), cut by tokens instead
of sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError
from ..core.keyed import derive_key, permute
from .shards import TokenData

__all__ = ["SampleStream", "TokenBatch"]


@dataclass(frozen=True)
class TokenBatch:
    """Windows of tokens, before masking.

    Attributes:
        ids: token ids with `<s>` and `</s>` in place; int64 of shape (B, S).
        positions: where each token stands in the split, -1 for added specials; int64, (B, S).
        samples: number of each sample counted from the start of training; int64, (B,).
        epoch: epoch of each sample; int64, (B,).
    """

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int64]


class SampleStream:
    """Windows of one split in keyed random order.

    Args:
        data: the split.
        sequence_length: S, tokens of a sample with its two specials.
        bos_id: id put before each window.
        eos_id: id put after each window.
        seed: decides order and offsets.
        shuffle: False keeps windows in their order in the corpus, for evaluation.

    Raises:
        DataError: the split has fewer tokens than one window.
    """

    def __init__(
        self,
        data: TokenData,
        sequence_length: int,
        bos_id: int,
        eos_id: int,
        seed: int,
        *,
        shuffle: bool = True,
    ) -> None:
        self.data, self.seed, self.shuffle = data, seed, shuffle
        self.bos_id, self.eos_id = bos_id, eos_id
        self.sequence_length, self.window = sequence_length, sequence_length - 2
        if data.num_tokens < self.window:
            raise DataError(
                f"{data.folder}: split {data.split!r} has {data.num_tokens} tokens, fewer than one sequence "
                f"({self.window} and two specials); add text or lower sequence_length"
            )
        # One window fewer leaves room for the offset of the epoch.
        self.samples_per_epoch = max(
            1, (data.num_tokens - (self.window - 1 if shuffle else 0)) // self.window
        )

    def _offset(self, epoch: int) -> int:
        spare = self.data.num_tokens - self.samples_per_epoch * self.window
        if not self.shuffle or spare <= 0:
            return 0
        return derive_key(self.seed, "offset", epoch) % min(spare + 1, self.window)

    def starts(self, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where some samples start in the split, and their epochs; int64, two arrays of (count,)."""
        samples = np.arange(first, first + count, dtype=np.int64)
        epochs, within = np.divmod(samples, self.samples_per_epoch)
        starts = np.empty_like(samples)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            windows = within[chosen]
            if self.shuffle:
                windows = permute(derive_key(self.seed, "order", epoch), windows, self.samples_per_epoch)
            starts[chosen] = windows * self.window + self._offset(epoch)
        return starts, epochs

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples `first` to `first + count`, counted from the start of training."""
        starts, epochs = self.starts(first, count)
        ids = np.empty((count, self.sequence_length), np.int64)
        positions = np.full((count, self.sequence_length), -1, np.int64)
        ids[:, 0], ids[:, -1] = self.bos_id, self.eos_id
        for row, start in enumerate(starts.tolist()):
            ids[row, 1:-1] = self.data.tokens(start, self.window)
        positions[:, 1:-1] = starts[:, None] + np.arange(self.window)
        return TokenBatch(ids, positions, np.arange(first, first + count, dtype=np.int64), epochs)
