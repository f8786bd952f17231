"""The account of a corpus: what was read, what was kept, and why the rest was not.

Every record that a reader meets is counted once, so `documents_read` always equals
`documents_kept` plus all drops, also for lines that never became a document. Cost: a few integer
additions a document, and five short samples for each reason.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .document import Document, Drop, utf8_length

__all__ = ["Audit"]

_MAX_SAMPLES = 5
_SAMPLE_CHARACTERS = 120


class Audit:
    """Counts of one pass over a corpus; `as_dict` gives them as plain JSON-able values."""

    def __init__(self) -> None:
        self.documents_read = 0
        self.documents_kept = 0
        self.bytes_read = 0
        self.bytes_kept = 0
        self.longest_document_characters = 0
        self.drops: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self._drop_samples: dict[str, list[str]] = {}
        self._read_by_source: Counter[str] = Counter()
        self._bytes_read_by_source: Counter[str] = Counter()
        self._kept_by_source: Counter[str] = Counter()
        self._bytes_by_source: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()

    def count_read(self, document: Document) -> None:
        """Count a document as it left its reader."""
        self._count_record(document.source, utf8_length(document.text))

    def count_kept(self, document: Document) -> None:
        """Count a document that passed every step."""
        num_bytes = utf8_length(document.text)
        self.documents_kept += 1
        self.bytes_kept += num_bytes
        self._kept_by_source[document.source] += 1
        self._bytes_by_source[document.source] += num_bytes
        length = len(document.text)
        self._lengths[max(length, 1).bit_length() - 1] += 1
        self.longest_document_characters = max(self.longest_document_characters, length)

    def count_drop(self, document: Document, drop: Drop) -> None:
        """Count a document that a step dropped; it was counted as read before."""
        self._drop(drop, document.id, document.text)

    def count_unread(self, source: str, place: str, drop: Drop, raw: bytes = b"") -> None:
        """Count a record that its reader could not turn into a document.

        Args:
            source: name of the source.
            place: file, and line where there is one.
            drop: why.
            raw: the record's bytes, for the count and the sample.
        """
        self._count_record(source, len(raw))
        self._drop(drop, place, raw[: 4 * _SAMPLE_CHARACTERS].decode(errors="replace"))

    def count_repair(self, reason: str) -> None:
        """Count a record that was mended and kept, such as one with bytes that are not UTF-8."""
        self.repairs[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """All counts as dicts, lists, strings and integers.

        Returns:
            `documents_read`, `documents_kept`, `bytes_read`, `bytes_kept` (bytes of UTF-8 text, not
            of files), `drops` and `drop_samples` by reason, `repairs` by reason, `sources` by name
            (kept `documents` and `bytes`, and what was read), `length_histogram` of kept documents
            (`edges` in characters, one more than `counts`; the last edge is exclusive) and
            `longest_document_characters`.
        """
        return {
            "documents_read": self.documents_read,
            "documents_kept": self.documents_kept,
            "bytes_read": self.bytes_read,
            "bytes_kept": self.bytes_kept,
            "drops": dict(sorted(self.drops.items())),
            "drop_samples": {reason: list(self._drop_samples[reason]) for reason in sorted(self.drops)},
            "repairs": dict(sorted(self.repairs.items())),
            "sources": {name: self._source(name) for name in sorted(self._read_by_source)},
            "length_histogram": self._histogram(),
            "longest_document_characters": self.longest_document_characters,
        }

    def _count_record(self, source: str, num_bytes: int) -> None:
        self.documents_read += 1
        self.bytes_read += num_bytes
        self._read_by_source[source] += 1
        self._bytes_read_by_source[source] += num_bytes

    def _drop(self, drop: Drop, place: str, text: str) -> None:
        self.drops[drop.reason] += 1
        samples = self._drop_samples.setdefault(drop.reason, [])
        if len(samples) < _MAX_SAMPLES:
            parts = (place, drop.detail, " ".join(text[:_SAMPLE_CHARACTERS].split()))
            # A sample may hold half a surrogate pair, which no UTF-8 file can store.
            samples.append(": ".join(filter(None, parts)).encode(errors="replace").decode())

    def _source(self, name: str) -> dict[str, int]:
        return {
            "documents": self._kept_by_source[name],
            "bytes": self._bytes_by_source[name],
            "documents_read": self._read_by_source[name],
            "bytes_read": self._bytes_read_by_source[name],
        }

    def _histogram(self) -> dict[str, list[int]]:
        if not self._lengths:
            return {"edges": [], "counts": []}
        bins = range(min(self._lengths), max(self._lengths) + 1)
        edges = [1 << exponent for exponent in (*bins, bins.stop)]
        return {"edges": edges, "counts": [self._lengths[exponent] for exponent in bins]}
