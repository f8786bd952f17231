"""The account of a corpus: what was read, what was kept, and why the rest was not.

Every record that a reader meets is counted once, so `documents_read` always equals
`documents_kept` plus all drops, also for lines that never became a document. Accounts of parts of a
corpus add up to the account of the whole (`merge`), in whatever processes they were kept. Cost: a
few integer additions a document, and five short samples for each reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from .document import Document, Drop, utf8_length

__all__ = ["Audit"]

_MAX_SAMPLES = 5
_SAMPLE_CHARACTERS = 120
_COUNTERS = (
    "drops",
    "repairs",
    "flags",
    "bad_lines",
    "read_by_source",
    "bytes_read_by_source",
    "kept_by_source",
    "bytes_by_source",
    "languages",
    "bytes_by_language",
    "lengths",
)


class Audit:
    """Counts of one pass over a corpus, or over a part of one.

    Attributes:
        drops: documents left out, by reason.
        repairs: records mended and kept, by reason.
        flags: documents kept with a note in their meta, by the note's name.
        bad_lines: malformed lines by file, named `source:label`.
    """

    def __init__(self) -> None:
        self.longest_document_characters = 0
        self.drops: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.bad_lines: Counter[str] = Counter()
        self.read_by_source: Counter[str] = Counter()
        self.bytes_read_by_source: Counter[str] = Counter()
        self.kept_by_source: Counter[str] = Counter()
        self.bytes_by_source: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.bytes_by_language: Counter[str] = Counter()
        self.lengths: Counter[str] = Counter()
        self.drops_by_source: dict[str, Counter[str]] = {}
        self.drop_samples: dict[str, list[str]] = {}

    @property
    def documents_read(self) -> int:
        """Records met, documents or not."""
        return self.read_by_source.total()

    @property
    def documents_kept(self) -> int:
        """Documents that passed every step."""
        return self.kept_by_source.total()

    @property
    def bytes_read(self) -> int:
        """UTF-8 bytes of what was read."""
        return self.bytes_read_by_source.total()

    @property
    def bytes_kept(self) -> int:
        """UTF-8 bytes of what was kept."""
        return self.bytes_by_source.total()

    def count_read(self, document: Document) -> None:
        """Count a document as it left its reader."""
        self._count_record(document.source, utf8_length(document.text))

    def count_kept(self, document: Document, num_bytes: int | None = None) -> None:
        """Count a document that passed every step, with its UTF-8 length if that is known."""
        num_bytes = utf8_length(document.text) if num_bytes is None else num_bytes
        self.kept_by_source[document.source] += 1
        self.bytes_by_source[document.source] += num_bytes
        language = document.meta.get("language")
        if language:
            self.languages[language] += 1
            self.bytes_by_language[language] += num_bytes
        length = len(document.text)
        self.lengths[str(max(length, 1).bit_length() - 1)] += 1
        self.longest_document_characters = max(self.longest_document_characters, length)

    def count_drop(self, document: Document, drop: Drop) -> None:
        """Count a document that a step dropped; it was counted as read before."""
        self._drop(drop, document.source, document.id, document.text)

    def count_unread(self, source: str, place: str, drop: Drop, raw: bytes = b"") -> None:
        """Count a record that its reader could not turn into a document.

        Args:
            source: name of the source.
            place: file, and line where there is one.
            drop: why.
            raw: the record's bytes, for the count and the sample.
        """
        self._count_record(source, len(raw))
        self._drop(drop, source, place, raw[: 4 * _SAMPLE_CHARACTERS].decode(errors="replace"))

    def count_repair(self, reason: str) -> None:
        """Count a record that was mended and kept, such as one with bytes that are not UTF-8."""
        self.repairs[reason] += 1

    def merge(self, other: Audit) -> None:
        """Add the account of the part that comes next."""
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for source, drops in other.drops_by_source.items():
            self.drops_by_source.setdefault(source, Counter()).update(drops)
        for reason, samples in other.drop_samples.items():
            mine = self.drop_samples.setdefault(reason, [])
            mine.extend(samples[: _MAX_SAMPLES - len(mine)])
        self.longest_document_characters = max(
            self.longest_document_characters, other.longest_document_characters
        )

    def state(self) -> dict[str, Any]:
        """Everything as JSON values; `from_state` takes it back."""
        return {
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            "drops_by_source": {source: dict(drops) for source, drops in self.drops_by_source.items()},
            "drop_samples": self.drop_samples,
            "longest_document_characters": self.longest_document_characters,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """An account as `state` gave it."""
        audit = cls()
        for name in _COUNTERS:
            getattr(audit, name).update(state[name])
        audit.drops_by_source = {name: Counter(drops) for name, drops in state["drops_by_source"].items()}
        audit.drop_samples = {reason: list(samples) for reason, samples in state["drop_samples"].items()}
        audit.longest_document_characters = state["longest_document_characters"]
        return audit

    def as_dict(self) -> dict[str, Any]:
        """All counts for people and reports, as dicts, lists, strings and integers.

        Returns:
            `documents_read`, `documents_kept`, `bytes_read`, `bytes_kept` (bytes of UTF-8 text, not
            of files), `drops` and `drop_samples` by reason, `repairs` by reason, `bad_lines` by file,
            `sources` by name (kept `documents` and `bytes`, what was read, and `drops` by reason),
            `languages` by code, `length_histogram` of kept documents (`edges` in characters, one more
            than `counts`; the last edge is exclusive) and `longest_document_characters`.
        """
        return {
            "documents_read": self.documents_read,
            "documents_kept": self.documents_kept,
            "bytes_read": self.bytes_read,
            "bytes_kept": self.bytes_kept,
            "drops": dict(sorted(self.drops.items())),
            "drop_samples": {reason: list(self.drop_samples[reason]) for reason in sorted(self.drops)},
            "repairs": dict(sorted(self.repairs.items())),
            "bad_lines": dict(sorted(self.bad_lines.items())),
            "sources": {name: self._source(name) for name in sorted(self.read_by_source)},
            "languages": {
                code: {"documents": count, "bytes": self.bytes_by_language[code]}
                for code, count in sorted(self.languages.items())
            },
            "length_histogram": self._histogram(),
            "longest_document_characters": self.longest_document_characters,
        }

    def _count_record(self, source: str, num_bytes: int) -> None:
        self.read_by_source[source] += 1
        self.bytes_read_by_source[source] += num_bytes

    def _drop(self, drop: Drop, source: str, place: str, text: str) -> None:
        self.drops[drop.reason] += 1
        self.drops_by_source.setdefault(source, Counter())[drop.reason] += 1
        samples = self.drop_samples.setdefault(drop.reason, [])
        if len(samples) < _MAX_SAMPLES:
            parts = (place, drop.detail, " ".join(text[:_SAMPLE_CHARACTERS].split()))
            # A sample may hold half a surrogate pair, which no UTF-8 file can store.
            samples.append(": ".join(filter(None, parts)).encode(errors="replace").decode())

    def _source(self, name: str) -> dict[str, Any]:
        return {
            "documents": self.kept_by_source[name],
            "bytes": self.bytes_by_source[name],
            "documents_read": self.read_by_source[name],
            "bytes_read": self.bytes_read_by_source[name],
            "drops": dict(sorted(self.drops_by_source.get(name, {}).items())),
        }

    def _histogram(self) -> dict[str, list[int]]:
        if not self.lengths:
            return {"edges": [], "counts": []}
        found = {int(exponent): count for exponent, count in self.lengths.items()}
        bins = range(min(found), max(found) + 1)
        edges = [1 << exponent for exponent in (*bins, bins.stop)]
        return {"edges": edges, "counts": [found.get(exponent, 0) for exponent in bins]}
