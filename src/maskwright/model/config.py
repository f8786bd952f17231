"""The shape of an encoder, the kinds of it that others publish, and the sizes that have names."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config

__all__ = ["MODEL_KINDS", "MODEL_SIZES", "EncoderConfig", "ModelKind"]

ModelKind = Literal["roberta", "xlm-roberta", "camembert", "bert"]

# What each kind has where nobody says otherwise: the published base models. A fairseq vocabulary
# begins with <s> <pad> </s>; CamemBERT's ids are those of its sentencepiece files.
MODEL_KINDS: dict[str, dict[str, Any]] = {
    "roberta": {},
    "xlm-roberta": {"vocab_size": 250_002},
    "camembert": {"vocab_size": 32_005, "bos_token_id": 5, "eos_token_id": 6},
    "bert": {
        "vocab_size": 30_522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
        "layer_norm_eps": 1e-12,
    },
}


class EncoderConfig(Config):
    """Shape and regularisation of a RoBERTa or BERT encoder; names as in the published `config.json`.

    The defaults are those of RoBERTa; other kinds bring their own (`MODEL_KINDS`).
    """

    model_type: ModelKind = Field("roberta", description="whose names, positions and token types it has")
    vocab_size: int = Field(50_265, ge=6, description="entries of the vocabulary, specials included")
    hidden_size: int = Field(768, ge=8, description="width of the residual stream")
    num_hidden_layers: int = Field(12, ge=1, description="encoder layers")
    num_attention_heads: int = Field(12, ge=1, description="attention heads a layer")
    intermediate_size: int = Field(3_072, ge=8, description="width inside the feed-forward block")
    max_position_embeddings: int = Field(
        514, ge=4, description="rows of the position table: longest + 2 for RoBERTa, longest for BERT"
    )
    type_vocab_size: int = Field(1, ge=1, description="token types")
    pad_token_id: int = Field(
        1, ge=0, description="id of the padding token; RoBERTa's positions start after it"
    )
    bos_token_id: int | None = Field(0, ge=0, description="id of the token that opens a sequence")
    eos_token_id: int | None = Field(2, ge=0, description="id of the token that closes a segment")
    layer_norm_eps: float = Field(1e-5, gt=0, description="added to the variance in layer norms")
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of hidden values dropped")
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of attention dropped")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of initial weights")
    pooler: bool = Field(False, description="keep a dense layer with tanh on the first token")
    next_sentence: bool = Field(False, description="have a head for next-sentence prediction, on a pooler")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_kind(cls, values: Any) -> Any:
        if isinstance(values, dict):
            kind = values.get("model_type", "roberta")
            return {**MODEL_KINDS.get(kind if isinstance(kind, str) else "", {}), **values}
        return values

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self

    @model_validator(mode="after")
    def _positions_begin_in_the_table(self) -> Self:
        if self.max_length < 1:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} leaves no position, because a "
                f"{self.model_type} model counts from {self.first_position}; raise it"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def first_position(self) -> int:
        """Row of the position table for the first token: after the padding's for RoBERTa, 0 for BERT."""
        return 0 if self.model_type == "bert" else self.pad_token_id + 1

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self.max_position_embeddings - self.first_position

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler, kept or because next-sentence prediction needs it."""
        return self.pooler or self.next_sentence


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
