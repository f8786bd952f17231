"""Dynamic masking as a pure function of (seed, epoch, position of the token in the corpus).

A token is selected or not because of where it stands, not because of which batch or worker met it,
so masks are the same for every batch split, world size and packing, and new in every epoch.

Source: BERT (arXiv 1810.04805, section 3.1) for 80/10/10; RoBERTa (arXiv 1907.11692, section 4.1)
for masks that change.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ..core.config import Config
from ..core.keyed import derive_key, hash64, to_range, to_unit

__all__ = ["FIXED_EPOCH", "MaskingConfig", "Masker"]

# The epoch whose masks are used for validation, in every run and at every step.
FIXED_EPOCH = -1


class MaskingConfig(Config):
    """How many tokens are predicted and what the model sees in their place."""

    mlm_probability: float = Field(0.15, gt=0, lt=1, description="share of tokens that are predicted")
    mask_share: float = Field(0.8, ge=0, le=1, description="share of those that become <mask>")
    random_share: float = Field(0.1, ge=0, le=1, description="share of those that become a random token")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1"
            )
        return self


class Masker:
    """Selects and replaces tokens.

    Args:
        config: the shares.
        seed: the run's seed.
        vocab_size: number of ids.
        mask_id: id of `<mask>`.
        special_ids: ids that are never selected and never drawn.
    """

    def __init__(
        self, config: MaskingConfig, seed: int, vocab_size: int, mask_id: int, special_ids: tuple[int, ...]
    ) -> None:
        self.config, self.seed, self.mask_id = config, seed, mask_id
        self.is_special = np.zeros(vocab_size, bool)
        self.is_special[list(special_ids)] = True
        self.ordinary = np.flatnonzero(~self.is_special)

    def eligible(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which tokens may be selected: those of the corpus that are not special."""
        return (positions >= 0) & ~self.is_special[ids]

    def select(
        self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], epoch: int
    ) -> npt.NDArray[np.bool_]:
        """Which tokens are predicted.

        Args:
            ids: token ids, int64, any shape.
            positions: their places in the corpus, -1 for specials added around windows; int64.
            epoch: number of the epoch.

        Returns:
            Booleans of the same shape.
        """
        draw = to_unit(hash64(derive_key(self.seed, "mask", epoch), positions))
        return (draw < self.config.mlm_probability) & self.eligible(ids, positions)

    def replace(
        self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], epoch: int
    ) -> npt.NDArray[np.int64]:
        """What the model sees if a token is selected: `<mask>`, a random token, or the token.

        Args:
            ids: token ids, int64, any shape.
            positions: their places in the corpus; int64.
            epoch: number of the epoch.

        Returns:
            Ids of the same shape.
        """
        draw = to_unit(hash64(derive_key(self.seed, "replace", epoch), positions))
        bits = hash64(derive_key(self.seed, "random token", epoch), positions)
        random_ids = self.ordinary[to_range(bits, 0, len(self.ordinary))]
        seen = np.where(draw < self.config.mask_share + self.config.random_share, random_ids, ids)
        return np.where(draw < self.config.mask_share, self.mask_id, seen)
