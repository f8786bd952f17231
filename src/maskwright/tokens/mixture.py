"""Several sources in one stream: how often each occurs, and in which order they take turns.

An epoch of the mixture holds a fixed number of samples of every source. Which source sample `i`
comes from is a closed formula: a binary tree over the sources, in which each node hands the samples
that reach it to its two sides by rounding (Bresenham's line). Every prefix therefore has the asked
proportions, and any place costs the same. Cost: a few vector operations a source for a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.config import nearest_name
from ..core.errors import ConfigError

__all__ = ["SourceOrder", "resolve_mixture"]

# Products of 64 bits may wrap in `_share`; up to here the remainder they leave is still exact.
MAX_SAMPLES = 1 << 50


def resolve_mixture(
    tokens: Mapping[str, int],
    *,
    weights: Mapping[str, float] | None = None,
    temperature: float | None = None,
    epochs: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """How often the tokens of each source occur in one epoch of the training split.

    Weights and temperature decide the shares of the sources. The length of the epoch is then as many
    tokens as all sources with a share have together, so a source with more than its natural share is
    repeated and one with less is used in part. With none of the three every token occurs once.

    Args:
        tokens: training tokens by source.
        weights: share of each source, of any sum; every source has one, 0 leaves it out.
        temperature: T > 0; shares are proportional to `tokens ** (1 / T)`. 1 keeps the natural
            shares, a large T makes all sources equal.
        epochs: how often a source occurs; 1 where it is not named, 0 leaves it out.

    Returns:
        Repeats by source, not negative.

    Raises:
        ConfigError: more than one way was given, or one that does not fit the sources.

    Source: the temperature is that of Arivazhagan et al. 2019 (arXiv 1907.05019).
    """
    given = {"weights": weights, "temperature": temperature, "epochs": epochs}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"mixture: {' and '.join(named)} are both given; keep one of them")
    if epochs is not None:
        _check_numbers("epochs", epochs, tokens)
        repeats = {name: float(epochs.get(name, 1.0)) for name in tokens}
        if tokens and not any(repeats[name] > 0 and tokens[name] for name in tokens):
            raise ConfigError("mixture.epochs leaves no tokens; give a source with tokens more than 0")
        return repeats
    if weights is not None:
        return _repeats_of_shares(tokens, _weights(weights, tokens))
    if temperature is not None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ConfigError(f"mixture.temperature is {temperature}, expected a number above 0")
        largest = max(tokens.values(), default=0) or 1
        shares = {name: (count / largest) ** (1 / temperature) for name, count in tokens.items()}
        return _repeats_of_shares(tokens, shares)
    return dict.fromkeys(tokens, 1.0)


def _check_numbers(kind: str, values: Mapping[str, float], tokens: Mapping[str, int]) -> None:
    for name, value in values.items():
        if name not in tokens:
            raise ConfigError(
                f"mixture.{kind}: there is no source {name!r}{nearest_name(name, list(tokens))}"
            )
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"mixture.{kind}.{name} is {value}, expected a number of 0 or more")


def _weights(weights: Mapping[str, float], tokens: Mapping[str, int]) -> Mapping[str, float]:
    _check_numbers("weights", weights, tokens)
    missing = [name for name in tokens if name not in weights]
    if missing:
        raise ConfigError(
            f"mixture.weights has no {', '.join(missing)}; give every source one, 0 leaves it out"
        )
    for name, weight in weights.items():
        if weight and not tokens[name]:
            raise ConfigError(
                f"mixture.weights.{name} is {weight}, but the source has no training tokens; "
                "look at its drops in audit.json, or set the weight to 0"
            )
    if not any(weights.values()):
        raise ConfigError("mixture.weights are all 0; give a source more")
    return weights


def _repeats_of_shares(tokens: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    epoch = sum(count for name, count in tokens.items() if shares[name])
    total = math.fsum(shares.values())
    return {
        name: shares[name] / total * epoch / count if shares[name] and count else 0.0
        for name, count in tokens.items()
    }


@dataclass(frozen=True)
class _Node:
    """A part of the tree: one source, or two parts that take turns."""

    size: int
    source: int = -1
    sides: tuple[_Node, _Node] | None = None


class SourceOrder:
    """Which source each sample of a mixture comes from.

    For every prefix of `i` samples, the samples of a source differ from `i * count / size` by at
    most `deviation`. That is below 1 for up to four sources, and was below 1.25 for every mixture
    tried. A bound of 1 for any number of sources is known for orders that are made one sample after
    the other (Tijdeman 1980, "The chairman assignment problem"), not for one with a formula; taking
    turns by virtual time alone is off by up to half the number of sources.

    Args:
        counts: samples of each source in an epoch; positive.

    Attributes:
        counts: as given.
        size: samples of an epoch.
        deviation: bound on the difference in samples.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        assert min(counts) > 0
        assert sum(counts) <= MAX_SAMPLES
        self.counts, self.size = tuple(counts), sum(counts)
        self._root = _build(counts)
        self.deviation = max(_deviations(self._root))

    def find(self, samples: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Look up some samples.

        Args:
            samples: numbers counted from the start of training, over all epochs; int64 of shape (B,).

        Returns:
            `(sources, ranks)`: number of the source of each, and which sample of that source it is,
            counted from the start of training; int64, two arrays of (B,).
        """
        epochs, within = np.divmod(samples, self.size)
        sources, ranks = np.empty_like(samples), np.empty_like(samples)
        for node, rows, numbers in _descend(self._root, np.arange(len(samples)), within):
            sources[rows] = node.source
            ranks[rows] = epochs[rows] * node.size + numbers
        return sources, ranks


def _descend(
    node: _Node, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
) -> Iterator[tuple[_Node, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Follow samples, given by their numbers in the node, down to their sources."""
    if not len(rows):
        return
    if node.sides is None:
        yield node, rows, numbers
        return
    left, right = node.sides
    before = _share(numbers, left.size, node.size)
    is_left = _share(numbers + 1, left.size, node.size) > before
    yield from _descend(left, rows[is_left], before[is_left])
    yield from _descend(right, rows[~is_left], (numbers - before)[~is_left])


def _share(numbers: npt.NDArray[np.int64], part: int, whole: int) -> npt.NDArray[np.int64]:
    """`numbers * part / whole` rounded half up, exactly, for numbers up to `whole`.

    The quotient of floats is off by one or two at most. What remains is small, so it survives the
    products wrapping at 64 bits, and it corrects the quotient.
    """
    about = np.floor(numbers * (part / whole)).astype(np.int64)
    rest = numbers * part + whole // 2 - about * whole
    corrected: npt.NDArray[np.int64] = about + rest // whole
    return corrected


def _build(counts: Sequence[int]) -> _Node:
    """Add the sources to the tree from the largest to the smallest, each where it costs least."""
    order = sorted(range(len(counts)), key=lambda source: (-counts[source], source))
    leaves = [_Node(counts[source], source) for source in order]
    root = leaves[0]
    for leaf in leaves[1:]:
        root = min(_placements(root, leaf), key=lambda tree: max(_deviations(tree)))
    return root


def _pair(left: _Node, right: _Node) -> _Node:
    return _Node(left.size + right.size, sides=(left, right))


def _placements(node: _Node, leaf: _Node) -> Iterator[_Node]:
    """Every tree that has the leaf beside one of the parts of this one."""
    yield _pair(node, leaf)
    if node.sides is not None:
        left, right = node.sides
        yield from (_pair(tree, right) for tree in _placements(left, leaf))
        yield from (_pair(left, tree) for tree in _placements(right, leaf))


def _deviations(root: _Node) -> Iterator[float]:
    """Bound of each source: half a sample from every rounding on its way, scaled to its share there."""
    if root.sides is None:
        yield 0.0
        return
    pending = [(side, 0.0) for side in root.sides]
    while pending:
        node, above = pending.pop()
        above += 0.5 / node.size
        if node.sides is None:
            yield node.size * above
        else:
            pending += [(side, above) for side in node.sides]
