from __future__ import annotations

import gzip

import pytest
from corpus_helpers import read, shared_data
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError

BAD = b"good one\nbad \xff\xfe one\n\ngood two\n"


def test_a_file_is_one_document_by_default(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("# Title\n\nText with <mask> and </s>.\n")
    documents, audit = read(path)
    assert [(one.text, one.id, one.source) for one in documents] == [
        ("# Title\n\nText with <mask> and </s>.\n", "s:x.md", "s")
    ]
    assert audit.drops == {}


def test_lines_as_documents(tmp_path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"one\r\n \t\n\ntwo"))
    documents, _ = read(path, split_documents="line")
    assert [(one.text, one.id) for one in documents] == [("one", "s:x.txt.gz#1"), ("two", "s:x.txt.gz#4")]


def test_blocks_as_documents(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\n\na1\na2\n \n\nb\r\n\r\nc")
    documents, _ = read(path, split_documents="block")
    assert [(one.text, one.id) for one in documents] == [
        ("a1\na2\n", "s:x.txt#3"),
        ("b\r\n", "s:x.txt#7"),
        ("c", "s:x.txt#9"),
    ]


LINES = st.lists(st.text(st.sampled_from("ab é"), max_size=4), max_size=12)


@given(LINES)
def test_lines_and_blocks_lose_nothing(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("t") / "x.txt"
    path.write_text("\n".join(lines))
    wanted = [line for line in lines if line.strip()]
    by_line, _ = read(path, split_documents="line")
    assert [one.text for one in by_line] == wanted
    by_block, _ = read(path, split_documents="block")
    assert [line for one in by_block for line in one.text.splitlines()] == wanted
    for one in by_block:
        assert lines[int(one.id.split("#")[1]) - 1] == one.text.splitlines()[0]


def test_a_folder_reads_known_suffixes_and_says_what_it_left_out(tmp_path, caplog):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "sub/a.rst", "picture.png", "LICENSE"):
        (tmp_path / name).write_text(name)
    with caplog.at_level("WARNING"):
        documents, _ = read(tmp_path)
    assert [one.id for one in documents] == ["s:b.txt", "s:sub/a.rst"]
    assert "left out 2 files whose suffix does not tell a format; set format to read them" in caplog.text


def test_a_given_format_reads_every_file_of_a_folder(tmp_path):
    for name in ("LICENSE", "b.txt"):
        (tmp_path / name).write_text(name)
    documents, _ = read(tmp_path, format="text")
    assert [one.id for one in documents] == ["s:LICENSE", "s:b.txt"]


def test_a_named_file_of_unknown_format_is_an_error(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text("text")
    with pytest.raises(
        DataError, match=r"wiki_00: its suffix does not tell the format \(known: .*\.csv, .*set format"
    ):
        read(path)


def test_an_empty_file_among_others_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("words")
    documents, audit = read(tmp_path)
    assert [one.text for one in documents] == ["words"]
    assert audit.drops == {"empty_file": 1}
    assert audit.as_dict()["drop_samples"]["empty_file"] == [str(tmp_path / "a.txt")]


def test_bad_bytes_are_replaced_and_counted_by_default(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(BAD)
    documents, audit = read(path, split_documents="line")
    assert [one.text for one in documents] == ["good one", "bad \ufffd\ufffd one", "good two"]
    assert audit.repairs == {"invalid_utf8": 1}
    assert audit.drops == {}


@pytest.mark.parametrize(
    ("split", "left"),
    [("line", ["good one", "good two"]), ("block", ["good two\n"]), ("file", [])],
)
def test_bad_bytes_can_cost_the_record(tmp_path, split, left):
    path = tmp_path / "x.txt"
    path.write_bytes(BAD)
    documents, audit = read(path, split_documents=split, encoding_errors="skip")
    assert [one.text for one in documents] == left
    assert audit.drops == {"invalid_utf8": 1}
    (sample,) = audit.as_dict()["drop_samples"]["invalid_utf8"]
    assert sample.startswith(f"{path}:2: byte 0xff is not UTF-8: ")


@pytest.mark.parametrize("split", ["line", "block", "file"])
def test_bad_bytes_can_stop_the_reading(tmp_path, split):
    path = tmp_path / "x.txt"
    path.write_bytes(BAD)
    with pytest.raises(
        DataError, match=r"x\.txt:2: byte 0xff is not UTF-8 \(set encoding_errors to replace or"
    ):
        read(path, split_documents=split, encoding_errors="strict")


@pytest.mark.shared
def test_naughty_strings_pass_unchanged():
    path = shared_data() / "awkward" / "blns.txt"
    documents, audit = read(path, split_documents="line")
    lines = [line for line in path.read_bytes().decode().split("\n") if line.strip("\r\n\t\x0b\x0c ")]
    assert [one.text for one in documents] == lines
    assert not audit.drops
    assert not audit.repairs


@pytest.mark.shared
@pytest.mark.parametrize(("name", "bad"), [("kuhn-utf8-test.txt", 68), ("utf8tests.bin", 145)])
def test_decoder_stress_files_cost_only_their_bad_lines(name, bad):
    path = shared_data() / "awkward" / name
    replaced, audit = read(path, format="text", split_documents="line")
    assert audit.repairs == {"invalid_utf8": bad}
    skipped, audit = read(path, format="text", split_documents="line", encoding_errors="skip")
    assert audit.drops == {"invalid_utf8": bad}
    assert len(replaced) == len(skipped) + bad
