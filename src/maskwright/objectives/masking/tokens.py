"""Single tokens: each is chosen by itself. About thirty vector operations a token.

Source: BERT (arXiv 1810.04805, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...core.keyed import derive_key, hash64, to_unit
from .unit import ArrayT, Draw

__all__ = ["Tokens"]


@dataclass(frozen=True)
class Tokens:
    """Chooses tokens independently of each other.

    Attributes:
        seed: the run's seed.
    """

    seed: int

    def draw(self, positions: ArrayT, epoch: int, rate: float) -> Draw:
        """Choose each position with probability `rate`."""
        values = to_unit(hash64(derive_key(self.seed, "mask", epoch), positions))
        return Draw(values < rate, positions, None)

    def clustering(self, rate: float) -> float:
        """1: tokens do not know of each other."""
        return 1.0
