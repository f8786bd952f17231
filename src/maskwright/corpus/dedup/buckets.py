"""Keys of documents or lines on disk, sorted into buckets, so that equal keys of all parts meet.

A part's file holds its records bucket by bucket; a key's top bits name its bucket. A task takes a range
of buckets and reads only that slice of each part's file. Equal keys always lie in one bucket, so
tasks are independent, and how many buckets a task takes decides its memory and not its result.

    header      int64 [groups, buckets, bytes a record], then where each bucket starts (int64, in records)
    records     key (1 or 2 words of 8 bytes), row, perhaps line; in order of group, bucket, row

Groups are independent sets of keys for the same documents, such as the bands of a signature.
Cost: 12 to 20 bytes a record on disk. Memory of a task: see `group_equal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ...core.files import atomic_open, storage_errors

__all__ = [
    "NUM_BUCKETS",
    "Equal",
    "Excluded",
    "Part",
    "Records",
    "bucket_ranges",
    "group_equal",
    "read_buckets",
    "write_buckets",
]

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]
Part = tuple[int, Path]
Excluded = Mapping[int, Codes]

NUM_BUCKETS = 256
_HEADER_WORDS = 3
_MAX_GROUPS = 1 << 16


class Records(NamedTuple):
    """Records of several parts, by part and, within a part, by bucket and row.

    Attributes:
        keys: uint64 (N,) or (N, 2).
        places: uint32 (N, 2) part and row, or (N, 3) part, row and line.
    """

    keys: Hashes
    places: Codes


class Equal(NamedTuple):
    """Records whose keys occur more than once.

    Attributes:
        members: int64 (M,) record numbers, equal keys together, each group in ascending order.
        starts: int64 (G + 1,); group g is `members[starts[g]:starts[g + 1]]`.
    """

    members: Numbers
    starts: Numbers


def write_buckets(path: Path, keys: Hashes, places: Codes) -> None:
    """Write the records of one part.

    Args:
        path: of the part's file; written whole or not at all.
        keys: uint64 (G, N) for keys of one word in G groups, or (G, N, 2) for keys of two.
        places: uint32 (N,) rows, or (N, 2) rows and lines, ascending; the same for every group.

    Raises:
        StorageError: the storage refused.
    """
    groups = len(keys)
    keys = (keys if keys.ndim == 3 else keys[:, :, None]).astype("<u8", copy=False)
    places = (places if places.ndim == 2 else places[:, None]).astype("<u4", copy=False)
    record_bytes = 8 * keys.shape[2] + 4 * places.shape[1]
    starts = np.zeros(groups * NUM_BUCKETS + 1, "<i8")
    bodies = []
    for group in range(groups):
        bucket = (keys[group, :, 0] >> np.uint64(56)).astype(np.uint8)
        starts[1 + group * NUM_BUCKETS :][:NUM_BUCKETS] = np.bincount(bucket, minlength=NUM_BUCKETS)
        order = np.argsort(bucket, kind="stable")
        columns = (keys[group][order].view("u1"), places[order].view("u1"))
        bodies.append(np.concatenate(columns, axis=1).tobytes())
    with atomic_open(path) as file:
        file.write(np.array([groups, NUM_BUCKETS, record_bytes], "<i8").tobytes())
        file.write(np.cumsum(starts, dtype="<i8").tobytes())
        file.writelines(bodies)


def read_buckets(
    parts: Sequence[Part],
    buckets: range,
    *,
    key_words: int = 1,
    group: int = 0,
    excluded: Excluded | None = None,
) -> Records:
    """Read a range of buckets of all parts.

    Args:
        parts: number and file of each part; sorted by number here.
        buckets: which ones, without gaps; see `bucket_ranges`.
        key_words: words of 8 bytes in a key, 1 or 2.
        group: which set of keys.
        excluded: for a part, its rows to leave out, ascending; parts may be missing.

    Returns:
        The records in ascending order of part.

    Raises:
        DataError: a file is missing or damaged.
    """
    pieces: list[npt.NDArray[np.uint8]] = []
    numbers: list[int] = []
    for number, path in sorted(parts):
        piece = _read_slice(path, group * NUM_BUCKETS + buckets.start, group * NUM_BUCKETS + buckets.stop)
        gone = None if excluded is None else excluded.get(number)
        if gone is not None and len(gone) and len(piece):
            rows = piece[:, 8 * key_words : 8 * key_words + 4].copy().view("<u4").ravel()
            piece = piece[~np.isin(rows, gone)]
        if len(piece):
            pieces.append(piece)
            numbers.append(number)
    if not pieces:
        return Records(np.empty((0, key_words)[:key_words], np.uint64), np.empty((0, 3), np.uint32))
    counts = [len(piece) for piece in pieces]
    keys = np.concatenate([piece[:, : 8 * key_words] for piece in pieces]).view("<u8")
    rest = np.concatenate([piece[:, 8 * key_words :] for piece in pieces]).view("<u4")
    part = np.repeat(np.array(numbers, np.uint32), counts)
    return Records(keys[:, 0] if key_words == 1 else keys, np.column_stack((part, rest)))


def bucket_ranges(num_records: int, bytes_per_record: int, max_bytes: int) -> list[range]:
    """Cut the buckets into ranges of equal size, one a task.

    Args:
        num_records: of all parts together, in one group.
        bytes_per_record: memory that a task needs for one.
        max_bytes: memory that a task may take.

    Returns:
        1 to `NUM_BUCKETS` ranges; a power of two. More records than the finest cut holds take more
        memory.
    """
    tasks = 1
    while tasks < NUM_BUCKETS and num_records * bytes_per_record > max_bytes * tasks:
        tasks *= 2
    size = NUM_BUCKETS // tasks
    return [range(start, start + size) for start in range(0, NUM_BUCKETS, size)]


def group_equal(keys: Hashes) -> Equal:
    """Find the records with equal keys.

    Args:
        keys: uint64 (N,) or (N, 2).

    Returns:
        Groups of two and more, in order of their keys. Memory beside the keys: 26 bytes a record,
        and as much again for each record that has equals.
    """
    first = keys if keys.ndim == 1 else keys[:, 0]
    order = np.argsort(first)  # fast and not stable; the few equals are put in order below
    ordered = first[order]
    new = np.ones(len(first) + 1, bool)
    new[1:-1] = ordered[1:] != ordered[:-1]
    grouped = ~(new[:-1] & new[1:])
    # The number of the group in the high bits and the record in the low ones sort at once.
    bits = len(first).bit_length()
    both = np.cumsum(new[:-1])[grouped] << bits | order[grouped]
    both.sort()
    members, groups = both & (1 << bits) - 1, both >> bits
    new = np.ones(len(members) + 1, bool)
    new[1:-1] = groups[1:] != groups[:-1]
    if keys.ndim == 2 and np.any((keys[members[1:], 1] != keys[members[:-1], 1]) & ~new[1:-1]):
        return _group_by_second(members, groups, keys[members, 1])
    return Equal(members, np.flatnonzero(new))


def _group_by_second(members: Numbers, groups: Numbers, second: Hashes) -> Equal:
    """Cut groups that agree in their first word by their second."""
    order = np.lexsort((members, second, groups))
    members, groups, second = members[order], groups[order], second[order]
    new = np.ones(len(members) + 1, bool)
    new[1:-1] = (groups[1:] != groups[:-1]) | (second[1:] != second[:-1])
    starts = np.flatnonzero(new)
    sizes = np.diff(starts)
    kept = sizes > 1
    return Equal(
        members[np.repeat(kept, sizes)], np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes[kept])))
    )


def _read_slice(path: Path, first: int, stop: int) -> npt.NDArray[np.uint8]:
    """The records of some buckets as rows of bytes."""
    try:
        with storage_errors(path), path.open("rb") as file:
            header = np.fromfile(file, "<i8", _HEADER_WORDS)
            groups, buckets, record_bytes = (*header.tolist(), 0, 0, 0)[:_HEADER_WORDS]
            known = buckets == NUM_BUCKETS and 0 < groups <= _MAX_GROUPS
            starts = np.fromfile(file, "<i8", groups * buckets + 1 if known else 0)
            body = 8 * (_HEADER_WORDS + len(starts))
            if not len(starts) or path.stat().st_size != body + starts[-1] * record_bytes:
                raise DataError(f"{path}: is damaged or cut off; remove it and run the same command again")
            count = int(starts[stop] - starts[first])
            file.seek(body + int(starts[first]) * record_bytes)
            return np.fromfile(file, np.uint8, count * record_bytes).reshape(count, record_bytes)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; run the same command again") from None
