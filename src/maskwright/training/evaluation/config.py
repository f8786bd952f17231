"""How a pretraining run is looked at while it goes."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config

__all__ = ["EvaluationConfig"]


class EvaluationConfig(Config):
    """How the run is looked at while it goes."""

    every_steps: int = Field(500, ge=1, description="steps between validations")
    sequences: int = Field(
        512, ge=1, description="validation sequences, the same ones every time, dealt out to the sources"
    )
    seed: int = Field(
        0, ge=0, description="decides the masks; keep it, and the losses of all runs can be compared"
    )
    per_source: bool = Field(True, description="log loss and accuracy of each source of the data, too")
    probe_every: int = Field(
        1, ge=1, description="validations between minimal pairs and pseudo-perplexity; both cost more"
    )
    minimal_pairs: str | None = Field(
        None, description="JSON lines, or a folder of them, with sentence_good and sentence_bad"
    )
    pairs_per_paradigm: int | None = Field(
        None, ge=1, description="minimal pairs of each paradigm, the first ones; default: all"
    )
    pseudo_perplexity_sequences: int = Field(
        0, ge=0, description="validation sequences whose every token is hidden in turn; 0: none"
    )
