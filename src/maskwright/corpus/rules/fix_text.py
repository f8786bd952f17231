"""Rule `fix_text`: repair text that was decoded with the wrong encoding, with the library ftfy."""

from __future__ import annotations

from dataclasses import replace

from ...core.config import Config
from ...core.errors import MissingDependencyError
from ..document import Document, Drop, Step
from ..normalise import UnicodeForm, normalise_text
from .stable import until_stable

__all__ = ["FixText", "fix_text_step"]


class FixText(Config):
    """The rule `fix_text` has no settings."""


def fix_text_step(settings: FixText, form: UnicodeForm = "NFC") -> Step:
    """A step that repairs mojibake, such as `â€œ` for a quotation mark.

    Only encodings are repaired: quotes, widths of characters and entities stay as they are. Cost:
    6 to 8 MB/s on one core, slower than all other rules of a preset together, so no preset has it.

    Source: Speer, ftfy (Zenodo 2019).

    Args:
        settings: none there are.
        form: the Unicode normal form of the corpus, which the repaired text gets again.

    Returns:
        A step. It changes the text, and drops with the reason `empty` what has none left.

    Raises:
        MissingDependencyError: ftfy is not installed.
    """
    try:
        from ftfy import TextFixerConfig, fix_text
    except ImportError as error:
        raise MissingDependencyError("ftfy", "corpus", "repair text (rule fix_text)") from error
    options = TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        remove_terminal_escapes=False,
        normalization=None,
    )

    def rewrite(text: str) -> str:
        return normalise_text(fix_text(text, options), form)

    def step(document: Document, /) -> Document | Drop:
        text = until_stable(rewrite, document.text)
        if not text:
            return Drop("empty")
        return document if text == document.text else replace(document, text=text)

    return step
