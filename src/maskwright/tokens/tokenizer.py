"""The byte-level BPE tokenizer: train, load, save, encode fast.

Training and the reference encoder are the `tokenizers` library. Encoding goes through `gigatoken`,
which gives the same ids tens of times faster; every time a tokenizer is opened the two are compared
on awkward text, and on the first difference the reference takes over with a warning. The texts of
special tokens (`<mask>`, `</s>`) inside a document are ordinary text and never become special ids.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError, TokenizerError
from ..core.files import read_bytes, write_json, write_text
from ..core.fingerprint import fingerprint

__all__ = ["SPECIAL_TOKENS", "EncodedBatch", "Tokenizer"]

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FILE_NAME = "tokenizer.json"
log = logging.getLogger(__name__)

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

EncodedBatch = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


class Tokenizer:
    """A byte-level BPE vocabulary with RoBERTa's special tokens.

    Args:
        definition: content of a `tokenizer.json`.
        place: where it comes from, for messages.

    Raises:
        TokenizerError: it cannot be read, or lacks a special token.
    """

    def __init__(self, definition: str, place: str = "tokenizer") -> None:
        from tokenizers import Tokenizer as Reference

        try:
            self.reference = Reference.from_str(definition)
            self.definition: dict[str, Any] = json.loads(definition)
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"{place}: is not a tokenizer.json ({error})") from error
        self.reference.encode_special_tokens = True
        self.place = place
        self.vocab_size: int = self.reference.get_vocab_size()
        found = {token: self.reference.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, number in found.items() if number is None]
        if missing:
            raise TokenizerError(
                f"{place}: has no {', '.join(missing)}; a RoBERTa vocabulary has {' '.join(SPECIAL_TOKENS)}"
            )
        ids = [number for number in found.values() if number is not None]
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id = ids

    @cached_property
    def fingerprint(self) -> str:
        """Name of the vocabulary by its content."""
        return fingerprint(self.definition)

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are never masked, predicted or drawn at random, in order of size."""
        return tuple(sorted({self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id}))

    @cached_property
    def _fast(self) -> Any:
        """The fast encoder, or None where it is missing or disagrees with the reference."""
        plain = {**self.definition, "added_tokens": [], "post_processor": None}
        try:
            import gigatoken

            fast = gigatoken.Tokenizer.from_json(json.dumps(plain))
        except Exception as error:  # an unsupported vocabulary must not stop the work
            log.warning(
                "%s: the fast encoder cannot be used (%s); the reference takes over", self.place, error
            )
            return None
        return fast if self._agrees(fast, _PROBES) else None

    def _agrees(self, fast: Any, texts: Sequence[str]) -> bool:
        for text in texts:
            expected = self.reference.encode(text, add_special_tokens=False).ids
            if fast.encode(text).tolist() != expected:
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
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a byte-level BPE: RoBERTa's first four ids, the bytes, the merges, `<mask>` last.

        Args:
            texts: documents; read once.
            vocab_size: entries in all. A small corpus may give fewer.

        Raises:
            TokenizerError: `vocab_size` cannot hold the bytes and the special tokens.

        Source: Sennrich et al. 2016 (BPE); Radford et al. 2019 (bytes); ids as in RoBERTa.
        """
        from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
        from tokenizers import Tokenizer as Reference

        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise TokenizerError(
                f"vocab_size is {vocab_size}, expected at least {smallest}: bytes and specials"
            )
        reference = Reference(models.BPE())
        reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        reference.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            special_tokens=list(SPECIAL_TOKENS[:4]),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        reference.train_from_iterator(texts, trainer)
        reference.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        reference.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
        return cls(reference.to_str(), "trained tokenizer")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer from its folder or its `tokenizer.json`.

        Raises:
            TokenizerError: there is none, or it cannot be used.
        """
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise TokenizerError(f"{path}: has no {FILE_NAME}; give a folder that holds a tokenizer")
        return cls(read_bytes(file).decode("utf-8", errors="replace"), str(file))

    def save(self, folder: Path, max_length: int = 512) -> None:
        """Write `tokenizer.json` and what `AutoTokenizer` needs beside it.

        Args:
            folder: where; made if missing.
            max_length: longest sequence in tokens that the model takes.
        """
        write_text(folder / FILE_NAME, self.reference.to_str(pretty=False))
        names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
        values: dict[str, Any] = dict(zip(names, SPECIAL_TOKENS, strict=True))
        mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False}
        values["mask_token"] = {**mask, "normalized": False, "single_word": False, "special": True}
        values |= {"cls_token": "<s>", "sep_token": "</s>", "add_prefix_space": False}
        values |= {"model_max_length": max_length, "tokenizer_class": "RobertaTokenizer"}
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
        if self._fast is None:
            rows = [e.ids for e in self.reference.encode_batch_fast(list(texts), add_special_tokens=False)]
            counts = np.array([len(row) for row in rows], np.int64)
            return np.fromiter((i for row in rows for i in row), np.uint32, int(counts.sum())), counts
        import awkward

        encoded = self._fast.encode_batch(list(texts))
        ids = np.asarray(awkward.to_numpy(awkward.flatten(encoded)), dtype=np.uint32)
        return ids, np.asarray(awkward.to_numpy(awkward.num(encoded)), dtype=np.int64)

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Encode one text without special tokens."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids back into text; special tokens are written out."""
        return str(self.reference.decode([int(number) for number in ids], skip_special_tokens=False))

    def token_text(self, number: int) -> str:
        """One id as people would read it: a leading space stays a space."""
        if number in self.special_ids:
            return str(self.reference.id_to_token(number))
        return str(self.reference.decode([int(number)], skip_special_tokens=False))


def _refuse_surrogates(text: str, cause: Exception) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{text[:60]!r}: holds half of a surrogate pair, which is no text; remove it"
        ) from cause
