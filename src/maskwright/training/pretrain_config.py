"""Everything that decides a pretraining run, as one config."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config, parse_config
from ..model.config import MODEL_SIZES, EncoderConfig
from ..objectives.masking import MaskingConfig
from ..objectives.mlm import Attention
from ..parallel.config import ParallelConfig
from ..tokens.cache_config import CacheConfig
from ..tokens.formats.config import FormatConfig
from .checkpoint_config import CheckpointConfig
from .device import DeviceName, Precision
from .evaluation.config import EvaluationConfig
from .guards import GuardsConfig
from .hooks import TrackingConfig
from .optimizers import OptimizerConfig
from .profiling import ProfileConfig
from .schedules import ScheduleConfig
from .spikes import SpikeConfig

__all__ = ["BatchConfig", "CheckpointConfig", "EvaluationConfig", "ModelConfig", "PretrainConfig"]


class ModelConfig(Config):
    """A named size, with changes to it."""

    type: Literal["roberta", "bert"] = Field(
        "roberta", description="bert counts positions from 0 and has two token types; for WordPiece"
    )
    size: Literal["tiny", "small", "base", "large", "xl", "xxl"] = Field("base", description="named shape")
    num_hidden_layers: int | None = Field(None, ge=1, description="encoder layers, instead of the size's")
    hidden_size: int | None = Field(None, ge=8, description="width, instead of the size's")
    num_attention_heads: int | None = Field(None, ge=1, description="heads, instead of the size's")
    intermediate_size: int | None = Field(None, ge=8, description="feed-forward width, instead of the size's")
    max_position_embeddings: int | None = Field(
        None, ge=4, description="default: sequence_length and what padding takes"
    )
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of hidden values dropped")
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1, description="share of attention dropped")
    layer_norm_eps: float | None = Field(
        None, gt=0, description="added to the variance in layer norms; default: 1e-5, for bert 1e-12"
    )
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    def resolve(
        self, sequence_length: int, *, next_sentence: bool = False, **ids: int | None
    ) -> EncoderConfig:
        """The full shape.

        Args:
            sequence_length: tokens of a sequence.
            next_sentence: whether there is a head for next-sentence prediction.
            ids: `vocab_size`, `pad_token_id` and other ids of the tokenizer.
        """
        values: dict[str, Any] = {"model_type": self.type, **MODEL_SIZES[self.size], **ids}
        values |= {k: v for k, v in self.model_dump(exclude={"size", "type"}).items() if v is not None}
        values["next_sentence"] = next_sentence
        if self.max_position_embeddings is None:
            first = 0 if self.type == "bert" else (ids.get("pad_token_id") or 0) + 1
            values["max_position_embeddings"] = sequence_length + first
        if next_sentence:
            values["type_vocab_size"] = 2
        return parse_config(EncoderConfig, values, "model")


class BatchConfig(Config):
    """How many sequences one step sees."""

    sequences: int = Field(256, ge=1, description="sequences of one optimiser step")
    micro_sequences: int = Field(32, ge=1, description="sequences computed at a time; only memory and speed")
    warmup_from: int | None = Field(
        None, ge=1, description="sequences of the first step, where the batch grows at the beginning"
    )
    warmup_samples: int = Field(0, ge=0, description="samples over which it grows to sequences")


class PretrainConfig(Config):
    """Everything that decides a pretraining run."""

    data: str = Field(description="folder made by maskwright prepare, or its address as s3://...")
    cache: CacheConfig = CacheConfig()
    model: ModelConfig = ModelConfig()
    init_from: str | None = Field(None, description="Hugging Face folder whose weights to start from")
    grow: bool = Field(
        False, description="tile the weights of init_from over the larger shape that model describes"
    )
    extend_vocabulary: bool = Field(
        False, description="give the entries that prepare added to init_from's vocabulary rows of their own"
    )
    sequence_length: int = Field(512, ge=8, description="tokens of a sequence, its two specials included")
    format: FormatConfig = FormatConfig()
    attention: Attention = Field(
        "window", description="window: a token sees its whole sample, as in the paper; document: its document"
    )
    next_sentence: bool | None = Field(
        None, description="predict whether the second part follows the first; default: for pairs"
    )
    batch: BatchConfig = BatchConfig()
    steps: int = Field(10_000, ge=1, description="optimiser steps")
    masking: MaskingConfig = MaskingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    precision: Precision = Field("auto", description="auto takes bf16 where the device has it")
    fp8: bool = Field(False, description="experiment: products in fp8 on Hopper, by torchao")
    tf32: bool = Field(False, description="round factors of fp32 products to 10 bits on CUDA")
    compile: Literal["auto"] | bool = Field("auto", description="compile the layers; auto: on CUDA")
    activation_checkpointing: Literal["none", "feed-forward", "selective", "full"] = Field(
        "none",
        description="what is computed again instead of kept: feed-forward its inner values (CPU), selective "
        "every second layer, full all layers",
    )
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    parallel: ParallelConfig = ParallelConfig()
    seed: int = Field(0, ge=0, description="decides weights, order, masks and dropout")
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: int = Field(10, ge=1, description="steps between training records")
    spikes: SpikeConfig = SpikeConfig(policy="skip")
    guards: GuardsConfig = GuardsConfig()
    tracking: TrackingConfig = TrackingConfig()
    profile: ProfileConfig = ProfileConfig()

    @property
    def predicts_next_sentence(self) -> bool:
        """Whether next-sentence prediction is part of the objective."""
        return self.format.is_pair if self.next_sentence is None else self.next_sentence

    @model_validator(mode="after")
    def _positions_suffice(self) -> Self:
        rows, first = self.model.max_position_embeddings, 0 if self.model.type == "bert" else 2
        if rows is not None and rows < self.sequence_length + first:
            raise ValueError(
                f"sequence_length {self.sequence_length} needs model.max_position_embeddings of at least "
                f"{self.sequence_length + first}, not {rows}"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.next_sentence and not self.format.is_pair:
            raise ValueError(
                f"next_sentence needs pairs, but format.name is {self.format.name}; set "
                "format.name=segment-pair or sentence-pair"
            )
        if self.attention == "document" and self.format.is_pair:
            raise ValueError(
                f"attention is document, but a sample of format.name {self.format.name} has two documents "
                "on purpose; set attention=window"
            )
        if self.fp8 and self.parallel.tensor > 1:
            raise ValueError(
                "fp8 does not work with parallel.tensor, whose layers compute otherwise; drop one"
            )
        if (self.grow or self.extend_vocabulary) and self.init_from is None:
            raise ValueError("grow and extend_vocabulary change a model; name it with init_from")
        return self
