"""Measures of a classifier, each with an interval that says how much the test set itself decides.

The intervals are percentile bootstraps over the examples. Resampling `n` examples with replacement
is the same as drawing the counts of the cells of the confusion matrix from a multinomial
distribution, so the cost depends on the number of filled cells and not on `n`: a thousand resamples
of a hundred thousand examples and four classes take some milliseconds.

A percentile interval is too narrow on few examples (under about 30), and it has no width where
every example was classified correctly; read both with that in mind.

Legend for shapes: R resamples, C filled cells of the table, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...core.errors import ConfigError, DataError

__all__ = ["classification_report", "paired_bootstrap"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_CLASS_COLUMNS = ("label", "precision", "recall", "f1", "support")
_INTERVAL_NAMES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
# Resamples are drawn in blocks whose tables stay near this many numbers.
_BLOCK_NUMBERS = 1 << 22


class _Tallies(NamedTuple):
    """Hits, true examples and predictions of each class, over R tables; each of shape RK."""

    hits: IntArray
    true: IntArray
    predicted: IntArray


def classification_report(
    true: npt.ArrayLike,
    predicted: npt.ArrayLike,
    label_names: Sequence[str],
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predictions against the truth.

    Precision, recall and F1 are 0 where they would divide by 0. Macro averages run over the
    classes that occur in the truth or in the predictions. All of this is what scikit-learn does
    when it is not given a list of labels.

    Args:
        true: class numbers, one an example.
        predicted: class numbers, one an example.
        label_names: names of the classes, by number.
        confidence: share of the bootstrap distribution inside an interval.
        num_resamples: size of that distribution.
        seed: of the resampling.

    Returns:
        Plain values ready for JSON, none of them NaN: "task", "count", "labels", "confidence";
        "accuracy", "macro_precision", "macro_recall" and "macro_f1", each with "value", "low" and
        "high"; "micro_f1", "weighted_f1", "matthews_correlation", "majority_accuracy" (of always
        answering the most frequent true class); "per_class"; and "confusion", with a row for each
        true class and a column for each predicted one. An interval always holds its value.

    Raises:
        ConfigError: the confidence or the number of resamples makes no sense.
        DataError: there are no examples, or labels are missing or unknown.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. Matthews
    correlation for several classes: Gorodkin, "Comparing two K-category assignments by a
    K-category correlation coefficient", 2004, equation 8.
    """
    num_classes = len(label_names)
    _check_settings(confidence, num_resamples)
    true_N, predicted_N = _check_labels(true, num_classes), _check_labels(predicted, num_classes)
    _check_lengths(true_N, predicted_N)
    codes_C, counts_C = np.unique(true_N * num_classes + predicted_N, return_counts=True)
    true_C, predicted_C = codes_C // num_classes, codes_C % num_classes

    def measure(counts_RC: IntArray) -> FloatArray:
        return _averages(_tally(counts_RC, true_C, predicted_C, num_classes))

    values = measure(counts_C[None])[0]
    samples_R4 = _resample(measure, counts_C, num_resamples, seed)
    tallies = _tally(counts_C[None], true_C, predicted_C, num_classes)
    confusion_KK = np.zeros((num_classes, num_classes), np.int64)
    confusion_KK[true_C, predicted_C] = counts_C
    return {
        "task": "classification",
        "count": int(true_N.size),
        "labels": list(label_names),
        "confidence": confidence,
        **{
            name: {
                "value": float(values[column]),
                **_interval(values[column], samples_R4[:, column], confidence),
            }
            for column, name in enumerate(_INTERVAL_NAMES)
        },
        **_single_numbers(tallies),
        "per_class": _per_class(tallies, label_names),
        "confusion": confusion_KK.tolist(),
    }


def paired_bootstrap(
    true: npt.ArrayLike,
    predicted_a: npt.ArrayLike,
    predicted_b: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two classifiers on the same examples.

    Both are measured on the same resamples, so what is hard for both cancels out and the interval
    of the difference is narrower than the two intervals suggest.

    Args:
        true: class numbers, one an example.
        predicted_a: class numbers by the first classifier.
        predicted_b: class numbers by the second.
        confidence: share of the bootstrap distribution inside an interval.
        num_resamples: size of that distribution.
        seed: of the resampling.

    Returns:
        "count", "confidence", and for "accuracy" and "macro_f1" each: "a" and "b", the two values;
        "difference", which is a minus b; "low" and "high", its interval; "share_a_better", the
        share of resamples in which a is strictly better.

    Raises:
        ConfigError: the confidence or the number of resamples makes no sense.
        DataError: there are no examples, or labels are missing.

    Source: Koehn, "Statistical significance tests for machine translation evaluation", 2004,
    section 3, with the interval of the difference in place of a test.
    """
    _check_settings(confidence, num_resamples)
    true_N, a_N, b_N = _check_labels(true), _check_labels(predicted_a), _check_labels(predicted_b)
    _check_lengths(true_N, a_N)
    _check_lengths(true_N, b_N)
    num_classes = int(max(true_N.max(), a_N.max(), b_N.max())) + 1
    codes_C, counts_C = np.unique((true_N * num_classes + a_N) * num_classes + b_N, return_counts=True)
    pairs_C, b_C = np.divmod(codes_C, num_classes)
    true_C, a_C = np.divmod(pairs_C, num_classes)

    def measure(counts_RC: IntArray) -> FloatArray:
        tallies = (_tally(counts_RC, true_C, found_C, num_classes) for found_C in (a_C, b_C))
        return np.concatenate([_averages(tally) for tally in tallies], axis=1)

    values = measure(counts_C[None])[0]
    samples_R8 = _resample(measure, counts_C, num_resamples, seed)
    result: dict[str, Any] = {"count": int(true_N.size), "confidence": confidence}
    for name in ("accuracy", "macro_f1"):
        a = _INTERVAL_NAMES.index(name)
        b = a + len(_INTERVAL_NAMES)
        differences_R = samples_R8[:, a] - samples_R8[:, b]
        result[name] = {
            "a": float(values[a]),
            "b": float(values[b]),
            "difference": float(values[a] - values[b]),
            **_interval(values[a] - values[b], differences_R, confidence),
            "share_a_better": float((differences_R > 0).mean()),
        }
    return result


def _check_settings(confidence: float, num_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}, expected a number between 0 and 1, such as 0.95")
    if num_resamples < 1:
        raise ConfigError(f"num_resamples is {num_resamples}, expected at least 1; 1000 is usual")


def _check_labels(labels: npt.ArrayLike, num_classes: int | None = None) -> IntArray:
    labels_N = np.asarray(labels)
    if labels_N.ndim != 1 or not labels_N.size:
        raise DataError(
            f"labels have shape {labels_N.shape}, expected one number for each of 1 or more examples"
        )
    if labels_N.dtype.kind not in "iu":
        raise DataError(f"labels have type {labels_N.dtype}, expected whole numbers")
    outside = labels_N < 0 if num_classes is None else (labels_N < 0) | (labels_N >= num_classes)
    if outside.any():
        position = int(outside.argmax())
        known = "" if num_classes is None else f"; there are {num_classes} label names"
        raise DataError(f"label {labels_N[position]} of example {position} is not a class number{known}")
    return labels_N.astype(np.int64)


def _check_lengths(true_N: IntArray, predicted_N: IntArray) -> None:
    if true_N.size != predicted_N.size:
        raise DataError(f"{true_N.size} true labels and {predicted_N.size} predictions; expected as many")


def _tally(counts_RC: IntArray, true_C: IntArray, predicted_C: IntArray, num_classes: int) -> _Tallies:
    hit_C = true_C == predicted_C
    return _Tallies(
        hits=_sum_by_class(counts_RC[:, hit_C], true_C[hit_C], num_classes),
        true=_sum_by_class(counts_RC, true_C, num_classes),
        predicted=_sum_by_class(counts_RC, predicted_C, num_classes),
    )


def _sum_by_class(counts_RC: IntArray, class_C: IntArray, num_classes: int) -> IntArray:
    sums_RK = np.zeros((counts_RC.shape[0], num_classes), np.int64)
    if class_C.size:
        order = np.argsort(class_C, kind="stable")
        present, starts = np.unique(class_C[order], return_index=True)
        sums_RK[:, present] = np.add.reduceat(counts_RC[:, order], starts, axis=1)
    return sums_RK


def _ratio(top: IntArray, bottom: IntArray) -> FloatArray:
    """Quotient, 0 where the divisor is 0."""
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0)


def _averages(tallies: _Tallies) -> FloatArray:
    """The measures of `_INTERVAL_NAMES`, as columns, one row a resample."""
    hits_RK, true_RK, predicted_RK = tallies
    precision_RK, recall_RK = _ratio(hits_RK, predicted_RK), _ratio(hits_RK, true_RK)
    f1_RK = _ratio(2 * hits_RK, true_RK + predicted_RK)
    occurring_R = (true_RK + predicted_RK > 0).sum(axis=1)
    macro = [values_RK.sum(axis=1) / occurring_R for values_RK in (precision_RK, recall_RK, f1_RK)]
    return np.stack([hits_RK.sum(axis=1) / true_RK.sum(axis=1), *macro], axis=1)


def _resample(
    measure: Callable[[IntArray], FloatArray], counts_C: IntArray, num_resamples: int, seed: int
) -> FloatArray:
    """Measure many tables drawn like the one observed, in blocks to bound the memory."""
    generator = np.random.Generator(np.random.PCG64(seed))
    count = int(counts_C.sum())
    block = max(1, _BLOCK_NUMBERS // counts_C.size)
    sizes = [min(block, num_resamples - start) for start in range(0, num_resamples, block)]
    return np.concatenate([measure(generator.multinomial(count, counts_C / count, size)) for size in sizes])


def _interval(value: float, samples_R: FloatArray, confidence: float) -> dict[str, float]:
    outside = (1 - confidence) / 2
    low, high = np.quantile(samples_R, [outside, 1 - outside])
    return {"low": float(min(low, value)), "high": float(max(high, value))}


def _single_numbers(tallies: _Tallies) -> dict[str, float]:
    hits_K, true_K, predicted_K = (table[0] for table in tallies)
    count, hits = int(true_K.sum()), int(hits_K.sum())
    # Python's integers do not overflow; the products reach the fourth power of the count.
    spread_true = count**2 - sum(int(number) ** 2 for number in true_K)
    spread_predicted = count**2 - sum(int(number) ** 2 for number in predicted_K)
    agreement = hits * count - sum(int(a) * int(b) for a, b in zip(true_K, predicted_K, strict=True))
    spread = spread_true * spread_predicted
    f1_K = _ratio(2 * hits_K, true_K + predicted_K)
    return {
        "micro_f1": hits / count,
        "weighted_f1": float((f1_K * true_K).sum() / count),
        "matthews_correlation": agreement / math.sqrt(spread) if spread else 0.0,
        "majority_accuracy": int(true_K.max()) / count,
    }


def _per_class(tallies: _Tallies, label_names: Sequence[str]) -> list[dict[str, Any]]:
    hits_K, true_K, predicted_K = (table[0] for table in tallies)
    columns = zip(
        label_names,
        _ratio(hits_K, predicted_K).tolist(),
        _ratio(hits_K, true_K).tolist(),
        _ratio(2 * hits_K, true_K + predicted_K).tolist(),
        true_K.tolist(),
        strict=True,
    )
    return [dict(zip(_CLASS_COLUMNS, values, strict=True)) for values in columns]
