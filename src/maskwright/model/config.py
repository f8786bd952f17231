"""The shape of an encoder, and the shapes that have names."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from ..core.config import Config

__all__ = ["MODEL_SIZES", "EncoderConfig"]


class EncoderConfig(Config):
    """Shape and regularisation of a RoBERTa encoder; names as in the published `config.json`."""

    vocab_size: int = Field(50_265, ge=6, description="entries of the vocabulary, specials included")
    hidden_size: int = Field(768, ge=8, description="width of the residual stream")
    num_hidden_layers: int = Field(12, ge=1, description="encoder layers")
    num_attention_heads: int = Field(12, ge=1, description="attention heads a layer")
    intermediate_size: int = Field(3_072, ge=8, description="width inside the feed-forward block")
    max_position_embeddings: int = Field(514, ge=4, description="rows of the position table: longest + 2")
    type_vocab_size: int = Field(1, ge=1, description="token types")
    pad_token_id: int = Field(1, ge=0, description="id of the padding token; positions start after it")
    layer_norm_eps: float = Field(1e-5, gt=0, description="added to the variance in layer norms")
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of hidden values dropped")
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of attention dropped")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens: RoBERTa numbers positions from `pad_token_id + 1`."""
        return self.max_position_embeddings - self.pad_token_id - 1


def _shape(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


# base and large: RoBERTa (arXiv 1907.11692). xl and xxl: XLM-R XL and XXL (arXiv 2105.00572,
# table 1), in RoBERTa's layer order. tiny and small are ours, for tests and laptops.
MODEL_SIZES: dict[str, dict[str, Any]] = {
    "tiny": _shape(2, 128, 2),
    "small": _shape(4, 256, 4),
    "base": _shape(12, 768, 12),
    "large": _shape(24, 1024, 16),
    "xl": _shape(36, 2560, 32),
    "xxl": _shape(48, 4096, 32),
}
