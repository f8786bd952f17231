"""How a masked language model is measured: validation loss, pseudo-perplexity, minimal pairs."""

from .config import EvaluationConfig
from .exported import evaluate_export, open_validation, validate_model
from .likelihood import (
    EncodedText,
    PseudoLikelihood,
    encode_texts,
    encode_windows,
    pseudo_log_likelihood,
    split_long,
)
from .minimal_pairs import MinimalPair, minimal_pairs, read_minimal_pairs
from .probes import Probes, perplexity_report
from .records import read_records, read_texts
from .validation import Validation, measure

__all__ = [
    "EncodedText",
    "EvaluationConfig",
    "MinimalPair",
    "Probes",
    "PseudoLikelihood",
    "Validation",
    "encode_texts",
    "encode_windows",
    "evaluate_export",
    "measure",
    "minimal_pairs",
    "open_validation",
    "perplexity_report",
    "pseudo_log_likelihood",
    "read_minimal_pairs",
    "read_records",
    "read_texts",
    "split_long",
    "validate_model",
]
