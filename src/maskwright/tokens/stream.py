"""The order of samples and the batches made of them, as pure functions of a few integers.

What a sample is made of is the input format (`formats/`): by default a window of tokens, else whole
sentences or a pair of parts. The order of an epoch is a keyed permutation of its samples. The state is
the number of samples consumed: any step is reached at once, and nothing depends on how batches are
split.

Where the data has several sources they take turns (`mixture.py`). Each has its own samples,
permutation and count of epochs, so a small source that comes round again does so in another order
and with other masks.

Legend: B samples, N tokens of a batch laid end to end, P parts of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError
from ..core.log import get_logger
from .formats import Cut, FormatConfig, Order, Pieces, SourceSamples, TooSmall, open_format, ranges
from .mixture import SourceOrder
from .shards import SourceTokens, TokenData

__all__ = ["SampleStream", "TokenBatch"]

log = get_logger(__name__)
# The order is looked up for so many samples at once: a permutation costs nearly the same for one.
MAX_BLOCK = 1024
# Steps filled by tokens look at their samples twice: for the number, and for the micro-batches.
_CACHED_BLOCKS = 256
_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenBatch:
    """Samples laid end to end, before masking.

    Attributes:
        ids: token ids with `<s>` and `</s>` in place; int64, (N,).
        positions: where each token stands in the split, -1 for added specials; int64, (N,).
        lengths: tokens of each sample; int64, (B,).
        samples: number of each sample counted from the start of training; int64, (B,).
        epoch: epoch of each sample, counted for its own source; int64, (B,).
        token_types: 1 from the first token of a second part on, else 0; int64, (N,), None where samples
            have one part.
        next_labels: 0 where the second part follows the first in the text, 1 where it is a random one;
            int64, (B,), None where samples have one part.
    """

    ids: _Int64
    positions: _Int64
    lengths: _Int64
    samples: _Int64
    epoch: _Int64
    token_types: _Int64 | None = None
    next_labels: _Int64 | None = None


class SampleStream:
    """Samples of one split in keyed random order.

    Args:
        data: the split.
        sequence_length: S, most tokens of a sample, its specials included.
        bos_id: id put before each sample.
        eos_id: id put after each sample, and between two parts.
        seed: decides order, offsets and pairs.
        shuffle: False is for evaluation: the samples of a source come in their order in the corpus (pairs
            in one order that is the same every epoch). The sources take turns in the shares of the
            mixture, and no sample comes twice.
        format: what a sample is made of.
        separators: how many `</s>` stand between two parts: 2 as in RoBERTa, 1 as in BERT.

    Attributes:
        samples_by_source: samples of an epoch of the mixture by source.
        samples_per_epoch: their sum.
        sources: the sources in use, each with its samples.
        tokens_left_out: tokens of the sources in use that an epoch of each leaves out.
        cut_sentences: sentences that are longer than a sample may be, and were cut.

    Raises:
        ConfigError: a sample of this format does not fit into the sequence length.
        DataError: no source gives a sample.
        ShardError: the format needs ends of sentences and the data has none.
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
        format: FormatConfig = FormatConfig(),  # noqa: A002, B008 - as the config calls it; it is frozen
        separators: int = 2,
    ) -> None:
        self.data, self.seed, self.shuffle, self.format = data, seed, shuffle, format
        self.bos_id, self.eos_id = bos_id, eos_id
        self.sequence_length, self.window = sequence_length, sequence_length - 2
        self._cut = Cut(format, sequence_length, separators)
        self.tokens_left_out = 0
        self.sources = self._open_sources()
        self.tokens_left_out += sum(samples.tokens_left_out for _, samples in self.sources)
        self.cut_sentences = sum(samples.cut_sentences for _, samples in self.sources)
        # Evaluation repeats nothing: the most frequent source occurs once.
        scale = 1.0 if shuffle else 1 / max(source.repeats for source, _ in self.sources)
        counts = [max(1, round(samples.number * source.repeats * scale)) for source, samples in self.sources]
        self._order = SourceOrder(counts)
        names = (source.name for source, _ in self.sources)
        self.samples_by_source = dict(zip(names, counts, strict=True))
        self.samples_per_epoch = self._order.size
        self._block_size = min(MAX_BLOCK, self.samples_per_epoch)
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._find_block)

    def _open_sources(self) -> tuple[tuple[SourceTokens, SourceSamples], ...]:
        open_source = open_format(self.data, self._cut)
        several, found = len(self.data.sources) > 1, []
        reason = ""
        for source in self.data.sources:
            samples = open_source(
                source, Order((self.seed, source.name) if several else (self.seed,), self.shuffle)
            )
            if source.repeats <= 0:
                continue
            if not isinstance(samples, TooSmall):
                found.append((source, samples))
                continue
            reason = samples.reason
            self.tokens_left_out += source.num_tokens
            if source.num_tokens and several:
                log.warning(
                    "%s: source %r is left out of split %r: %s",
                    *(self.data.folder, source.name, self.data.split, samples.reason),
                )
        if not found:
            raise DataError(self._too_small(reason))
        return tuple(found)

    def _too_small(self, reason: str) -> str:
        several = len(self.data.sources) > 1
        place = f"{self.data.folder}: split {self.data.split!r}"
        if self.format.name == "windows":
            return (
                f"{place} has {self.data.num_tokens} tokens, "
                f"{'but no source in use has as many as' if several else 'fewer than'} one sequence "
                f"({self.window} and two specials); add text or lower sequence_length"
            )
        remedy = "add text or take another format"
        return f"{place} gives no sample of format {self.format.name!r}: {reason}; {remedy}"

    def _find_block(self, block: int) -> Pieces:
        first = block * self._block_size
        samples = np.arange(first, first + self._block_size, dtype=np.int64)
        sources, ranks = self._order.find(samples)
        shape = (len(samples), 2 if self.format.is_pair else 1)
        starts, lengths = np.empty(shape, np.int64), np.empty(shape, np.int64)
        epochs, labels = np.empty_like(samples), np.empty_like(samples)
        for number in np.unique(sources).tolist():
            chosen = sources == number
            found = self.sources[number][1].find(ranks[chosen])
            starts[chosen], lengths[chosen], epochs[chosen] = found.starts, found.lengths, found.epochs
            if found.next_labels is not None:
                labels[chosen] = found.next_labels
        return Pieces(starts, lengths, epochs, labels if self.format.is_pair else None)

    def pieces(self, first: int, count: int) -> Pieces:
        """Where the parts of some samples lie in the split; reads no token.

        Args:
            first: number of the first sample, counted from the start of training.
            count: number of samples.
        """
        size = self._block_size
        blocks = range(first // size, max(first, first + count - 1) // size + 1)
        found = [self._block(block) for block in blocks]
        part = slice(first % size, first % size + count)
        labels = [block.next_labels for block in found if block.next_labels is not None]
        return Pieces(
            np.concatenate([block.starts for block in found])[part],
            np.concatenate([block.lengths for block in found])[part],
            np.concatenate([block.epochs for block in found])[part],
            np.concatenate(labels)[part] if labels else None,
        )

    def starts(self, first: int, count: int) -> tuple[_Int64, _Int64]:
        """Where some samples start in the split, and their epochs; int64, two arrays of (count,)."""
        pieces = self.pieces(first, count)
        return pieces.starts[:, 0], pieces.epochs

    def sample_lengths(self, first: int, count: int) -> _Int64:
        """Tokens of some samples, specials included; int64 of shape (count,). Reads no token."""
        lengths: _Int64 = self.pieces(first, count).lengths.sum(axis=1) + self._cut.num_specials
        return lengths

    def count_for_budget(self, first: int, max_tokens: int) -> int:
        """How many samples from one on fit into a number of tokens; at least 1. Reads no token.

        Args:
            first: number of the first sample, counted from the start of training.
            max_tokens: tokens they may have together, specials included.
        """
        count = total = 0
        while True:
            size = self._block_size - (first + count) % self._block_size
            ends = total + np.cumsum(self.sample_lengths(first + count, size))
            fits = int(np.searchsorted(ends, max_tokens, side="right"))
            if fits < size:
                return max(1, count + fits)
            count, total = count + size, int(ends[-1])

    def expect(self, runs: Sequence[tuple[int, int]]) -> None:
        """Say which samples a coming step reads, so that they are fetched before; local data has no need.

        Args:
            runs: first sample and number of samples of each micro-batch.

        Raises:
            StorageError: the cache is too small for what the coming steps read.
        """
        if self.data.place.files is None or not runs:
            return
        found = [self.pieces(first, count) for first, count in runs]
        self.data.expect(
            np.concatenate([pieces.starts for pieces in found]),
            np.concatenate([pieces.lengths for pieces in found]),
        )

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples `first` to `first + count`, counted from the start of training."""
        pieces = self.pieces(first, count)
        # Side by side, where nobody told of them before: a request takes longer than the rest of a batch.
        self.data.expect(pieces.starts, pieces.lengths, keep=False)
        lengths = pieces.lengths.sum(axis=1) + self._cut.num_specials
        begins = np.cumsum(lengths) - lengths
        # Where each part begins among the N tokens; what no part fills is `</s>`, but for the first.
        places = begins[:, None] + np.ones_like(pieces.lengths)
        places[:, 1:] += pieces.lengths[:, :1] + self._cut.separators
        ids = np.full(int(lengths.sum()), self.eos_id, np.int64)
        ids[begins] = self.bos_id
        positions = np.full(len(ids), -1, np.int64)
        parts = [array.ravel() for array in (places, pieces.starts, pieces.lengths)]
        positions[ranges(parts[0], parts[2])] = ranges(parts[1], parts[2])
        for place, start, length in zip(*(array.tolist() for array in parts), strict=True):
            ids[place : place + length] = self.data.tokens(start, length)
        types = None
        if self.format.is_pair:
            types = np.zeros_like(ids)
            types[ranges(places[:, 1], pieces.lengths[:, 1] + 1)] = 1
        samples = np.arange(first, first + count, dtype=np.int64)
        return TokenBatch(ids, positions, lengths, samples, pieces.epochs, types, pieces.next_labels)
