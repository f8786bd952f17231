from __future__ import annotations

import json
import sys

import fsspec
import pyarrow as pa
import pyarrow.feather as feather
import pytest
from corpus_helpers import read
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.corpus.readers import guess_format


def write_ipc(path, table, *, stream, compression=None, rows=None, end=True):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with path.open("wb") as file:
        writer = make(file, table.schema, options=options)
        writer.write_table(table, max_chunksize=rows)
        if end:
            writer.close()
    return path


def write_dataset(folder, files, **state):
    """What `save_to_disk` writes; `test_a_saved_dataset_is_read` holds this against the library."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05d}-of-{len(files):05d}.arrow" for number in range(len(files))]
    for name, texts in zip(names, files, strict=True):
        write_ipc(folder / name, pa.table({"text": texts}), stream=True)
    entries = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": entries, **state}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=40)
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.dictionary]


def column(texts, kind):
    if kind is pa.dictionary:
        return pa.array(texts, pa.string()).dictionary_encode()
    is_binary = kind in (pa.binary(), pa.binary_view())
    return pa.array([text.encode() if text and is_binary else text for text in texts], kind)


@given(
    TEXTS,
    st.sampled_from(TEXT_TYPES),
    st.booleans(),
    st.sampled_from([None, "lz4", "zstd"]),
    st.integers(1, 7),
)
def test_what_pyarrow_writes_is_read_back(tmp_path_factory, texts, kind, stream, compression, rows):
    if kind == pa.binary() or kind == pa.binary_view():
        texts = [text or None for text in texts]
    table = pa.table({"n": list(range(len(texts))), "text": column(texts, kind)})
    path = tmp_path_factory.mktemp("a") / "x.arrow"
    write_ipc(path, table, stream=stream, compression=compression, rows=rows)
    documents, audit = read(path)
    assert [one.text for one in documents] == [text or "" for text in texts]
    assert [one.id for one in documents] == [f"s:x.arrow#{row}" for row in range(1, len(texts) + 1)]
    assert audit.drops == ({} if texts else {"empty_file": 1})


def test_feather_is_read(tmp_path):
    feather.write_feather(pa.table({"text": ["a", "b"], "key": [5, 6]}), tmp_path / "x.feather")
    documents, _ = read(tmp_path / "x.feather", id_field="key")
    assert [(one.text, one.id) for one in documents] == [("a", "s:5"), ("b", "s:6")]


def test_old_feather_is_refused(tmp_path):
    (tmp_path / "x.feather").write_bytes(b"FEA1" + b"\0" * 60)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.feather")
    assert str(caught.value) == (
        f"{tmp_path}/x.feather: is a Feather file of version 1; write it again as version 2"
    )


def test_a_saved_dataset_is_read(tmp_path, caplog):
    datasets = pytest.importorskip("datasets")
    texts = [f"text {number}" for number in range(25)]
    dataset = datasets.Dataset.from_dict({"text": texts})
    dataset.save_to_disk(tmp_path / "one", num_shards=3)
    caplog.clear()
    documents, _ = read(tmp_path / "one")
    assert [one.text for one in documents] == texts
    assert documents[-1].id == "s:data-00002-of-00003.arrow#8"
    assert not caplog.records
    both = datasets.DatasetDict({"train": dataset, "test": dataset.select([4, 2])})
    both.save_to_disk(tmp_path / "both")
    caplog.clear()
    documents, _ = read(tmp_path / "both", format="arrow")
    assert [one.text for one in documents] == ["text 4", "text 2", *texts]
    documents, _ = read(tmp_path / "both" / "train")
    assert [one.text for one in documents] == texts
    assert not caplog.records


def test_caches_in_a_dataset_folder_are_left_out(tmp_path, caplog):
    folder = write_dataset(tmp_path / "d", [["a"], ["b"]])
    write_ipc(folder / "cache-1234.arrow", pa.table({"text": ["c"]}), stream=True)
    documents, _ = read(folder)
    assert [one.text for one in documents] == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}/cache-1234.arrow: left out, because state.json does not name it"
    ]
    documents, _ = read(folder / "cache-1234.arrow")
    assert [one.text for one in documents] == ["c"]


def test_a_dataset_folder_that_lacks_a_file_is_an_error(tmp_path):
    folder = write_dataset(tmp_path / "d", [["a"], ["b"]])
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"{folder}/state.json: names data-00001-of-00002.arrow, which is not there; fetch the folder again"
    )


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
def test_a_row_selection_is_refused(tmp_path, key):
    folder = write_dataset(tmp_path / "d", [["a"]], **{key: [{"filename": "indices.arrow"}]})
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"{folder}/state.json: a row selection ({key}) lies over the data, which is not read here; "
        "save the dataset again after flatten_indices()"
    )


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_data_files": [{}]}'])
def test_a_state_that_cannot_be_understood_is_an_error(tmp_path, text):
    folder = write_dataset(tmp_path / "d", [["a"]])
    (folder / "state.json").write_text(text)
    with pytest.raises(
        DataError, match=r"state\.json: does not list the files of a dataset \(\w+: .+\); fetch"
    ):
        read(folder)


def test_bookkeeping_files_are_known_by_name():
    assert guess_format("s3://bucket/d/state.json") == "arrow"
    assert guess_format("d/other.json") is None


def test_a_remote_dataset_is_read_in_place(tmp_path):
    folder = write_dataset(tmp_path / "d", [["a"], ["b"]])
    write_ipc(folder / "cache-1234.arrow", pa.table({"text": ["c"]}), stream=True)
    write_ipc(folder / "more.arrow", pa.table({"text": ["d"]}), stream=False)
    for path in folder.iterdir():
        with fsspec.open(f"memory://bucket/dataset/{path.name}", "wb") as remote:
            remote.write(path.read_bytes())
    documents, _ = read("memory://bucket/dataset")
    assert [one.text for one in documents] == ["a", "b", "d"]


def test_columns_that_cannot_be_used_are_named(tmp_path):
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": [1.5]}), stream=True)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f'{path}: the column "text" holds double, expected strings (set text_field)'


def test_bad_bytes_follow_the_policy(tmp_path):
    array = pa.array([b"one", b"b\xffd"]).view(pa.string())
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": array}), stream=True)
    documents, audit = read(path)
    assert [one.text for one in documents] == ["one", "b\ufffdd"]
    assert audit.repairs == {"invalid_utf8": 1}
    with pytest.raises(DataError, match=r"x\.arrow:2: byte 0xff is not UTF-8 \(set encoding_errors"):
        read(path, encoding_errors="strict")


@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_file_is_an_error(tmp_path, stream):
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": ["a" * 100] * 100}), stream=stream, rows=30)
    data = path.read_bytes()
    for size in (3, 20, len(data) // 2, len(data) - 500):
        path.write_bytes(data[:size])
        with pytest.raises(
            DataError, match=r"x\.arrow: is no Arrow file, or is damaged or cut off \(.+\); fetch"
        ):
            read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.arrow: is empty, expected an Arrow file; fetch or write"):
        read(path)


def test_a_stream_without_its_end_is_warned_of(tmp_path, caplog):
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": ["a"] * 9}), stream=True)
    read(path)
    assert not caplog.records
    path.write_bytes(path.read_bytes()[:-8])
    documents, _ = read(path)
    assert len(documents) == 9
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: ends without a mark of its end; it may have been cut off"
    ]


def test_offsets_that_lead_outside_are_an_error(tmp_path):
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": ["ab", "cd", "ef"]}), stream=True)
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 2, 4, 6))
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:4] + b"\xff\xff\xff\x7f" + offsets[8:]))
    with pytest.raises(
        DataError, match=r"x\.arrow:1: the rows from here on are damaged \(.+\); fetch or write"
    ):
        read(path)


@given(st.data(), st.booleans(), st.sampled_from(TEXT_TYPES), st.sampled_from([None, "zstd"]))
def test_a_flipped_byte_never_ends_in_anything_but_an_error_that_names_the_file(
    tmp_path_factory, data, stream, kind, compression
):
    path = tmp_path_factory.mktemp("a") / "x.arrow"
    texts = [f"text number {row} " * row for row in range(20)]
    table = pa.table({"text": column(texts, kind)})
    write_ipc(path, table, stream=stream, rows=7, compression=compression)
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


def test_without_pyarrow_the_install_line_is_told(tmp_path, monkeypatch):
    path = write_ipc(tmp_path / "x.arrow", pa.table({"text": ["a"]}), stream=True)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(MissingDependencyError, match=r"needed to read Arrow files; .*'maskwright\[corpus\]'"):
        read(path)
