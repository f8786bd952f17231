from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core import files
from maskwright.core.errors import DataError, StorageError
from maskwright.corpus import Audit, Document, find_clean, read_clean, write_clean
from maskwright.corpus import clean_store as module

DOCUMENTS = [Document(f"text {n} é\nline", f"s:{n}", "s", {"n": str(n)}) for n in range(25)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forbidden():
    raise AssertionError("finished work was done again")
    yield


def test_documents_come_back_in_order(tmp_path):
    audit = Audit()
    store = write_clean(DOCUMENTS, tmp_path / "c", fingerprint="f", audit=audit, documents_per_part=10)
    assert [part["documents"] for part in store.parts] == [10, 10, 5]
    assert store.documents == 25
    assert store.text_bytes == sum(len(one.text.encode()) for one in DOCUMENTS)
    assert store.audit == audit.as_dict()
    assert list(read_clean(tmp_path / "c")) == DOCUMENTS


@given(st.lists(st.text(st.characters())), st.integers(1, 4))
def test_any_text_comes_back(tmp_path_factory, texts, size):
    folder = tmp_path_factory.mktemp("c")
    documents = [Document(text, str(n), "s") for n, text in enumerate(texts)]
    write_clean(documents, folder, fingerprint="f", documents_per_part=size)
    assert list(read_clean(folder)) == documents


def test_the_same_documents_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_clean(DOCUMENTS, tmp_path / name, fingerprint="f", documents_per_part=7)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_parts_end_at_a_number_of_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_PART_BYTES", 30)
    store = write_clean(DOCUMENTS[:4], tmp_path, fingerprint="f")
    assert [part["documents"] for part in store.parts] == [3, 1]


def test_finished_work_is_used_again(tmp_path):
    first = write_clean(DOCUMENTS, tmp_path, fingerprint="f")
    assert write_clean(forbidden(), tmp_path, fingerprint="f") == first


def test_other_work_replaces_it_and_leaves_nothing_behind(tmp_path):
    write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=3)
    (tmp_path / "notes.txt").write_text("mine")
    write_clean(DOCUMENTS[:4], tmp_path, fingerprint="g", documents_per_part=3)
    assert list(read_clean(tmp_path)) == DOCUMENTS[:4]
    assert set(contents(tmp_path)) == {
        "clean.json",
        "notes.txt",
        "part-00000.jsonl.zst",
        "part-00001.jsonl.zst",
    }


@pytest.mark.fault
def test_an_interruption_leaves_nothing_that_looks_whole(tmp_path, tmp_path_factory):
    def breaks_off():
        yield from DOCUMENTS[:17]
        raise KeyboardInterrupt

    write_clean(DOCUMENTS, tmp_path, fingerprint="old")
    with pytest.raises(KeyboardInterrupt):
        write_clean(breaks_off(), tmp_path, fingerprint="f", documents_per_part=5)
    assert find_clean(tmp_path) is None
    with pytest.raises(DataError, match="holds no finished clean documents; run maskwright prepare on it"):
        list(read_clean(tmp_path))
    write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=5)
    whole = tmp_path_factory.mktemp("whole")
    write_clean(DOCUMENTS, whole, fingerprint="f", documents_per_part=5)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.fault
@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_nothing_that_looks_whole(tmp_path, monkeypatch, failing):
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2 * failing + 1:  # each file is synced, then its folder
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=10)
    assert find_clean(tmp_path) is None
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_missing_or_short_part_means_unfinished(tmp_path):
    write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=10)
    part = tmp_path / "part-00001.jsonl.zst"
    data = part.read_bytes()
    part.write_bytes(data[:-1])
    assert find_clean(tmp_path) is None
    part.unlink()
    assert find_clean(tmp_path) is None
    write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=10)
    assert part.read_bytes() == data


def test_a_flipped_bit_is_noticed_before_the_part_is_read(tmp_path):
    write_clean(DOCUMENTS, tmp_path, fingerprint="f", documents_per_part=10)
    part = tmp_path / "part-00001.jsonl.zst"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    documents = read_clean(tmp_path)
    assert [next(documents) for _ in range(10)] == DOCUMENTS[:10]
    with pytest.raises(DataError, match=r"part-00001\.jsonl\.zst: its SHA-256 is not .*; remove the folder"):
        next(documents)


def test_a_damaged_marker_is_named(tmp_path):
    write_clean(DOCUMENTS, tmp_path, fingerprint="f")
    marker = tmp_path / "clean.json"
    values = json.loads(marker.read_text())
    del values["parts"]
    marker.write_text(json.dumps(values))
    with pytest.raises(
        DataError, match=r"clean\.json: is damaged \(KeyError\('parts'\)\); remove the folder"
    ):
        find_clean(tmp_path)
    marker.write_text("[1]")
    with pytest.raises(DataError, match=r"clean\.json: is damaged \(TypeError"):
        find_clean(tmp_path)


def test_a_newer_marker_is_refused(tmp_path):
    write_clean(DOCUMENTS, tmp_path, fingerprint="f")
    marker = tmp_path / "clean.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format_version": 9}))
    with pytest.raises(DataError, match=r"clean\.json: has format version 9, this Maskwright reads 1"):
        find_clean(tmp_path)


def test_the_error_of_the_documents_comes_through(tmp_path):
    def broken():
        yield DOCUMENTS[0]
        raise DataError("x.gz: the compressed data is damaged")

    with pytest.raises(DataError, match=r"^x\.gz: the compressed data is damaged$"):
        write_clean(broken(), tmp_path, fingerprint="f")
    assert find_clean(tmp_path) is None
