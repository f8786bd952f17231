"""The settings of the rules: a preset, rules switched on or off by name, and the limits of each rule."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ...core.config import Config
from ..language import LanguageSettings
from .alphabetic_words import AlphabeticWords
from .bullets import Bullets
from .c4_lines import C4Lines
from .digits import Digits
from .duplicate_lines import DuplicateLines
from .duplicate_ngrams import DuplicateNgrams
from .ellipsis_lines import EllipsisLines
from .fineweb_lines import FinewebLines
from .fix_text import FixText
from .html import Html
from .mask_email import MaskEmail
from .mask_ip import MaskIp
from .mask_phone import MaskPhone
from .presets import PRESET_LANGUAGES, PRESETS, RULE_ORDER, PresetName, RuleName
from .stop_words import StopWords
from .symbols import Symbols
from .top_ngrams import TopNgrams
from .word_count import WordCount
from .word_length import WordLength
from .zh_characters import ZhCharacters
from .zh_lines import ZhLines
from .zh_ngrams import ZhNgrams
from .zh_stop_characters import ZhStopCharacters
from .zh_symbols import ZhSymbols

__all__ = ["RulesConfig"]


class RulesConfig(Config):
    """Which rules clean a corpus, and with which limits."""

    preset: PresetName = Field(
        default="none",
        description="rules to start from: none, light (any language), web-en or web-zh (web pages in English "
        "or Chinese)",
    )
    on: tuple[RuleName, ...] = Field(default=(), description="rules to add to those of the preset")
    off: tuple[RuleName, ...] = Field(default=(), description="rules to take away from those of the preset")

    fix_text: FixText = Field(default=FixText(), description="repair wrongly decoded text (needs ftfy)")
    html: Html = Field(default=Html(), description="remove tags, scripts and entities")
    language: LanguageSettings = Field(default=LanguageSettings(), description="keep some languages")
    word_count: WordCount = Field(default=WordCount(), description="number of words")
    word_length: WordLength = Field(default=WordLength(), description="mean length of words")
    symbols: Symbols = Field(default=Symbols(), description="hash signs and ellipses for each word")
    digits: Digits = Field(default=Digits(), description="share of digits")
    alphabetic_words: AlphabeticWords = Field(default=AlphabeticWords(), description="words with a letter")
    bullets: Bullets = Field(default=Bullets(), description="lines that start with a bullet")
    ellipsis_lines: EllipsisLines = Field(
        default=EllipsisLines(), description="lines that end with an ellipsis"
    )
    stop_words: StopWords = Field(default=StopWords(), description="different English stop words")
    zh_characters: ZhCharacters = Field(
        default=ZhCharacters(), description="number of characters and share of Chinese ones"
    )
    zh_symbols: ZhSymbols = Field(
        default=ZhSymbols(), description="hash signs and ellipses for each character"
    )
    zh_stop_characters: ZhStopCharacters = Field(
        default=ZhStopCharacters(), description="different Chinese function characters"
    )
    duplicate_lines: DuplicateLines = Field(
        default=DuplicateLines(), description="repeated lines and paragraphs"
    )
    top_ngrams: TopNgrams = Field(default=TopNgrams(), description="the most frequent runs of 2 to 4 words")
    duplicate_ngrams: DuplicateNgrams = Field(
        default=DuplicateNgrams(), description="repeated runs of 5 to 10 words"
    )
    zh_ngrams: ZhNgrams = Field(default=ZhNgrams(), description="frequent and repeated runs of characters")
    c4_lines: C4Lines = Field(default=C4Lines(), description="remove lines that are no sentences")
    fineweb_lines: FinewebLines = Field(default=FinewebLines(), description="shapes of lines, English")
    zh_lines: ZhLines = Field(default=ZhLines(), description="shapes of lines, Chinese")
    mask_email: MaskEmail = Field(default=MaskEmail(), description="replace e-mail addresses")
    mask_ip: MaskIp = Field(default=MaskIp(), description="replace public IPv4 addresses")
    mask_phone: MaskPhone = Field(default=MaskPhone(), description="replace phone numbers")

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = [name for name in self.on if name in self.off]
        if both:
            raise ValueError(f"{both[0]} is in on and in off; take it out of one of them")
        active = self.active
        for name in RULE_ORDER:
            # Compared with the defaults, because a saved config names every field.
            if name not in active and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f'{name} is set, but the rule is off (preset "{self.preset}"); add {name} to on'
                )
        return self

    @property
    def active(self) -> tuple[RuleName, ...]:
        """The rules that run, in their order."""
        chosen = (PRESETS[self.preset] | set(self.on)) - set(self.off)
        return tuple(name for name in RULE_ORDER if name in chosen)

    @property
    def languages(self) -> tuple[str, ...] | None:
        """The languages that the rule `language` keeps; None keeps all."""
        named = self.language.languages
        return PRESET_LANGUAGES[self.preset] if named is None else named
