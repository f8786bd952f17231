from __future__ import annotations

from dataclasses import replace

import pytest
from corpus_helpers import read, shared_data
from hypothesis import example, given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus import READERS, Audit, SourceConfig
from maskwright.corpus import spans as spans_module
from maskwright.corpus.plan import plan_inputs
from maskwright.corpus.readers import ReadOptions
from maskwright.corpus.sources import SourceFile, Span, find_files
from maskwright.corpus.spans import count_lines, cut_lines, cut_rows

MARK = b"\xef\xbb\xbf"
PIECES = [
    *(b"\n", b"\n\n", b"\r\n", b"\r", b" ", b"\t", b"\x0b", MARK, b"\xff", "é".encode(), b"a", b"b" * 40),
    *(
        b'{"text": "x"}\n',
        b'{"text": "\xff"}\r\n',
        b'{"text": "\\ud800"}\n',
        b"{\n",
        b"text\tid\n",
        b"1\t2\n",
    ),
]
DATA = st.builds(
    lambda mark, pieces: mark + b"".join(pieces),
    st.sampled_from([b"", MARK]),
    st.lists(st.sampled_from(PIECES), max_size=25),
)


def outcome(files, options, format_name):
    """Documents and account of reading files one after the other, as one task each would, or the error."""
    whole, documents = Audit(), []
    for file in files:
        audit = Audit()
        try:
            for one in READERS[format_name](file, options, audit):
                audit.count_read(one)
                audit.count_kept(one)
                documents.append((one.id, one.text))
        except DataError as error:
            return str(error)
        whole.merge(audit)
    return documents, whole.as_dict()


def spans_agree_with_the_whole(path, format_name, split_bytes, **settings):
    source = SourceConfig(path=str(path), name="s", format=format_name, max_bad_lines=1000, **settings)
    names = ("text_field", "id_field", "header", "encoding_errors", "max_bad_lines", "split_documents")
    options = ReadOptions("s", **{name: getattr(source, name) for name in names})
    (file,) = find_files([str(path)])
    files = [task.file for task in plan_inputs([source], split_bytes)]
    assert outcome(files, options, format_name) == outcome([file], options, format_name)


@pytest.mark.parametrize("policy", ["replace", "skip", "strict"])
@pytest.mark.parametrize("split", ["line", "block"])
@given(data=DATA, split_bytes=st.integers(1, 60))
@example(data=MARK + b"\na\nb\n\nc", split_bytes=2)
@example(data=b"a\n \t\x0b  \nb", split_bytes=4)
def test_text_is_the_same_in_spans(tmp_path_factory, split, policy, data, split_bytes):
    path = tmp_path_factory.mktemp("t") / "x.txt"
    path.write_bytes(data)
    spans_agree_with_the_whole(path, "text", split_bytes, split_documents=split, encoding_errors=policy)


@pytest.mark.parametrize("policy", ["replace", "skip"])
@given(data=DATA, split_bytes=st.integers(1, 60))
def test_json_lines_are_the_same_in_spans(tmp_path_factory, policy, data, split_bytes):
    path = tmp_path_factory.mktemp("j") / "x.jsonl"
    path.write_bytes(data)
    spans_agree_with_the_whole(path, "jsonl", split_bytes, encoding_errors=policy)


@pytest.mark.parametrize("policy", ["replace", "skip"])
@pytest.mark.parametrize("settings", [{}, {"header": False, "text_field": "1", "id_field": "0"}])
@given(data=DATA, split_bytes=st.integers(1, 60))
@example(data=b"\n\n\n\xff\n\ntext\tid\na\tb\n", split_bytes=3)
def test_tables_are_the_same_in_spans(tmp_path_factory, policy, settings, data, split_bytes):
    path = tmp_path_factory.mktemp("v") / "x.tsv"
    path.write_bytes(data)
    spans_agree_with_the_whole(path, "tsv", split_bytes, encoding_errors=policy, **settings)


@given(data=DATA, split_bytes=st.integers(1, 60))
def test_every_span_knows_its_first_line(tmp_path_factory, data, split_bytes):
    path = tmp_path_factory.mktemp("n") / "x.jsonl"
    path.write_bytes(data)
    for task in plan_inputs([SourceConfig(path=str(path))], split_bytes):
        if task.file.span:
            start, stop = task.file.span.start, task.file.span.stop
            begins = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
            inside = [number for number, begin in enumerate(begins, 1) if start <= begin < stop]
            assert not inside or task.file.span.first_line == inside[0]


def test_white_space_before_a_span_may_be_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "_BLOCK_BYTES", 7)
    path = tmp_path / "x.txt"
    for line in (b" " * 50, b"a" + b" " * 50, b" " * 50 + b"a", MARK + b" " * 50):
        path.write_bytes((line if line.startswith(MARK) else b"one\n" + line) + b"\ntwo\n" + b"x" * 9)
        for split_bytes in range(1, 70):
            spans_agree_with_the_whole(path, "text", split_bytes, split_documents="block")


@given(data=DATA, start=st.integers(0, 100), stop=st.integers(0, 1000))
def test_line_ends_are_counted(tmp_path_factory, data, start, stop):
    path = tmp_path_factory.mktemp("c") / "x"
    path.write_bytes(data)
    assert count_lines(SourceFile(path, "x"), start, stop) == data[start:stop].count(b"\n")


def test_counting_goes_on_past_a_block(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"ab\n" * 1000)
    monkeypatch.setattr(spans_module, "_BLOCK_BYTES", 64)
    assert count_lines(SourceFile(path, "x"), 0, 3000) == 1000
    assert count_lines(SourceFile(path, "x"), 2, 2999) == 999


def test_counting_names_what_it_cannot_read(tmp_path):
    with pytest.raises(DataError, match=r"gone: cannot be read \(No such file or directory\)"):
        count_lines(SourceFile(tmp_path / "gone", "gone"), 0, 10)


@given(st.integers(1, 1000), st.integers(1, 1100))
def test_line_spans_join(num_bytes, split_bytes):
    spans = cut_lines(num_bytes, split_bytes)
    assert [span.start for span in spans] == list(range(0, num_bytes, split_bytes))
    assert [span.stop for span in spans] == [*(span.start for span in spans[1:]), num_bytes]


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100))
def test_row_groups_are_gathered(group_bytes, split_bytes):
    found = cut_rows(group_bytes, split_bytes)
    places = [place for span, _ in found for place in range(span.start, span.stop)]
    assert places == list(range(len(group_bytes)))
    assert [size for _, size in found] == [sum(group_bytes[span.start : span.stop]) for span, _ in found]
    assert all(size >= split_bytes for _, size in found[:-1])


def test_bad_lines_are_counted_by_file_for_whoever_joins_spans(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"{\n" * 5 + b'{"text": "a"}\n')
    _, audit = read(tmp_path, max_bad_lines=5)
    assert audit.bad_lines == {"s:x.jsonl": 5}


def test_a_span_stops_at_its_own_limit_of_bad_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{\n" * 10)
    (file,) = find_files([str(path)])
    options = ReadOptions("s", max_bad_lines=4)
    audit = Audit()
    for span in (Span(0, 8, 1), Span(8, 16, 5)):
        assert not list(READERS["jsonl"](replace(file, span=span), options, audit))
    assert audit.bad_lines == {"s:x.jsonl": 8}
    with pytest.raises(DataError, match=r"x\.jsonl:5: .*malformed line number 5 of this file"):
        list(READERS["jsonl"](replace(file, span=Span(0, 20, 1)), options, Audit()))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "split"), [("kuhn-utf8-test.txt", "line"), ("blns.txt", "block")])
def test_awkward_files_are_the_same_in_spans(name, split):
    path = shared_data() / "awkward" / name
    for split_bytes in (97, 1000, 5000):
        spans_agree_with_the_whole(path, "text", split_bytes, split_documents=split)
