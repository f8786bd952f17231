"""When a run is saved, what stays, and where a copy goes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ..core.config import Config

__all__ = ["CheckpointConfig"]


class CheckpointConfig(Config):
    """When the run is saved. A checkpoint stays if any of the three rules for staying says so."""

    every_steps: int = Field(500, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="how many of the newest stay")
    keep_every_steps: int | None = Field(
        None, ge=1, description="those of steps that are multiples of this stay; a multiple of every_steps"
    )
    keep_best: int = Field(0, ge=0, description="how many of those with the lowest validation loss stay")
    asynchronous: bool = Field(
        True, description="train on while a checkpoint is written; takes CPU memory for a copy of the state"
    )
    upload: str | None = Field(
        None,
        min_length=1,
        description="folder or fsspec address (s3://...) that checkpoints are copied to behind the training, "
        "the newest first, for this run alone; nothing is removed there; with --resume a run without a whole "
        "checkpoint of its own goes on from the newest there",
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.keep_every_steps is not None and self.keep_every_steps % self.every_steps:
            raise ValueError(
                f"keep_every_steps {self.keep_every_steps} is no multiple of every_steps {self.every_steps}, "
                "so that most of them would never be saved; change one of them"
            )
        return self
