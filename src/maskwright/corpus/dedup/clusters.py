"""Clusters of near-duplicates from pairs, and which document of each stays.

Similarity is taken as transitive: what is joined by a chain of similar pairs is one cluster, even where
its ends have grown apart. One document of a cluster stays: the longest in characters, or the first in
the order of parts and rows where the rule says so or where several are equally long.

Pairs are streamed from their files, twice. Only documents that have a partner are nodes, in flat arrays;
components do not depend on the order of pairs. Cost: `BYTES_PER_NODE` a node at the peak, plus 64 MiB;
about a million pairs a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .buckets import Numbers, Part
from .tables import DROPS, load_array

__all__ = [
    "BYTES_PER_NODE",
    "Cluster",
    "ClusterStatistics",
    "Components",
    "KeepRule",
    "choose_copies",
    "connect",
]

KeepRule = Literal["longest", "first"]
Place = tuple[int, int]

BYTES_PER_NODE = 80

_CHUNK_EDGES = 1 << 19
_NUM_LARGEST = 20
_NUM_SHOWN = 5


class Components(NamedTuple):
    """Documents that have a partner, and what joins them.

    Attributes:
        places: int64 (N,), `part << 32 | row`, ascending.
        roots: int64 (N,), number of the first document of the same cluster among `places`.
    """

    places: Numbers
    roots: Numbers


class Cluster(NamedTuple):
    """A group of near-duplicates.

    Attributes:
        size: documents in it, the kept one included.
        kept: part and row of the one that stays.
        dropped: parts and rows of others, at most five, in order.
    """

    size: int
    kept: Place
    dropped: tuple[Place, ...]


class ClusterStatistics(NamedTuple):
    """What the audit tells about clusters.

    Attributes:
        documents: how many are dropped.
        clusters: how many there are.
        cluster_sizes: clusters by size: `2`, `3-4`, `5-8` and so on.
        largest: the twenty largest, ties in order of the kept document.
    """

    documents: int
    clusters: int
    cluster_sizes: dict[str, int]
    largest: tuple[Cluster, ...]


def connect(edges: Sequence[Path]) -> Components:
    """Find the connected components of pairs.

    Args:
        edges: files of int64 (E, 2), from `band_edges` and `save_array`.

    Returns:
        All documents of all pairs.

    Raises:
        DataError: a file is missing or damaged.
    """
    places = _nodes(edges)
    parents = np.arange(len(places))
    for chunk in _chunks(edges):
        _unite(parents, np.searchsorted(places, chunk))
    return Components(places, _find(parents, np.arange(len(places))))


def choose_copies(
    components: Components, lengths: Sequence[Part], rule: KeepRule
) -> tuple[npt.NDArray[Any], ClusterStatistics]:
    """Choose the document of each cluster that stays.

    Args:
        components: from `connect`.
        lengths: number of each part, and the file of its documents' lengths in characters: integers
            (N,) by row, from `save_array`.
        rule: `longest` or `first`.

    Returns:
        A table of `DROPS` by part and row, and what the audit tells.

    Raises:
        DataError: a file is missing or damaged.
    """
    places, roots = components
    if rule == "longest":
        order = np.lexsort((places, -_lengths(places, lengths), roots))
    else:
        order = np.lexsort((places, roots))
    ordered = roots[order]
    new = np.ones(len(places), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(places)))
    copies = places[order[~new]]
    keepers = np.repeat(places[order[starts]], sizes - 1)
    drops = np.empty(len(copies), DROPS)
    drops["part"], drops["row"] = copies >> 32, copies & 0xFFFF_FFFF
    drops["keeper_part"], drops["keeper_row"] = keepers >> 32, keepers & 0xFFFF_FFFF
    drops["size"] = np.repeat(sizes, sizes - 1)
    clusters = [places[order[start : start + size]] for start, size in _largest(starts, sizes, places[order])]
    statistics = ClusterStatistics(
        len(copies), len(sizes), _histogram(sizes), tuple(_cluster(members) for members in clusters)
    )
    return drops[np.lexsort((drops["row"], drops["part"]))], statistics


def _chunks(edges: Sequence[Path]) -> Iterator[Numbers]:
    for path in edges:
        array = load_array(path)
        for start in range(0, len(array), _CHUNK_EDGES):
            yield np.array(array[start : start + _CHUNK_EDGES])


def _nodes(edges: Sequence[Path]) -> Numbers:
    """All places of all pairs, ascending; new ones are merged when they are as many as the old ones."""
    places, waiting, num_waiting = np.empty(0, np.int64), list[Numbers](), 0
    for chunk in _chunks(edges):
        waiting.append(_distinct(chunk.ravel()))
        num_waiting += len(waiting[-1])
        if num_waiting >= max(len(places), _CHUNK_EDGES):
            places, waiting, num_waiting = _distinct(np.concatenate([places, *waiting])), [], 0
    return _distinct(np.concatenate([places, *waiting]))


def _distinct(values: Numbers) -> Numbers:
    """As `np.unique`, but sorted in place by vector instructions, several times faster."""
    values.sort()
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    return values[new]


def _find(parents: Numbers, nodes: Numbers) -> Numbers:
    """The roots of nodes; each node's way there becomes one step, halved in every round."""
    while True:
        roots = parents[nodes]
        higher = parents[roots]
        if np.array_equal(higher, roots):
            return roots
        parents[nodes] = higher


def _unite(parents: Numbers, pairs: Numbers) -> None:
    """Join the trees of pairs (E, 2). A root always goes below a smaller one, so there are no cycles."""
    while len(pairs):
        roots = _find(parents, pairs.ravel()).reshape(-1, 2)
        roots.sort(axis=1)
        pairs = roots[roots[:, 0] != roots[:, 1]]
        # Of several smaller roots the smallest wins; the other pairs are looked at again.
        np.minimum.at(parents, pairs[:, 1], pairs[:, 0])


def _lengths(places: Numbers, lengths: Sequence[Part]) -> Numbers:
    """Length in characters of each document."""
    files = dict(lengths)
    numbers, starts = np.unique(places >> 32, return_index=True)
    result = np.empty(len(places), np.int64)
    stops = np.append(starts, len(places))[1:]
    for number, start, stop in zip(numbers.tolist(), starts, stops, strict=True):
        result[start:stop] = load_array(files[number])[places[start:stop] & 0xFFFF_FFFF]
    return result


def _largest(starts: Numbers, sizes: Numbers, ordered: Numbers) -> list[tuple[int, int]]:
    chosen = np.lexsort((ordered[starts], -sizes))[:_NUM_LARGEST]
    return list(zip(starts[chosen].tolist(), sizes[chosen].tolist(), strict=True))


def _cluster(members: Numbers) -> Cluster:
    """Describe a cluster whose first member stays."""
    kept, *dropped = [(place >> 32, place & 0xFFFF_FFFF) for place in members.tolist()]
    return Cluster(len(members), kept, tuple(sorted(dropped)[:_NUM_SHOWN]))


def _histogram(sizes: Numbers) -> dict[str, int]:
    """Count sizes in ranges that end at powers of two."""
    exponents, counts = np.unique(np.ceil(np.log2(sizes)).astype(int), return_counts=True)
    names = ["2" if top == 1 else f"{(1 << top - 1) + 1}-{1 << top}" for top in exponents.tolist()]
    return dict(zip(names, counts.tolist(), strict=True))
