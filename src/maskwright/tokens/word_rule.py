"""Where words begin among tokens, told from the ids alone.

A word is what GPT-2's splitter, which stands before RoBERTa's vocabulary, cuts a text into: letters,
digits or other signs with the one space before them, white space, and the short forms 's 't 're 've
'm 'll 'd. Its borders are always borders of tokens. A letter of Chinese or Japanese is a word of its
own with all its bytes, for want of spaces. WordPiece marks what goes on with a word, so there the mark
decides.

A table of some bytes an id says how each token begins and ends. Laying it beside the ids costs some
thirty vector operations, no text is made. A character that is spread over several tokens is put together
from them. Whether a token begins a word depends on no more than `CONTEXT` tokens on either side.

Source: Radford et al. 2019 (GPT-2, released encoder); Cui et al. 2021 (arXiv 1906.08101) for whole
words as the unit of masking.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..core.errors import TokenizerError
from .character_classes import CharacterClass, character_classes
from .spelling import byte_alphabet, is_byte_level
from .tokenizer import Tokenizer

__all__ = ["CONTEXT", "WordRule", "word_rule"]

# A short form and a character take up to three more tokens each.
CONTEXT = 8
_SPREAD = 3  # tokens behind the first that a character, or a short form, may take
_SPACE_MARK = "\u2581"
_EDGE = 255  # before the first token, and special tokens
_OPEN = 254  # a character that other tokens go on with
_WHITE = (CharacterClass.WHITE, CharacterClass.SPACE)
_QUOTE = ord("'")
_SHORT = [int.from_bytes(text, "little") for text in (b"'s", b"'t", b"'m", b"'d")]
_LONG = [int.from_bytes(text, "little") for text in (b"'re", b"'ve", b"'ll")]

_Ids = npt.NDArray[np.integer[Any]]
_Bools = npt.NDArray[np.bool_]


class WordRule(Protocol):
    """Tells which tokens begin a word.

    A Protocol, because vocabularies mark words in two unlike ways.
    """

    def begins(self, ids: _Ids) -> _Bools:
        """Which tokens begin a word; bool of the same shape.

        Args:
            ids: tokens laid end to end, of shape (N,). Special ones are borders, and count as words.
        """
        ...


@lru_cache(maxsize=2)
def word_rule(tokenizer: Tokenizer) -> WordRule:
    """How the words of a vocabulary are told, kept for the next call: the table takes a moment.

    Args:
        tokenizer: of any kind whose tokens say where words begin.

    Raises:
        TokenizerError: the vocabulary marks ends of words, which is not supported.
    """
    model = tokenizer.definition["model"]
    prefix = model.get("continuing_subword_prefix")
    if model.get("end_of_word_suffix"):
        raise TokenizerError(
            f"{tokenizer.place}: marks the ends of words with {model['end_of_word_suffix']!r}, which whole "
            "words are not supported for; use single tokens, or a byte-level or WordPiece vocabulary"
        )
    if prefix or model["type"] == "WordLevel":
        return _MarkedWords(tokenizer, prefix or "")
    return _SpelledWords(tokenizer)


class _MarkedWords:
    """Tokens inside a word begin with a mark, as WordPiece has it.

    Args:
        tokenizer: the vocabulary.
        mark: what such tokens begin with; none of them if it is empty.
    """

    def __init__(self, tokenizer: Tokenizer, mark: str) -> None:
        self._goes_on = np.zeros(tokenizer.vocab_size, np.bool_)
        self._is_special = _specials(tokenizer)
        for token, number in tokenizer.reference.get_vocab().items():
            self._goes_on[number] = bool(mark) and token.startswith(mark) and len(token) > len(mark)
        self._goes_on[self._is_special] = False

    def begins(self, ids: _Ids) -> _Bools:
        """Which tokens begin a word."""
        begins = ~self._goes_on[ids]
        begins[1:] |= self._is_special[ids[:-1]]
        begins[:1] = True
        return begins


class _SpelledWords:
    """Tokens spell the text, and its characters tell the words.

    Args:
        tokenizer: byte-level, or with U+2581 for the space.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._table = _Table(tokenizer)

    def begins(self, ids: _Ids) -> _Bools:
        """Which tokens begin a word."""
        if not len(ids):
            return np.zeros(0, np.bool_)
        table = self._table
        first, last = self._edges(ids)
        before = np.concatenate([[np.uint8(_EDGE)], last[:-1]])
        leads = table.leads_to_text[ids]
        leads |= table.leads_on[ids] & (last < CharacterClass.WHITE)
        white = first >= CharacterClass.WHITE
        after_white = (before >= CharacterClass.WHITE) & (before < _OPEN)
        begins = (first != before) | (first == CharacterClass.HAN) | (first == CharacterClass.KANA)
        begins = np.asarray(begins & (before != CharacterClass.SPACE))
        begins |= white & (~after_white | leads)
        begins[white & after_white & ~leads] = False
        # Of several white characters the last stands apart where text follows.
        alone = np.flatnonzero(white & after_white & table.is_one[ids])
        begins[alone] = self._text_follows(ids, first, alone)
        begins &= table.head[ids] == 0
        begins |= (before == _EDGE) | table.is_special[ids]
        self._cut_short_forms(ids, begins)
        return begins

    def _edges(self, ids: _Ids) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Class of each token's first character, and of the last one up to its end."""
        table = self._table
        first, last = table.first[ids], table.last[ids]
        opened = np.flatnonzero(last == _OPEN)
        if len(opened):
            found = self._put_together(ids, opened)
            last[opened] = found
            first[opened] = np.where(first[opened] == _OPEN, found, first[opened])
        inner = table.is_inner[ids]
        if inner.any():
            source = np.maximum.accumulate(np.where(inner, 0, np.arange(len(ids))))
            last = last[source]
        return first, last

    def _put_together(self, ids: _Ids, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Class of the character that begins at the end of each of some tokens."""
        table, final = self._table, len(ids) - 1
        code, missing = table.tail_code[ids[places]], table.tail_missing[ids[places]].astype(np.int64)
        for step in range(1, _SPREAD + 1):
            following = ids[np.minimum(places + step, final)]
            taken = np.minimum(table.head[following], missing)
            code = (code << 6 * taken) | np.where(taken > 0, table.head_code[following], 0)
            missing = missing - taken
        classes = character_classes()
        found: npt.NDArray[np.uint8] = classes[np.clip(code, 0, len(classes) - 1)]
        return found

    def _text_follows(self, ids: _Ids, first: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> _Bools:
        """Whether what follows some tokens of one character is a character that is not white."""
        table, final = self._table, len(ids) - 1
        following = np.minimum(places + 1, final)
        for _ in range(_SPREAD):
            following = np.where(table.is_inner[ids[following]], np.minimum(following + 1, final), following)
        is_text: _Bools = (first[following] < CharacterClass.WHITE) & (table.head[ids[following]] == 0)
        is_text &= places < final
        return is_text

    def _cut_short_forms(self, ids: _Ids, begins: _Bools) -> None:
        """Take 's and its like as words, and let a word begin behind them."""
        table = self._table
        places = np.flatnonzero(begins & table.is_quote[ids])
        if not len(places):
            return
        final = len(ids) - 1
        text = table.text[ids[places]].astype(np.int64)
        sizes = [table.text_size[ids[places]].astype(np.int64)]
        for step in range(1, _SPREAD):
            following = ids[np.minimum(places + step, final)]
            text |= np.where(places + step <= final, table.text[following], 0) << 8 * np.minimum(sizes[-1], 4)
            sizes.append(sizes[-1] + table.text_size[following])
        length = np.where(np.isin(text & 0xFFFF, _SHORT), 2, np.where(np.isin(text & 0xFFFFFF, _LONG), 3, 0))
        for step, size in enumerate(sizes, start=1):
            inside = places + step <= final
            begins[(places + step)[inside & (size < length)]] = False
            begins[(places + step)[inside & (size == length)]] = True


class _Table:
    """How each id begins and ends.

    Attributes:
        first: class of its first character, `_OPEN` if it goes on in the next token.
        last: the same of its last character.
        head: bytes at its start that go on with a character of a token before.
        head_code: the bits in them.
        is_inner: whether it has no others.
        tail_code: the bits that it has of a last character that goes on.
        tail_missing: bytes which that character lacks.
        is_one: whether it is the begin of one character and no more.
        leads_to_text: whether it is one white character and then text.
        leads_on: whether it is one white character and then one that goes on in the next token.
        text, text_size: its first ASCII bytes (little-endian), and how many it has, both to four bytes.
        is_quote: whether it begins with an apostrophe.
        is_special: whether it is no text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        size = tokenizer.vocab_size
        self.first = np.full(size, _EDGE, np.uint8)
        self.last = np.full(size, _EDGE, np.uint8)
        self.head = np.zeros(size, np.int64)
        self.head_code = np.zeros(size, np.int64)
        self.tail_code = np.zeros(size, np.int64)
        self.tail_missing = np.zeros(size, np.int64)
        self.text = np.zeros(size, np.int64)
        self.text_size = np.full(size, 4, np.int64)
        self.is_inner = np.zeros(size, np.bool_)
        self.is_one = np.zeros(size, np.bool_)
        self.leads_to_text = np.zeros(size, np.bool_)
        self.leads_on = np.zeros(size, np.bool_)
        self.is_special = _specials(tokenizer)
        classes = character_classes()
        for number, spelt in _spellings(tokenizer).items():
            if spelt and not self.is_special[number]:
                self._read(number, spelt, classes)
        self.is_quote = (self.text & 0xFF == _QUOTE) & ~self.is_special

    def _read(self, number: int, spelt: bytes, classes: npt.NDArray[np.uint8]) -> None:
        size = len(spelt)
        head = next((place for place, byte in enumerate(spelt) if byte & 0xC0 != 0x80), size)
        head = min(head, _SPREAD)
        self.head[number] = head
        self.head_code[number] = _bits(spelt[:head])
        self.text[number] = int.from_bytes(spelt[:4], "little")
        self.text_size[number] = min(size, 4)
        if head == size:
            self.is_inner[number] = True
            return
        start = max(place for place in range(size) if spelt[place] & 0xC0 != 0x80 or place == head)
        missing = max(0, _width(spelt[start]) - (size - start))
        whole = spelt[head : start if missing else size].decode("utf-8", "replace")
        kinds = [int(classes[min(ord(character), len(classes) - 1)]) for character in whole]
        if missing:
            lead = spelt[start] & (0x7F >> _width(spelt[start]))
            self.tail_code[number] = lead << 6 * (size - start - 1) | _bits(spelt[start + 1 :])
            self.tail_missing[number] = missing
            kinds.append(_OPEN)
        self.first[number], self.last[number] = kinds[0], kinds[-1]
        self.is_one[number] = len(kinds) == 1
        if len(kinds) > 1 and kinds[0] in _WHITE:
            self.leads_to_text[number] = kinds[1] not in (*_WHITE, _OPEN)
            self.leads_on[number] = kinds[1] == _OPEN


def _bits(bytes_inside: bytes) -> int:
    """The bits of bytes that go on with a character."""
    code = 0
    for byte in bytes_inside:
        code = code << 6 | byte & 0x3F
    return code


def _width(lead: int) -> int:
    """Bytes of a character by its first one; 1 for bytes that begin none."""
    return 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 1


def _specials(tokenizer: Tokenizer) -> _Bools:
    """Which ids are no text: those with a part to play, and those that were added."""
    special = np.zeros(tokenizer.vocab_size, np.bool_)
    special[list(tokenizer.special_ids)] = True
    special[[token["id"] for token in tokenizer.definition["added_tokens"]]] = True
    return special


def _spellings(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes that each id stands for."""
    entries = tokenizer.reference.get_vocab()
    if is_byte_level(tokenizer.definition):
        alphabet = byte_alphabet()
        return {
            number: bytes(alphabet[character] for character in token)
            if all(character in alphabet for character in token)
            else token.encode()
            for token, number in entries.items()
        }
    is_byte = tokenizer.spelling.is_single_byte
    return {
        number: bytes([int(token[3:5], 16)])
        if is_byte[number]
        else token.replace(_SPACE_MARK, " ").encode("utf-8", "replace")
        for token, number in entries.items()
    }
