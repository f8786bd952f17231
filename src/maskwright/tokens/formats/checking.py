"""A check against bias of the sampler: everything comes once an epoch, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .samples import Int64, SourceSamples

if TYPE_CHECKING:
    from ..stream import SampleStream

__all__ = ["check_samples"]

# Samples looked up at once.
_BLOCK = 1 << 14


def check_samples(stream: SampleStream, num_samples: int = 1 << 15, first: int = 0) -> str | None:
    """Look whether tokens come twice in an epoch of their source, and whether a whole epoch has them all.

    Random second parts of pairs do not count. No token is read; the cost is that of the order (some ten
    microseconds a sample, for pairs some tens) and about 100 bytes a sample.

    Args:
        stream: samples of any format.
        num_samples: how many to look at. Whether nothing is missing is told for those epochs of a source
            that lie in them whole.
        first: number of the first.

    Returns:
        None, or a message that names the fault.
    """
    parts, too_long = _real_parts(stream, first, num_samples)
    if too_long is not None:
        return f"{too_long}; {_REMEDY}"
    for source, samples in stream.sources:
        inside = (parts[0] >= source.first) & (parts[0] < source.first + source.num_tokens)
        epochs = parts[2][inside]
        for epoch in np.unique(epochs).tolist():
            mine = parts[:, inside][:, epochs == epoch]
            fault = _fault(mine, source.first + source.num_tokens, samples)
            if fault is not None:
                return f"source {source.name!r}, epoch {epoch}: {fault}; {_REMEDY}"
    return None


_REMEDY = "the model would see some text more often than other; report this fault of the input format"


def _real_parts(stream: SampleStream, first: int, count: int) -> tuple[Int64, str | None]:
    """What samples hold as their own: rows of starts, stops, epochs and numbers of the part; and a fault."""
    found = [np.empty((4, 0), np.int64)]
    for begin in range(first, first + count, _BLOCK):
        size = min(_BLOCK, first + count - begin)
        pieces, lengths = stream.pieces(begin, size), stream.sample_lengths(begin, size)
        worst = int(lengths.argmax())
        if lengths[worst] > stream.sequence_length:
            return found[0], (
                f"sample {begin + worst} has {lengths[worst]} tokens, the sequence length is "
                f"{stream.sequence_length}"
            )
        numbers = np.zeros_like(pieces.starts)
        numbers[:, 1:] = 1
        own = numbers == 0
        if pieces.next_labels is not None:
            own |= (pieces.next_labels == 0)[:, None]
        epochs = np.broadcast_to(pieces.epochs[:, None], own.shape)
        columns = (pieces.starts, pieces.starts + pieces.lengths, epochs, numbers)
        found.append(np.stack([column[own] for column in columns]))
    return np.concatenate(found, axis=1), None


def _fault(parts: Int64, end: int, samples: SourceSamples) -> str | None:
    """What is wrong with parts of an epoch of a source that ends at a position."""
    order = np.argsort(parts[0], kind="stable")
    starts, stops, numbers = (parts[row, order] for row in (0, 1, 3))
    if stops.max() > end:
        return f"a sample goes on to token {stops.max()}, the source ends at {end}"
    twice = np.flatnonzero(starts[1:] < stops[:-1])
    if len(twice):
        return f"token {starts[1:][twice[0]]} comes twice"
    num_tokens = int((stops - starts).sum())
    if np.count_nonzero(numbers == 0) == samples.number and num_tokens != samples.num_used:
        return f"its samples have {num_tokens} tokens, they should have {samples.num_used}"
    return None
