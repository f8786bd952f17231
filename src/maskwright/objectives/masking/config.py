"""The settings of masking: how much, what is masked together, and whether masks change."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ...core.config import Config

__all__ = ["MaskingConfig"]


class MaskingConfig(Config):
    """How many tokens are predicted, which ones together, and what the model sees in their place."""

    mlm_probability: float = Field(0.15, gt=0, lt=1, description="share of tokens that are predicted")
    final_probability: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share at the end of the run, reached in a straight line; null: constant",
    )
    mask_share: float = Field(0.8, ge=0, le=1, description="share of those that become <mask>")
    random_share: float = Field(0.1, ge=0, le=1, description="share of those that become a random token")
    unit: Literal["token", "word", "span"] = Field(
        "token", description="what is masked together: nothing, the tokens of a word, or words in a row"
    )
    static_copies: int = Field(
        0, ge=0, description="fixed maskings that the epochs take in turn; 0: a new one each epoch"
    )
    span_p: float = Field(
        0.2, gt=0, lt=1, description="chance that a span ends after each of its words; unit span only"
    )
    span_max: int = Field(10, ge=1, le=64, description="most words of a span; unit span only")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1"
            )
        return self

    @model_validator(mode="after")
    def _fixed_masks_keep_their_rate(self) -> Self:
        if self.static_copies and self.final_probability is not None:
            raise ValueError(
                f"final_probability {self.final_probability} changes the masks that static_copies "
                f"{self.static_copies} keeps fixed; leave one of them out"
            )
        return self

    def rate_at(self, share_done: float) -> float:
        """The share of tokens to predict at a moment of the run.

        Args:
            share_done: how much of training is done, 0 to 1; what lies outside counts as the nearer end.

        Returns:
            `mlm_probability` at the beginning, `final_probability` at the end if it is set.
        """
        if self.final_probability is None:
            return self.mlm_probability
        done = min(1.0, max(0.0, share_done))
        return (1 - done) * self.mlm_probability + done * self.final_probability
