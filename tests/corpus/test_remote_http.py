from __future__ import annotations

import gzip

import pytest
import zstandard
from corpus_helpers import read
from flaky_server import flaky_server

from maskwright.core.errors import DataError
from maskwright.corpus.remote import Retry, objects, open_remote, resuming
from maskwright.corpus.sources import find_files
from maskwright.corpus.streams import open_stream, read_lines

TEXT = "".join(f"line {number} é\n" for number in range(5000)).encode()
GZIP = gzip.compress(TEXT)
ZSTD = zstandard.ZstdCompressor().compress(TEXT)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with flaky_server() as running:
        running.files = {"/a/x.txt": TEXT, "/a/x.txt.gz": GZIP, "/a/x.txt.zst": ZSTD, "/empty.txt": b""}
        yield running


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that would have been made; nobody waits for them."""
    made = []
    monkeypatch.setattr(objects, "_RETRY", Retry(sleep=made.append))
    return made


def fetch(url, block_bytes=1 << 23, **settings):
    with open_remote(url, block_bytes=block_bytes, **settings) as stream:
        return stream.read()


def lines_of(url):
    with open_stream(url) as stream:
        return b"".join(line for _, line in read_lines(stream, url))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("name", ["/a/x.txt", "/a/x.txt.gz", "/a/x.txt.zst"])
def test_files_are_read_from_any_server(server, ranges, lengths, name, monkeypatch):
    server.ranges, server.lengths = ranges, lengths
    monkeypatch.setattr(resuming.ResumingReader.__init__, "__defaults__", (0, 1000))
    assert lines_of(server.url(name)) == TEXT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("length", [0, 1, 2, 999, 1000, 1001, 2000])
def test_blocks_join_at_every_length(server, ranges, lengths, length):
    server.ranges, server.lengths = ranges, lengths
    server.files["/x"] = TEXT[:length]
    assert fetch(server.url("/x"), 1000) == TEXT[:length]


@pytest.mark.parametrize("ranges", [True, False])
def test_reading_may_begin_anywhere(server, ranges):
    server.ranges = ranges
    url = server.url("/a/x.txt")
    assert fetch(url, 1000, start=12345) == TEXT[12345:]
    with open_remote(url, block_bytes=1000) as stream:
        for position in (5000, 100, 5500, 0):
            assert stream.seek(position) == position == stream.tell()
            assert stream.read(700) == TEXT[position : position + 700]
        assert stream.seek(10, 1) == 710
        assert stream.seek(-7, 2) == len(TEXT) - 7
        assert stream.read() == TEXT[-7:]


def test_only_the_asked_range_is_sent(server):
    with open_remote(server.url("/a/x.txt"), start=50, block_bytes=10) as stream:
        stream.read(10)
    assert server.asked == ["/a/x.txt bytes=0-0", "/a/x.txt bytes=50-59", "/a/x.txt bytes=0-0"]


def test_the_end_of_a_file_of_unknown_length_cannot_be_sought(server):
    server.ranges = server.lengths = False
    with (
        open_remote(server.url("/a/x.txt")) as stream,
        pytest.raises(OSError, match="the server does not say how long it is"),
    ):
        stream.seek(0, 2)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("name", ["/a/x.txt", "/a/x.txt.gz", "/a/x.txt.zst"])
def test_broken_connections_are_resumed_where_they_broke(server, ranges, name, pauses, caplog):
    server.ranges = ranges
    size = len(server.files[name])
    server.break_after = size // 2 + 17 if not ranges else 1000
    url = server.url(name)
    with caplog.at_level("WARNING"):
        if ranges:
            assert lines_of(url) == TEXT
            assert f"{name} bytes=1000-{size - 1}" in server.asked
            assert f"{url}: the server closed the connection at byte 1000; going on from there" in caplog.text
        else:
            # Such a server never gets past the place where it breaks off, however often it is asked.
            with pytest.raises(DataError, match=f"x.txt.* at byte {server.break_after}: cannot be read"):
                lines_of(url)
            assert pauses == [1, 2, 4, 8, 16]


def test_a_server_without_ranges_is_skipped_to_the_position(server, pauses, caplog):
    server.ranges, server.break_after = False, 20_000
    with open_remote(server.url("/a/x.txt")) as stream, caplog.at_level("WARNING"):
        first = stream.read(20_000)
        server.break_after = None
        assert first + stream.read() == TEXT
    assert "closed the connection at byte 20000; going on from there" in caplog.text


def test_a_busy_server_is_asked_again_with_growing_pauses(server, pauses, caplog):
    server.busy = 3
    with caplog.at_level("WARNING"):
        assert lines_of(server.url("/a/x.txt")) == TEXT
    assert pauses == [1, 2, 4]
    assert "the server answers 503 Service Unavailable; going on in 4 s" in caplog.text


def test_pauses_start_anew_after_progress(server, pauses):
    with open_remote(server.url("/a/x.txt"), block_bytes=1000) as stream:
        server.busy = 2
        stream.read(1000)
        server.busy = 2
        stream.read(1000)
    assert pauses == [1, 2, 1, 2]


def test_after_some_attempts_it_is_enough(server, pauses):
    server.busy = 100
    with pytest.raises(DataError) as caught:
        lines_of(server.url("/a/x.txt"))
    assert str(caught.value) == (
        f"{server.url('/a/x.txt')}: cannot be read (the server answers 503 Service Unavailable), tried 6 "
        "times; check the address, the network and the credentials, then run the same command again"
    )


def test_a_server_that_is_gone_is_named(server, pauses):
    with flaky_server() as other:
        url = other.url("/x.txt")
    with pytest.raises(DataError, match=r"/x\.txt: cannot be read \(Connection refused\), tried 6 times"):
        find_files([url])
    assert len(pauses) == 5


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone.txt", r"gone\.txt: no such file \(404 Not Found\); check the address"),
        ("/secret.txt", r"secret\.txt: the server refuses it \(403 Forbidden\); check the address and your"),
        ("/odd.txt", r"odd\.txt: the server answers 418 .*; check the address"),
    ],
)
def test_final_answers_are_not_asked_for_again(server, path, message, pauses):
    server.statuses = {"/secret.txt": 403, "/odd.txt": 418}
    with pytest.raises(DataError, match=message):
        find_files([server.url(path)])
    assert len(server.asked) == 1


def test_an_address_that_is_none_is_named():
    with pytest.raises(DataError, match=r"http://a:b/x\.txt: is no address of a file \(.*\); check it"):
        find_files(["http://a:b/x.txt"])


def read_while_changing(url, change):
    with open_remote(url, block_bytes=1000) as stream:
        stream.read(1000)
        change()
        stream.read()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_between_blocks_is_named(server, ranges):
    server.etags["/a/x.txt"], server.ranges = "one", ranges
    with pytest.raises(DataError, match=r"x\.txt: changed while it was read; wait until nothing writes it"):
        read_while_changing(server.url("/a/x.txt"), lambda: server.etags.update({"/a/x.txt": "two"}))
    # A kept answer goes on with the old file; the end notices.
    assert len(server.asked) == (4 if ranges else 3)


def test_a_file_whose_date_changes_is_named(server):
    server.headers = {"Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}
    with pytest.raises(DataError, match="changed while it was read"):
        read_while_changing(
            server.url("/a/x.txt"),
            lambda: server.headers.update({"Last-Modified": "Mon, 05 Jan 2026 10:00:01 GMT"}),
        )


def test_damage_by_a_change_is_told_as_a_change(server):
    def change():
        server.etags["/a/x.txt"] = "two"
        raise EOFError

    server.etags["/a/x.txt"] = "one"
    with pytest.raises(DataError, match="changed while it was read"):
        read_while_changing(server.url("/a/x.txt"), change)


def test_a_file_that_changed_since_it_was_listed_is_named(server):
    server.etags["/a/x.txt"] = "one"
    (file,) = find_files([server.url("/a/x.txt")])
    assert file.version == f"one-{len(TEXT)}"
    assert file.num_bytes == len(TEXT)
    server.etags["/a/x.txt"] = "two"
    with pytest.raises(DataError, match=r"x\.txt: changed since this run listed its inputs; run the same"):
        fetch(str(file.path), version=file.version)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_cut_off_on_the_server_is_named(server, suffix, ranges):
    server.ranges = ranges
    name = f"/cut.txt{suffix}"
    server.files[name] = server.files[f"/a/x.txt{suffix}"][:-20]
    with pytest.raises(DataError, match=rf"cut\.txt{suffix}: the compressed data is damaged or cut off"):
        lines_of(server.url(name))


def test_a_server_that_sends_other_bytes_is_not_believed(server, pauses):
    server.content_range = f"bytes 3-9/{len(TEXT)}"
    with pytest.raises(DataError, match=r"at byte 0: .*the server sent bytes from 3 instead of 0"):
        fetch(server.url("/a/x.txt"))


def test_a_server_that_hides_what_it_sends_is_not_believed(server, pauses):
    server.content_range = ""
    with pytest.raises(DataError, match="the server does not say which bytes it sends"):
        fetch(server.url("/a/x.txt"))


def test_documents_come_from_addresses(server):
    server.files["/data/x.jsonl"] = b'{"text": "one"}\n{"text": "two"}\n'
    server.files["/data/y.txt"] = b"three"
    documents, audit = read((server.url("/data/x.jsonl?download=true"), server.url("/data/y.txt")))
    assert [(one.id, one.text) for one in documents] == [
        ("s:x.jsonl#1", "one"),
        ("s:x.jsonl#2", "two"),
        ("s:y.txt", "three"),
    ]
    assert not audit.drops
    documents, audit = read(server.url("/empty.txt"))
    assert audit.drops == {"empty_file": 1}


def test_messages_name_the_address(server):
    server.files["/x.jsonl"] = b'{"text": 1}\n'
    with pytest.raises(DataError) as caught:
        read(server.url("/x.jsonl"))
    assert str(caught.value).startswith(server.url("/x.jsonl") + ':1: "text" is a number')


def test_addresses_that_differ_in_their_query_only_have_different_labels(server):
    server.files["/get"] = b"x"
    addresses = [server.url("/get?file=1"), server.url("/get?file=2")]
    assert [file.label for file in find_files(addresses)] == addresses


@pytest.mark.parametrize("path", ["/", "/a/", "", "/a/*.txt"])
def test_a_web_server_cannot_be_listed(server, path):
    with pytest.raises(DataError, match="a web server cannot be asked which files it has; give the address"):
        find_files([server.url(path)])
