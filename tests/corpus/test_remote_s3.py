"""Against a real S3 interface: moto's server on this machine, and the client that users have."""

from __future__ import annotations

import json

import pytest
import zstandard
from corpus_helpers import read

from maskwright.core.errors import DataError
from maskwright.corpus import SourceConfig
from maskwright.corpus.plan import plan_inputs
from maskwright.corpus.remote import Retry, objects, open_remote
from maskwright.corpus.sources import find_files

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

ROWS = "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(2000)).encode()


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "no_proxy": "*",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_RETRY", Retry(sleep=lambda seconds: None))
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    filesystem.mkdir("corpus")
    packed = zstandard.ZstdCompressor().compress(ROWS)
    for name, data in {"a.jsonl": ROWS, "sub/b.jsonl.zst": packed, "sub/": b"", ".c.jsonl": b"{}"}.items():
        filesystem.pipe_file(f"corpus/data/{name}", data)
    yield filesystem
    filesystem.rm("corpus", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def test_folders_patterns_and_files_are_read(bucket):
    for address in ("s3://corpus/data", "s3://corpus/data/**/*.jsonl*"):
        documents, audit = read(address)
        assert [one.text for one in documents] == 2 * [f"text {number}" for number in range(2000)]
        assert {one.id.partition("#")[0] for one in documents} == {"s:a.jsonl", "s:sub/b.jsonl.zst"}
        assert not audit.drops
    documents, _ = read("s3://corpus/data/a.jsonl")
    assert documents[0].id == "s:a.jsonl#1"


def test_versions_are_those_of_the_listing(bucket):
    (listed, _) = find_files(["s3://corpus/data"])
    (named,) = find_files(["s3://corpus/data/a.jsonl"])
    assert listed.version == named.version
    assert listed.version.endswith(f"-{len(ROWS)}")


def test_large_objects_are_cut_into_spans(bucket):
    source = SourceConfig(path="s3://corpus/data/a.jsonl", name="s")
    tasks = plan_inputs([source], 10_000)
    assert len(tasks) == len(ROWS) // 10_000 + 1
    assert [task.file.span.first_line for task in tasks][:2] == [1, ROWS[:9999].count(b"\n") + 2]


def test_a_change_while_reading_is_named(bucket):
    def read_slowly():
        with open_remote("s3://corpus/data/a.jsonl", block_bytes=1000) as stream:
            stream.read(1000)
            bucket.pipe_file("corpus/data/a.jsonl", ROWS[::-1])
            stream.read(1000)

    with pytest.raises(DataError, match=r"s3://corpus/data/a\.jsonl: changed while it was read"):
        read_slowly()


@pytest.mark.parametrize("address", ["s3://corpus/none.txt", "s3://nobody/x.txt"])
def test_what_is_not_there_is_named(bucket, address):
    with pytest.raises(DataError, match=rf"{address}: no such file or folder; check the path"):
        find_files([address])


def test_an_endpoint_that_is_gone_is_named(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client has pauses of its own
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(objects, "_RETRY", Retry(attempts=2, sleep=lambda seconds: None))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        DataError, match=r"data: cannot be read \(Could not connect .*\), tried 2 times; check"
    ):
        find_files(["s3://corpus/data"])


def test_no_credentials_are_named(bucket, monkeypatch, tmp_path):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"data: no credentials that the storage takes \(Unable to locate"):
        find_files(["s3://corpus/data"])
