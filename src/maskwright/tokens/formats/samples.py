"""What all input formats share: how data is cut, in which order, and where a sample's tokens lie.

Legend: B samples, P parts of a sample (1, or 2 for pairs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...core.errors import ConfigError
from ...core.keyed import derive_key
from .config import FormatConfig

__all__ = ["Cut", "Order", "Pieces", "SourceSamples", "TooSmall", "ranges"]

Int64 = npt.NDArray[np.int64]


def ranges(first: Int64, sizes: Int64) -> Int64:
    """The numbers of some ranges, one range after the other; int64.

    Args:
        first: number that each begins with; int64, (R,).
        sizes: how many numbers each has; int64, (R,).
    """
    return np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


@dataclass(frozen=True)
class Cut:
    """How data is cut into samples.

    Attributes:
        format: name and options.
        sequence_length: S, most tokens of a sample, specials included.
        separators: `</s>` between two parts.

    Raises:
        ConfigError: a pair does not fit into the sequence length.
    """

    format: FormatConfig
    sequence_length: int
    separators: int = 2

    def __post_init__(self) -> None:
        assert self.separators in (1, 2)
        if self.room < (2 if self.format.is_pair else 1):
            raise ConfigError(
                f'"sequence_length" is {self.sequence_length}, too few for format {self.format.name!r} with '
                f"its {self.num_specials} specials; raise it"
            )

    @property
    def num_specials(self) -> int:
        """Tokens that are added to a sample."""
        return 2 + (self.separators if self.format.is_pair else 0)

    @property
    def room(self) -> int:
        """Most tokens of the data in a sample."""
        return self.sequence_length - self.num_specials

    @property
    def longest_unit(self) -> int:
        """Longest sentence that stays whole; in a pair it leaves as much room for the other part."""
        return self.room // 2 if self.format.is_pair else self.room


@dataclass(frozen=True)
class Order:
    """What decides the order of a source's samples.

    Attributes:
        key: what all keys begin with: the seed, and the source where there are several.
        shuffle: whether order, offsets and pairs differ between epochs.
    """

    key: tuple[int | str, ...]
    shuffle: bool

    def derive(self, purpose: str, epoch: int) -> int:
        """The key of a purpose in an epoch."""
        seed, *source = self.key
        return derive_key(seed, purpose, *source, epoch)


@dataclass(frozen=True)
class Pieces:
    """Where the tokens of some samples lie in the split.

    Attributes:
        starts: position of the first token of each part; int64, (B, P).
        lengths: tokens of each part; int64, (B, P).
        epochs: epoch of each sample, counted for its own source; int64, (B,).
        next_labels: 0 where the second part follows the first, 1 where it is a random one; int64, (B,),
            None for one part.
    """

    starts: Int64
    lengths: Int64
    epochs: Int64
    next_labels: Int64 | None = None


class SourceSamples(Protocol):
    """The samples of one source. A seam: the stream knows this much of a format."""

    @property
    def number(self) -> int:
        """Samples of an epoch."""
        ...

    @property
    def num_used(self) -> int:
        """Tokens of the data that an epoch has, random second parts not counted."""
        ...

    @property
    def tokens_left_out(self) -> int:
        """Tokens of the data that an epoch lacks; not a closing `</s>` where a sample ends anyway."""
        ...

    @property
    def cut_sentences(self) -> int:
        """Sentences that were too long to stay whole."""
        ...

    def find(self, ranks: Int64) -> Pieces:
        """Look up samples of this source, numbered from the start of training; int64 of shape (B,)."""
        ...


@dataclass(frozen=True)
class TooSmall:
    """A source that gives no sample, and why."""

    reason: str
