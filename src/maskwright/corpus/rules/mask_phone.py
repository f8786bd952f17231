"""Rule `mask_phone`: phone numbers give way to a placeholder."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .stable import until_stable

__all__ = ["MaskPhone", "mask_phone_step"]

_LIKELY = re.compile(r"\+[0-9]|1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}")
_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z+])\+[1-9][0-9]{0,14}(?:[ .-]?(?:\([0-9]{1,4}\)|[0-9]{1,14})){0,6}(?![0-9A-Za-z])"
)
_CHINESE_MOBILE = re.compile(
    r"(?<![0-9A-Za-z.+-])(?:0086[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"
)
# ITU-T E.164 allows 15 digits; below 8 a number behind a plus is rather a sum or an offset.
_MIN_DIGITS, _MAX_DIGITS = 8, 15


class MaskPhone(Config):
    """Settings of the rule `mask_phone`."""

    replacement: str = Field(default="555-0100", description="text to put where a phone number was")


def mask_phone_step(settings: MaskPhone) -> Step:
    """A step that replaces international phone numbers and Chinese mobile numbers.

    Source: our own patterns: a plus, a country code and 8 to 15 digits in all (ITU-T E.164), with
    spaces, dots, hyphens and brackets between them; and 11 digits that start with 13 to 19, the form
    of mobile numbers in mainland China. The placeholder is of the range that the North American plan
    keeps for fiction. National numbers of other countries are not looked for: nothing tells them from
    other numbers.

    Args:
        settings: the replacement.

    Returns:
        A step. It changes the text and never drops.
    """

    def mask(match: re.Match[str]) -> str:
        num_digits = sum(character.isdigit() for character in match.group())
        return settings.replacement if _MIN_DIGITS <= num_digits <= _MAX_DIGITS else match.group()

    def rewrite(text: str) -> str:
        return _CHINESE_MOBILE.sub(mask, _INTERNATIONAL.sub(mask, text))

    def step(document: Document, /) -> Document | Drop:
        if not _LIKELY.search(document.text):
            return document
        text = until_stable(rewrite, document.text)
        return document if text == document.text else replace(document, text=text)

    return step
