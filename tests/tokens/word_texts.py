"""Texts that are awkward to cut into words, and what a cut should be."""

from __future__ import annotations

import numpy as np

from maskwright.tokens.alignment import token_characters
from maskwright.tokens.character_classes import CharacterClass, character_classes
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.word_rule import word_rule

TEXTS = (
    "Hello world, it's 2026 and we'll tokenise 1,234.5 things  \t\n\n  twice.\r\n",
    "don't 's's 'S it'S ''s we've they'll'd x're're'  'tis \n'tis the 1980's",
    "naïve façade e\u0301 Ångström ﬁ ½ ǅ \u00a0\u2003\u3000x\u3000\u3000y  \u3000 z \u00a0\t",
    "中文文本，没有空格。 日本語テキスト・カナ 한국어 中abc中 中's 〇々",
    "שלום עולם مرحبا 👩‍👩‍👧‍👦🏳️‍🌈 𝔘𝔫𝔦𝔠 \U0010fffd\x00\x7f 👍👍",
    "def f(x):\n    return x**2  # it'S WE'LL I'm\n\t\tif __name__ == '__main__':\n\n\n",
    "a\n\nb\n \n c   d\n\n\n",
    "ᚠᚢᚦ ᚠ１２３ 𝟘𝟙 ١٢٣ 𠀀𠀁",
    "",
    " ",
    "\n",
    "'s",
)
LETTERS = (
    *("a", "b", "s", "t", "r", "e", "v", "l", "m", "d", "1", "2", "'", ".", "!", " ", " ", "\n", "\t"),
    *("\u3000", "\u00a0", "é", "中", "か", "ᚠ", "👩", "１", "𝟘", "𠀀", "'s", "'re", "'ll", " \n"),
)


def kinds_of(text: str) -> list[int]:
    """Class of each character."""
    classes = character_classes()
    return [int(classes[min(ord(character), len(classes) - 1)]) for character in text]


def expected_words(tokenizer: Tokenizer, text: str) -> set[int]:
    """Characters that begin a word: pieces of the reference's splitter, and Chinese one by one."""
    pieces = {start for _, (start, _) in tokenizer.reference.pre_tokenizer.pre_tokenize_str(text)}
    alone = [kind in (CharacterClass.HAN, CharacterClass.KANA) for kind in kinds_of(text)]
    for place in range(1, len(text)):
        if (alone[place] and text[place - 1] != " ") or (alone[place - 1] and not alone[place]):
            pieces.add(place)
    return pieces


def expected_begins(tokenizer: Tokenizer, text: str) -> list[bool]:
    """The same for the tokens of the text; no token that begins inside a character begins a word."""
    ids, spelt = tokenizer.encode(text), text.encode()
    lengths = tokenizer.spelling.lengths
    assert lengths is not None
    starts = np.cumsum(lengths[ids]) - lengths[ids]
    characters = token_characters(tokenizer, ids, text).tolist()
    words = expected_words(tokenizer, text)
    inside = [spelt[start] & 0xC0 == 0x80 for start in starts.tolist()]
    return [one in words and not is_inside for one, is_inside in zip(characters, inside, strict=True)]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text as the rule tells them."""
    ids = tokenizer.encode(text).astype(np.int64)
    return [tokenizer.decode(piece) for piece in split_at(ids, word_rule(tokenizer).begins(ids))]


def split_at(ids: np.ndarray, begins: np.ndarray) -> list[np.ndarray]:
    """Tokens word by word."""
    places = np.flatnonzero(begins)
    assert not len(ids) or places[0] == 0
    return np.split(ids, places[1:]) if len(ids) else []
