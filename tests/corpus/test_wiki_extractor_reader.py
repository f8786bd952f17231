from __future__ import annotations

import bz2

import pytest
from corpus_helpers import read as read_planned
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus.readers import wiki_extractor

HEAD = '<doc id="{}" url="https://example.org/wiki?curid={}" title="{}">\n'


def read(path, **settings):
    return read_planned(path, format="wiki-extractor", **settings)


def article(number, title, text):
    return HEAD.format(number, number, title) + f"{title}\n\n{text}\n\n</doc>\n"


def write(folder, text, name="wiki_00"):
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(bz2.compress(data) if name.endswith(".bz2") else data)
    return path


@pytest.mark.parametrize("name", ["wiki_00", "wiki_00.bz2"])
def test_articles_with_their_facts(tmp_path, name):
    path = write(tmp_path, article(12, "Anarchism", "One.\nTwo.") + article(39, 'The "A"> b', "Three."), name)
    documents, audit = read(path)
    assert [(one.id, one.text) for one in documents] == [
        ("s:12", "Anarchism\n\nOne.\nTwo."),
        ("s:39", 'The "A"> b\n\nThree.'),
    ]
    assert documents[1].meta == {"title": 'The "A"> b', "url": "https://example.org/wiki?curid=39"}
    assert not audit.drops


def test_other_attributes_and_line_ends_are_taken(tmp_path):
    path = write(tmp_path, '\ufeff<doc id="7" revid="9" title="T">\r\ntext\r\n</doc>\r\n')
    documents, _ = read(path)
    assert [(one.id, one.text, one.meta) for one in documents] == [("s:7", "text", {"title": "T"})]


def test_text_that_looks_like_tags_stays_text(tmp_path):
    text = '<doc>\n<doc id="1">\nsee </doc> and <doc id="5" url="u" title="t"> here\n<b>\n </doc> x'
    documents, audit = read(write(tmp_path, article(1, "T", text)))
    assert [one.text for one in documents] == [f"T\n\n{text}"]
    assert not audit.drops


LINES = st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])), min_size=1)


def _is_text(lines):
    return not any(line.startswith("<doc id=") or line.rstrip() == "</doc>" for line in lines) and "\n".join(
        lines
    ) == "\n".join(lines).strip("\n")


@given(st.lists(LINES.filter(_is_text), min_size=1, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, articles):
    text = "".join(
        HEAD.format(number, number, "t") + "\n".join(lines) + "\n</doc>\n"
        for number, lines in enumerate(articles)
    )
    documents, audit = read(write(tmp_path_factory.mktemp("w"), text))
    assert [one.text for one in documents] == ["\n".join(lines) for lines in articles]
    assert not audit.drops


def test_a_document_that_is_not_closed_is_counted(tmp_path):
    text = HEAD.format(1, 1, "a") + "lost\n" + article(2, "b", "kept") + HEAD.format(3, 3, "c") + "cut o"
    path = write(tmp_path, text)
    documents, audit = read(path)
    assert [one.id for one in documents] == ["s:2"]
    assert audit.drops == {"unclosed_document": 2}
    assert audit.documents_read == 2
    with pytest.raises(DataError) as caught:
        read(path, max_bad_lines=0)
    assert str(caught.value).startswith(
        f"{path}:1: the document that opens here is not closed before the next one opens in line 3; "
    )
    with pytest.raises(
        DataError, match=r"wiki_00:9: .* not closed to the end of the file, which may be cut off; .* number 2"
    ):
        read(path, max_bad_lines=1)


def test_text_between_documents_is_counted(tmp_path):
    path = write(tmp_path, article(1, "a", "x") + "stray\n\n" + article(2, "b", "y"))
    documents, audit = read(path)
    assert [one.id for one in documents] == ["s:1", "s:2"]
    assert audit.drops == {"text_outside_document": 1}
    with pytest.raises(DataError, match=r"wiki_00:7: is text outside of a document; this is malformed line"):
        read(path, max_bad_lines=0)


@pytest.mark.parametrize(
    ("text", "hint"),
    [('{"id": "1", "text": "a"}\n', "set format to jsonl"), ("\nplain\n", "set format to what the file is")],
)
def test_another_format_is_refused(tmp_path, text, hint):
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read(path)
    line = text.index(text.strip()) + 1
    assert str(caught.value) == (
        f'{path}:{line}: expected a line <doc id="..." url="..." title="...">, '
        f"as WikiExtractor writes ({hint})"
    )


def test_a_document_that_is_too_long_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(wiki_extractor, "MAX_RECORD_BYTES", 1 << 20)
    path = write(tmp_path, HEAD.format(1, 1, "a") + ("x" * 9999 + "\n") * 200)
    with pytest.raises(
        DataError, match=r"wiki_00:1: the document that opens here is longer than 1 MiB; is its"
    ):
        read(path)


def test_bad_bytes_follow_the_policy(tmp_path):
    path = write(
        tmp_path, article(1, "a", "x").encode() + article(2, "b", "y!").encode().replace(b"!", b"\xff")
    )
    documents, audit = read(path)
    assert documents[1].text == "b\n\ny\ufffd"
    assert audit.repairs == {"invalid_utf8": 1}
    with pytest.raises(DataError, match=r"wiki_00:10: byte 0xff is not UTF-8"):
        read(path, encoding_errors="strict")
    documents, audit = read(path, encoding_errors="skip")
    assert [one.id for one in documents] == ["s:1"]


def test_an_empty_file_is_counted(tmp_path):
    documents, audit = read(write(tmp_path, ""))
    assert not documents
    assert audit.drops == {"empty_file": 1}


def test_the_suffix_does_not_tell_the_format(tmp_path):
    with pytest.raises(DataError, match=r"wiki_00: its suffix does not tell the format .*; set format"):
        read_planned(write(tmp_path, article(1, "a", "x")))
