"""Drop documents whose text was seen before, letter for letter.

The text is compared by a 128-bit BLAKE2b digest, so two different texts meet with a probability
below 1e-20 in a corpus of a billion documents. Put this step after normalising. Memory: 24 to 48 bytes
a distinct document (`DigestSet`), plus the names of the first documents, of which a fixed number is
remembered.
"""

from __future__ import annotations

import hashlib

from .digest_set import DigestSet
from .document import Document, Drop

__all__ = ["ExactDedup", "text_digest"]

_REMEMBERED_IDS = 100_000


def text_digest(text: str) -> bytes:
    """The 16-byte BLAKE2b digest of a text as UTF-8; half surrogates are allowed."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
        digest = text_digest(document.text)
        if self._seen.add(digest):
            if len(self._first_ids) < self._remembered_ids:
                self._first_ids[digest] = document.id
            return document
        return Drop("exact_duplicate", self._first_ids.get(digest, "an earlier document"))
