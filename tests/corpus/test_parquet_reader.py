from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_helpers import read
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.corpus import Audit
from maskwright.corpus.readers import ReadOptions
from maskwright.corpus.readers import parquet as reader
from maskwright.corpus.readers.parquet import read_parquet, row_group_bytes
from maskwright.corpus.sources import SourceFile, Span

OPTIONS = ReadOptions("s")


def write(folder, columns, name="x.parquet", **settings):
    path = folder / name
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **settings)
    return path


TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=40)
TEXT_TYPES = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]


@given(TEXTS, st.sampled_from(TEXT_TYPES), st.integers(1, 7), st.sampled_from(["none", "zstd", "snappy"]))
def test_what_pyarrow_writes_is_read_back(tmp_path_factory, texts, kind, group, compression):
    values = texts
    if pa.types.is_binary(kind):
        values = [None if text is None else text.encode() for text in texts]
    array = pa.array(values, pa.string()).dictionary_encode() if "dictionary" in str(kind) else None
    table = pa.table(
        {"n": list(range(len(texts))), "text": pa.array(values, kind) if array is None else array}
    )
    folder = tmp_path_factory.mktemp("p")
    path = write(folder, table, row_group_size=group, compression=compression)
    documents, audit = read(path)
    assert [one.text for one in documents] == [text or "" for text in texts]
    assert [one.id for one in documents] == [f"s:x.parquet#{row}" for row in range(1, len(texts) + 1)]
    assert audit.drops == ({} if texts else {"empty_file": 1})


@given(st.integers(1, 30), st.integers(1, 7), st.lists(st.integers(0, 30), max_size=4))
def test_spans_of_row_groups_give_the_documents_of_the_whole(tmp_path_factory, rows, group, cuts):
    path = write(
        tmp_path_factory.mktemp("p"), {"text": [f"t{row}" for row in range(rows)]}, row_group_size=group
    )
    whole, _ = read(path)
    file = SourceFile(path, "x.parquet")
    groups = len(row_group_bytes(file))
    places = [0, *sorted(min(cut, groups) for cut in cuts), groups]
    pieces = [
        one
        for start, stop in itertools.pairwise(places)
        for one in read_parquet(replace(file, span=Span(start, stop)), OPTIONS, Audit())
    ]
    assert pieces == whole


def test_row_group_bytes_are_before_compression(tmp_path):
    path = write(tmp_path, {"text": ["a" * 10_000 + str(n) for n in range(5)]}, row_group_size=2)
    sizes = row_group_bytes(SourceFile(path, "x"))
    assert len(sizes) == 3
    assert sizes[0] > 20_000
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.uint8(), pa.dictionary(pa.int8(), pa.string())])
def test_ids_come_from_a_column(tmp_path, kind):
    keys = pa.array(["7", "8"]).cast(kind) if kind != pa.dictionary(pa.int8(), pa.string()) else None
    keys = pa.array(["7", "8"]).dictionary_encode() if keys is None else keys
    path = write(tmp_path, {"text": ["a", "b"], "key": keys})
    documents, _ = read(path, id_field="key")
    assert [one.id for one in documents] == ["s:7", "s:8"]
    binary = write(tmp_path, {"text": [b"a"], "key": [b"k"]}, "b.parquet")
    assert [one.id for one in read(binary, id_field="key")[0]] == ["s:k"]


def test_a_row_without_id_is_named(tmp_path):
    path = write(tmp_path, {"text": ["a", "b"], "key": ["k", None]})
    with pytest.raises(DataError) as caught:
        read(path, id_field="key")
    assert str(caught.value) == f'{path}:2: "key" is null, expected a string or an integer (set id_field)'


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_field": "txt"}, 'has no column "txt"; did you mean "text"? (set text_field)'),
        ({"id_field": "key"}, 'has no column "key"; known: n, nested, text, twice, twice (set id_field)'),
        ({"text_field": "n"}, 'the column "n" holds int64, expected strings (set text_field)'),
        (
            {"text_field": "nested"},
            'the column "nested" holds list<element: string>, expected strings (set text_field)',
        ),
        (
            {"id_field": "nested"},
            'the column "nested" holds list<element: string>, expected strings or integers (set id_field)',
        ),
        ({"id_field": "twice"}, 'has 2 columns called "twice"; rename one, or set id_field'),
    ],
)
def test_columns_that_cannot_be_used_are_named(tmp_path, settings, message):
    table = pa.table(
        [["a"], [1], [["x"]], ["b"], ["c"]],
        names=["text", "n", "nested", "twice", "twice"],
    )
    path = write(tmp_path, table)
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    assert str(caught.value) == f"{path}: {message}"


def test_a_column_of_nulls_is_empty_text(tmp_path):
    documents, _ = read(write(tmp_path, {"text": pa.nulls(3)}))
    assert [one.text for one in documents] == ["", "", ""]


def test_bad_bytes_follow_the_policy(tmp_path):
    path = write(tmp_path, {"text": [b"one", b"a\nb\xffd", b"two"]})
    documents, audit = read(path)
    assert [one.text for one in documents] == ["one", "a\nb\ufffdd", "two"]
    assert audit.repairs == {"invalid_utf8": 1}
    documents, audit = read(path, encoding_errors="skip")
    assert [one.id for one in documents] == ["s:x.parquet#1", "s:x.parquet#3"]
    assert audit.drops == {"invalid_utf8": 1}
    with pytest.raises(DataError) as caught:
        read(path, encoding_errors="strict")
    assert str(caught.value) == (
        f"{path}:2: byte 0xff is not UTF-8 (set encoding_errors to replace or skip, or convert the file)"
    )


def test_a_cut_file_is_an_error(tmp_path):
    path = write(tmp_path, {"text": ["a" * 100] * 100})
    data = path.read_bytes()
    for size in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(
            DataError, match=r"x\.parquet: is no Parquet file, or is damaged or cut off \(.+\);"
        ):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.parquet: no such file; check the path"):
        row_group_bytes(SourceFile(tmp_path / "gone.parquet", "x"))


@given(st.data())
def test_a_flipped_byte_never_ends_in_anything_but_an_error_that_names_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("p")
    texts = [f"text number {row} " * row for row in range(20)]
    path = write(folder, {"text": texts}, row_group_size=7, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        documents, _ = read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert len(documents) <= len(texts)


def test_batches_are_small_where_rows_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_BATCH_BYTES", 1000)
    path = write(
        tmp_path, {"text": ["x" * 400 + str(n) for n in range(50)], "n": range(50)}, use_dictionary=False
    )
    sizes = []
    rows = reader.row_documents

    def spy(batch, *rest):
        sizes.append(batch.num_rows)
        return rows(batch, *rest)

    monkeypatch.setattr(reader, "row_documents", spy)
    documents, _ = read(path)
    assert len(documents) == sum(sizes) == 50
    assert max(sizes) == 2
    assert documents[49].id == "s:x.parquet#50"


def test_a_remote_file_is_read_in_place(tmp_path):
    path = write(tmp_path, {"text": ["a", "b"]})
    with fsspec.open("memory://bucket/data/x.parquet", "wb") as remote:
        remote.write(path.read_bytes())
    documents, _ = read("memory://bucket/data/x.parquet")
    assert [one.text for one in documents] == ["a", "b"]
    assert len(row_group_bytes(SourceFile("memory://bucket/data/x.parquet", "x"))) == 1


def test_without_pyarrow_the_install_line_is_told(tmp_path, monkeypatch):
    path = write(tmp_path, {"text": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        MissingDependencyError, match=r"needed to read Parquet files; .*'maskwright\[corpus\]'"
    ):
        read(path)


def test_settings_without_meaning_are_warned_of(tmp_path, caplog):
    read(write(tmp_path, {"text": ["a"]}), max_bad_lines=3, header=False)
    assert [record.getMessage() for record in caplog.records] == [
        "s: header is False, which the format parquet ignores",
        "s: max_bad_lines is 3, which the format parquet ignores",
    ]
