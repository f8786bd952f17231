"""More entries for a vocabulary that a model was trained with, learned from the text it will go on with.

Old entries keep their ids, new ones follow the last. Byte-level BPE goes on with its merges where its
list ends, so a text in which no new pair occurs is encoded as before. WordPiece gets whole words, which
its greedy match then takes, also as the beginning of longer ones. For each new entry the old ids that
it takes the place of are kept in `extension.json`, so that a model can begin with the mean of theirs.

The same texts give the same entries, in any order of texts. Cost: reading about a megabyte of text a
second, and some 300 bytes of memory for each different word that is cut.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ..core.config import Config, parse_config
from ..core.errors import ConfigError, DataError, TokenizerError
from ..core.files import read_json, storage_errors, write_json
from ..core.log import get_logger
from ..core.progress import progress, track
from .spelling import is_byte_level
from .tokenizer import Tokenizer
from .train import Sample

__all__ = [
    "EXTENSION_FILE",
    "Extension",
    "NewEntry",
    "SampleCounts",
    "extend_tokenizer",
    "read_extension",
    "save_extension",
]

EXTENSION_FILE = "extension.json"
log = get_logger(__name__)
# The splitter answers with an object a word, so a long document is given to it in parts.
_PART_CHARACTERS = 1 << 16
# Longer words, as the vocabulary writes them, are no words: Base64, rulers, white space.
_LONGEST_WORD = 256


class NewEntry(Config):
    """An entry that was added."""

    id: int = Field(description="its place in the vocabulary")
    token: str = Field(description="as the vocabulary writes it")
    pieces: tuple[int, ...] = Field(min_length=2, description="the old ids that it takes the place of")


class SampleCounts(Config):
    """What the new entries do to the text that they were learned from."""

    words: int = Field(ge=0, description="how many it has, as the splitter of the vocabulary cuts them")
    tokens_before: int = Field(ge=0, description="tokens of these words in the old vocabulary")
    tokens_after: int = Field(ge=0, description="tokens of these words in the new vocabulary")


class Extension(Config):
    """What was added to a vocabulary; the content of `extension.json`."""

    base_vocab_size: int = Field(ge=1, description="ids of the old vocabulary, which is the first new id")
    new: tuple[NewEntry, ...] = Field(min_length=1, description="the new entries, by id")
    sample: SampleCounts

    @model_validator(mode="after")
    def _ids_follow(self) -> Self:
        first = self.base_vocab_size
        for number, entry in enumerate(self.new, start=first):
            if entry.id != number or not all(0 <= piece < first for piece in entry.pieces):
                raise ValueError(
                    f"{entry.token!r} has id {entry.id} and pieces {list(entry.pieces)}, expected id "
                    f"{number} and pieces below {first}"
                )
        return self


def extend_tokenizer(
    tokenizer: Tokenizer, texts: Iterable[str], num_new: int, min_count: int = 10
) -> tuple[Tokenizer, Extension]:
    """Learn new entries for a vocabulary.

    Args:
        tokenizer: the old one: byte-level BPE or WordPiece.
        texts: documents; read once.
        num_new: entries to add. A small corpus may give fewer.
        min_count: how often a new entry must occur in the texts when it is chosen.

    Returns:
        The longer vocabulary, and what was added.

    Raises:
        TokenizerError: the vocabulary is of another kind, or nothing occurs often enough.

    Source: Sennrich et al. 2016 (the merges); Gururangan et al. 2020 (going on with a domain). For
    WordPiece we add whole words and no pieces of words, as Yao et al. 2021 (AdaLM) do by frequency.
    """
    _require_kind(tokenizer)
    counts = _count_words(tokenizer, texts)
    model = tokenizer.reference.model
    cut: dict[str, tuple[int, ...]] = {}
    for word in sorted(counts):  # the order of the texts must not show
        ids = tuple(token.id for token in model.tokenize(word))
        if len(ids) > 1:
            cut[word] = ids
    definition = _with_room(tokenizer.definition)
    entries = tokenizer.reference.get_vocab()
    learn = _learn_merges if definition["model"]["type"] == "BPE" else _learn_words
    new = learn(definition["model"], entries, cut, counts, (tokenizer.vocab_size, num_new, min_count))
    if not new:
        raise TokenizerError(
            f"{tokenizer.place}: no new entry occurs {min_count} times in the texts; "
            "lower tokenizer.extend_min_count, give more text, or leave tokenizer.extend out"
        )
    if len(new) < num_new:
        log.warning(
            "%s: %d new entries instead of %d, because no further one occurs %d times "
            "(tokenizer.extend_min_count)",
            tokenizer.place,
            len(new),
            num_new,
            min_count,
        )
    # The place stays: messages about the vocabulary are still about that file.
    extended = Tokenizer(json.dumps(definition), tokenizer.place, asdict(tokenizer.specials))
    sample = _count_tokens(extended, counts, cut)
    _tell(sample, len(new))
    return extended, Extension(base_vocab_size=tokenizer.vocab_size, new=new, sample=sample)


def _require_kind(tokenizer: Tokenizer) -> None:
    model = tokenizer.definition["model"]
    marks = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model["type"] == "WordPiece" or (is_byte_level(tokenizer.definition) and not marks):
        return
    kind = model["type"] if model["type"] != "BPE" else "BPE, but not plainly byte-level"
    raise TokenizerError(
        f"{tokenizer.place}: is {kind}, which cannot be extended; tokenizer.extend takes byte-level BPE "
        "(RoBERTa) and WordPiece (BERT), so leave it out"
    )


def _with_room(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose model knows the added tokens by their ids.

    The library numbers an added token that the model lacks by the size of the model, which grows.
    """
    longer: dict[str, Any] = copy.deepcopy(dict(definition))
    for token in longer["added_tokens"]:
        longer["model"]["vocab"].setdefault(token["content"], token["id"])
    return longer


def _count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the splitter of the vocabulary cuts and writes them."""
    reference, counts = tokenizer.reference, Counter[str]()
    for text in track(_parts(tokenizer, texts), "count words", None, "parts"):
        if reference.normalizer is not None:
            text = reference.normalizer.normalize_str(text)
        if reference.pre_tokenizer is not None:
            counts.update(word for word, _ in reference.pre_tokenizer.pre_tokenize_str(text))
        else:
            counts.update([text])
    return Counter({word: count for word, count in counts.items() if len(word) <= _LONGEST_WORD})


def _parts(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """The texts as the learner of a new vocabulary gets them, in parts of bounded length."""
    sample = Sample(texts)
    by_character = tokenizer.definition["model"]["type"] == "WordPiece"  # needs no cuts inside Chinese
    for pieces in ([text] for text in sample) if by_character else sample.pieces():
        for piece in pieces:
            for start in range(0, len(piece), _PART_CHARACTERS):
                yield piece[start : start + _PART_CHARACTERS]


_Limits = tuple[int, int, int]  # the first new id, how many there may be, how often each must occur


def _learn_words(
    model: dict[str, Any],
    entries: Mapping[str, int],
    cut: Mapping[str, tuple[int, ...]],
    counts: Mapping[str, int],
    limits: _Limits,
) -> tuple[NewEntry, ...]:
    """The most frequent words that are cut, as entries of a WordPiece model."""
    first, num_new, min_count = limits
    frequent = [word for word in cut if counts[word] >= min_count and word not in entries]
    frequent.sort(key=lambda word: (-counts[word], word))
    new = tuple(
        NewEntry(id=number, token=word, pieces=cut[word])
        for number, word in enumerate(frequent[:num_new], start=first)
    )
    model["vocab"] |= {entry.token: entry.id for entry in new}
    return new


def _learn_merges(
    model: dict[str, Any],
    entries: Mapping[str, int],
    cut: Mapping[str, tuple[int, ...]],
    counts: Mapping[str, int],
    limits: _Limits,
) -> tuple[NewEntry, ...]:
    """Further merges of a BPE model, the most frequent pair first; each makes one entry.

    A pair that spells an entry there is already stays apart: merging it would change the ids of old
    text, or undo the order of the merges.
    """
    first, num_new, min_count = limits
    token_of, taken = {number: token for token, number in entries.items()}, set(entries)
    made_of: dict[int, tuple[int, ...]] = {}
    new: list[NewEntry] = []
    pairs = _Pairs([(ids, counts[word]) for word, ids in cut.items()])
    written_as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)  # the older form
    with progress("new entries", num_new, "entries") as advance:
        while len(new) < num_new and (pair := pairs.pop(min_count)):
            left, right = pair
            token = token_of[left] + token_of[right]
            if token in taken:
                continue
            number = first + len(new)
            made_of[number] = made_of.get(left, (left,)) + made_of.get(right, (right,))
            new.append(NewEntry(id=number, token=token, pieces=made_of[number]))
            parts = [token_of[left], token_of[right]]
            model["merges"].append(" ".join(parts) if written_as_text else parts)
            token_of[number] = token
            taken.add(token)
            pairs.merge(left, right, number)
            advance(1)
    model["vocab"] |= {entry.token: entry.id for entry in new}
    return tuple(new)


class _Pairs:
    """Neighbouring tokens in words, by how often they occur.

    A word is a string with one character for each of its ids, so a merge is a replacement of two
    characters by one, from the left, as the encoder does it.

    Args:
        words: ids of each different word, and how often it occurs.
    """

    def __init__(self, words: Sequence[tuple[tuple[int, ...], int]]) -> None:
        self._words = ["".join(map(chr, ids)) for ids, _ in words]
        self._counts = [count for _, count in words]
        self._totals: Counter[str] = Counter()
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for place, (word, count) in enumerate(zip(self._words, self._counts, strict=True)):
            for pair in _neighbours(word):
                self._totals[pair] += count
                self._places[pair].append(place)
        # Of equally frequent pairs the one with the smaller ids comes first. Totals in the heap may be
        # too large by now, never too small.
        self._heap = [(-total, pair) for pair, total in self._totals.items()]
        heapify(self._heap)

    def pop(self, min_count: int) -> tuple[int, int] | None:
        """The most frequent pair that was not given before; None if none occurs `min_count` times."""
        while self._heap:
            known, pair = heappop(self._heap)
            total = self._totals[pair]
            if total < -known:
                heappush(self._heap, (-total, pair))
            elif total < min_count:
                return None
            elif total == -known:
                return ord(pair[0]), ord(pair[1])
        return None

    def merge(self, left: int, right: int, number: int) -> None:
        """Put a new id in the place of a pair, everywhere."""
        pair, new = chr(left) + chr(right), chr(number)
        made: set[str] = set()
        for place in self._places.pop(pair, ()):
            before, count = self._words[place], self._counts[place]
            after = before.replace(pair, new)
            if after == before:  # an earlier merge took one of the two
                continue
            self._words[place] = after
            for neighbours in _neighbours(before):
                self._totals[neighbours] -= count
            for neighbours in _neighbours(after):
                self._totals[neighbours] += count
                if new in neighbours:
                    made.add(neighbours)
                    self._places[neighbours].append(place)
        for neighbours in made:
            heappush(self._heap, (-self._totals[neighbours], neighbours))


def _neighbours(word: str) -> list[str]:
    return [word[start : start + 2] for start in range(len(word) - 1)]


def _count_tokens(
    extended: Tokenizer, counts: Mapping[str, int], cut: Mapping[str, tuple[int, ...]]
) -> SampleCounts:
    words = sum(counts.values())
    before = after = words  # those that are one token stay one
    model = extended.reference.model
    for word, ids in cut.items():
        before += counts[word] * (len(ids) - 1)
        after += counts[word] * (len(model.tokenize(word)) - 1)
    return SampleCounts(words=words, tokens_before=before, tokens_after=after)


def _tell(sample: SampleCounts, num_new: int) -> None:
    log.info(
        "%d new entries: %.3f tokens a word in the sample, %.3f before",
        num_new,
        sample.tokens_after / max(1, sample.words),
        sample.tokens_before / max(1, sample.words),
    )


def save_extension(folder: Path, extension: Extension | None) -> None:
    """Write `extension.json` beside a tokenizer, or take away that of an earlier one.

    Args:
        folder: of the tokenizer.
        extension: what was added; None if nothing was.

    Raises:
        StorageError: the storage refused.
    """
    if extension is None:
        with storage_errors(folder / EXTENSION_FILE):
            (folder / EXTENSION_FILE).unlink(missing_ok=True)
        return
    write_json(folder / EXTENSION_FILE, extension.model_dump(mode="json"))


def read_extension(folder: Path) -> Extension | None:
    """What was added to the tokenizer of a folder.

    Args:
        folder: holds the tokenizer: `tokenizer/` of a data folder.

    Returns:
        None if it was not extended.

    Raises:
        TokenizerError: `extension.json` is damaged.
    """
    path = folder / EXTENSION_FILE
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        if not isinstance(values, dict):
            raise DataError(f"{path}: holds a {type(values).__name__}, expected an object")
        return parse_config(Extension, values, str(path))
    except (ConfigError, DataError) as error:
        raise TokenizerError(f"{error}; prepare the data again or restore the file") from error
