"""The tokenizer: load, train, save, encode fast.

Training and the reference encoder are the `tokenizers` library. Byte-level BPE goes through
`gigatoken`, which gives the same ids tens of times faster; every time a tokenizer is opened the two
are compared on awkward text, and on the first difference the reference takes over with a warning.
Other kinds (WordPiece, Unigram) are encoded by the reference. The texts of special tokens (`<mask>`,
`[SEP]`) inside a document are ordinary text and never become special ids, whatever the kind.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError, TokenizerError
from ..core.files import write_json, write_text
from ..core.fingerprint import fingerprint
from .fast import EncodedBatch, FastEncoder, is_single_threaded
from .spelling import Spelling, read_spelling
from .vocabularies import BERT_TOKENS, ROBERTA_TOKENS, SpecialTokens, find_roles, read_vocabulary

__all__ = ["SPECIAL_TOKENS", "EncodedBatch", "Tokenizer", "VocabularyKind"]

VocabularyKind = Literal["byte-level-bpe", "wordpiece"]
SPECIAL_TOKENS = astuple(ROBERTA_TOKENS)
FILE_NAME = "tokenizer.json"
log = logging.getLogger(__name__)
_OPTIONAL_PARTS: dict[str, Any] = {"added_tokens": [], "normalizer": None, "pre_tokenizer": None}

# Text on which the fast encoder is compared with the reference at every start: contractions, runs
# of spaces, digits, combining marks, right-to-left, emoji sequences, rare planes, special texts.
_PROBES = (
    "",
    " ",
    "Hello world, it's 2026 and we'll tokenise 1,234.5 things  \t\n\n  twice.\r\n",
    "<mask> and </s> are text, <s>not</s> <pad>special<unk>",
    "naïve façade e\u0301 Ångström ﬁ ½ ǅ \u00a0\u2003\u3000x",
    "中文文本，没有空格。日本語テキスト 한국어",
    "שלום עולם مرحبا بالعالم 👩‍👩‍👧‍👦🏳️‍🌈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010fffd\x00\x7f",
    "def f(x):\n    return x**2  # it'S WE'LL I'm\n\t\tif __name__ == '__main__':",
)


class Tokenizer:
    """A vocabulary with the special tokens of an encoder, and what encodes with it.

    Args:
        definition: content of a `tokenizer.json`.
        place: where it comes from, for messages.
        names: special entries by role (`bos`, `pad`, `eos`, `unk`, `mask`), where they are known;
            others are found by the names that RoBERTa and BERT use.

    Raises:
        TokenizerError: it cannot be read, or lacks a special token.
    """

    def __init__(
        self, definition: str, place: str = "tokenizer", names: dict[str, str] | None = None
    ) -> None:
        self.place = place
        try:
            # Cutting and padding are the work of whoever makes batches.
            self.definition: dict[str, Any] = {
                **_OPTIONAL_PARTS,
                **json.loads(definition),
                "truncation": None,
                "padding": None,
            }
            self.reference = _reference(self.definition)
            # The first files of RoBERTa and GPT-2 do not say it.
            self.definition["model"].setdefault("type", type(self.reference.model).__name__)
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"{place}: is not a tokenizer.json ({error})") from error
        entries = self.reference.get_vocab()
        self.vocab_size: int = max(entries.values(), default=-1) + 1
        self.specials = find_roles(entries, names or {}, place)
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id = (
            entries[token] for token in astuple(self.specials)
        )
        if _mark_special(self.definition, self.specials):
            self.reference = _reference(self.definition)
        self._encoder = self.reference
        if self.definition["model"]["type"] != "BPE":
            self._encoder = _reference(_without_special_entries(self.definition, self.specials))

    @cached_property
    def fingerprint(self) -> str:
        """Name of the vocabulary by its content."""
        if self.specials in (ROBERTA_TOKENS, BERT_TOKENS):
            return fingerprint(self.definition)
        return fingerprint([self.definition, asdict(self.specials)])

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are never masked, predicted or drawn at random, in order of size."""
        return tuple(sorted({self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id}))

    @cached_property
    def spelling(self) -> Spelling:
        """How many bytes of text each id stands for."""
        return read_spelling(self.definition, self.reference.get_vocab(), self.special_ids, self.vocab_size)

    @cached_property
    def _fast(self) -> FastEncoder | None:
        """The fast encoder, or None where it is missing or disagrees with the reference."""
        model = self.definition["model"]["type"]
        if model != "BPE":
            log.info("%s: %s vocabularies are encoded by the reference, which is slower", self.place, model)
            return None
        try:
            fast = FastEncoder(self.definition)
        except Exception as error:  # an unsupported vocabulary must not stop the work
            log.warning(
                "%s: the fast encoder cannot be used (%s); the reference takes over", self.place, error
            )
            return None
        added = [token["content"] for token in self.definition["added_tokens"]]
        return fast if self._agrees(fast, [*_PROBES, f"a {' b'.join(added[:100])} c"]) else None

    def _agrees(self, fast: FastEncoder, texts: Sequence[str]) -> bool:
        for text in texts:
            expected = self._encoder.encode(text, add_special_tokens=False).ids
            if fast.encode(text) != expected:
                log.warning(
                    "%s: fast and reference encoder differ on %r; the reference takes over",
                    self.place,
                    text[:80],
                )
                return False
        return True

    def check_fast_path(self, texts: Sequence[str]) -> bool:
        """Compare both encoders on some texts of the corpus, and drop the fast one if they differ.

        Returns:
            Whether the fast encoder is in use.
        """
        if self._fast is not None and not self._agrees(self._fast, texts):
            self.__dict__["_fast"] = None
        return self._fast is not None

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        kind: VocabularyKind = "byte-level-bpe",
        *,
        lowercase: bool = True,
    ) -> Tokenizer:
        """Learn a vocabulary; the same texts give the same one.

        Args:
            texts: documents; read once.
            vocab_size: entries in all. A small corpus may give fewer.
            kind: `byte-level-bpe` has RoBERTa's first four ids, the bytes, the merges, `<mask>` last;
                `wordpiece` has BERT's five special tokens first and every Chinese character a word.
            lowercase: for `wordpiece`, fold capital letters and take accents off.

        Raises:
            TokenizerError: `vocab_size` cannot hold the alphabet and the special tokens.
        """
        from .train import train_byte_level, train_wordpiece

        if kind == "wordpiece":
            return cls(train_wordpiece(texts, vocab_size, lowercase=lowercase), "trained tokenizer")
        return cls(train_byte_level(texts, vocab_size), "trained tokenizer")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer from its folder or file, whichever kind it is.

        Args:
            path: holds `tokenizer.json`; or BERT's `vocab.txt`; or `vocab.json` and `merges.txt`; or
                `encoder.json`, `vocab.bpe` and `dict.txt` as RoBERTa was released.

        Raises:
            TokenizerError: there is none, or it cannot be used.
        """
        found = read_vocabulary(path)
        return cls(found.definition, found.place, dict(found.names))

    def save(self, folder: Path, max_length: int = 512) -> None:
        """Write `tokenizer.json` and what `AutoTokenizer` needs beside it.

        Args:
            folder: where; made if missing.
            max_length: longest sequence in tokens that the model takes.
        """
        write_text(folder / FILE_NAME, json.dumps(self.definition, ensure_ascii=False, separators=(",", ":")))
        named = asdict(self.specials)
        values: dict[str, Any] = {f"{role}_token": token for role, token in named.items()}
        added = {token["content"]: token for token in self.definition["added_tokens"]}
        mask = added.get(self.specials.mask)
        if mask is not None:
            values["mask_token"] = {"__type": "AddedToken", **{k: v for k, v in mask.items() if k != "id"}}
        values |= {"cls_token": named["bos"], "sep_token": named["eos"]}
        values |= {"model_max_length": max_length, **_settings_of_class(self.definition, self.specials)}
        write_json(folder / "tokenizer_config.json", values)

    def require_size(self, vocab_size: int, place: str) -> None:
        """Refuse to work with a model of another vocabulary.

        Raises:
            TokenizerError: the model's table has another number of rows.
        """
        if vocab_size != self.vocab_size:
            raise TokenizerError(
                f"{place}: the model has {vocab_size} vocabulary entries, the tokenizer {self.vocab_size}; "
                "use the tokenizer that the model was trained with"
            )

    def encode_batch(self, texts: Sequence[str]) -> EncodedBatch:
        """Encode documents without special tokens.

        Args:
            texts: documents.

        Returns:
            `(ids, counts)`: all ids laid end to end, uint32; number of ids of each text, int64.

        Raises:
            DataError: a text holds half of a surrogate pair, which no encoding knows.
        """
        if not texts:
            return np.empty(0, np.uint32), np.empty(0, np.int64)
        try:
            return self._encode(texts)
        except TypeError as error:  # of both encoders; looking for it beforehand would cost every text
            for text in texts:
                _refuse_surrogates(text, error)
            raise

    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        if self._fast is not None:
            return self._fast.encode_batch(texts)
        is_single_threaded()  # says so to the reference, too
        rows = [e.ids for e in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]
        counts = np.array([len(row) for row in rows], np.int64)
        return np.fromiter((i for row in rows for i in row), np.uint32, int(counts.sum())), counts

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Encode one text without special tokens."""
        return self.encode_batch([text])[0]

    def token_starts(self, text: str) -> npt.NDArray[np.int64]:
        """Where in a text each of its tokens begins, in characters; int64. Uses the slow reference."""
        encoded = self._encoder.encode(text, add_special_tokens=False)
        return np.array([start for start, _ in encoded.offsets], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids back into text; special tokens are written out."""
        return str(self.reference.decode([int(number) for number in ids], skip_special_tokens=False))

    def token_text(self, number: int) -> str:
        """One id as people would read it: a leading space stays a space."""
        if number in self.special_ids or self.definition["model"]["type"] == "WordPiece":
            return str(self.reference.id_to_token(number))
        if self.definition["model"]["type"] == "Unigram":  # whose decoder drops a leading space
            return str(self.reference.id_to_token(number)).replace("\u2581", " ")
        return str(self.reference.decode([int(number)], skip_special_tokens=False))


def _reference(definition: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer as Reference

    reference = Reference.from_str(json.dumps(definition))
    reference.encode_special_tokens = True
    return reference


def _mark_special(definition: dict[str, Any], specials: SpecialTokens) -> bool:
    """Mark added entries that play a part as special; otherwise their texts would be found in a text."""
    unmarked = [
        token
        for token in definition["added_tokens"]
        if token["content"] in astuple(specials) and not token.get("special")
    ]
    for token in unmarked:
        token["special"] = True
    return bool(unmarked)


def _without_special_entries(definition: dict[str, Any], specials: SpecialTokens) -> dict[str, Any]:
    """The same vocabulary with special entries under names that no text can spell.

    Unigram looks every piece up in the text, WordPiece every word, and both would find `</s>`. The
    ids stay. A word has no space in it, so a name with one is never found.
    """
    definition = copy.deepcopy(definition)
    names = {token: f" \0{token}\0 " for token in astuple(specials)}
    model = definition["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    for token in definition["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return {**definition, "post_processor": None}


def _settings_of_class(definition: dict[str, Any], specials: SpecialTokens) -> dict[str, Any]:
    """Which class of `transformers` takes the definition as it is, and what that class asks for."""
    normalizer = definition["normalizer"] or {}
    splitter = definition["pre_tokenizer"] or {}
    if normalizer.get("type") == "BertNormalizer" and specials == BERT_TOKENS:
        return {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "strip_accents": normalizer["strip_accents"],
        }
    plain_bytes = splitter.get("type") == "ByteLevel" and not normalizer and specials == ROBERTA_TOKENS
    if plain_bytes and not splitter["add_prefix_space"]:
        return {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"}
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def _refuse_surrogates(text: str, cause: Exception) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{text[:60]!r}: holds half of a surrogate pair, which is no text; remove it"
        ) from cause
