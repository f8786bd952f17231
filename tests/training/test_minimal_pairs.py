"""Minimal pairs: reading, counting, intervals, and a model that knows the answers."""

import gzip
import json

import numpy as np
import pytest
import torch

import tiny_world
from maskwright.core.errors import DataError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.evaluation.minimal_pairs import (
    MinimalPair,
    flat_pairs,
    minimal_pairs,
    read_minimal_pairs,
    wilson_interval,
)
from maskwright.training.evaluation.records import find_json_files, read_records, read_texts

PAIR = {"sentence_good": "The rose grows.", "sentence_bad": "The rose grow."}
BLIMP = {
    **PAIR,
    "field": "morphology",
    "linguistics_term": "subject_verb_agreement",
    "UID": "regular_plural_1",
    "simple_LM_method": True,
    "pair_id": "0",
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


class TestReading:
    """From files to pairs."""

    def test_blimp(self, tmp_path):
        (pair,) = read_minimal_pairs(write(tmp_path / "a.jsonl", BLIMP))
        assert (pair.good, pair.bad) == ("The rose grows.", "The rose grow.")
        assert (pair.paradigm, pair.phenomenon) == ("regular_plural_1", "subject_verb_agreement")
        assert (pair.field, pair.place) == ("morphology", f"{tmp_path}/a.jsonl:1")

    def test_what_is_not_said_comes_from_the_file(self, tmp_path):
        (pair,) = read_minimal_pairs(write(tmp_path / "主谓一致.jsonl", PAIR))
        assert (pair.paradigm, pair.phenomenon, pair.field) == ("主谓一致", "主谓一致", "")

    def test_a_folder_with_folders_and_compressed_files(self, tmp_path):
        (tmp_path / "inner").mkdir()
        write(tmp_path / "inner" / "b.jsonl", PAIR, PAIR)
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(PAIR).encode() + b"\n\n"))
        (tmp_path / "README.md").write_text("not pairs")
        (tmp_path / ".hidden.jsonl").write_text("not pairs")
        pairs = read_minimal_pairs(tmp_path)
        assert [pair.paradigm for pair in pairs] == ["a", "b", "b"]

    def test_the_first_pairs_of_each_paradigm(self, tmp_path):
        rows = [
            {**PAIR, "UID": name, "sentence_good": f"{name} {number}"} for number in range(3) for name in "xy"
        ]
        pairs = read_minimal_pairs(write(tmp_path / "a.jsonl", *rows), limit=2)
        assert [pair.good for pair in pairs] == ["x 0", "y 0", "x 1", "y 1"]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (
                {"sentence_good": "x"},
                r'a\.jsonl:2: has no "sentence_bad", only sentence_good; expected a pair',
            ),
            ({}, r'a\.jsonl:2: has no "sentence_good", only nothing; expected a pair'),
            ({**PAIR, "sentence_bad": 3}, r'a\.jsonl:2: "sentence_bad" is 3, expected a text'),
            ({**PAIR, "sentence_good": " "}, r'a\.jsonl:2: "sentence_good" is " ", expected a text'),
            (
                {**PAIR, "sentence_bad": "The rose grows. "},
                r"a\.jsonl:2: both sentences are 'The rose grows\.'",
            ),
            ({**PAIR, "UID": 7}, r'a\.jsonl:2: "UID" is 7, expected a name or nothing'),
            ([1], r"a\.jsonl:2: holds a list, expected one JSON object a line"),
        ],
    )
    def test_bad_lines(self, tmp_path, row, said):
        with pytest.raises(DataError, match=said):
            read_minimal_pairs(write(tmp_path / "a.jsonl", PAIR, row))

    def test_no_json_and_no_pairs(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(PAIR) + "\n{\n")
        with pytest.raises(
            DataError, match=r"a\.jsonl:2: is not valid JSON \(.*; expected one object a line"
        ):
            read_minimal_pairs(path)
        path.write_bytes(b"\n \n")
        with pytest.raises(DataError, match=r"a\.jsonl: holds no pairs; expected lines with sentence_good"):
            read_minimal_pairs(path)
        path.write_bytes(json.dumps(PAIR).encode() + b'\n{"sentence_good": "\xff"}\n')
        with pytest.raises(DataError, match=r"a\.jsonl:2: byte 0xff is not valid UTF-8; save the file as"):
            read_minimal_pairs(path)
        path.rename(tmp_path / "a.txt")
        with pytest.raises(DataError, match=r"holds no \.jsonl or \.ndjson or \.json file; check the path"):
            find_json_files(tmp_path)

    def test_texts(self, tmp_path):
        (tmp_path / "a.txt").write_text("\ufeffone\n\n two \r\nthree\n", "utf-8")
        assert read_texts(tmp_path / "a.txt") == ["one", "two", "three"]
        assert read_texts(tmp_path / "a.txt", limit=2) == ["one", "two"]
        rows = [{"body": "one\nline"}, {"body": "two"}, {"body": 3}]
        assert read_texts(write(tmp_path / "a.jsonl", *rows), "body", 2) == ["one\nline", "two"]
        with pytest.raises(DataError, match=r'a\.jsonl:3: "body" is 3, expected a text; set text_field'):
            read_texts(tmp_path / "a.jsonl", "body")
        with pytest.raises(DataError, match=r'a\.jsonl:1: has no "text", only body; set text_field'):
            read_texts(tmp_path / "a.jsonl")
        (tmp_path / "a.txt").write_text("\n")
        with pytest.raises(DataError, match=r"a\.txt: holds no text; expected at least one line"):
            read_texts(tmp_path / "a.txt")

    def test_lines_are_numbered_with_the_blank_ones(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
        assert list(read_records(tmp_path / "a.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parity
@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (7, 10), (500, 1000), (0, 50), (1000, 1000)])
def test_intervals_are_those_of_scipy(right, count):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_takes_halves():
    low, high = wilson_interval(2.5, 5)
    assert low == pytest.approx(1 - high)
    assert 0 < low < 0.5 < high < 1


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([tiny_world.text(tiny_world.random.Random(1), "garden", 200)], 300)


def knowing_model(tokenizer, liked):
    """A model that finds some tokens likely and the others unlikely, whatever stands around them."""
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=26,
    )
    model = MaskedLM(config)
    initialize(model, seed=0, std=1e-4)
    with torch.no_grad():
        model.head_bias[list(liked)] = 5.0
    return model


def pair(good, bad, paradigm="p", phenomenon="q", field=""):
    return MinimalPair(good, bad, paradigm, phenomenon, field, f"{paradigm}.jsonl:1")


def test_counts_of_a_model_that_knows(tokenizer):
    liked = set(tokenizer.encode(" rose").tolist())
    model = knowing_model(tokenizer, liked)
    pairs = [
        pair("the rose", "the spade", "flowers", "garden", "syntax"),  # right
        pair("the spade", "the rose", "tools", "garden", "syntax"),  # wrong
        pair("a rose", "a spade", "flowers", "garden", "morphology"),  # right
        pair("the rose the", "the rose the", "same", "same"),  # a tie
    ]
    report = minimal_pairs(model, tokenizer, pairs)
    assert (report["count"], report["ties"]) == (4, 1)
    assert report["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert (report["accuracy"]["low"], report["accuracy"]["high"]) == wilson_interval(2.5, 4)
    assert report["macro_accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    values = {entry["name"]: entry["accuracy"]["value"] for entry in report["paradigms"]}
    assert values == {"flowers": 1.0, "tools": 0.0, "same": 0.5}
    garden, same = report["phenomena"]
    assert (garden["name"], garden["count"], garden["field"]) == ("garden", 3, "morphology, syntax")
    assert (same["name"], same["ties"], same["field"]) == ("same", 1, "")
    assert flat_pairs(report) == {
        "minimal_pairs": pytest.approx(2.5 / 4),
        "minimal_pairs/garden": pytest.approx(2 / 3),
        "minimal_pairs/same": 0.5,
    }
    json.dumps(report)


def test_hiding_words_and_batches(tokenizer):
    model = knowing_model(tokenizer, set(tokenizer.encode(" rose").tolist()))
    pairs = [pair("the thorny rose", "the thorny spade"), pair("a beetle", "a rose")]
    report = minimal_pairs(model, tokenizer, pairs)
    assert minimal_pairs(model, tokenizer, pairs, words=True) == report
    assert minimal_pairs(model, tokenizer, pairs, batch_tokens=1) == report


@pytest.mark.parametrize("key", ["sentence_good", "sentence_bad"])
def test_a_sentence_that_the_model_does_not_take(tokenizer, key):
    model = knowing_model(tokenizer, set())
    texts = {"sentence_good": "a", "sentence_bad": "the", key: "xyz " * 20}
    said = rf'p\.jsonl:1: "{key}" has \d+ tokens, the model takes 24; shorten it'
    with pytest.raises(DataError, match=said):
        minimal_pairs(model, tokenizer, [pair(*texts.values())])


def test_scores_that_differ_by_rounding_alone_tie(tokenizer):
    from maskwright.training.evaluation.minimal_pairs import _points

    good = np.array([-100.0, -100.0, -0.0, -1.0])
    bad = np.array([-100.00001, -100.1, -0.0, -0.5])
    assert _points(good, bad).tolist() == [0.5, 1.0, 0.5, 0.0]
