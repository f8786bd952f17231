"""Readers and steps together, and the settings of a corpus."""

from __future__ import annotations

import pytest
from corpus_helpers import document, read, shared_data

from maskwright.core.config import dump_config, parse_config
from maskwright.core.errors import ConfigError, DataError
from maskwright.corpus import (
    READERS,
    Audit,
    CorpusConfig,
    Drop,
    SourceConfig,
    clean_documents,
    cleaning_steps,
    input_files,
    read_input,
    require_documents,
)
from maskwright.corpus.config import SourceFormat
from maskwright.corpus.plan import plan_inputs
from maskwright.corpus.readers import HEEDED_SETTINGS, SUFFIXES


def config(*paths, **settings):
    sources = [{"path": str(path)} for path in paths]
    return parse_config(CorpusConfig, {"sources": sources, **settings}, "test")


def cleaned(corpus):
    """All documents after cleaning, and the account."""
    audit, found = Audit(), []
    for task in plan_inputs(corpus.sources, 1 << 30):
        source = corpus.sources[task.source_index]
        found += clean_documents(read_input(task, source, audit), cleaning_steps(corpus, source), audit)
    return found, audit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("first text\r\n")
    (tmp_path / "b.jsonl").write_text(
        '{"text": "first text"}\n{"text": " "}\n{"text": "second \\u200btext"}\n'
    )
    (tmp_path / "c.csv").write_text("text\nx\n")
    return tmp_path


def test_readers_and_steps_work_together(folder):
    documents, audit = cleaned(config(folder, min_characters=3))
    assert [one.text for one in documents] == ["first text", "first text", "second text"]
    assert documents[0].id == f"{folder.name}:a.txt"
    assert audit.drops == {"empty": 1, "too_short": 1}
    assert audit.documents_read == 5
    assert audit.documents_kept == 0  # what is kept is known after deduplication, and counted there


def test_sources_come_in_order(folder):
    documents, audit = cleaned(config(folder / "b.jsonl", folder / "a.txt"))
    assert [one.source for one in documents] == ["b", "b", "a"]
    assert audit.as_dict()["sources"]["a"]["documents_read"] == 1


def test_a_source_may_have_rules_of_its_own(folder):
    strict = {"preset": "none", "on": ["word_count"]}
    values = {
        "sources": [{"path": str(folder / "b.jsonl"), "rules": strict}, {"path": str(folder / "a.txt")}]
    }
    documents, audit = cleaned(parse_config(CorpusConfig, values, "test"))
    assert [one.source for one in documents] == ["a"]
    assert audit.drops.total() == 3


def test_files_are_listed_with_source_and_format(folder):
    found = input_files(config(folder, folder / "a.txt").sources)
    assert [(one.source_index, one.file.label, one.format) for one in found] == [
        (0, "a.txt", "text"),
        (0, "b.jsonl", "jsonl"),
        (0, "c.csv", "csv"),
        (1, "a.txt", "text"),
    ]


def test_the_first_step_that_drops_ends_the_way():
    seen = []

    def drop(one):
        return Drop("no")

    def note(one):
        seen.append(one)
        return one

    audit = Audit()
    assert list(clean_documents([document("x")], [drop, note], audit)) == []
    assert seen == []
    assert audit.drops == {"no": 1}


def test_nothing_read_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.jsonl").write_text("\n\n")
    documents, audit = cleaned(config(tmp_path))
    assert not documents
    with pytest.raises(DataError, match=r"holds no documents; check that the files are not empty"):
        require_documents(config(tmp_path), audit, 0)


def test_nothing_kept_is_an_error(folder):
    corpus = config(folder, min_characters=100)
    documents, audit = cleaned(corpus)
    assert not documents
    with pytest.raises(DataError, match=r"none of 5 documents was kept \(dropped: empty 1, too_short 4\)"):
        require_documents(corpus, audit, 0)
    require_documents(corpus, audit, 1)


def test_a_damaged_file_is_an_error_and_not_an_end(folder):
    (folder / "d.txt.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match=r"d\.txt\.gz: the compressed data is damaged or cut off"):
        cleaned(config(folder))


def test_ignored_settings_are_said(folder, caplog):
    with caplog.at_level("WARNING"):
        read(folder / "a.txt", text_field="body", splits=("test",))
    assert "s: splits is ('test',), which the format text ignores" in caplog.text
    assert "s: text_field is 'body', which the format text ignores" in caplog.text
    caplog.clear()
    read(folder / "b.jsonl", max_bad_lines=3)
    assert caplog.text == ""


def test_config_survives_a_round_trip(folder):
    import yaml

    original = config(folder, unicode_form="NFKC", max_characters=9)
    assert parse_config(CorpusConfig, yaml.safe_load(dump_config(original)), "test") == original


def test_default_corpus_is_the_local_docs_without_test():
    (source,) = CorpusConfig().sources
    assert source.is_local_docs
    assert source.splits == ("train", "validation")
    assert source.label == "local-docs"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": []}, '"sources" is \\[\\]'),
        ({"sources": [{"path": ""}]}, "path is empty, expected a file"),
        ({"sources": [{"path": []}]}, "path is empty, expected a file"),
        ({"sources": [{"path": ["a", "local-docs"]}]}, "local-docs cannot stand in a list of paths"),
        ({"sources": [{"path": "a", "format": "local-docs"}]}, "format is local-docs, but path is 'a'"),
        ({"sources": [{"path": "a/x.txt"}, {"path": "b/x.txt"}]}, 'two sources are called "x"; set name'),
        ({"min_characters": 5, "max_characters": 4}, "max_characters is 4, below min_characters 5"),
        (
            {"sources": [{"path": "a", "formt": "csv"}]},
            'unknown key "sources.0.formt"; did you mean "format"',
        ),
        (
            {"sources": [{"path": "a", "encoding_errors": "ignore"}]},
            "\"sources.0.encoding_errors\" is 'ignore'",
        ),
    ],
)
def test_a_wrong_config_is_explained(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(CorpusConfig, values, "test")


def test_every_field_is_described():
    for cls in (CorpusConfig, SourceConfig):
        assert all(field.description for field in cls.model_fields.values())


def test_every_format_has_a_reader():
    assert {"auto", *READERS} == set(SourceFormat.__args__)
    assert set(SUFFIXES.values()) <= set(READERS)
    assert set(HEEDED_SETTINGS) == set(READERS)


@pytest.mark.shared
def test_real_corpora_lose_nothing_but_layout():
    folder = shared_data() / "corpora"
    documents, audit = cleaned(config(folder / "enwiki-valid.jsonl.zst", folder / "zhwiki-valid.jsonl.zst"))
    assert len(documents) == 900 == audit.documents_read
    assert sum(len(one.text.encode()) for one in documents) > 0.99 * audit.bytes_read
