"""Measures equal scikit-learn's; intervals hold the truth as often as they say."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import ConfigError, DataError
from maskwright.tasks.classification import metrics
from maskwright.tasks.classification.metrics import classification_report, paired_bootstrap


def names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def simulate(seed: int, count: int, num_classes: int, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    true = generator.integers(0, num_classes, count)
    wrong = (true + generator.integers(1, num_classes, count)) % num_classes
    return true, np.where(generator.random(count) < accuracy, true, wrong)


def plain_macro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    scores = []
    for label in sorted(set(true.tolist()) | set(predicted.tolist())):
        hits = int(((true == label) & (predicted == label)).sum())
        scores.append(2 * hits / int((true == label).sum() + (predicted == label).sum()))
    return sum(scores) / len(scores)


CASES = [
    pytest.param([0, 1, 2, 2, 1, 0], [0, 2, 2, 2, 1, 1], 3, id="usual"),
    pytest.param([0, 0, 1, 1], [0, 0, 0, 0], 2, id="never predicted"),
    pytest.param([0, 0, 0, 0], [0, 1, 1, 0], 2, id="never true"),
    pytest.param([0, 0, 1], [0, 0, 1], 5, id="absent from both"),
    pytest.param([1, 1, 1], [1, 1, 1], 3, id="one class"),
    pytest.param([0, 1, 2], [1, 2, 0], 3, id="all wrong"),
    pytest.param([4], [2], 6, id="one example"),
    *[pytest.param(*simulate(seed, 200, seed + 2, 0.6), seed + 2, id=f"random {seed}") for seed in range(6)],
]


@pytest.mark.parity
@pytest.mark.parametrize(("true", "predicted", "num_classes"), CASES)
def test_every_number_equals_scikit_learn(true, predicted, num_classes):
    sklearn = pytest.importorskip("sklearn.metrics")
    report = classification_report(true, predicted, names(num_classes), num_resamples=10)
    for average in ("macro", "micro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0.0
        )
        if average == "macro":
            found = [report[f"macro_{name}"]["value"] for name in ("precision", "recall", "f1")]
            assert found == pytest.approx(expected[:3], abs=1e-12)
        else:
            assert report[f"{average}_f1"] == pytest.approx(expected[2], abs=1e-12)
    assert report["accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(true, predicted), abs=1e-12)
    if len(set(true) | set(predicted)) > 1:  # scikit-learn leaves one class alone undefined
        expected = sklearn.matthews_corrcoef(true, predicted)
        assert report["matthews_correlation"] == pytest.approx(expected, abs=1e-12)
    labels = range(num_classes)
    assert report["confusion"] == sklearn.confusion_matrix(true, predicted, labels=labels).tolist()
    columns = sklearn.precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0.0)
    for number, row in enumerate(report["per_class"]):
        assert row["label"] == f"class {number}"
        found = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert found == pytest.approx([column[number] for column in columns], abs=1e-12)


def test_a_report_by_hand():
    report = classification_report([0, 0, 0, 1], [0, 0, 1, 1], ["ham", "spam"], num_resamples=50)
    assert report["task"] == "classification"
    assert report["count"] == 4
    assert report["labels"] == ["ham", "spam"]
    assert report["confidence"] == 0.95
    assert report["confusion"] == [[2, 1], [0, 1]]
    assert report["accuracy"]["value"] == report["micro_f1"] == 0.75
    assert report["majority_accuracy"] == 0.75
    assert report["matthews_correlation"] == pytest.approx(1 / math.sqrt(3))
    assert report["per_class"][0] == {
        "label": "ham",
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 6), st.integers(1, 30))
def test_nothing_is_ever_nan_and_an_interval_holds_its_value(data, num_classes, count):
    labels = st.lists(st.integers(0, num_classes - 1), min_size=count, max_size=count)
    report = classification_report(data.draw(labels), data.draw(labels), names(num_classes), num_resamples=40)
    json.dumps(report, allow_nan=False)
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert 0 <= report[name]["low"] <= report[name]["value"] <= report[name]["high"] <= 1
    assert -1 <= report["matthews_correlation"] <= 1


def test_the_same_seed_gives_the_same_report():
    true, predicted = simulate(1, 300, 3, 0.7)
    one = classification_report(true, predicted, names(3), seed=5)
    assert one == classification_report(true.tolist(), predicted.tolist(), names(3), seed=5)
    other = classification_report(true, predicted, names(3), seed=6)
    assert one["accuracy"] != other["accuracy"]
    assert one["accuracy"]["value"] == other["accuracy"]["value"]


def test_more_confidence_is_a_wider_interval():
    true, predicted = simulate(2, 300, 3, 0.7)
    wide = classification_report(true, predicted, names(3), confidence=0.99)["macro_f1"]
    narrow = classification_report(true, predicted, names(3), confidence=0.5)["macro_f1"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_blocks_of_resamples_are_measured_like_one(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_NUMBERS", 30)
    true, predicted = simulate(3, 200, 3, 0.7)
    report = classification_report(true, predicted, names(3), num_resamples=1000)
    width = report["accuracy"]["high"] - report["accuracy"]["low"]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.7 * 0.3 / 200), rel=0.15)


def test_the_interval_is_that_of_resampling_the_examples():
    true, predicted = simulate(4, 150, 4, 0.6)
    generator = np.random.default_rng(0)
    picks = generator.integers(0, 150, (4000, 150))
    scores = [plain_macro_f1(true[pick], predicted[pick]) for pick in picks]
    expected = np.quantile(scores, [0.025, 0.975])
    report = classification_report(true, predicted, names(4), num_resamples=4000)["macro_f1"]
    assert [report["low"], report["high"]] == pytest.approx(expected, abs=0.01)


def test_intervals_hold_the_truth_as_often_as_they_say():
    # With equal classes and even mistakes, the true macro F1 is the true accuracy. The bounds are
    # three standard errors of a share of 0.95 among a thousand trials.
    hits = {"accuracy": 0, "macro_f1": 0}
    for seed in range(1000):
        true, predicted = simulate(10_000 + seed, 250, 3, 0.8)
        report = classification_report(true, predicted, names(3), num_resamples=400, seed=seed)
        for name in hits:
            hits[name] += report[name]["low"] <= 0.8 <= report[name]["high"]
    assert 930 <= hits["accuracy"] <= 970
    assert 930 <= hits["macro_f1"] <= 970


def test_paired_intervals_hold_the_true_difference():
    hits = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        true = generator.integers(0, 2, 250)
        ease = generator.random(250)  # what is hard for one is hard for the other
        a = np.where(ease < 0.85, true, 1 - true)
        b = np.where((ease < 0.75) | (ease > 0.95), true, 1 - true)
        result = paired_bootstrap(true, a, b, num_resamples=400, seed=seed)["accuracy"]
        hits += result["low"] <= 0.05 <= result["high"]
    assert 0.91 <= hits / 300 <= 0.98


def test_paired_values_by_hand():
    result = paired_bootstrap([0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0], num_resamples=200)
    assert result["count"] == 4
    assert (result["accuracy"]["a"], result["accuracy"]["b"]) == (0.75, 0.5)
    assert result["accuracy"]["difference"] == 0.25
    assert result["accuracy"]["low"] <= 0.25 <= result["accuracy"]["high"]
    assert result["macro_f1"]["a"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    json.dumps(result, allow_nan=False)


def test_a_classifier_against_itself_has_no_difference():
    true, predicted = simulate(5, 100, 3, 0.5)
    result = paired_bootstrap(true, predicted, predicted)
    for name in ("accuracy", "macro_f1"):
        assert result[name]["difference"] == result[name]["low"] == result[name]["high"] == 0
        assert result[name]["share_a_better"] == 0


def test_pairing_makes_the_interval_narrower_than_the_two_alone():
    true, b = simulate(6, 400, 2, 0.7)
    a = b.copy()
    a[:20] = true[:20]
    paired = paired_bootstrap(true, a, b)["accuracy"]
    alone = classification_report(true, a, names(2))["accuracy"]
    assert paired["high"] - paired["low"] < (alone["high"] - alone["low"]) / 2


def test_the_interval_of_paired_f1_is_that_of_resampling():
    true, a = simulate(7, 120, 3, 0.8)
    _, b = simulate(8, 120, 3, 0.5)
    picks = np.random.default_rng(1).integers(0, 120, (3000, 120))
    differences = [plain_macro_f1(true[p], a[p]) - plain_macro_f1(true[p], b[p]) for p in picks]
    result = paired_bootstrap(true, a, b, num_resamples=3000)["macro_f1"]
    expected = np.quantile(differences, [0.025, 0.975])
    assert [result["low"], result["high"]] == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([], [], r"labels have shape \(0,\), expected one number for each of 1 or more examples"),
        ([[0]], [[0]], r"labels have shape \(1, 1\)"),
        ([0, 1], [0], "2 true labels and 1 predictions; expected as many"),
        ([0, 2], [0, 1], "label 2 of example 1 is not a class number; there are 2 label names"),
        ([0, 1], [0, -1], "label -1 of example 1 is not a class number"),
        ([0.0, 1.0], [0, 1], "labels have type float64, expected whole numbers"),
    ],
)
def test_labels_that_cannot_be_measured(true, predicted, message):
    with pytest.raises(DataError, match=message):
        classification_report(true, predicted, names(2))


def test_paired_labels_that_cannot_be_measured():
    with pytest.raises(DataError, match="2 true labels and 3 predictions"):
        paired_bootstrap([0, 1], [0, 1], [0, 1, 1])
    with pytest.raises(DataError, match="label -1 of example 0 is not a class number"):
        paired_bootstrap([0, 1], [-1, 1], [0, 1])


def test_settings_that_make_no_sense():
    with pytest.raises(ConfigError, match="confidence is 95, expected a number between 0 and 1"):
        classification_report([0], [0], names(1), confidence=95)
    with pytest.raises(ConfigError, match="num_resamples is 0, expected at least 1"):
        paired_bootstrap([0], [0], [0], num_resamples=0)
