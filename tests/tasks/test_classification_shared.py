"""Reading the real classification sets, with the number of rows that each file holds."""

import os
from collections import Counter
from pathlib import Path

import pytest

from maskwright.core.errors import DataError
from maskwright.tasks.classification.data import read_labelled, split_dataset

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MASKWRIGHT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}"),
]
MRPC = {"text_field": "#1 String", "text_b_field": "#2 String", "label_field": "Quality"}
RTE = {"text_field": "sentence1", "text_b_field": "sentence2", "label_field": "label"}
AG_NEWS = {"text_field": 0, "label_field": 1}
COLA = {"text_field": 3, "label_field": 1}
SMS = {"text_field": 1, "label_field": 0}

SETS = [
    ("sst2/train.tsv", {"text_field": "sentence"}, 67_349, ["0", "1"]),
    ("sst2/dev.tsv", {"text_field": "sentence"}, 872, ["0", "1"]),
    ("sst2/dev.tsv", {"text_field": 0, "label_field": 1}, 872, ["0", "1"]),
    ("ag_news/train.tsv", AG_NEWS, 9_000, ["Business", "Sci/Tech", "Sports", "World"]),
    ("ag_news/dev.tsv", AG_NEWS, 1_001, ["Business", "Sci/Tech", "Sports", "World"]),
    ("sms_spam/SMSSpamCollection", SMS, 5_574, ["ham", "spam"]),
    ("glue/CoLA/train.tsv", COLA, 8_551, ["0", "1"]),
    ("glue/CoLA/dev.tsv", COLA, 1_043, ["0", "1"]),
    ("glue/MRPC/train.tsv", MRPC, 3_667, ["0", "1"]),
    ("glue/MRPC/dev.tsv", MRPC, 408, ["0", "1"]),
    ("glue/RTE/train.tsv", RTE, 2_490, ["entailment", "not_entailment"]),
    ("glue/RTE/dev.tsv", RTE, 277, ["entailment", "not_entailment"]),
]


@pytest.mark.parametrize(("name", "options", "count", "label_names"), SETS)
def test_a_set_is_read_whole(name, options, count, label_names):
    dataset = read_labelled(SHARED / name, **options)
    assert len(dataset) == count
    assert dataset.label_names == label_names
    assert set(dataset.labels) == set(range(len(label_names)))
    assert all(dataset.texts)
    assert (dataset.texts_b is not None) == ("text_b_field" in options)


def test_chinese_reviews_with_the_one_that_is_empty():
    path = SHARED / "chnsenticorp" / "ChnSentiCorp_htl_all.csv"
    with pytest.raises(DataError, match="the text is empty; mend the row, or set on_empty=skip"):
        read_labelled(path, text_field="review")
    dataset = read_labelled(path, text_field="review", on_empty="skip")
    assert (len(dataset), dataset.num_skipped) == (7_765, 1)
    assert Counter(dataset.labels) == {1: 5_322, 0: 2_443}
    assert '"蔡陆线"' in dataset.texts[0]


@pytest.mark.parametrize("part", ["train", "dev"])
def test_scores_are_not_classes(part):
    options = {"text_field": "sentence1", "text_b_field": "sentence2", "label_field": "score"}
    with pytest.raises(DataError, match="numbers with fractions, so they are scores and not classes"):
        read_labelled(SHARED / "glue" / "STS-B" / f"{part}.tsv", **options)


def test_quotes_and_swapped_columns_in_the_sms_collection():
    path = SHARED / "sms_spam" / "SMSSpamCollection"
    dataset = read_labelled(path, **SMS)
    assert sum(text.count('"') for text in dataset.texts) == path.read_text(encoding="utf-8").count('"')
    with pytest.raises(DataError, match="this is hardly the column of labels; set label_field"):
        read_labelled(path, text_field=0, label_field=1)


def test_evaluation_with_the_labels_of_training():
    train = read_labelled(SHARED / "ag_news" / "train.tsv", **AG_NEWS)
    dev = read_labelled(SHARED / "ag_news" / "dev.tsv", label_names=train.label_names, **AG_NEWS)
    assert Counter(dev.labels) == {0: 245, 1: 259, 2: 268, 3: 229}
    with pytest.raises(DataError, match=r'dev\.tsv:2: the training data has no label "World"'):
        read_labelled(SHARED / "ag_news" / "dev.tsv", label_names=["Business", "Wrld", "Sport"], **AG_NEWS)


def test_a_division_of_real_data_leaks_no_copy():
    dataset = read_labelled(SHARED / "sms_spam" / "SMSSpamCollection", **SMS)
    rest, held_out = split_dataset(dataset, 0.2, seed=0)
    assert not set(rest.texts) & set(held_out.texts)
    assert abs(len(held_out) - 0.2 * len(dataset)) < 40
    shares = [Counter(part.labels)[1] / len(part) for part in (rest, held_out)]
    assert abs(shares[0] - shares[1]) < 0.01


@pytest.mark.parametrize("name", ["utf8tests.bin", "kuhn-utf8-test.txt"])
def test_stress_files_are_refused_by_line(name):
    with pytest.raises(DataError, match=rf"{name}:\d+: (byte 0x|holds a zero byte)"):
        read_labelled(SHARED / "awkward" / name, text_field=0, label_field=1)
