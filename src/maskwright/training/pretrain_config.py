"""Everything that decides a pretraining run, as one config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config, parse_config
from ..model.config import MODEL_SIZES, EncoderConfig
from ..objectives.masking import MaskingConfig
from .device import DeviceName, Precision
from .optimizers import OptimizerConfig
from .schedules import ScheduleConfig

__all__ = ["BatchConfig", "CheckpointConfig", "EvaluationConfig", "ModelConfig", "PretrainConfig"]


class ModelConfig(Config):
    """A named size, with changes to it."""

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
    layer_norm_eps: float = Field(1e-5, gt=0, description="added to the variance in layer norms")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    def resolve(self, vocab_size: int, sequence_length: int, pad_token_id: int = 1) -> EncoderConfig:
        """The full shape for a vocabulary, a sequence length and the vocabulary's padding token."""
        values = dict(MODEL_SIZES[self.size])
        values |= {k: v for k, v in self.model_dump(exclude={"size"}).items() if v is not None}
        values.setdefault("max_position_embeddings", sequence_length + pad_token_id + 1)
        values |= {"vocab_size": vocab_size, "pad_token_id": pad_token_id}
        return parse_config(EncoderConfig, values, "model")


class BatchConfig(Config):
    """How many sequences one step sees."""

    sequences: int = Field(256, ge=1, description="sequences of one optimiser step")
    micro_sequences: int = Field(32, ge=1, description="sequences computed at a time; only memory and speed")


class EvaluationConfig(Config):
    """How the run is looked at while it goes."""

    every_steps: int = Field(500, ge=1, description="steps between validations")
    sequences: int = Field(512, ge=1, description="validation sequences, the same ones every time")


class CheckpointConfig(Config):
    """When the run is saved."""

    every_steps: int = Field(500, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="how many of the newest stay")


class PretrainConfig(Config):
    """Everything that decides a pretraining run."""

    data: str = Field(description="folder made by maskwright prepare")
    model: ModelConfig = ModelConfig()
    init_from: str | None = Field(None, description="Hugging Face folder whose weights to start from")
    sequence_length: int = Field(512, ge=8, description="tokens of a sequence, its two specials included")
    batch: BatchConfig = BatchConfig()
    steps: int = Field(10_000, ge=1, description="optimiser steps")
    masking: MaskingConfig = MaskingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    precision: Precision = Field("auto", description="auto takes bf16 where the device has it")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    seed: int = Field(0, ge=0, description="decides weights, order, masks and dropout")
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: int = Field(10, ge=1, description="steps between training records")

    @model_validator(mode="after")
    def _positions_suffice(self) -> Self:
        rows = self.model.max_position_embeddings
        if rows is not None and rows < self.sequence_length + 2:
            raise ValueError(
                f"sequence_length {self.sequence_length} needs model.max_position_embeddings of at least "
                f"{self.sequence_length + 2}, not {rows}"
            )
        return self
