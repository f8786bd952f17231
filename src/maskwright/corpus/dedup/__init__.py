"""Copies and contamination: exact and near duplicates, repeated lines, evaluation sets in training text.

Everything is a function over arrays and files. What is decided depends on the documents and their order
alone: not on how they were cut into parts, how many tasks looked at them, or in which order.
"""

from __future__ import annotations

from .bands import Bands, band_edges, choose_bands, probability_curve, write_bands
from .buckets import bucket_ranges
from .clusters import choose_copies, connect
from .config import ContaminationConfig, DeduplicationConfig, EvaluationConfig, LinesConfig, NearConfig
from .contamination import ContaminationIndex, check_contamination
from .evaluation import evaluation_texts
from .exact import ExactDedup, digest_array, exact_duplicates, text_digest, write_digests
from .lines import remove_lines, repeated_lines, write_lines
from .signatures import signatures
from .tables import DROPS, LINE_DROPS, excluded_rows, load_array, read_table, save_array

__all__ = [
    "DROPS",
    "LINE_DROPS",
    "Bands",
    "ContaminationConfig",
    "ContaminationIndex",
    "DeduplicationConfig",
    "EvaluationConfig",
    "ExactDedup",
    "LinesConfig",
    "NearConfig",
    "band_edges",
    "bucket_ranges",
    "check_contamination",
    "choose_bands",
    "choose_copies",
    "connect",
    "digest_array",
    "evaluation_texts",
    "exact_duplicates",
    "excluded_rows",
    "load_array",
    "probability_curve",
    "read_table",
    "remove_lines",
    "repeated_lines",
    "save_array",
    "signatures",
    "text_digest",
    "write_bands",
    "write_digests",
    "write_lines",
]
