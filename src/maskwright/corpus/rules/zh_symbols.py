"""Rule `zh_symbols`: Chinese documents full of hash signs or of ellipses."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share
from .symbols import count_ellipses

__all__ = ["ZhSymbols", "zh_symbols_step"]


class ZhSymbols(Config):
    """Limits of the rule `zh_symbols`."""

    max_ratio: float = Field(
        default=0.05,
        ge=0,
        description="most hash signs (full-width ones too), and most ellipses, for each character",
    )


def zh_symbols_step(settings: ZhSymbols) -> Step:
    """A step that drops Chinese documents with many hash signs or ellipses for their characters.

    Source: the symbol-to-word ratio of Rae et al. 2021, appendix A1.1 (0.1), divided by the two
    characters of a Chinese word. A Chinese ellipsis is two signs and counts as one.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reasons `hash_signs` and `ellipses`.
    """

    def step(document: Document, /) -> Document | Drop:
        text = document.text
        num_ellipses = count_ellipses(text.replace("……", "…") if "……" in text else text)
        counts = {"hash_signs": text.count("#") + text.count("＃"), "ellipses": num_ellipses}
        for reason, count in counts.items():
            if not count:
                continue
            ratio = share(count, measure(text).counts.visible)
            if ratio > settings.max_ratio:
                return Drop(reason, f"{ratio:.3f} a character, at most {settings.max_ratio:g}")
        return document

    return step
