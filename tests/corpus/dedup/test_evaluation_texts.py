from __future__ import annotations

import json

import pytest

from maskwright.core.errors import DataError
from maskwright.corpus.dedup.config import EvaluationConfig
from maskwright.corpus.dedup.evaluation import evaluation_texts


def texts(path, fields=None):
    return list(evaluation_texts(EvaluationConfig(path=str(path), fields=fields)))


SQUAD = {
    "version": "1.1",
    "data": [{"title": "T", "paragraphs": [{"context": "C", "qas": [{"question": "Q"}]}]}],
}


def test_json_gives_every_string_or_those_of_some_fields(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(SQUAD, indent=1))
    assert texts(path) == ["1.1", "T", "C", "Q"]
    assert texts(path, ("question", "context")) == ["C", "Q"]


def test_json_lines(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text('{"a": "x", "n": 1, "list": ["y", null]}\n\n{"a": "z"}\n')
    assert texts(path) == ["x", "y", "z"]
    assert texts(path, ("list",)) == ["y"]


def test_tables(tmp_path):
    (tmp_path / "dev.csv").write_text('question,label\n"a, ""b""\nc",1\n')
    (tmp_path / "dev.tsv").write_text('question\tlabel\r\n"a b\t1\r\nshort\r\n')
    assert texts(tmp_path / "dev.csv") == ["question", "label", 'a, "b"\nc', "1"]
    assert texts(tmp_path / "dev.csv", ("question",)) == ['a, "b"\nc']
    assert texts(tmp_path / "dev.tsv") == ["question", "label", '"a b', "1", "short"]
    assert texts(tmp_path / "dev.tsv", ("label",)) == ["1"]


def test_plain_text_by_line_and_folders_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.txt").write_text("zero\n")
    assert texts(tmp_path) == ["zero", "one", "two"]


def test_fields_that_are_nowhere(tmp_path):
    for name, content in (("a.jsonl", '{"a": "x"}\n'), ("b.csv", "a\nx\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(
            DataError, match=rf"{name}: has no text in the fields q, r; set fields to what it"
        ):
            texts(tmp_path / name, ("q", "r"))


def test_malformed_files_are_refused_with_their_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "x"}\n{"a"\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: is not valid JSON \(.*\); mend the file"):
        texts(tmp_path / "a.jsonl")
    (tmp_path / "b.csv").write_text("x" * 200_000)
    with pytest.raises(DataError, match=r"b\.csv:1: is not valid CSV \(.*\); mend the file"):
        texts(tmp_path / "b.csv")
    (tmp_path / "c.pdf").write_text("x")
    with pytest.raises(DataError, match=r"c\.pdf: its suffix does not tell the format \(known: .*\.json"):
        texts(tmp_path / "c.pdf")
