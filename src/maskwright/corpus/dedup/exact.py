"""Drop documents whose text was seen before, letter for letter.

The text is compared by a 128-bit BLAKE2b digest, so two different texts meet with a probability
below 1e-20 in a corpus of a billion documents. Put this after normalising. Inside one task of reading,
`ExactDedup` drops copies as they come. Across tasks, digests go to disk in buckets, and any number of
independent tasks finds the copies in ranges of buckets. Of equal documents the first in the order of
parts and rows stays, however the work was cut.

Cost: 24 to 48 bytes a distinct document in `ExactDedup` (`DigestSet`), plus the names of the first
documents, of which a fixed number is remembered; 20 bytes a document on disk; `BYTES_PER_DIGEST` in a
task across parts, which compares five to ten million documents a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..document import Document, Drop
from .buckets import Equal, Hashes, Part, Records, group_equal, read_buckets, write_buckets
from .digest_set import DigestSet
from .tables import DROPS

__all__ = [
    "BYTES_PER_DIGEST",
    "ExactDedup",
    "bytes_digest",
    "digest_array",
    "exact_duplicates",
    "text_digest",
    "write_digests",
]

BYTES_PER_DIGEST = 96

_REMEMBERED_IDS = 100_000


def text_digest(text: str) -> bytes:
    """The 16-byte BLAKE2b digest of a text as UTF-8; half surrogates are allowed."""
    return bytes_digest(text.encode("utf-8", "surrogatepass"))


def bytes_digest(data: bytes) -> bytes:
    """`text_digest` of a text that is UTF-8 already."""
    return hashlib.blake2b(data, digest_size=16).digest()


class ExactDedup:
    """A step that keeps the first of equal texts, in the order of reading.

    It drops with the reason `exact_duplicate` and the id of the first document with that text, as
    long as that id is among the first hundred thousand, which bounds its memory.
    """

    def __init__(self, remembered_ids: int = _REMEMBERED_IDS) -> None:
        self._seen = DigestSet()
        self._first_ids: dict[bytes, str] = {}
        self._remembered_ids = remembered_ids

    def __call__(self, document: Document) -> Document | Drop:
        """Keep the document if its text is new."""
        return self.judge(document, text_digest(document.text))

    def judge(self, document: Document, digest: bytes) -> Document | Drop:
        """The same with a digest that is known, as `text_digest` gives it."""
        if self._seen.add(digest):
            if len(self._first_ids) < self._remembered_ids:
                self._first_ids[digest] = document.id
            return document
        return Drop("exact_duplicate", self._first_ids.get(digest, "an earlier document"))


def digest_array(digests: Sequence[bytes]) -> Hashes:
    """Digests of `text_digest` as an array.

    Returns:
        uint64 (N, 2), in the order given.
    """
    return np.frombuffer(b"".join(digests), "<u8").reshape(len(digests), 2)


def write_digests(path: Path, digests: Hashes) -> None:
    """Write the digests of one part.

    Args:
        path: of the part's file; written whole or not at all.
        digests: uint64 (N, 2), by row.

    Raises:
        StorageError: the storage refused.
    """
    write_buckets(path, digests[None], np.arange(len(digests), dtype=np.uint32))


def exact_duplicates(parts: Sequence[Part], buckets: range) -> npt.NDArray[Any]:
    """Find the copies among the documents of all parts whose digests lie in some buckets.

    Args:
        parts: number and file of each part, from `write_digests`.
        buckets: see `bucket_ranges`.

    Returns:
        A table of `DROPS` by part and row: every copy but the first of its text, and that first.

    Raises:
        DataError: a file is missing or damaged.
    """
    records = read_buckets(parts, buckets, key_words=2)
    return _drop_later(records, group_equal(records.keys))


def _drop_later(records: Records, equal: Equal) -> npt.NDArray[Any]:
    """A table of `DROPS` with all but the first of each group, by part and row."""
    sizes = np.diff(equal.starts)
    later = np.ones(len(equal.members), bool)
    later[equal.starts[:-1]] = False
    firsts = np.repeat(equal.members[equal.starts[:-1]], sizes)[later]
    drops = np.empty(len(firsts), DROPS)
    copies = records.places[equal.members[later]]
    keepers = records.places[firsts]
    drops["part"], drops["row"] = copies[:, 0], copies[:, 1]
    drops["keeper_part"], drops["keeper_row"] = keepers[:, 0], keepers[:, 1]
    drops["size"] = np.repeat(sizes, sizes)[later]
    return drops[np.lexsort((drops["row"], drops["part"]))]
