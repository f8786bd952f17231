from __future__ import annotations

import gzip
import subprocess
import sys

import fsspec
import pytest
from corpus_helpers import read

from flaky_files import FlakyFiles, NoCredentialsError, flaky_storage
from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.corpus.remote import Retry, objects, open_object, open_remote
from maskwright.corpus.sources import find_files, source_name

TEXT = "".join(f"line {number} é\n" for number in range(5000)).encode()
FILES = {
    "data/b.txt": b"b",
    "data/a/2.txt": b"2",
    "data/a/1.txt": b"1",
    "data/a.txt": b"a",
    "data/a/deep/3.md": b"3",
    "data/.hidden/4.txt": b"4",
    "data/a/.5.txt": b"5",
    "data/x.txt": TEXT,
}


@pytest.fixture(autouse=True)
def storage():
    with flaky_storage({"/bucket/" + name: data for name, data in FILES.items()}) as filesystem:
        yield filesystem


@pytest.fixture
def pauses(monkeypatch):
    made = []
    monkeypatch.setattr(objects, "_RETRY", Retry(sleep=made.append))
    return made


def labels(*paths):
    return [file.label for file in find_files(paths)]


def fetch(url, **settings):
    with open_remote(url, **settings) as stream:
        return stream.read()


def test_a_folder_is_listed_in_the_order_of_a_walk_without_hidden_files():
    expected = ["a/1.txt", "a/2.txt", "a/deep/3.md", "a.txt", "b.txt", "x.txt"]
    assert labels("flaky://bucket/data") == labels("flaky://bucket/data/") == expected
    files = find_files(["flaky://bucket/data"])
    assert not any(file.named for file in files)
    assert {file.num_bytes for file in files} == {1, len(TEXT)}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt", "x.txt"]),
        ("a/?.txt", ["1.txt", "2.txt"]),
        ("*/[12].txt", ["1.txt", "2.txt"]),
        ("**/*.txt", ["a/1.txt", "a/2.txt", "a.txt", "b.txt", "x.txt"]),
        ("**/deep/**", ["3.md"]),
    ],
)
def test_patterns_match_as_for_local_files(pattern, expected, tmp_path):
    assert labels("flaky://bucket/data/" + pattern) == expected
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert labels(str(tmp_path / "data" / pattern)) == expected


def test_a_file_and_a_list_are_labelled_below_what_they_share(tmp_path):
    assert labels("flaky://bucket/data/b.txt") == ["b.txt"]
    assert labels("flaky://bucket/data/b.txt", "flaky://bucket/data/a") == [
        "b.txt",
        "a/1.txt",
        "a/2.txt",
        "a/deep/3.md",
    ]
    (tmp_path / "c.txt").write_text("c")
    assert labels(str(tmp_path / "c.txt"), "flaky://bucket/data/b.txt") == ["c.txt", "b.txt"]


def test_labels_that_would_be_equal_become_addresses(tmp_path):
    (tmp_path / "b.txt").write_text("c")
    (there,) = find_files(["flaky://bucket/data/b.txt"])
    assert labels(str(tmp_path / "b.txt"), str(there.path)) == ["b.txt", there.path]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("flaky://bucket/gone.txt", r"no such file or folder; check the path"),
        ("flaky://bucket/data/*.csv", "the pattern matches no files; check the path"),
        ("nobody://bucket/x", r"cannot be understood \(.*nobody.*\); known are s3://, gs://, hf://, http://"),
    ],
)
def test_what_leads_nowhere_is_named(path, message):
    with pytest.raises(DataError, match=message) as caught:
        find_files([path])
    assert str(caught.value).startswith(path)


def test_an_empty_folder_is_named(storage):
    storage.mkdir("/bucket/none")
    with pytest.raises(DataError, match=r"flaky://bucket/none: the folder holds no files; check the path"):
        find_files(["flaky://bucket/none"])


def test_a_folder_is_no_file():
    with pytest.raises(DataError, match=r"flaky://bucket/data: is a folder, expected a file; check the path"):
        fetch("flaky://bucket/data")


@pytest.mark.parametrize(
    ("address", "library", "extra"),
    [
        ("s3://b/x.txt", "s3fs", "s3"),
        ("gs://b/x.txt", "gcsfs", "gs"),
        ("hf://d/x.txt", "huggingface_hub", "hf"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(address, library, extra, monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: __import__("no_such_package"))
    with pytest.raises(MissingDependencyError) as caught:
        find_files([address])
    assert str(caught.value) == (
        f"{library} is not installed, and it is needed to read {address}; "
        f"install it with: pip install 'maskwright[{extra}]'"
    )
    with pytest.raises(
        DataError, match=r"other://x: cannot be reached \(No module .*\); install what it needs"
    ):
        find_files(["other://x"])


def test_files_are_read_in_blocks_from_any_place():
    assert fetch("flaky://bucket/data/x.txt", block_bytes=1000) == TEXT
    assert fetch("flaky://bucket/data/x.txt", block_bytes=1000, start=777) == TEXT[777:]


def test_a_break_is_resumed(pauses, caplog):
    FlakyFiles.troubles[:] = [TimeoutError("timed out"), ConnectionResetError("reset")]
    with caplog.at_level("WARNING"):
        assert fetch("flaky://bucket/data/x.txt") == TEXT
    assert pauses == [1, 2]
    assert "flaky://bucket/data/x.txt at byte 0: timed out; going on in 1 s" in caplog.text


def test_a_transfer_that_ends_too_early_is_not_the_end(pauses, monkeypatch):
    with open_remote("flaky://bucket/data/x.txt", block_bytes=1000) as stream:
        assert stream.read(1000) == TEXT[:1000]
        monkeypatch.setattr(FlakyFiles.store["/bucket/data/x.txt"], "read", lambda size: b"", raising=False)
        with pytest.raises(
            DataError, match=r"at byte 1000: .*ended before the end of the file\), tried 6 times"
        ):
            stream.read(1)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (ValueError("odd name"), r"x\.txt: cannot be read \(odd name\); check the address"),
        (
            PermissionError("no access"),
            r"x\.txt: the storage refuses it \(no access\); check the path and the credentials",
        ),
        (
            NoCredentialsError("none found"),
            r"x\.txt: no credentials that the storage takes \(none found\); set them as its",
        ),
    ],
)
def test_what_will_not_pass_is_not_tried_again(trouble, message, pauses):
    FlakyFiles.troubles.append(trouble)
    with pytest.raises(DataError, match=message):
        fetch("flaky://bucket/data/x.txt")
    assert not pauses


def read_until(change):
    with open_remote("flaky://bucket/data/x.txt", block_bytes=1000) as stream:
        stream.read(1000)
        change()


def test_a_change_is_noticed_at_the_end(storage):
    with pytest.raises(DataError, match=r"data/x\.txt: changed while it was read"):
        read_until(lambda: storage.pipe_file("/bucket/data/x.txt", TEXT))


def test_a_change_is_noticed_after_a_break(storage, pauses):
    remote = open_object("flaky://bucket/data/x.txt")
    remote.stat()
    FlakyFiles.troubles.append(TimeoutError("timed out"))
    with pytest.raises(objects.BrokenOffError, match="timed out"):
        remote.fetch(0, 10)
    storage.pipe_file("/bucket/data/x.txt", b"other")
    with pytest.raises(DataError, match="changed while it was read"):
        remote.fetch(0, 10)


def test_trouble_in_an_object_that_cannot_be_asked_is_told_as_it_was():
    def break_down():
        FlakyFiles.troubles.append(PermissionError("no access"))
        raise EOFError("the end")

    with pytest.raises(EOFError, match="the end"):
        read_until(break_down)


def test_documents_come_from_storage(storage):
    storage.pipe_file("/bucket/set/x.jsonl.gz", gzip.compress(b'{"text": "one"}\n'))
    storage.pipe_file("/bucket/set/y.txt", b"two")
    storage.pipe_file("/bucket/set/z.bin", b"three")
    documents, _ = read("flaky://bucket/set")
    assert [(one.id, one.text) for one in documents] == [("s:x.jsonl.gz#1", "one"), ("s:y.txt", "two")]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://bucket/train.jsonl.zst", "train"),
        ("s3://bucket/books/**/*.txt", "books"),
        ("https://example.org/a/wiki.jsonl.gz?download=true", "wiki"),
    ],
)
def test_sources_get_short_names(address, name):
    assert source_name([address]) == name


@pytest.mark.parametrize(
    ("facts", "version"),
    [
        ({"ETag": '"abc"', "LastModified": "now"}, "abc-7"),
        ({"LastModified": "now"}, "now-7"),
        ({"mtime": 3.5}, "3.5-7"),
        ({}, "7"),
    ],
)
def test_versions_are_made_of_what_is_known(facts, version):
    assert objects.stat_of(facts, 7).version == version
    assert objects.stat_of(facts, None).version == version.removesuffix("7").removesuffix("-")


def test_the_storage_packages_are_loaded_late():
    names = ("fsspec", "s3fs", "aiohttp")
    code = f"import maskwright.corpus.plan, sys; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
