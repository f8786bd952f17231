"""Learning a vocabulary from texts, the same one every time, in bounded memory.

The learner (`tokenizers`) holds every distinct word. Languages with spaces repeat their words, so
100 MB of English need half a gigabyte; Chinese and Japanese have none, so nearly every run between
two punctuation marks is a new "word", and 36 MB needed three gigabytes. Here such runs are cut into
pieces of a few characters, and of a large sample only every n-th piece is shown to the learner. This
touches training alone: the vocabulary is an ordinary one and encodes whole runs. The texts are kept
compressed, because the n is known only after all were seen.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import Any

from ..core.errors import TokenizerError
from .vocabularies import BERT_TOKENS, ROBERTA_TOKENS, wordpiece_definition

__all__ = ["Sample", "train_byte_level", "train_wordpiece"]

# Chinese, Japanese kana, and what is written like them.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
# At a cut, a token of more characters than this cannot be learned; words of Chinese have one to four.
_PIECE = 8
# Some 230 bytes of memory each.
MAX_UNSPACED_CHARACTERS = 5_000_000
# Longer words are no words: Base64, rulers, sequences of DNA. One of 100 MB would fill the memory.
_LONG_WORD = re.compile(r"\S{64}(?=\S)")
_SMALLEST_WORDPIECE = 32


class Sample:
    """Texts that can be read more than once, compressed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[bytes] = []
        self.unspaced_characters = 0
        for text in texts:
            self._texts.append(zlib.compress(text.encode("utf-8", "replace"), 1))
            if not text.isascii():
                self.unspaced_characters += sum(map(len, _RUN.findall(text)))

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            yield zlib.decompress(text).decode()

    def pieces(self) -> Iterator[list[str]]:
        """Texts cut so that the learner can hold them."""
        step = -(-self.unspaced_characters // MAX_UNSPACED_CHARACTERS)
        seen = 0
        for text in self:
            pieces = _cut_long_words(text)
            if step and not text.isascii():
                runs = [
                    run[start : start + _PIECE]
                    for run in _RUN.findall(text)
                    for start in range(0, len(run), _PIECE)
                ]
                pieces = [part for piece in pieces for part in _RUN.split(piece)]
                pieces += runs[-seen % step :: step]
                seen += len(runs)
            yield pieces


def _cut_long_words(text: str) -> list[str]:
    if _LONG_WORD.search(text) is None:
        return [text]
    return _LONG_WORD.sub(lambda match: match.group() + "\0", text).split("\0")


def train_byte_level(texts: Iterable[str], vocab_size: int) -> str:
    """Learn a byte-level BPE: RoBERTa's first four ids, the bytes, the merges, `<mask>` last.

    Args:
        texts: documents; read once.
        vocab_size: entries in all. A small corpus may give fewer.

    Returns:
        Content of a `tokenizer.json`.

    Raises:
        TokenizerError: `vocab_size` cannot hold the bytes and the special tokens.

    Source: Sennrich et al. 2016 (BPE); Radford et al. 2019 (bytes); ids as in RoBERTa.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = ROBERTA_TOKENS
    smallest = 256 + len(astuple(specials))
    if vocab_size < smallest:
        raise TokenizerError(f"vocab_size is {vocab_size}, expected at least {smallest}: bytes and specials")
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=list(astuple(specials)[:4]),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    reference.train_from_iterator(Sample(texts).pieces(), trainer)
    reference.add_special_tokens([AddedToken(specials.mask, lstrip=True, special=True)])
    reference.post_processor = processors.RobertaProcessing(
        (specials.eos, 2), (specials.bos, 0), add_prefix_space=False
    )
    return str(reference.to_str())


def train_wordpiece(texts: Iterable[str], vocab_size: int, *, lowercase: bool = True) -> str:
    """Learn a vocabulary as BERT has it: five special tokens, characters, pieces of words.

    Every Chinese character is a word, so Chinese text is encoded character by character. At most half
    of the entries are single characters, the most frequent ones; others are unknown.

    Args:
        texts: documents; read once.
        vocab_size: entries in all. A small corpus may give fewer.
        lowercase: fold capital letters and take accents off.

    Returns:
        Content of a `tokenizer.json`.

    Raises:
        TokenizerError: `vocab_size` is too small to be of use.

    Source: Devlin et al. 2019. Pieces are chosen by frequency as in BPE, as `tokenizers` does it.
    """
    from tokenizers import Tokenizer, models, trainers

    if vocab_size < _SMALLEST_WORDPIECE:
        raise TokenizerError(f"vocab_size is {vocab_size}, expected at least {_SMALLEST_WORDPIECE}")
    specials = list(astuple(BERT_TOKENS))
    order = [BERT_TOKENS.pad, BERT_TOKENS.unk, BERT_TOKENS.bos, BERT_TOKENS.eos, BERT_TOKENS.mask]
    assert sorted(order) == sorted(specials)
    sample = Sample(texts)
    ids = {token: number for number, token in enumerate(order)}
    empty = Tokenizer.from_str(wordpiece_definition(ids, BERT_TOKENS, lowercase=lowercase))
    characters, alphabet = _alphabet(sample, empty, vocab_size // 2)
    reference = Tokenizer(models.WordPiece(unk_token=BERT_TOKENS.unk))
    reference.normalizer, reference.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    # The learner numbers what it meets in no fixed order, and breaks ties by number. Naming the whole
    # alphabet as special tokens, in order, leaves it no choice.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*order, *alphabet],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    reference.train_from_iterator((_cut_long_words(text) for text in sample), trainer)
    return wordpiece_definition(
        reference.get_vocab(with_added_tokens=False), BERT_TOKENS, lowercase=lowercase
    )


def _alphabet(sample: Iterable[str], empty: Any, limit: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, and the entries they need: alone and, where it occurs, inside a word."""
    counts: Counter[str] = Counter()
    for text in sample:
        counts.update(empty.normalizer.normalize_str(text))
    by_frequency = sorted(
        (character for character in counts if not character.isspace()),
        key=lambda character: (-counts[character], character),
    )
    characters: list[str] = []
    inside: list[str] = []
    for character in by_frequency:
        word = empty.normalizer.normalize_str(f"a{character}a")
        is_inside = len(empty.pre_tokenizer.pre_tokenize_str(word)) == 1
        if len(characters) + len(inside) + 1 + is_inside > limit:
            break
        characters.append(character)
        if is_inside:
            inside.append(f"##{character}")
    return sorted(characters), [*sorted(characters), *sorted(inside)]
