"""Reading labelled files: every layout people use, and a clear answer to every fault."""

import csv
import gzip
import io
import json

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import ConfigError, DataError
from maskwright.tasks.classification.data import LabelledDataset, read_labelled
from maskwright.tasks.classification.rows import file_kind


@pytest.fixture
def put(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def refusal(path, **options) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        read_labelled(path, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


BY_NUMBER = {"text_field": 0, "label_field": 1}


# Layouts


def test_a_header_and_names(put):
    dataset = read_labelled(put("a.tsv", "text\tlabel\ngood film \t1\nbad\t0\n"))
    assert dataset == LabelledDataset(texts=["good film", "bad"], labels=[1, 0], label_names=["0", "1"])
    assert len(dataset) == 2


def test_columns_in_any_order_with_others_between(put):
    path = put("a.tsv", "id\tstars\tnote\treview\n7\tbad\t\tone\n8\tgood\tx\ttwo\n")
    dataset = read_labelled(path, text_field="review", label_field="stars")
    assert (dataset.texts, dataset.labels, dataset.label_names) == (["one", "two"], [0, 1], ["bad", "good"])
    assert read_labelled(path, text_field=3, label_field="stars") == dataset


def test_quotes_in_tsv_are_characters(put):
    dataset = read_labelled(
        put("a.txt", 'ham\t"oh\nspam\t"win" it\nham\tends"\n'), text_field=1, label_field=0
    )
    assert dataset.texts == ['"oh', '"win" it', 'ends"']


def test_quotes_in_csv_hold_commas_quotes_and_new_lines(put):
    path = put("a.csv", 'label,text\r\n1,"a, ""b""\r\nc"\r\n0,plain "x" here\r\n')
    dataset = read_labelled(path)
    assert dataset.texts == ['a, "b"\r\nc', 'plain "x" here']


def test_a_byte_order_mark_is_not_part_of_the_first_name(put):
    assert read_labelled(put("a.tsv", b"\xef\xbb\xbflabel\ttext\na\tx\nb\ty\n")).label_names == ["a", "b"]


def test_line_ends_and_blank_lines(put):
    path = put("a.tsv", "text\tlabel\r\n\r\nx\u2028y\ta\r\n\t\r\nz\x85\x0cw\tb")
    dataset = read_labelled(path)
    assert dataset.texts == ["x\u2028y", "z\x85\x0cw"]
    assert dataset.label_names == ["a", "b"]


def test_pairs(put):
    path = put("a.tsv", "s1\ts2\tlabel\na\tb\t1\nc\td\t0\n")
    dataset = read_labelled(path, text_field="s1", text_b_field="s2")
    assert dataset.texts_b == ["b", "d"]
    assert dataset.select([1]).texts_b == ["d"]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json"])
def test_json_lines(put, suffix):
    lines = [
        {"text": " é\n", "label": 1},
        {"label": True, "text": "b", "more": []},
        {"text": "c", "label": 2.0},
    ]
    path = put(f"a.{suffix}", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    dataset = read_labelled(path)
    assert dataset.texts == ["é", "b", "c"]
    assert dataset.label_names == ["1", "2", "true"]


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.tsv", "a.TSV.GZ"])
def test_gzip_by_content(put, name):
    path = put(name, gzip.compress(b"text\tlabel\nx\t1\n") + gzip.compress(b"y\t0\n"))
    assert read_labelled(path).texts == ["x", "y"]


def test_zstd_with_several_frames(put):
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    path = put("a.csv.zst", skippable + compress(b"text,label\nx,1\n") + skippable + compress(b'"y,z",0\n'))
    assert read_labelled(path).texts == ["x", "y,z"]


def test_a_cell_may_be_longer_than_the_csv_module_likes(put):
    before = csv.field_size_limit()
    long = "word " * 60_000
    dataset = read_labelled(put("a.csv", f'text,label\n"{long}",1\nshort,0\n'))
    assert dataset.texts[0] == long.strip()
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("a.CSV.gz", "csv"),
        ("b.jsonl.zst", "json"),
        ("SMSSpamCollection", "tsv"),
        ("a.gz", "tsv"),
    ],
)
def test_file_kinds(name, kind):
    assert file_kind(name) == kind


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip),
            st.sampled_from(["a", "b", "ç"]),
        ),
        min_size=2,
    ).filter(lambda rows: len({label for _, label in rows}) > 1)
)
def test_what_the_csv_module_and_json_write_is_read_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("round")
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("text", "label"), *rows])
    (folder / "a.csv").write_bytes(stream.getvalue().encode())
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    for name in ("a.csv", "a.jsonl"):
        dataset = read_labelled(folder / name)
        assert dataset.texts == [text.strip() for text, _ in rows]
        assert [dataset.label_names[label] for label in dataset.labels] == [label for _, label in rows]


# Header


@pytest.mark.parametrize("header", ["no", False, "auto"])
def test_no_header(put, header):
    dataset = read_labelled(put("a.tsv", "one\tx\ntwo\ty\n"), header=header, **BY_NUMBER)
    assert dataset.texts == ["one", "two"]


@pytest.mark.parametrize("header", ["yes", True])
def test_a_header_that_looks_like_a_row(put, header):
    dataset = read_labelled(put("a.tsv", "one\tx\ntwo\ty\nthree\tz\n"), header=header, **BY_NUMBER)
    assert dataset.texts == ["two", "three"]


@pytest.mark.parametrize("first", ["sentence\tlabel", "whatever\tLabel", "Review\twhatever"])
def test_a_usual_header_is_seen_even_with_numbers(put, first):
    assert read_labelled(put("a.tsv", f"{first}\none\tx\ntwo\ty\n"), **BY_NUMBER).texts == ["one", "two"]


def test_a_first_row_that_may_be_a_header_is_asked_about(put):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(30))
    path = put("a.tsv", "kommentar\tnote\n" + rows)
    assert refusal(path, **BY_NUMBER) == (
        'a.tsv:1: the label "note" occurs on this line only, so it may be a header; '
        "set header=yes or header=no"
    )
    assert len(read_labelled(path, header="yes", **BY_NUMBER)) == 30
    assert len(read_labelled(path, header="no", **BY_NUMBER)) == 31


def test_names_against_no_header(put):
    path = put("a.tsv", "one\tx\n")
    assert refusal(path, header="no") == (
        'a.tsv: field "label" is a name, but header is no; give the number of the column, counted from 0'
    )
    assert refusal(path, header="maybe", **BY_NUMBER) == "header is 'maybe', expected auto, yes or no"


def test_a_wrong_column(put):
    path = put("a.tsv", "sentence\tlabel\nx\t1\n")
    assert refusal(path) == (
        'a.tsv:1: has no column "text"; known: label, sentence; '
        "set text_field and label_field, to column numbers counted from 0 if there is no header"
    )
    assert 'has no column "sentense"; did you mean "sentence"?' in refusal(path, text_field="sentense")
    assert refusal(path, text_field=0, label_field=2) == (
        "a.tsv:1: there is no column 2, counted from 0: the row has 2; set text_field and label_field"
    )
    assert "there is no column -1" in refusal(path, text_field=-1, label_field=1)
    twice = put("b.tsv", "text\ttext\tlabel\na\tb\t1\n")
    assert refusal(twice) == (
        'b.tsv:1: the header names "text" more than once; give the column number instead'
    )


def test_fields_that_contradict_each_other(put):
    path = put("a.tsv", "text\tlabel\nx\t1\n")
    assert refusal(path, text_field="label").startswith(
        "text, second text and label must be different fields"
    )
    assert refusal(path, text_b_field="text").startswith(
        "text, second text and label must be different fields"
    )
    assert refusal(path, on_empty="drop") == "on_empty is 'drop', expected 'error' or 'skip'"


# Rows


def test_rows_of_another_width_are_located(put):
    path = put("a.tsv", "text\tlabel\n\nx\t1\ny\tz\t0\n")
    assert refusal(path) == "a.tsv:4: has 3 columns, line 1 has 2; a text must hold no tab"
    path = put("a.csv", 'text,label\n"x\ny",1\nz\n')
    assert refusal(path) == (
        "a.csv:4: has 1 column, line 1 has 2; put a text that holds a comma in double quotes"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('x,1\n"never closed,1\ny,0\n', "a.csv:3: is not valid CSV (a quote is never closed); put the text"),
        ('x,1\ny,0\n"a" b,1\n', "a.csv:4: is not valid CSV (',' expected after '\"'); put the text"),
    ],
)
def test_broken_csv_is_located_where_the_row_starts(put, body, expected):
    assert refusal(put("a.csv", "text,label\n" + body)).startswith(expected)


def test_an_empty_text(put):
    path = put("a.tsv", "text\tlabel\nx\t1\n  \t1\ny\t0\n\t0\n")
    assert refusal(path) == "a.tsv:3: the text is empty; mend the row, or set on_empty=skip"


def test_an_empty_text_can_be_skipped_and_is_counted(put, caplog):
    path = put("a.tsv", "text\ttext_b\tlabel\nx\ty\t1\n \ty\t1\nx\t\t0\ny\ty\t0\n")
    with caplog.at_level("WARNING", logger="maskwright"):
        dataset = read_labelled(path, text_b_field="text_b", on_empty="skip")
    assert (dataset.texts, dataset.num_skipped) == (["x", "y"], 2)
    assert "2 of 4 rows have an empty text and are skipped, the first on line 3" in caplog.text
    nothing = put("b.tsv", "text\tlabel\n \t1\n \t0\n")
    assert refusal(nothing, on_empty="skip") == (
        "b.tsv: every text is empty; set text_field to the column that holds the texts"
    )


def test_json_that_cannot_be_used(put):
    good = '{"text": "x", "label": 1}\n'

    def fault(line: str) -> str:
        return refusal(put("a.jsonl", good + "\n" + line))

    assert fault("{").startswith("a.jsonl:3: is not valid JSON (")
    assert fault("{").endswith("expected one object a line")
    assert fault("[" * 100_000).startswith("a.jsonl:3: is not valid JSON (")
    assert fault("[1]") == "a.jsonl:3: holds a list, expected one JSON object a line"
    assert fault('{"txt": "x", "label": 1}') == (
        'a.jsonl:3: has no "text"; did you mean "txt"? (set text_field or label_field)'
    )
    assert fault('{"text": ["x"], "label": 1}') == (
        'a.jsonl:3: "text" is a list, expected a string (set text_field)'
    )
    assert fault('{"text": null, "label": 1}') == (
        'a.jsonl:3: "text" is null, expected a string (set text_field)'
    )
    assert fault('{"text": "\\ud800", "label": 1}') == (
        'a.jsonl:3: "text" holds half of a surrogate pair; remove it'
    )
    for value, shown in [("null", "null"), ("1.5", "a float"), ("[1]", "a list"), ("NaN", "a float")]:
        assert fault(f'{{"text": "x", "label": {value}}}') == (
            f'a.jsonl:3: "label" is {shown}, expected a string or a whole number (set label_field)'
        )
    assert refusal(put("a.jsonl", good), **BY_NUMBER) == (
        "a.jsonl: field 1 is a number, but JSON lines have names; give the key"
    )


# Files


def test_files_that_cannot_be_read(put, tmp_path):
    assert refusal(tmp_path / "none.tsv") == "none.tsv: no such file; check the path"
    assert "cannot be read (Is a directory)" in refusal(tmp_path)
    for content in (b"", b"\n \n", b"\xef\xbb\xbf", gzip.compress(b"")):
        assert refusal(put("a.tsv", content)) == "a.tsv: is empty; expected at least one row"
    assert refusal(put("a.tsv", "text\tlabel\n")) == "a.tsv: has a header and no rows; expected at least one"
    assert refusal(put("a.tsv", b"text\tlabel\nx\0\t1\n")) == (
        "a.tsv:2: holds a zero byte, so it is binary; expected a text file in UTF-8"
    )
    assert refusal(put("a.tsv", "text\tlabel\n".encode("utf-16"))) == "a.tsv: is UTF-16; save it as UTF-8"
    assert refusal(put("a.tsv", "text\tlabel\nx\t1\ncaf\xe9 au lait\t0\n".encode("latin-1"))) == (
        "a.tsv:3: byte 0xe9 is not valid UTF-8 (invalid continuation byte); save the file as UTF-8"
    )


@pytest.mark.fault
def test_compressed_files_that_are_damaged(put):
    data = "".join(f"text {number}\t{number % 2}\n" for number in range(2000)).encode()
    zipped, packed = gzip.compress(data), zstandard.ZstdCompressor().compress(data)
    cut = refusal(put("a.tsv.gz", zipped[:-20]), **BY_NUMBER)
    assert cut.startswith("a.tsv.gz: is a damaged or cut-off gzip file (")
    flipped = zipped[:50] + bytes([zipped[50] ^ 255]) + zipped[51:]
    assert "is a damaged or cut-off gzip file" in refusal(put("a.tsv.gz", flipped), **BY_NUMBER)
    assert refusal(put("a.tsv.zst", packed[:-20]), **BY_NUMBER) == (
        "a.tsv.zst: is a zstd file that was cut off; fetch it again"
    )
    assert "is a damaged zstd file (" in refusal(put("a.tsv.zst", packed + b"rest"), **BY_NUMBER)
    assert refusal(put("a.tsv.gz", data), **BY_NUMBER) == (
        "a.tsv.gz: is named .gz, but its content is not compressed that way; rename it"
    )


# Labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "C"], ["C", "a", "b"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["1.5", "1", "01"], ["01", "1", "1.5"]),
        (["nan", "inf", "1"], ["1", "inf", "nan"]),
    ],
)
def test_label_names_are_sorted(put, labels, expected):
    path = put("a.tsv", "text\tlabel\n" + "".join(f"x\t{label}\n" for label in labels))
    assert read_labelled(path).label_names == expected


def test_labels_of_training_number_the_evaluation(put):
    path = put("dev.tsv", "text\tlabel\nx\tc\n")
    dataset = read_labelled(path, label_names=["a", "b", "c"])
    assert (dataset.labels, dataset.label_names) == ([2], ["a", "b", "c"])


def test_a_label_that_training_never_saw(put):
    path = put("dev.tsv", "text\tlabel\nx\tpositive\n\ny\tpostive\n")
    assert refusal(path, label_names=["negative", "positive"]) == (
        'dev.tsv:4: the training data has no label "postive"; did you mean "positive"? '
        "(correct the label, or add examples of it to the training data)"
    )
    assert "; known: 0, 1 (" in refusal(path, label_names=["0", "1"])


def test_labels_that_cannot_be_used(put):
    assert refusal(put("a.tsv", "text\tlabel\nx\ta\ny\t \n")) == (
        "a.tsv:3: the label is empty; fill it in, or remove the row"
    )
    assert refusal(put("a.tsv", "text\tlabel\nx\ta\ny\ta\n")) == (
        'a.tsv: every example has the label "a", and a classifier needs at least two; check label_field'
    )


def test_a_column_that_is_not_one_of_classes(put):
    rows = "".join(f"{number % 2}\ta text {number}\n" for number in range(200))
    assert refusal(put("a.tsv", rows), **BY_NUMBER) == (
        'a.tsv: 200 different labels in 200 examples, such as "a text 0": '
        "this is hardly the column of labels; set label_field"
    )
    scores = "".join(f"text {number}\t{number % 30 / 10}\n" for number in range(200))
    assert refusal(put("a.tsv", scores), **BY_NUMBER).startswith(
        "a.tsv: the labels are 30 numbers with fractions, so they are scores and not classes; "
    )
