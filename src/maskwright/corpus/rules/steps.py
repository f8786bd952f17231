"""From the settings of the rules to the steps that a document passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..document import Step
from ..language import language_step
from ..normalise import UnicodeForm
from .alphabetic_words import alphabetic_words_step
from .bullets import bullets_step
from .c4_lines import c4_lines_step
from .config import RulesConfig
from .digits import digits_step
from .duplicate_lines import duplicate_lines_step
from .duplicate_ngrams import duplicate_ngrams_step
from .ellipsis_lines import ellipsis_lines_step
from .fineweb_lines import fineweb_lines_step
from .fix_text import fix_text_step
from .html import html_step
from .mask_email import mask_email_step
from .mask_ip import mask_ip_step
from .mask_phone import mask_phone_step
from .presets import RuleName
from .stop_words import stop_words_step
from .symbols import symbols_step
from .top_ngrams import top_ngrams_step
from .word_count import word_count_step
from .word_length import word_length_step
from .zh_characters import zh_characters_step
from .zh_lines import zh_lines_step
from .zh_ngrams import zh_ngrams_step
from .zh_stop_characters import zh_stop_characters_step
from .zh_symbols import zh_symbols_step

__all__ = ["rule_steps"]

_MAKERS: dict[RuleName, Callable[[Any], Step]] = {
    "word_count": word_count_step,
    "word_length": word_length_step,
    "symbols": symbols_step,
    "digits": digits_step,
    "alphabetic_words": alphabetic_words_step,
    "bullets": bullets_step,
    "ellipsis_lines": ellipsis_lines_step,
    "stop_words": stop_words_step,
    "zh_characters": zh_characters_step,
    "zh_symbols": zh_symbols_step,
    "zh_stop_characters": zh_stop_characters_step,
    "duplicate_lines": duplicate_lines_step,
    "top_ngrams": top_ngrams_step,
    "duplicate_ngrams": duplicate_ngrams_step,
    "zh_ngrams": zh_ngrams_step,
    "c4_lines": c4_lines_step,
    "fineweb_lines": fineweb_lines_step,
    "zh_lines": zh_lines_step,
    "mask_email": mask_email_step,
    "mask_ip": mask_ip_step,
    "mask_phone": mask_phone_step,
}


def rule_steps(config: RulesConfig, form: UnicodeForm = "NFC") -> list[Step]:
    """The steps that a config asks for, in the order of `RULE_ORDER`.

    They belong after normalising and before deduplication.

    Args:
        config: preset, switches and limits.
        form: the Unicode normal form of the corpus, for rules that bring in new characters.

    Returns:
        One step a rule. They keep no memory of documents.

    Raises:
        ConfigError: a language that cannot be found.
        MissingDependencyError: a rule needs a package that is not installed.
    """
    makers: Mapping[RuleName, Callable[[Any], Step]] = {
        **_MAKERS,
        "fix_text": partial(fix_text_step, form=form),
        "html": partial(html_step, form=form),
        "language": lambda settings: language_step(config.languages, settings.min_confidence),
    }
    return [makers[name](getattr(config, name)) for name in config.active]
