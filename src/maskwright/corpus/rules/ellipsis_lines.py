"""Rule `ellipsis_lines`: documents made of teasers that break off."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["EllipsisLines", "ellipsis_lines_step"]


class EllipsisLines(Config):
    """Limits of the rule `ellipsis_lines`."""

    max_share: float = Field(
        default=0.3, ge=0, le=1, description="largest share of lines that end with an ellipsis"
    )


def ellipsis_lines_step(settings: EllipsisLines) -> Step:
    """A step that drops documents of which many lines end with an ellipsis.

    Source: Rae et al. 2021, appendix A1.1 (more than 30 % of lines). Empty lines do not count. An
    ellipsis is three full stops or the one character, which Chinese doubles.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reason `ellipsis_lines`.
    """

    def step(document: Document, /) -> Document | Drop:
        lines = measure(document.text).lines
        value = share(sum(line.endswith(("...", "…")) for line in lines), len(lines))
        if value > settings.max_share:
            return Drop("ellipsis_lines", f"{value:.3f} of lines, at most {settings.max_share:g}")
        return document

    return step
