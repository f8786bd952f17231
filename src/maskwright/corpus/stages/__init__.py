"""The stages of cleaning: each turns the results of the one before into numbered tasks."""

from __future__ import annotations

from .before import contamination_stage, count_stage
from .clean import CleanPart, clean_stage, collect_parts
from .duplicates import bands_stage, clusters_stage, exact_stage, lines_stage
from .verdicts import Place, Verdicts, find_marks, name_marks

__all__ = [
    "CleanPart",
    "Place",
    "Verdicts",
    "bands_stage",
    "clean_stage",
    "clusters_stage",
    "collect_parts",
    "contamination_stage",
    "count_stage",
    "exact_stage",
    "find_marks",
    "lines_stage",
    "name_marks",
]
