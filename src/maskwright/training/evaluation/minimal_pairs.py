"""Minimal pairs: does the model find the good sentence likelier than the bad one that is almost it?

The form is that of BLiMP: JSON lines with `sentence_good` and `sentence_bad`, and, where known, the
paradigm (`UID`), the phenomenon (`linguistics_term`) and its `field`. BLiMP has 67 paradigms of 1,000
pairs in 12 phenomena. Cost: a pair of ten tokens each is 200 tokens of forward pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from ...model.heads import MaskedLM
from ...tokens.tokenizer import Tokenizer
from ..hooks import Record
from .likelihood import BATCH_TOKENS, EncodedText, encode_texts, pseudo_log_likelihood
from .records import find_json_files, read_records, text_of

__all__ = ["MinimalPair", "flat_pairs", "minimal_pairs", "read_minimal_pairs", "wilson_interval"]

CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of (1 + CONFIDENCE) / 2
# Sums of fp32 logits differ by so much, relative to their size, from one split into batches to another.
_TIE = 1e-6


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences of which one is right.

    Attributes:
        good: the acceptable sentence.
        bad: the other one.
        paradigm: what the pair was made to test; the name of the file where it is not said.
        phenomenon: what the paradigm belongs to; the paradigm where it is not said.
        field: part of linguistics; empty where it is not said.
        place: file and line, for messages.
    """

    good: str
    bad: str
    paradigm: str
    phenomenon: str
    field: str
    place: str


def read_minimal_pairs(path: str | Path, limit: int | None = None) -> list[MinimalPair]:
    """Read minimal pairs.

    Args:
        path: a JSON lines file, or a folder of them.
        limit: pairs of each paradigm at most, the first ones; None takes all.

    Raises:
        DataError: a file cannot be read, a line is no pair, or there is none at all.
    """
    pairs: list[MinimalPair] = []
    counts: Counter[str] = Counter()
    for file in find_json_files(path):
        for line, record in read_records(file):
            pair = _pair(record, Path(str(file)).name.partition(".")[0], f"{file}:{line}")
            counts[pair.paradigm] += 1
            if limit is None or counts[pair.paradigm] <= limit:
                pairs.append(pair)
    if not pairs:
        raise DataError(f"{path}: holds no pairs; expected lines with sentence_good and sentence_bad")
    return pairs


def _pair(record: dict[str, Any], stem: str, place: str) -> MinimalPair:
    good, bad = (
        text_of(record, key, place, "expected a pair of sentence_good and sentence_bad")
        for key in ("sentence_good", "sentence_bad")
    )
    if good == bad:
        raise DataError(f"{place}: both sentences are {good[:60]!r}; a pair must differ")
    paradigm = _name(record, "UID", place) or stem
    phenomenon = _name(record, "linguistics_term", place) or paradigm
    return MinimalPair(good, bad, paradigm, phenomenon, _name(record, "field", place), place)


def _name(record: dict[str, Any], key: str, place: str) -> str:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f'{place}: "{key}" is {value!r}, expected a name or nothing')
    return (value or "").strip()


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """The interval of a share that holds 95 % of the time, also for few trials and shares near 0 or 1.

    Args:
        successes: how often it went well; halves are allowed.
        count: trials, at least 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, square = successes / count, _NORMAL_QUANTILE**2 / count
    centre = share + square / 2
    reach = math.sqrt(share * (1 - share) * square + square**2 / 4)
    return max(0.0, (centre - reach) / (1 + square)), min(1.0, (centre + reach) / (1 + square))


def minimal_pairs(
    model: MaskedLM,
    tokenizer: Tokenizer,
    pairs: Sequence[MinimalPair],
    *,
    words: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> Record:
    """Measure how often the good sentence has the larger pseudo-log-likelihood.

    Args:
        model: on any device.
        tokenizer: of the model.
        pairs: from `read_minimal_pairs`.
        words: hide the later tokens of a word, too (see `pseudo_log_likelihood`).
        batch_tokens: tokens computed at a time.

    Returns:
        `count`, `ties` (each counts half), `accuracy` with `value`, `low` and `high`, `confidence`,
        `macro_accuracy` (mean over the paradigms), and the lists `phenomena` and `paradigms`, each
        entry with `name`, `field`, `count`, `ties` and `accuracy`.

    Raises:
        DataError: a sentence is longer than the model takes.

    Source: Warstadt et al., "BLiMP", TACL 2020 (arXiv 1912.00582); scores for masked language
    models as in Salazar et al. 2020 (arXiv 1910.14659).
    """
    encoded = encode_texts(tokenizer, [text for pair in pairs for text in (pair.good, pair.bad)], words=words)
    _check_lengths(encoded, pairs, model.config.max_length)
    sums = pseudo_log_likelihood(model, encoded, tokenizer.mask_id, batch_tokens).sums
    points = _points(sums[0::2], sums[1::2])
    paradigms = _groups(pairs, points, lambda pair: pair.paradigm)
    phenomena = _groups(pairs, points, lambda pair: pair.phenomenon)
    return {
        **_entry(points),
        "macro_accuracy": float(np.mean([entry["accuracy"]["value"] for entry in paradigms])),
        "confidence": CONFIDENCE,
        "phenomena": phenomena,
        "paradigms": paradigms,
    }


def _check_lengths(encoded: Sequence[EncodedText], pairs: Sequence[MinimalPair], longest: int) -> None:
    for number, text in enumerate(encoded):
        if len(text.ids) > longest:
            key = ("sentence_good", "sentence_bad")[number % 2]
            raise DataError(
                f'{pairs[number // 2].place}: "{key}" has {len(text.ids)} tokens, the model takes '
                f"{longest}; shorten it"
            )


def _points(good: np.ndarray[Any, Any], bad: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1 for each pair that was told right, 0 for one told wrong, a half for a tie."""
    is_tie = np.abs(good - bad) <= _TIE * np.maximum(np.abs(good), np.abs(bad))
    return np.where(is_tie, 0.5, (good > bad).astype(np.float64))


def _groups(
    pairs: Sequence[MinimalPair], points: np.ndarray[Any, Any], name: Callable[[MinimalPair], str]
) -> list[Record]:
    rows: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        rows.setdefault(name(pair), []).append(row)
    entries = []
    for key in sorted(rows):
        fields = sorted({pairs[row].field for row in rows[key]} - {""})
        entries.append({"name": key, "field": ", ".join(fields), **_entry(points[rows[key]])})
    return entries


def _entry(points: np.ndarray[Any, Any]) -> Record:
    low, high = wilson_interval(float(points.sum()), len(points))
    return {
        "count": len(points),
        "ties": int((points == 0.5).sum()),
        "accuracy": {"value": float(points.mean()), "low": low, "high": high},
    }


def flat_pairs(report: Record) -> Record:
    """Accuracies of a report as single numbers for the log: overall, and by phenomenon."""
    record: Record = {"minimal_pairs": report["accuracy"]["value"]}
    for entry in report["phenomena"]:
        record[f"minimal_pairs/{entry['name']}"] = entry["accuracy"]["value"]
    return record
