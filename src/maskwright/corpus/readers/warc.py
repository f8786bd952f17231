"""WARC, the format of web crawls: the main text of each page, or the text that a WET file holds.

Pages are the `response` records with status 200 and HTML in them; what surrounds the main text
(menus, footers) is taken away. `conversion` records are text already. Other records that could hold
text (`resource`, `revisit`, ...) are counted as dropped, those about the crawl itself are not.
Cost: milliseconds for a page, nearly all of it in taking the text out of the HTML; that grows with
the depth of the page's elements, so pages far deeper than any real one are dropped. Memory: a few
times `MAX_WARC_RECORD_BYTES`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, cast

from ...core.errors import DataError, MissingDependencyError
from ..audit import Audit
from ..document import Document, Drop
from ..remote import remote_path
from ..sources import SourceFile
from ..streams import decompressed
from .binary import decode_record, open_binary
from .reader import BadLines, ReadOptions
from .warc_records import DamagedRecord, GzipMembers, WarcRecord, read_records

__all__ = ["MAX_WARC_RECORD_BYTES", "read_warc"]

MAX_WARC_RECORD_BYTES = 1 << 25

_BUFFER_BYTES = 1 << 16
_ABOUT_THE_CRAWL = frozenset({"warcinfo", "request", "metadata"})
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TAG = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
# Taking the text out costs about 0.15 µs for each pair of an element and one around it.
_MAX_NESTED_PAIRS = 4_000_000
_HEAD = b"WARC/1.1\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"


def read_warc(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a WARC or WET file.

    Args:
        file: plain, or packed as `.gz` (each record by itself), `.zst`, `.bz2` or `.xz`.
        options: `encoding_errors` and `max_bad_lines` apply; records count as lines.
        audit: told about damaged records (`malformed_record`), too long ones (`too_long_record`), those
            of other types (`record_type`), pages with another status than 200 (`http_status`), what is
            no HTML (`not_html`) or no text (`not_text`), pages nested too deeply (`too_nested`), bytes
            that are not in the page's encoding (`invalid_utf8`, `invalid_bytes`), and an empty file
            (`empty_file`).

    Yields:
        Documents. The id is the source's name with the record's id; `url` and `date` are facts of the
        document. A page without main text is an empty document, for the cleaning steps to drop.

    Raises:
        DataError: the file cannot be read, ends inside a record, or has too many damaged records.
        MissingDependencyError: `fastwarc` or `resiliparse` is not installed.
    """
    _import_tools()
    bad_records = BadLines(file, options, audit)
    only_damage = False
    with open_binary(file) as raw, _unpacked(raw, file) as stream:
        if not raw.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        for record in read_records(stream, MAX_WARC_RECORD_BYTES):
            if isinstance(record, WarcRecord) and not record.fields.get("warc-record-id"):
                record = DamagedRecord(record.number, "has no WARC-Record-ID")
            if isinstance(record, DamagedRecord):
                bad_records.add(record.number, "malformed_record", record.problem, b"")
                only_damage = record.number == 1 or only_damage
                continue
            only_damage = False
            place = f"{file.path}:{record.number}"
            text = _text(record, place, options, audit)
            if isinstance(text, Drop):
                audit.count_unread(options.source, place, text)
            elif text is not None:
                yield _document(record, text, options.source)
    if only_damage:
        raise DataError(f"{file.path}: holds no WARC record that can be read; is it another format?")


def _import_tools() -> None:
    for name in ("fastwarc", "resiliparse"):
        try:
            __import__(name)
        except ImportError as error:
            raise MissingDependencyError(name, "corpus", "read WARC files") from error


@contextlib.contextmanager
def _unpacked(raw: io.BufferedReader, file: SourceFile) -> Iterator[io.BufferedReader]:
    suffix = PurePosixPath(remote_path(str(file.path))).suffix.lower()
    if suffix == ".gz":
        yield io.BufferedReader(GzipMembers(raw), _BUFFER_BYTES)
    else:
        with decompressed(raw, suffix) as stream:
            yield stream


def _document(record: WarcRecord, text: str, source: str) -> Document:
    name = record.fields["warc-record-id"].strip("<>").removeprefix("urn:uuid:")
    facts = {"url": "warc-target-uri", "date": "warc-date"}
    meta = {key: record.fields[field] for key, field in facts.items() if record.fields.get(field)}
    return Document(text, f"{source}:{name}", source, meta)


def _text(record: WarcRecord, place: str, options: ReadOptions, audit: Audit) -> str | Drop | None:
    """The text of a record, or why there is none; None if there is nothing to count, or it was counted."""
    kind = record.fields.get("warc-type", "").lower()
    url = record.fields.get("warc-target-uri", "")
    if kind in _ABOUT_THE_CRAWL:
        return None
    if kind not in ("response", "conversion"):
        return Drop("record_type", f"{kind or 'no type'} {url}".rstrip())
    if record.block is None:
        return Drop("too_long_record", f"{record.num_bytes} bytes, at most {MAX_WARC_RECORD_BYTES} {url}")
    if kind == "response":
        return _page(record, record.block, place, options, audit)
    content_type = _bare(record.fields.get("content-type", "text/plain"))
    if not content_type.startswith("text/"):
        return Drop("not_text", f"{content_type} {url}")
    return decode_record(record.block, "utf-8", place, options, audit)


def _page(
    record: WarcRecord, block: bytes, place: str, options: ReadOptions, audit: Audit
) -> str | Drop | None:
    from resiliparse.extract.html2text import extract_plain_text

    url = record.fields.get("warc-target-uri", "")
    status, content_type, charset, body = _http(block)
    content_type = content_type or _bare(record.fields.get("warc-identified-payload-type", ""))
    if status != 200:
        return Drop("http_status", f"{status or 'no status'} {url}")
    if content_type not in _HTML:
        return Drop("not_html", f"{content_type or 'no content type'} {url}")
    if len(body) > MAX_WARC_RECORD_BYTES:
        return Drop("too_long_record", f"unpacked, more than {MAX_WARC_RECORD_BYTES} bytes {url}")
    html = decode_record(body, _encoding(body, charset), place, options, audit)
    if html is None:
        return None
    if _num_nested_pairs(html) > _MAX_NESTED_PAIRS:
        return Drop("too_nested", url)
    return extract_plain_text(html.removeprefix("\ufeff"), main_content=True)


def _http(block: bytes) -> tuple[int | None, str, str | None, bytes]:
    """Status, bare content type, charset if it is told, and the body without its transfer encodings."""
    from fastwarc.warc import WarcRecord as Parsed

    # Some crawlers undo the encodings and keep the header lines that tell of them.
    for decode in ("all", "none"):
        whole = b"%sContent-Length: %d\r\n\r\n%s\r\n\r\n" % (_HEAD, len(block), block)
        parsed = Parsed.from_bytes(whole)
        with contextlib.suppress(OSError):
            parsed.parse_http(auto_decode=cast(Any, decode))
            body = parsed.reader.read(MAX_WARC_RECORD_BYTES + 1)
            headers = parsed.http_headers
            return headers.status_code, _bare(headers.get("Content-Type") or ""), parsed.http_charset, body
    return None, "", None, b""


def _bare(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _encoding(body: bytes, charset: str | None) -> str:
    """The encoding of a page, as Python calls it.

    What has non-ASCII characters and is UTF-8 is nothing else by chance, so this is tried first:
    headers tell wrong things more often.
    """
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    if not body.isascii():
        with contextlib.suppress(UnicodeDecodeError):
            body.decode()
            return "utf-8"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    told = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    found = told or detect_encoding(body, from_html_meta=True) or "utf-8"
    found = "gb18030" if found == "gbk" else found
    try:
        return codecs.lookup(found).name
    except LookupError:
        return "utf-8"


def _num_nested_pairs(html: str) -> int:
    """How many pairs of an element and one around it a page has, by its block tags alone."""
    depth = pairs = 0
    for tag in _TAG.finditer(html):
        depth = max(0, depth - 1) if tag.group(1) else depth + 1
        pairs += depth
    return pairs
