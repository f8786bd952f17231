"""Drop lines that stood in the corpus before: menus, notices, boilerplate.

As in CCNet, lines are compared by their letters and digits alone, in lower case and with all digits
alike, and short lines are left in peace, because "Yes." may well come twice. Of equal lines the first in
the order of part, row and line stays. Documents that are dropped as a whole do not count.

Keys have 64 bits. In a corpus of N different lines a given line is removed by mistake with a
probability of about N / 2**64: 5e-10 for ten billion lines, some five lines in all.

Cost: about 10 ns a character to hash; 16 bytes a line on disk; `BYTES_PER_LINE` in a task.

Source: Wenzek et al., "CCNet: extracting high quality monolingual datasets from web crawl data",
LREC 2020, section 3.1. There, accents are stripped too, and shards see only their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .buckets import Excluded, Part, group_equal, read_buckets, write_buckets
from .tables import LINE_DROPS
from .words import hash_lines

__all__ = ["BYTES_PER_LINE", "remove_lines", "repeated_lines", "write_lines"]

BYTES_PER_LINE = 72


def write_lines(path: Path, texts: Sequence[str], min_line_characters: int) -> int:
    """Hash and write the lines of one part.

    Args:
        path: of the part's file; written whole or not at all.
        texts: of its documents, by row.
        min_line_characters: lines with fewer letters and digits are exempt.

    Returns:
        How many lines were written.

    Raises:
        StorageError: the storage refused.
    """
    lines = hash_lines(texts, min_line_characters)
    write_buckets(path, lines.keys[None], np.column_stack((lines.texts, lines.lines)))
    return len(lines.keys)


def repeated_lines(parts: Sequence[Part], buckets: range, excluded: Excluded) -> npt.NDArray[Any]:
    """Find the lines of all parts that repeat an earlier one, among those in some buckets.

    Args:
        parts: number and file of each part, from `write_lines`.
        buckets: see `bucket_ranges`.
        excluded: rows of documents that were dropped, by part; see `excluded_rows`.

    Returns:
        A table of `LINE_DROPS` by part, row and line.

    Raises:
        DataError: a file is missing or damaged.
    """
    records = read_buckets(parts, buckets, excluded=excluded)
    equal = group_equal(records.keys)
    later = np.ones(len(equal.members), bool)
    later[equal.starts[:-1]] = False
    places = records.places[np.sort(equal.members[later])]
    drops = np.empty(len(places), LINE_DROPS)
    drops["part"], drops["row"], drops["line"] = places[:, 0], places[:, 1], places[:, 2]
    return drops[np.lexsort((drops["line"], drops["row"], drops["part"]))]


def remove_lines(text: str, line_numbers: Iterable[int]) -> str:
    """A text without some of its lines.

    Args:
        text: lines end with a line feed.
        line_numbers: from 0.
    """
    gone = set(line_numbers)
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in gone)
