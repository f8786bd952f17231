from __future__ import annotations

import json

import pytest
import zstandard
from corpus_helpers import read, shared_data
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus import CorpusConfig, SourceConfig


def write(folder, *lines, name="train.jsonl"):
    path = folder / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


def test_rows_become_documents(tmp_path):
    path = write(tmp_path, '{"text": "one", "id": 7}', "", '{"text": "two <mask>"}')
    documents, _ = read(path)
    assert [(one.text, one.id) for one in documents] == [
        ("one", "s:train.jsonl#1"),
        ("two <mask>", "s:train.jsonl#3"),
    ]


def test_fields_can_be_named(tmp_path):
    path = write(tmp_path, '{"body": "one", "key": "a/b"}', '{"body": "two", "key": 12}')
    documents, _ = read(path, text_field="body", id_field="key")
    assert [(one.text, one.id) for one in documents] == [("one", "s:a/b"), ("two", "s:12")]


@given(st.lists(st.text()))
def test_any_text_passes_unchanged(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("j") / "x.jsonl.zst"
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    documents, audit = read(path)
    assert [one.text for one in documents] == texts
    assert sum(audit.drops.values()) == (0 if texts else 1)


def test_null_is_an_empty_text_for_the_steps_to_drop(tmp_path):
    documents, _ = read(write(tmp_path, '{"text": null}'))
    assert [one.text for one in documents] == [""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": ["a"]}', '"text" is a list, expected a string (set text_field)'),
        ('{"text": {"a": 1}}', '"text" is an object, expected a string (set text_field)'),
        ('{"text": 3}', '"text" is a number, expected a string (set text_field)'),
        ('{"text": true}', '"text" is true or false, expected a string (set text_field)'),
        ('{"texts": "a"}', 'has no "text"; did you mean "texts"? (set text_field)'),
        ('{"body": "a", "id": 1}', 'has no "text"; known: body, id (set text_field)'),
    ],
)
def test_a_wrong_field_stops_with_file_and_line(tmp_path, row, message):
    path = write(tmp_path, '{"text": "fine"}', row)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:2: {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a"}', 'has no "id"; known: text (set id_field)'),
        ('{"text": "a", "id": null}', '"id" is null, expected a string or an integer (set id_field)'),
        (
            '{"text": "a", "id": true}',
            '"id" is true or false, expected a string or an integer (set id_field)',
        ),
    ],
)
def test_a_wrong_id_stops_with_file_and_line(tmp_path, row, message):
    path = write(tmp_path, row)
    with pytest.raises(DataError) as caught:
        read(path, id_field="id")
    assert str(caught.value) == f"{path}:1: {message}"


def test_malformed_lines_are_counted_and_later_ones_kept(tmp_path):
    path = write(tmp_path, '{"text": "one"', '["a"]', '"a"', "[" * 100_000, "1" * 5000, '{"text": "last"}')
    documents, audit = read(path)
    assert [one.text for one in documents] == ["last"]
    assert audit.drops == {"malformed_json": 5}
    samples = audit.as_dict()["drop_samples"]["malformed_json"]
    assert samples[0].startswith(f"{path}:1: not valid JSON (")
    assert samples[1].startswith(f"{path}:2: a list, expected one JSON object on each line: ")
    assert samples[2].startswith(f"{path}:3: a string, expected one JSON object")
    assert samples[3].startswith(f"{path}:4: nested too deeply: ")


def test_too_many_malformed_lines_stop_the_reading(tmp_path):
    path = write(tmp_path, *["{"] * 3)
    assert read(path, max_bad_lines=3)[1].drops == {"malformed_json": 3}
    with pytest.raises(DataError) as caught:
        read(path, max_bad_lines=2)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: not valid JSON (")
    assert message.endswith(
        "malformed line number 3 of this file (mend the file, or set max_bad_lines above 2)"
    )


def test_the_default_limit_is_a_hundred(tmp_path):
    path = write(tmp_path, *["{"] * 101)
    with pytest.raises(DataError, match=r"train\.jsonl:101: .*malformed line number 101"):
        read(path)


HALF = '{"text": "half \\ud83d pair"}'


@pytest.mark.parametrize(("bad", "text"), [(HALF, "half \ufffd pair"), (b'{"text": "b\xff"}', "b\ufffd")])
def test_bad_characters_follow_the_policy(tmp_path, bad, text):
    path = write(tmp_path, '{"text": "fine"}', bad, '{"text": "later"}')
    documents, audit = read(path)
    assert [one.text for one in documents] == ["fine", text, "later"]
    assert audit.repairs == {"invalid_utf8": 1}
    documents, audit = read(path, encoding_errors="skip")
    assert [one.text for one in documents] == ["fine", "later"]
    assert audit.drops == {"invalid_utf8": 1}
    with pytest.raises(DataError, match=r"train\.jsonl:2: .*\(set encoding_errors to replace or skip"):
        read(path, encoding_errors="strict")


def test_half_a_pair_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl:1: \\ud83d is half a surrogate pair"):
        read(write(tmp_path, HALF), encoding_errors="strict")


def test_whole_pairs_are_characters(tmp_path):
    documents, audit = read(write(tmp_path, '{"text": "\\ud83d\\ude00"}'), encoding_errors="strict")
    assert documents[0].text == "😀"
    assert not audit.repairs


def test_what_the_fast_parser_refuses_goes_to_the_standard_one(tmp_path):
    rows = ['{"text": "a", "x": NaN}', '{"text": "b", "x": 1e999}', '{"text": "c", "x": "\\udc00"}']
    documents, audit = read(write(tmp_path, *rows))
    assert [one.text for one in documents] == ["a", "b", "c"]
    assert not audit.drops
    assert not audit.repairs  # half a pair in another field harms nothing


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**40])
def test_long_numbers_are_exact_ids(tmp_path, value):
    (one,), _ = read(write(tmp_path, f'{{"text": "a", "id": {value}}}'), id_field="id")
    assert one.id == f"s:{value}"


def test_an_empty_file_is_counted(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"")
    documents, audit = read(path)
    assert not documents
    assert audit.drops == {"empty_file": 1}


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count"), [("enwiki-valid", 600), ("zhwiki-valid", 300)])
def test_real_corpora(name, count):
    path = shared_data() / "corpora" / f"{name}.jsonl.zst"
    documents, audit = read(path, id_field="id")
    assert len(documents) == count == len({one.id for one in documents})
    assert not audit.drops
    assert not audit.repairs
    assert CorpusConfig(sources=(SourceConfig(path=str(path)),)).sources[0].label == name
