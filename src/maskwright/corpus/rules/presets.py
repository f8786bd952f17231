"""The names of the rules, the order in which they run, and the presets that choose among them.

The order is cleaning first, because it changes what the other rules count; then the language; then
rules on whole documents, the cheap ones first; then rules that remove lines; and masking last, on what
is left. Source of the order: Penedo et al. 2024, section 3 (FineWeb), which is also what `web-en` follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

__all__ = ["PRESETS", "PRESET_LANGUAGES", "RULE_ORDER", "PresetName", "RuleName"]

RuleName = Literal[
    "fix_text",
    "html",
    "language",
    "word_count",
    "word_length",
    "symbols",
    "digits",
    "alphabetic_words",
    "bullets",
    "ellipsis_lines",
    "stop_words",
    "zh_characters",
    "zh_symbols",
    "zh_stop_characters",
    "duplicate_lines",
    "top_ngrams",
    "duplicate_ngrams",
    "zh_ngrams",
    "c4_lines",
    "fineweb_lines",
    "zh_lines",
    "mask_email",
    "mask_ip",
    "mask_phone",
]
PresetName = Literal["none", "light", "web-en", "web-zh"]

RULE_ORDER: tuple[RuleName, ...] = get_args(RuleName)

_LIGHT: tuple[RuleName, ...] = ("html", "digits", "bullets", "ellipsis_lines", "duplicate_lines")
_WEB_EN: tuple[RuleName, ...] = (
    *_LIGHT,
    "language",
    "word_count",
    "word_length",
    "symbols",
    "alphabetic_words",
    "stop_words",
    "top_ngrams",
    "duplicate_ngrams",
    "c4_lines",
    "fineweb_lines",
    "mask_email",
    "mask_ip",
)
_WEB_ZH: tuple[RuleName, ...] = (
    *_LIGHT,
    "language",
    "zh_characters",
    "zh_symbols",
    "zh_stop_characters",
    "zh_ngrams",
    "zh_lines",
    "mask_email",
    "mask_ip",
    "mask_phone",
)

PRESETS: Mapping[PresetName, frozenset[RuleName]] = MappingProxyType(
    {
        "none": frozenset(),
        "light": frozenset(_LIGHT),
        "web-en": frozenset(_WEB_EN),
        "web-zh": frozenset(_WEB_ZH),
    }
)
"""Rules of each preset. `light` holds for any language and needs no extra; the `web-` ones do."""

PRESET_LANGUAGES: Mapping[PresetName, tuple[str, ...] | None] = MappingProxyType(
    {"none": None, "light": None, "web-en": ("en",), "web-zh": ("zh",)}
)
"""Languages that the rule `language` keeps when the config names none; None keeps all."""
