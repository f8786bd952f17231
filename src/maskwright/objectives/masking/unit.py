"""What the units of masking have in common: the calls they answer and where they learn of words.

A unit draws for positions, never for batches: every answer is a pure function of (seed, epoch,
position). NumPy arrays and torch tensors give identical answers. Where words lie is known on the
host, so a tensor on an accelerator is copied there and back for whole words and spans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["Draw", "Unit", "WordBorders", "from_host", "host_word_starts", "to_host"]

ArrayT = TypeVar("ArrayT", "npt.NDArray[Any]", "torch.Tensor")


class WordBorders(Protocol):
    """Where words and documents begin; the seam to `tokens`, where spelling and files decide it.

    Both are pure functions of data and position. A word never crosses a document. The `</s>` that
    closes a document belongs to it and is a word of its own.
    """

    def starts(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Position of the first token of the word of each position; -1 stays -1. Same shape."""
        ...

    def document_starts(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Position of the first token of the document of each position; -1 stays -1. Same shape."""
        ...


class Draw(NamedTuple):
    """What a unit decides for each position.

    Attributes:
        chosen: whether it is masked, if it may be; booleans of the shape of the positions.
        leaders: whose draw decides between `<mask>`, a random token and the token; int64, same shape.
        words: which positions are masked together; int64, same shape. None: each by itself.
    """

    chosen: Any
    leaders: Any
    words: Any


class Unit(Protocol):
    """One way to choose tokens. Each file beside this one with an algorithm holds one."""

    def draw(self, positions: ArrayT, epoch: int, rate: float) -> Draw:
        """Choose among positions.

        Args:
            positions: places in the corpus, int64 of any shape; what comes out at -1 is not used.
            epoch: number of the masking.
            rate: share of positions that is chosen on average.
        """
        ...

    def clustering(self, rate: float) -> float:
        """Variance of the number of chosen words as a multiple of the binomial one."""
        ...


def to_host(values: ArrayT) -> npt.NDArray[Any]:
    """The values as a NumPy array."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def from_host(values: npt.NDArray[Any], example: ArrayT) -> ArrayT:
    """The values as what `example` is: a NumPy array, or a tensor on the same device."""
    if isinstance(example, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(example.device)


def host_word_starts(borders: WordBorders, positions: ArrayT) -> npt.NDArray[np.int64]:
    """Where the word of each position begins, in the shape of the positions; -1 stays -1."""
    return borders.starts(to_host(positions))
