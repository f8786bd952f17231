"""The settings of deduplication and decontamination."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ...core.config import Config
from ..sources import source_name
from .bands import Bands, choose_bands
from .clusters import KeepRule
from .contamination import Action

__all__ = [
    "ContaminationConfig",
    "DeduplicationConfig",
    "EvaluationConfig",
    "LinesConfig",
    "NearConfig",
]


class LinesConfig(Config):
    """Removing lines that stood in the corpus before."""

    min_line_characters: int = Field(
        default=20,
        ge=1,
        description="shortest line to look at, in letters and digits; shorter ones may repeat",
    )


class NearConfig(Config):
    """Dropping documents that are nearly equal to another."""

    threshold: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="similarity from which documents count as copies: the share of their shingles that "
        "both have, estimated by MinHash",
    )
    num_perm: int = Field(
        default=128,
        ge=16,
        le=1024,
        description="numbers in a signature; each takes 4 bytes a document on disk, more estimate better",
    )
    ngram: int = Field(
        default=5,
        ge=1,
        le=32,
        description="words in a shingle; in scripts without spaces, such as Chinese, characters",
    )
    keep: KeepRule = Field(
        default="longest",
        description="which document of a cluster stays: the longest in characters (of equally long ones the "
        "first) or the first in the order of reading",
    )

    @property
    def bands(self) -> Bands:
        """How signatures are cut to meet; see `choose_bands`."""
        return choose_bands(self.num_perm, self.threshold)


class DeduplicationConfig(Config):
    """Which repetitions are removed."""

    exact: bool = Field(
        default=True, description="whether to keep only the first of documents with equal text"
    )
    lines: LinesConfig | None = Field(
        default=None, description="removing repeated lines; null leaves lines alone"
    )
    near: NearConfig | None = Field(
        default=None, description="dropping near-duplicates; null keeps all but exact copies"
    )


class EvaluationConfig(Config):
    """One evaluation set that must not be in the training text."""

    path: str | tuple[str, ...] = Field(
        description="a file, a folder, a pattern, or a list of these: JSON, JSON Lines, CSV, TSV, or any "
        "format that a source may have"
    )
    name: str = Field(default="", description="name in the audit; by default from the path")
    fields: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="JSON fields (at any depth) or table columns to look at; null takes every string",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.paths or not all(self.paths):
            raise ValueError("path is empty, expected a file, a folder or a pattern")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The path or paths, always as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def label(self) -> str:
        """The name, or the one made from the path."""
        return self.name or source_name(self.paths)


class ContaminationConfig(Config):
    """Keeping evaluation sets out of the training text."""

    evaluation: tuple[EvaluationConfig, ...] = Field(
        min_length=1, description="the sets; where several match, the first is named"
    )
    ngram: int = Field(
        default=13,
        ge=1,
        le=64,
        description="words in a row that a document must share with an evaluation text to count; in scripts "
        "without spaces, characters",
    )
    min_words: int = Field(
        default=8,
        ge=1,
        description="evaluation texts shorter than ngram must be found whole; those of fewer words than "
        "this are ignored, and counted",
    )
    action: Action = Field(
        default="drop", description="drop the document, or flag it in its meta as contaminated"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_words > self.ngram:
            raise ValueError(f"min_words is {self.min_words}, above ngram {self.ngram}; lower it")
        labels = [evaluation.label for evaluation in self.evaluation]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f'two evaluation sets are called "{label}"; set name on one of them')
        return self
