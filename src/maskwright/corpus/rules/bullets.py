"""Rule `bullets`: documents that are little but lists."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["Bullets", "bullets_step"]

# Signs that nobody starts a sentence with; and those that only are bullets before a space.
_BULLETS = (*"•‣⁃◦▪▫■□●○◆◇▶▷►➢➤✓✔★☆※·・", "- ", "* ", "– ", "+ ")


class Bullets(Config):
    """Limits of the rule `bullets`."""

    max_share: float = Field(
        default=0.9, ge=0, le=1, description="largest share of lines that start with a bullet"
    )


def bullets_step(settings: Bullets) -> Step:
    """A step that drops documents of which nearly every line starts with a bullet.

    Source: Rae et al. 2021, appendix A1.1 (more than 90 % of lines). Deviations: empty lines do not
    count; besides the round bullet, the usual geometric signs, the marks of Chinese lists, and minus,
    star, plus and en dash before a space count as bullets.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reason `bullets`.
    """

    def step(document: Document, /) -> Document | Drop:
        lines = measure(document.text).lines
        value = share(sum(line.startswith(_BULLETS) for line in lines), len(lines))
        if value > settings.max_share:
            return Drop("bullets", f"{value:.3f} of lines, at most {settings.max_share:g}")
        return document

    return step
