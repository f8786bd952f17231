"""Find training documents that share runs of words with evaluation sets.

A document is contaminated if it has `ngram` words in a row (13 by custom) from an evaluation text. Words
are in lower case and without punctuation, and each Chinese character is a word (see `words`). An
evaluation text shorter than that must occur whole; one of fewer than `min_words` words says too
little and is ignored, and counted. What the hashes find is compared word by word, so a chance meeting
of hashes never drops a document.

Cost: about 11 ns a byte of English, and half as much again for documents in which something is found;
some 25 bytes for each word of the evaluation sets, and their text.

Source: Brown et al., "Language models are few-shot learners", 2020, appendix C (13-grams of words in
lower case without punctuation; there, what surrounds a match is removed, and the rest kept).
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ...core.files import read_bytes, write_bytes
from ..document import Document, Drop
from .runs import Runs, runs_of
from .words import TextWords, hash_words, word_strings

__all__ = [
    "CONTAMINATED",
    "Action",
    "ContaminationIndex",
    "Match",
    "SetCounts",
    "check_contamination",
]

Action = Literal["drop", "flag"]

# The reason of a drop, and the key in the meta of a flagged document.
CONTAMINATED = "contaminated"


class Match(NamedTuple):
    """What a document shares with an evaluation set.

    Attributes:
        name: of the set; where several have these words, the first.
        words: the words, with spaces between.
    """

    name: str
    words: str


class SetCounts(NamedTuple):
    """How many texts of an evaluation set are looked for, and how many are too short for that."""

    used: int
    ignored: int


class ContaminationIndex:
    """The runs of words of evaluation sets, ready to be looked for. Made by `from_texts` or `load`.

    Attributes:
        counts: texts of each set, by its name, in the order given.
        ngram: words that must be shared.
    """

    def __init__(
        self,
        ngram: int,
        counts: Mapping[str, SetCounts],
        texts: Sequence[str],
        owners: Sequence[int],
        runs: Sequence[Runs],
    ) -> None:
        self.ngram, self.counts = ngram, dict(counts)
        self._names, self._texts, self._owners, self._runs = list(counts), texts, owners, runs

    @classmethod
    def from_texts(
        cls, sets: Mapping[str, Iterable[str]], ngram: int = 13, min_words: int = 8
    ) -> ContaminationIndex:
        """Build the index.

        Args:
            sets: the texts of each evaluation set by its name.
            ngram: words that must be shared.
            min_words: fewest words of an evaluation text that is looked for, at most `ngram`.
        """
        min_words = max(min_words, 1)
        owners: dict[str, int] = {}  # by text, as its words with spaces between
        counts: dict[str, SetCounts] = {}
        for owner, (name, members) in enumerate(sets.items()):
            used = ignored = 0
            for member in members:
                words = word_strings(member)
                if len(words) < min_words:
                    ignored += 1
                    continue
                used += 1
                owners.setdefault(" ".join(words), owner)
            counts[name] = SetCounts(used, ignored)
        texts = list(owners)
        long = Runs(ngram, *_firsts(*runs_of(texts, ngram)))
        lengths = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
        hashes, numbers, starts = runs_of(texts, min_words)
        whole = (starts == 0) & (lengths[numbers] < ngram)  # a short text is found by its first words
        short = Runs(min_words, hashes[whole], numbers[whole], starts[whole])
        return cls(ngram, counts, texts, list(owners.values()), (long, short))

    def find(self, texts: Sequence[str]) -> list[Match | None]:
        """Look for evaluation texts in some texts. Many at once, about 1 MB, are faster.

        Args:
            texts: of training documents.

        Returns:
            One answer a text: the match whose words come first, or None.
        """
        answers: list[Match | None] = [None] * len(texts)
        words = hash_words(texts)
        hits = []
        for kind, runs in enumerate(self._runs):
            positions, numbers = runs.find(words)
            hits += [
                (position, kind, run)
                for position, run in zip(positions.tolist(), numbers.tolist(), strict=True)
            ]
        if not hits:
            return answers
        hits.sort()
        documents = np.searchsorted(words.offsets, [hit[0] for hit in hits], "right") - 1
        current, located = -1, TextWords("")
        for (position, kind, run), document in zip(hits, documents.tolist(), strict=True):
            if answers[document] is not None:
                continue
            if document != current:
                current, located = document, TextWords(texts[document])
            start = position - int(words.offsets[document])
            answers[document] = self._verify(self._runs[kind], run, located, start)
        return answers

    def save(self, path: Path) -> None:
        """Write the index, so that many workers need not read the evaluation sets again.

        Raises:
            StorageError: the storage refused.
        """
        about = [self.ngram, self.counts, [runs.length for runs in self._runs], self._owners]
        arrays = {"about": _as_bytes(json.dumps(about)), "texts": _as_bytes("\n".join(self._texts))}
        for kind, runs in enumerate(self._runs):
            arrays |= {f"{name}{kind}": getattr(runs, name) for name in ("hashes", "texts", "starts")}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> ContaminationIndex:
        """Read an index that `save` wrote.

        Raises:
            DataError: it is missing or damaged.
        """
        data = read_bytes(path)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = dict(file)
            ngram, counts, lengths, owners = json.loads(arrays["about"].tobytes())
            texts = arrays["texts"].tobytes().decode().split("\n")
            runs = [
                Runs(length, arrays[f"hashes{kind}"], arrays[f"texts{kind}"], arrays[f"starts{kind}"])
                for kind, length in enumerate(lengths)
            ]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: is damaged ({error}); remove it and run the same command again"
            ) from error
        return cls(ngram, {name: SetCounts(*count) for name, count in counts.items()}, texts, owners, runs)

    def _verify(self, runs: Runs, run: int, words: TextWords, start: int) -> Match | None:
        """Compare word by word."""
        text = int(runs.texts[run])
        wanted = self._texts[text].split(" ")
        if len(wanted) >= self.ngram:
            first = int(runs.starts[run])
            wanted = wanted[first : first + self.ngram]
        if words.strings(start, start + len(wanted)) != wanted:
            return None
        return Match(self._names[self._owners[text]], " ".join(wanted))


def check_contamination(
    documents: Sequence[Document], index: ContaminationIndex, action: Action
) -> list[Document | Drop]:
    """Judge some documents at once.

    Args:
        documents: about 1 MB of them is fast.
        index: of the evaluation sets.
        action: `drop`, or `flag`: keep and say so in the document's meta.

    Returns:
        For each document itself, a flagged copy, or a `Drop` with the set's name and the words.
    """
    answers: list[Document | Drop] = []
    for document, match in zip(documents, index.find([document.text for document in documents]), strict=True):
        detail = f"{match.name}: {match.words}" if match else ""
        if match is None:
            answers.append(document)
        elif action == "drop":
            answers.append(Drop(CONTAMINATED, detail))
        else:
            answers.append(dataclasses.replace(document, meta={**document.meta, CONTAMINATED: detail}))
    return answers


def _firsts(hashes: Any, texts: Any, starts: Any) -> tuple[Any, Any, Any]:
    """Only the first of runs that are equal, because any of them tells the same."""
    _, chosen = np.unique(hashes, return_index=True)
    return hashes[chosen], texts[chosen], starts[chosen]


def _as_bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)
