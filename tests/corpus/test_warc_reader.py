from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys

import pytest
import zstandard
from corpus_helpers import read
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.corpus.readers import guess_format, warc, warc_records

PAGE = (
    "<html><head><title>T</title></head><body><nav><a href='/'>Home</a></nav>"
    "<main><p>{}</p></main><footer>About us</footer></body></html>"
)


def record(number, block, kind="response", **fields):
    lines = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": f"https://example.org/{number}",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "Content-Type": "text/plain" if kind == "conversion" else "application/http; msgtype=response",
        "Content-Length": str(len(block)),
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def http(body, status="200 OK", content_type="text/html", **fields):
    lines = {
        "Content-Type": content_type,
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    body = body if isinstance(body, bytes) else body.encode()
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def page(number, text="", **fields):
    return record(number, http(PAGE.format(text or f"Page number {number}."), **fields))


def write(folder, records, name="x.warc"):
    path = folder / name
    data = b"".join(records)
    if name.endswith(".gz"):
        data = b"".join(gzip.compress(one) for one in records)
    elif name.endswith(".bz2"):
        data = bz2.compress(data)
    elif name.endswith(".xz"):
        data = lzma.compress(data)
    elif name.endswith(".zst"):
        data = b"".join(zstandard.compress(one) for one in records)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_pages_give_their_main_text(tmp_path, suffix):
    info = record("i", b"software: x\r\n", "warcinfo")
    request = record("q", b"GET / HTTP/1.1\r\n\r\n", "request")
    path = write(tmp_path, [info, request, page(1), page(2, "Grüße, 世界.")], f"x.warc{suffix}")
    documents, audit = read(path)
    assert [(one.id, one.text) for one in documents] == [("s:1", "Page number 1."), ("s:2", "Grüße, 世界.")]
    assert documents[0].meta == {"url": "https://example.org/1", "date": "2024-01-02T03:04:05Z"}
    assert not audit.drops


@pytest.mark.parametrize("name", ["x.warc.wet.gz", "x.wet", "x.warc.wet.zst"])
def test_conversions_are_text_as_it_is(tmp_path, name):
    text = "One  line\n<b>not HTML</b>\r\n\r\nWARC/1.0\r\nlast"
    path = write(tmp_path, [record(1, text.encode(), "conversion"), record(2, b"", "conversion")], name)
    documents, _ = read(path)
    assert [(one.id, one.text) for one in documents] == [("s:1", text), ("s:2", "")]


def test_names_tell_the_format():
    assert guess_format("CC-MAIN-00000.warc.wet.gz") == "warc"
    assert guess_format("https://example.org/a.warc?part=1") == "warc"


BLOCKS = st.lists(st.binary(max_size=60), max_size=8)


@given(BLOCKS, st.booleans())
def test_what_fastwarc_writes_is_read_back(blocks, packed):
    from fastwarc.stream_io import GzipWriter
    from fastwarc.warc import WarcRecord, WarcRecordType

    buffer = io.BytesIO()
    for number, block in enumerate(blocks):
        one = WarcRecord()
        one.init_headers(WarcRecordType.conversion, f"<urn:uuid:{number}>".encode())
        one.set_bytes_content(block)
        writer = GzipWriter(buffer) if packed else buffer
        one.write(writer)
        if packed:
            writer.finish()
    buffer.seek(0)
    stream = io.BufferedReader(warc_records.GzipMembers(buffer)) if packed else buffer
    assert [one.block for one in warc_records.read_records(stream, 1000)] == blocks


@pytest.mark.parametrize(
    ("one", "reason", "detail"),
    [
        (page(1, status="404 Not Found"), "http_status", "404 https://example.org/1"),
        (record(1, b"nonsense"), "http_status", "no status https://example.org/1"),
        (page(1, content_type="image/png"), "not_html", "image/png https://example.org/1"),
        (page(1, content_type=None), "not_html", "no content type https://example.org/1"),
        (record(1, b"x", "resource"), "record_type", "resource https://example.org/1"),
        (record(1, b"x", WARC_Type=None), "record_type", "no type https://example.org/1"),
        (
            record(1, b"x", "conversion", Content_Type="image/png"),
            "not_text",
            "image/png https://example.org/1",
        ),
    ],
)
def test_what_gives_no_text_is_counted_by_reason(tmp_path, one, reason, detail):
    path = write(tmp_path, [one, page(2)])
    documents, audit = read(path)
    assert [one.id for one in documents] == ["s:2"]
    assert audit.drops == {reason: 1}
    assert audit.as_dict()["drop_samples"][reason] == [f"{path}:1: {detail}"]


def test_long_records_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(warc, "MAX_WARC_RECORD_BYTES", 2000)
    bomb = gzip.compress(b"<p>" + b"a" * 100_000)
    packed = record(2, http(bomb, Content_Encoding="gzip"))
    documents, audit = read(write(tmp_path, [page(1, "long " * 999), packed, page(3)]))
    assert [one.id for one in documents] == ["s:3"]
    assert audit.drops == {"too_long_record": 2}
    samples = audit.as_dict()["drop_samples"]["too_long_record"]
    assert samples[0].endswith(" bytes, at most 2000 https://example.org/1")
    assert samples[1].endswith(": unpacked, more than 2000 bytes https://example.org/2")


@pytest.mark.parametrize("kind", ["div", "ARTICLE"])
def test_pages_nested_without_end_are_counted(tmp_path, kind):
    deep = f"<{kind} class=x>" * 5000
    documents, audit = read(write(tmp_path, [page(1, deep + "deep"), page(2, "<div>a</div>" * 5000)]))
    assert [one.id for one in documents] == ["s:2"]
    assert audit.drops == {"too_nested": 1}


def chunked(data):
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


def test_transfer_encodings_are_undone(tmp_path):
    html = PAGE.format("Packed.").encode()
    packed = {"Content_Encoding": "gzip", "Transfer_Encoding": "chunked"}
    records = [
        record(1, http(chunked(gzip.compress(html)), **packed)),
        record(2, http(html, **packed)),  # undone by the crawler, which kept the header
    ]
    documents, audit = read(write(tmp_path, records))
    assert [one.text for one in documents] == ["Packed.", "Packed."]
    assert not audit.drops


TEXT = "中文网页的编码检测需要足够多的文字才能得到可靠的结果。"


@pytest.mark.parametrize(
    ("encoding", "content_type", "meta"),
    [
        ("gb18030", "text/html; charset=gbk", ""),
        ("gb18030", "text/html", "<meta charset=gb2312>"),
        ("gb18030", "text/html", ""),
        ("big5", "text/html; charset=big5", ""),
        ("utf-8", "text/html; charset=iso-8859-1", ""),
        ("utf-8-sig", "text/html", ""),
        ("utf-16", "text/html", ""),
        ("gb18030", "text/html; charset=no-such-thing", "<meta charset=gbk>"),
    ],
)
def test_the_encoding_of_a_page_is_found(tmp_path, encoding, content_type, meta):
    text = TEXT.replace("网页", "") if encoding == "big5" else TEXT
    text = text.encode(encoding, errors="ignore").decode(encoding)
    html = PAGE.replace("<head>", f"<head>{meta}").format(text).encode(encoding)
    documents, audit = read(write(tmp_path, [record(1, http(html, content_type=content_type))]))
    assert documents[0].text == text
    assert not audit.repairs


def test_bad_bytes_follow_the_policy(tmp_path):
    records = [
        record(1, b"a\xffb", "conversion"),
        record(2, http(PAGE.encode().replace(b"{}", b"a\xff"), content_type="text/html; charset=big5")),
        page(3),
    ]
    path = write(tmp_path, records)
    documents, audit = read(path)
    assert [one.text for one in documents] == ["a\ufffdb", "a\ufffd", "Page number 3."]
    assert audit.repairs == {"invalid_utf8": 1, "invalid_bytes": 1}
    documents, audit = read(path, encoding_errors="skip")
    assert [one.id for one in documents] == ["s:3"]
    assert audit.drops == {"invalid_utf8": 1, "invalid_bytes": 1}
    with pytest.raises(DataError, match=r"x\.warc:1: byte 0xff is not UTF-8 \(set encoding_errors"):
        read(path, encoding_errors="strict")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_cut_file_is_an_error(tmp_path, suffix):
    path = write(tmp_path, [page(1), page(2)], f"x.warc{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: the data is damaged or cut off (")
    assert str(caught.value).endswith("; fetch or write the file again")


@given(st.integers(1, 400), st.booleans())
def test_every_cut_is_an_error_or_between_records(tmp_path_factory, left, packed):
    folder = tmp_path_factory.mktemp("c")
    path = write(folder, [record(1, b"one", "conversion"), record(2, b"two", "conversion")], "x.warc.gz")
    first = len(gzip.compress(record(1, b"one", "conversion")))
    if not packed:
        path = write(folder, [record(1, b"one", "conversion"), record(2, b"two", "conversion")])
        first = len(record(1, b"one", "conversion"))
    data = path.read_bytes()
    path.write_bytes(data[:left])
    whole = (
        [len(data), first] if packed else [*range(len(data) - 4, len(data) + 1), *range(first - 4, first + 1)]
    )
    try:
        documents, _ = read(path)
    except DataError as error:
        assert "damaged or cut off (the file ends inside" in str(error)  # noqa: PT017
        assert left not in whole
    else:
        assert min(left, len(data)) in whole
        assert len(documents) == 1 + (left >= min(whole) + first - 4)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@given(st.integers(0, 3), st.data())
def test_damage_costs_one_packed_record(tmp_path_factory, victim, data):
    texts = [bytes(f"record {number} ", "ascii") * 9 for number in range(4)]
    packed = [gzip.compress(record(n, text, "conversion"), mtime=0) for n, text in enumerate(texts)]
    place = data.draw(st.integers(0, len(packed[victim]) - 1).filter(lambda place: place not in range(3, 10)))
    packed[victim] = flipped(packed[victim], place)
    path = tmp_path_factory.mktemp("d") / "x.warc.gz"
    path.write_bytes(b"".join(packed))
    if victim == 3:
        with pytest.raises(DataError, match=r"damaged or cut off \(.+\); fetch or write the file again"):
            read(path)
        return
    documents, audit = read(path)
    assert [one.id for one in documents] == [f"s:{n}" for n in range(4) if n != victim]
    assert audit.drops == {"malformed_record": 1}
    with pytest.raises(
        DataError, match=rf"x\.warc\.gz:{victim + 1}: cannot be unpacked \(.+\); this is malformed"
    ):
        read(path, max_bad_lines=0)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"WARC/1.0", b"garbage", "does not begin with WARC/ and a version"),
        (b"Content-Length: 19", b"Content-Length: x", 'Content-Length is "x", expected a number'),
        (b"Content-Length: 19", b"Content-Length: 9", "does not end after its Content-Length of 9 bytes"),
        (
            b"WARC-Date: 2024-01-02T03:04:05Z",
            b"a line",
            'has the header line "a line", expected a name and a colon',
        ),
        (b"WARC-Record-ID", b"X-Record-ID", "has no WARC-Record-ID"),
        (
            b"WARC-Date",
            b"X-Long: " + b"y" * (1 << 20) + b"\r\nWARC-Date",
            "has a header of more than 1048576 bytes",
        ),
    ],
)
@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz"])
def test_damaged_records_are_counted_and_later_ones_kept(tmp_path, old, new, problem, name):
    good = [record(number, b"some text of a page", "conversion") for number in (1, 2, 3)]
    path = write(tmp_path, [good[0], good[1].replace(old, new), good[2]], name)
    documents, audit = read(path)
    assert [one.id for one in documents] == ["s:1", "s:3"]
    assert audit.drops == {"malformed_record": 1}
    with pytest.raises(DataError) as caught:
        read(path, max_bad_lines=0)
    assert str(caught.value).startswith(f"{path}:2: {problem}; this is malformed line number 1 of this file")


def test_folded_header_lines_are_one(tmp_path):
    folded = page(1).replace(b"https://example.org/1", b"https://example.org\r\n\t/1")
    documents, _ = read(write(tmp_path, [folded]))
    assert documents[0].meta["url"] == "https://example.org /1"


def test_packed_as_one_piece_is_read_and_its_damage_is_an_error(tmp_path):
    path = tmp_path / "x.warc.gz"
    data = gzip.compress(b"".join(page(number) for number in range(9)))
    path.write_bytes(data + b"\0" * 512)
    assert len(read(path)[0]) == 9
    path.write_bytes(flipped(data, len(data) // 2))
    with pytest.raises(
        DataError, match=r"and no record can be found behind it\); fetch or write the file again"
    ):
        read(path)


def test_an_empty_file_is_counted(tmp_path):
    documents, audit = read(write(tmp_path, []))
    assert not documents
    assert audit.drops == {"empty_file": 1}


def test_a_file_that_is_no_warc_file_is_an_error(tmp_path):
    path = write(tmp_path, [b"plain text\n" * 9])
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: holds no WARC record that can be read; is it another format?"


@pytest.mark.parametrize("library", ["fastwarc", "resiliparse"])
def test_without_the_libraries_the_install_line_is_told(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        MissingDependencyError,
        match=rf"{library} is not installed, .*read WARC files; .*'maskwright\[corpus\]'",
    ):
        read(write(tmp_path, [page(1)]))
