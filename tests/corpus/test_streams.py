from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus import streams
from maskwright.corpus.sources import find_files
from maskwright.corpus.streams import (
    file_suffix,
    is_compressed,
    open_file,
    open_stream,
    read_lines,
    read_whole,
)

TEXT = "".join(f"line {number} é\n" for number in range(3000)).encode()
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
COMPRESSED = [suffix for suffix in PACK if suffix]


def lines_of(path):
    with open_stream(path) as stream:
        return list(read_lines(stream, path))


def until_it_breaks(path, found):
    with open_stream(path) as stream:
        for _, line in read_lines(stream, path):
            found.append(line)


@pytest.mark.parametrize("suffix", PACK)
def test_every_compression_gives_the_same_lines(tmp_path, suffix):
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(PACK[suffix](TEXT))
    lines = lines_of(path)
    assert b"".join(line for _, line in lines) == TEXT
    assert [number for number, _ in lines] == list(range(1, 3001))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_all_frames_of_a_file_are_read(tmp_path, suffix):
    path = tmp_path / f"x.txt{suffix.upper()}"
    path.write_bytes(PACK[suffix](b"one\n") + PACK[suffix](b"") + PACK[suffix](b"two\n"))
    assert lines_of(path) == [(1, b"one\n"), (2, b"two\n")]


def test_skippable_frames_of_zstandard_are_skipped(tmp_path):
    path = tmp_path / "x.zst"
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    path.write_bytes(skippable + PACK[".zst"](b"one\n") + skippable)
    assert lines_of(path) == [(1, b"one\n")]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_a_file_cut_off_anywhere_is_named(tmp_path, suffix, share):
    data = PACK[suffix](TEXT)
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(data[: max(3, int(share * (len(data) - 1)))])
    with pytest.raises(DataError, match=r"x\.txt.*: the compressed data is damaged or cut off"):
        lines_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_broken_off_line_is_not_handed_out(tmp_path, suffix):
    data = PACK[suffix](TEXT)
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(data[:-12])
    lines = TEXT.splitlines(keepends=True)
    found = []
    with pytest.raises(DataError):
        until_it_breaks(path, found)
    assert found == lines[: len(found)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damage_is_noticed(tmp_path, suffix):
    compress = zstandard.ZstdCompressor(write_checksum=True).compress if suffix == ".zst" else gzip.compress
    data = bytearray(compress(TEXT))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or cut off"):
        lines_of(path)


@given(
    frames=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=20),
)
def test_zstandard_frames_join_for_any_reading_pattern(frames, sizes):
    raw = io.BytesIO(b"".join(map(PACK[".zst"], frames)))
    reader = streams._ZstdFrames(raw)
    pieces = []
    for turn in range(10_000):
        piece = reader.read(sizes[turn % len(sizes)])
        if not piece:
            break
        pieces.append(piece)
    assert b"".join(pieces) == b"".join(frames)


def read_while_changing(path, change, **settings):
    with open_stream(path, **settings) as stream:
        stream.read(10)
        change()
        return stream.read()


def append(path):
    with path.open("ab") as file:
        file.write(b"more\n")


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_grows_while_it_is_read_is_named(tmp_path, suffix):
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(PACK[suffix](TEXT))
    with pytest.raises(DataError, match=r"x\.txt.*: changed while it was read; wait until nothing writes it"):
        read_while_changing(path, lambda: append(path))


def test_a_file_that_is_written_anew_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(TEXT)

    def rewrite():
        with path.open("r+b") as file:
            file.write(b"other")
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))

    with pytest.raises(DataError, match="changed while it was read"):
        read_while_changing(path, rewrite)


def test_damage_in_a_file_that_changed_is_told_as_a_change(tmp_path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(PACK[".gz"](os.urandom(1 << 20).hex().encode()))

    with pytest.raises(DataError, match="changed while it was read"):
        read_while_changing(path, lambda: os.truncate(path, 400_000))


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path):
    path, other = tmp_path / "x.txt", tmp_path / "y.txt"
    path.write_bytes(TEXT)
    other.write_bytes(b"other")
    assert read_while_changing(path, lambda: other.replace(path)) == TEXT[10:]


def test_a_file_that_changed_since_it_was_listed_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(TEXT)
    (file,) = find_files([str(path)])
    with open_file(file) as stream:
        assert stream.read() == TEXT
    append(path)
    with pytest.raises(DataError, match=r"x\.txt: changed since this run listed its inputs; run the same"):
        read_while_changing(path, append, version=file.version)


def test_a_reader_that_stops_early_is_not_disturbed(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(TEXT)

    def first_lines():
        with open_stream(path) as stream:
            yield from read_lines(stream, path)

    lines = first_lines()
    assert next(lines) == (1, "line 0 é\n".encode())
    append(path)
    lines.close()


def test_a_pipe_can_be_read(tmp_path):
    path = tmp_path / "x.txt"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"one\ntwo\n",))
    writer.start()
    assert find_files([str(path)])[0].version == ""
    assert lines_of(path) == [(1, b"one\n"), (2, b"two\n")]
    writer.join()


def test_missing_and_unreadable_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"gone\.txt: no such file; check the path"):
        lines_of(tmp_path / "gone.txt")

    def refuse(self, *arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(DataError, match=r"x\.txt: cannot be read \(Permission denied\)"):
        lines_of(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x01\x02\x03" * 100, "is binary \\(100 NUL bytes at its start\\), expected UTF-8 text"),
        (b"MZ\x00\x00", "is binary"),
        (bytes(range(128, 256)) * 10, "is binary or in another encoding"),
        ("这是另一种编码".encode("gbk") * 50, "convert it to UTF-8"),
        ("text".encode("utf-16"), "is UTF-16 text \\(convert it to UTF-8\\)"),
        (gzip.compress(TEXT), "is gzip data \\(name it .gz\\)"),
        (bz2.compress(TEXT), "is bzip2 data \\(name it .bz2\\)"),
        (lzma.compress(TEXT), "is xz data \\(name it .xz\\)"),
        (zstandard.ZstdCompressor().compress(TEXT), "is zstandard data \\(name it .zst\\)"),
        (b"%PDF-1.7 words", "is a PDF document"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, data, message):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        lines_of(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_stray_nul_or_bad_byte_is_not_binary(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"words " * 100 + b"\x00\xff")
    assert len(lines_of(path)) == 1


def test_the_byte_order_mark_is_taken_from_the_start_only(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo")
    assert lines_of(path) == [(1, b"one\n"), (2, b"\xef\xbb\xbftwo")]
    with open_stream(path) as stream:
        assert read_whole(stream, path) == b"one\n\xef\xbb\xbftwo"


def test_records_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 10)
    path = tmp_path / "x.txt"
    path.write_bytes(b"short\n" + b"x" * 10 + b"\n")
    with pytest.raises(DataError, match=r"x\.txt:2: the line is longer than 0 MiB; cut it into several"):
        lines_of(path)
    with (
        pytest.raises(
            DataError, match=r"the document is longer than .*; set split_documents to line or block"
        ),
        open_stream(path) as stream,
    ):
        read_whole(stream, path)


def test_a_line_of_16_mib_passes(tmp_path):
    path = tmp_path / "x.txt.zst"
    line = b"word " * ((16 << 20) // 5)
    path.write_bytes(PACK[".zst"](line + b"\nnext\n"))
    assert [len(found) for _, found in lines_of(path)] == [len(line) + 1, 5]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.txt", ".txt"), ("a.b.JSONL.ZST", ".jsonl"), ("a.gz", ""), ("a", ""), ("a.tar.gz", ".tar")],
)
def test_suffix_without_compression(name, suffix):
    assert file_suffix(Path(name)) == suffix
    assert file_suffix(f"s3://bucket.org/{name}") == suffix
    assert file_suffix(f"https://example.org/{name}?name=x.csv") == suffix
    assert is_compressed(Path(name)) == name.lower().endswith(("gz", "zst"))
