from __future__ import annotations

import csv
import io

import pytest
from corpus_helpers import read, shared_data
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError


def write(folder, text, name="x.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_quotes_hold_commas_and_line_ends(tmp_path):
    path = write(tmp_path, '\ufefftext,id\n"a, ""b""\nc",7\r\n\nplain,8\n')
    documents, _ = read(path)
    assert [(one.text, one.id) for one in documents] == [('a, "b"\nc', "s:x.csv#2"), ("plain", "s:x.csv#5")]
    documents, _ = read(path, id_field="id")
    assert [one.id for one in documents] == ["s:7", "s:8"]


CELLS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(st.integers(), CELLS), min_size=1))
def test_what_the_standard_writer_writes_is_read_back(tmp_path_factory, rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("n", "text"), *rows])
    path = write(tmp_path_factory.mktemp("c"), buffer.getvalue())
    documents, _ = read(path)
    assert [one.text for one in documents] == [text for _, text in rows]


def test_tsv_has_no_quotes(tmp_path):
    path = write(tmp_path, 'sentence\tlabel\n"half a quote\t1\n\n  b \t0\r\n', "x.tsv")
    documents, _ = read(path, text_field="sentence")
    assert [(one.text, one.id) for one in documents] == [
        ('"half a quote', "s:x.tsv#2"),
        ("  b ", "s:x.tsv#4"),
    ]


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
def test_without_header_columns_have_numbers(tmp_path, name):
    comma = "\t" if name == "x.tsv" else ","
    path = write(tmp_path, f"one{comma}A\ntwo{comma}B\n", name)
    documents, _ = read(path, header=False, text_field="0", id_field="1")
    assert [(one.text, one.id) for one in documents] == [("one", "s:A"), ("two", "s:B")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'x.csv:1: has no column "text"; did you mean "texts"? (set text_field)'),
        (
            {"text_field": "texts", "id_field": "key"},
            'x.csv:1: has no column "key"; known: label, texts (set id_field)',
        ),
        (
            {"header": False},
            'x.csv:1: "text" is no column of a table without header, expected a number from 0 to 1 '
            "(set text_field, or header to true)",
        ),
        (
            {"header": False, "text_field": "2"},
            'x.csv:1: "2" is no column of a table without header, expected a number from 0 to 1 '
            "(set text_field, or header to true)",
        ),
    ],
)
def test_a_missing_column_is_named(tmp_path, settings, message):
    path = write(tmp_path, "texts,label\na,b\n")
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_malformed_rows_are_counted_and_later_ones_kept(tmp_path):
    path = write(tmp_path, 'n,text\n1,one\n2\n3,"x"y\n4,four\n')
    documents, audit = read(path)
    assert [one.text for one in documents] == ["one", "four"]
    assert audit.drops == {"malformed_row": 2}
    samples = audit.as_dict()["drop_samples"]["malformed_row"]
    assert samples[0] == f"{path}:3: has 1 columns: 2"
    assert samples[1].startswith(f"{path}:4: not valid CSV (")
    with pytest.raises(DataError, match=r"x\.csv:4: not valid CSV .*malformed line number 2 of this file"):
        read(path, max_bad_lines=1)


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    path = write(tmp_path, 'text\none\n"two\nthree\n')
    with pytest.raises(DataError, match=r"x\.csv:3: a quote opened here is never closed"):
        read(path)


def test_bad_bytes_follow_the_policy(tmp_path):
    path = write(tmp_path, b"text\none\nb\xffd\ntwo\n")
    documents, audit = read(path)
    assert [one.text for one in documents] == ["one", "b\ufffdd", "two"]
    assert audit.repairs == {"invalid_utf8": 1}
    documents, audit = read(path, encoding_errors="skip")
    assert [(one.text, one.id) for one in documents] == [("one", "s:x.csv#2"), ("two", "s:x.csv#4")]
    with pytest.raises(DataError, match=r"x\.csv:3: byte 0xff is not UTF-8"):
        read(path, encoding_errors="strict")


def test_an_empty_file_is_counted(tmp_path):
    documents, audit = read(write(tmp_path, ""))
    assert not documents
    assert audit.drops == {"empty_file": 1}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("sst2/dev.tsv", {"text_field": "sentence"}, 872),
        ("ag_news/dev.tsv", {"header": False, "text_field": "0"}, 1001),
        ("sms_spam/SMSSpamCollection", {"header": False, "text_field": "1", "format": "tsv"}, 5574),
    ],
)
def test_real_tables(name, settings, count):
    documents, audit = read(shared_data() / name, **settings)
    assert len(documents) == count
    assert not audit.drops


@pytest.mark.shared
def test_real_csv_in_chinese():
    path = shared_data() / "chnsenticorp" / "ChnSentiCorp_htl_all.csv"
    documents, audit = read(path, text_field="review")
    with path.open(encoding="utf-8", newline="") as file:
        assert [one.text for one in documents] == [row["review"] for row in csv.DictReader(file)]
    assert not audit.drops
