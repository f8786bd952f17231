"""The order of samples and the batches made of them, as pure functions of a few integers.

Sample `i` is the window of `sequence_length - 2` tokens that starts there, with `<s>` before and
`</s>` after it, so every token is used once an epoch (the last incomplete window is left out and
counted). The order of an epoch is a keyed permutation; windows of different epochs start at
different offsets, so a document is not cut at the same place each time. The state is the number of
samples consumed: any step is reached at once, and nothing depends on how batches are split.

Where the data has several sources they take turns (`mixture.py`). Each has its own windows,
permutation and count of epochs, so a small source that comes round again does so in another order,
cut elsewhere, and with other masks.

Source: "full-sentences" packing of RoBERTa (arXiv 1907.11692, section 4.2), cut by tokens instead
of sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError
from ..core.keyed import derive_key, permute
from ..core.log import get_logger
from .mixture import SourceOrder
from .shards import SourceTokens, TokenData

__all__ = ["SampleStream", "TokenBatch"]

log = get_logger(__name__)
# The order is looked up for so many samples at once: a permutation costs nearly the same for one.
MAX_BLOCK = 1024
_Starts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class TokenBatch:
    """Windows of tokens, before masking.

    Attributes:
        ids: token ids with `<s>` and `</s>` in place; int64 of shape (B, S).
        positions: where each token stands in the split, -1 for added specials; int64, (B, S).
        samples: number of each sample counted from the start of training; int64, (B,).
        epoch: epoch of each sample, counted for its own source; int64, (B,).
    """

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Windows:
    """The windows of one source in their order.

    Attributes:
        first: position of the source's first token in the split.
        num_tokens: tokens of the source.
        window: tokens of a window.
        number: windows of an epoch of the source.
        shuffle: whether order and offset are random.
        key: what all keys begin with: the seed, and the source where there are several.
    """

    first: int
    num_tokens: int
    window: int
    number: int
    shuffle: bool
    key: tuple[int | str, ...]

    def _derive(self, purpose: str, epoch: int) -> int:
        seed, *source = self.key
        return derive_key(seed, purpose, *source, epoch)

    def _offset(self, epoch: int) -> int:
        spare = self.num_tokens - self.number * self.window
        if not self.shuffle or spare <= 0:
            return 0
        return self._derive("offset", epoch) % min(spare + 1, self.window)

    def starts(self, ranks: npt.NDArray[np.int64]) -> _Starts:
        """Where samples of this source start in the split, and their epochs; int64."""
        epochs, within = np.divmod(ranks, self.number)
        starts = np.empty_like(ranks)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            windows = within[chosen]
            if self.shuffle:
                windows = permute(self._derive("order", epoch), windows, self.number)
            starts[chosen] = self.first + windows * self.window + self._offset(epoch)
        return starts, epochs


class SampleStream:
    """Windows of one split in keyed random order.

    Args:
        data: the split.
        sequence_length: S, tokens of a sample with its two specials.
        bos_id: id put before each window.
        eos_id: id put after each window.
        seed: decides order and offsets.
        shuffle: False is for evaluation: the windows of a source come in their order in the corpus.
            The sources take turns in the shares of the mixture, and no window comes twice.

    Attributes:
        samples_by_source: samples of an epoch of the mixture by source.
        samples_per_epoch: their sum.

    Raises:
        DataError: no source has as many tokens as one window.
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
        used = [source for source in data.sources if self._is_used(source)]
        if not used:
            raise DataError(self._too_short())
        # Evaluation repeats nothing: the most frequent source occurs once.
        scale = 1.0 if shuffle else 1 / max(source.repeats for source in used)
        self._windows = [self._cut(source) for source in used]
        counts = [
            max(1, round(windows.number * source.repeats * scale))
            for source, windows in zip(used, self._windows, strict=True)
        ]
        self._order = SourceOrder(counts)
        self.samples_by_source = dict(zip((source.name for source in used), counts, strict=True))
        self.samples_per_epoch = self._order.size
        self._block_size = min(MAX_BLOCK, self.samples_per_epoch)
        self._block = lru_cache(maxsize=8)(self._find_block)

    def _is_used(self, source: SourceTokens) -> bool:
        if source.repeats > 0 and 0 < source.num_tokens < self.window and len(self.data.sources) > 1:
            log.warning(
                "%s: source %r is left out of split %r: its %d tokens are fewer than one sequence",
                *(self.data.folder, source.name, self.data.split, source.num_tokens),
            )
        return source.repeats > 0 and source.num_tokens >= self.window

    def _too_short(self) -> str:
        several = len(self.data.sources) > 1
        return (
            f"{self.data.folder}: split {self.data.split!r} has {self.data.num_tokens} tokens, "
            f"{'but no source in use has as many as' if several else 'fewer than'} one sequence "
            f"({self.window} and two specials); add text or lower sequence_length"
        )

    def _cut(self, source: SourceTokens) -> _Windows:
        # One window fewer leaves room for the offset of the epoch.
        number = max(1, (source.num_tokens - (self.window - 1 if self.shuffle else 0)) // self.window)
        key = (self.seed, source.name) if len(self.data.sources) > 1 else (self.seed,)
        return _Windows(source.first, source.num_tokens, self.window, number, self.shuffle, key)

    def _find_block(self, block: int) -> _Starts:
        first = block * self._block_size
        samples = np.arange(first, first + self._block_size, dtype=np.int64)
        sources, ranks = self._order.find(samples)
        starts, epochs = np.empty_like(samples), np.empty_like(samples)
        for number in np.unique(sources).tolist():
            chosen = sources == number
            starts[chosen], epochs[chosen] = self._windows[number].starts(ranks[chosen])
        return starts, epochs

    def starts(self, first: int, count: int) -> _Starts:
        """Where some samples start in the split, and their epochs; int64, two arrays of (count,)."""
        size = self._block_size
        blocks = range(first // size, max(first, first + count - 1) // size + 1)
        found = [self._block(block) for block in blocks]
        part = slice(first % size, first % size + count)
        starts, epochs = (np.concatenate(pieces)[part] for pieces in zip(*found, strict=True))
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
