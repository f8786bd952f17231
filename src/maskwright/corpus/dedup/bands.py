"""Locality-sensitive hashing: find pairs of similar signatures without comparing all of them.

A signature is cut into bands of rows. Documents that agree in all rows of a band meet in that band's
bucket; with b bands of r rows, a pair of similarity s meets at least once with the probability
1 - (1 - s**r)**b. Pairs that met are then judged by their whole signatures.

Each band can be worked on by itself, in ranges of buckets, in any order. In a group that met, the first
document leads: all that are similar to it are joined to it; the first of the rest leads next, and so on
for at most `MAX_LEADERS`. Two similar documents are missed in this band if both were not joined to
the same leader; other bands or the union of clusters mostly join them.

A group too large for the memory is cut into pieces that share its first document.

Cost: 12 bytes a document and band on disk; `BYTES_PER_BAND` a document in a task, plus some 200 MiB to
compare signatures, which are read only for documents that met.

Source: Leskovec, Rajaraman and Ullman, "Mining of massive datasets", section 3.4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...core.keyed import derive_key, hash64
from .buckets import Excluded, Hashes, Numbers, Part, group_equal, read_buckets, write_buckets
from .signatures import Signatures, has_signature, similarity
from .tables import load_array

__all__ = [
    "BYTES_PER_BAND",
    "MAX_LEADERS",
    "Bands",
    "band_edges",
    "band_keys",
    "choose_bands",
    "meeting_probability",
    "probability_curve",
    "write_bands",
]

BYTES_PER_BAND = 64
MAX_LEADERS = 64

_MIN_RECALL = 0.9
_CURVE_POINTS = 20
_CHUNK_BYTES = 1 << 26


class Bands(NamedTuple):
    """How a signature is cut.

    Attributes:
        bands: how many bands.
        rows: places of the signature in each. `bands * rows` may be less than the signature has.
    """

    bands: int
    rows: int


def choose_bands(num_perm: int, threshold: float) -> Bands:
    """Choose how to cut signatures.

    Takes the longest bands, which bring the fewest pairs in vain, with which a pair at the threshold
    still meets with a probability of 0.9. With 128 places and 0.8: 16 bands of 8 rows.

    Args:
        num_perm: places of a signature.
        threshold: similarity from which texts count as copies, in (0, 1].
    """
    fitting = (
        rows
        for rows in range(num_perm, 1, -1)
        if meeting_probability(Bands(num_perm // rows, rows), threshold) >= _MIN_RECALL
    )
    rows = next(fitting, 1)
    return Bands(num_perm // rows, rows)


def meeting_probability(bands: Bands, similarity: float) -> float:
    """The probability that a pair of texts of some similarity meets in at least one band."""
    return float(1 - (1 - similarity**bands.rows) ** bands.bands)


def probability_curve(bands: Bands) -> list[list[float]]:
    """`meeting_probability` at 21 similarities from 0 to 1, as pairs, for the report."""
    points = [point / _CURVE_POINTS for point in range(_CURVE_POINTS + 1)]
    return [[point, round(meeting_probability(bands, point), 6)] for point in points]


def band_keys(signatures: Signatures, bands: Bands) -> Hashes:
    """One key for each band of each signature.

    Args:
        signatures: uint32 (N, num_perm).
        bands: how to cut.

    Returns:
        uint64 (bands, N). Different bands share a key with a probability of 2**-64.
    """
    keys = np.zeros((bands.bands, len(signatures)), np.uint64)
    factors = _factors(bands.bands * bands.rows)
    for place in range(bands.bands * bands.rows):
        keys[place // bands.rows] += signatures[:, place] * factors[place]
    keys ^= keys >> np.uint64(32)  # the product's top bits say least about the low bits of a place
    keys *= np.uint64(0xD6E8_FEB8_6659_FD93)
    keys ^= keys >> np.uint64(32)
    return keys


def write_bands(path: Path, signatures: Signatures, bands: Bands) -> None:
    """Write the band keys of one part; documents without a word are left out.

    Args:
        path: of the part's file; written whole or not at all.
        signatures: uint32 (N, num_perm), by row.
        bands: how to cut.

    Raises:
        StorageError: the storage refused.
    """
    rows = np.flatnonzero(has_signature(signatures)).astype(np.uint32)
    write_buckets(path, band_keys(signatures[rows], bands), rows)


def band_edges(
    parts: Sequence[Part],
    signatures: Sequence[Part],
    band: int,
    buckets: range,
    min_similarity: float,
    excluded: Excluded,
) -> Numbers:
    """Find similar documents that meet in one band, in some buckets.

    Args:
        parts: number and file of each part, from `write_bands`.
        signatures: number and file of each part's signatures, from `save_array`.
        band: number of the band.
        buckets: see `bucket_ranges`.
        min_similarity: estimated similarity from which a pair counts.
        excluded: rows to leave out, by part, such as exact copies; see `excluded_rows`.

    Returns:
        int64 (E, 2): pairs of places `part << 32 | row`, the leader first.

    Raises:
        DataError: a file is missing or damaged.
    """
    records = read_buckets(parts, buckets, group=band, excluded=excluded)
    equal = group_equal(records.keys)
    found = records.places[equal.members].astype(np.int64)
    places = found[:, 0] << 32 | found[:, 1]
    files = dict(signatures)
    edges = [np.empty((0, 2), np.int64)]
    for here, starts in _chunks(places, equal.starts, _max_rows(files)):
        edges += _join(here, starts, _read_signatures(files, here), min_similarity)
    return np.concatenate(edges)


def _join(places: Numbers, starts: Numbers, rows: Signatures, min_similarity: float) -> list[Numbers]:
    """Join the members of some groups to their leaders; `rows` are their signatures."""
    edges = []
    group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    for _ in range(MAX_LEADERS):
        if not len(group):
            break
        new = np.ones(len(group), bool)
        new[1:] = group[1:] != group[:-1]
        leader = np.flatnonzero(new)[np.cumsum(new) - 1]
        alike = similarity(rows[leader], rows) >= min_similarity
        joined = alike & ~new
        edges.append(np.column_stack((places[leader[joined]], places[joined])))
        left = ~(alike | new)
        places, group, rows = places[left], group[left], rows[left]
    return edges


def _chunks(places: Numbers, starts: Numbers, limit: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Cut groups into runs of at most `limit` members: their places, and where each group starts.

    Groups stay whole, except for those above the limit; their pieces all begin with their first member.
    """
    first = 0
    while first < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[first] + limit, "right")) - 1
        if stop > first:
            here = starts[first : stop + 1]
            yield places[here[0] : here[-1]], here - here[0]
        else:
            stop = first + 1
            group = places[starts[first] : starts[stop]]
            for place in range(1, len(group), limit - 1):
                piece = np.concatenate((group[:1], group[place : place + limit - 1]))
                yield piece, np.array([0, len(piece)])
        first = stop


def _max_rows(files: dict[int, Path]) -> int:
    width = max((load_array(path).shape[1] for path in list(files.values())[:1]), default=1)
    return max(_CHUNK_BYTES // (4 * width), 2)


def _read_signatures(files: dict[int, Path], places: Numbers) -> Signatures:
    """The signatures of documents, each part's file opened once."""
    parts, rows = places >> 32, places & 0xFFFF_FFFF
    order = np.argsort(places, kind="stable")
    numbers, starts = np.unique(parts[order], return_index=True)
    result: Signatures | None = None
    for number, here in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        found = load_array(files[number])
        if result is None:
            result = np.empty((len(places), found.shape[1]), np.uint32)
        result[here] = found[rows[here]]
    assert result is not None, "a chunk of groups has members"
    return result


@functools.cache
def _factors(count: int) -> Hashes:
    """Odd 64-bit numbers, one for each place of a signature."""
    return hash64(derive_key("dedup", "bands"), np.arange(count)).view(np.uint64) | np.uint64(1)
