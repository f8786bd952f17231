"""Rule `mask_email`: e-mail addresses give way to a placeholder."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .stable import until_stable

__all__ = ["MaskEmail", "mask_email_step"]

# ASCII on purpose: `\w` would take the Chinese characters before an address for a part of it.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)


class MaskEmail(Config):
    """Settings of the rule `mask_email`."""

    replacement: str = Field(
        default="email@example.com", description="text to put where an e-mail address was"
    )


def mask_email_step(settings: MaskEmail) -> Step:
    """A step that replaces e-mail addresses.

    Source: Penedo et al. 2024, section 3.7 (e-mail addresses are anonymised), with the
    placeholder on the domain that RFC 2606 reserves for examples. Addresses with characters outside
    ASCII are not found.

    Args:
        settings: the replacement.

    Returns:
        A step. It changes the text and never drops.
    """

    def step(document: Document, /) -> Document | Drop:
        if "@" not in document.text:
            return document
        text = until_stable(lambda text: _EMAIL.sub(lambda _: settings.replacement, text), document.text)
        return document if text == document.text else replace(document, text=text)

    return step
