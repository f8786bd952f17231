"""A vocabulary extended by `prepare`: the file beside it, the account, and the same result every time."""

import json

import pytest
import vocabulary_makers as makers

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, TokenizerError
from maskwright.corpus.runners import Stage, stage
from maskwright.jobs.preparation import publish
from maskwright.jobs.prepare_config import PrepareConfig, TokenizerConfig
from maskwright.tokens.extend import EXTENSION_FILE, Extension, NewEntry, read_extension
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from preparing import Killed, decoded, kill_at

ADDED = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a vocabulary that knows no kitchen."""
    folder = tmp_path_factory.mktemp("base")
    makers.byte_level().save(folder)
    return folder


@pytest.fixture(scope="module")
def values(corpus_file, base):
    tokenizer = {"path": str(base), "extend": ADDED, "extend_min_count": 5}
    return {**tiny_world.prepare_values(corpus_file), "tokenizer": tokenizer, "tokens_per_shard": 2000}


@pytest.fixture(scope="module")
def folder(values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended") / "data"
    maskwright.prepare(values, output=folder, workers=1)
    return folder


def audit_of(folder):
    return json.loads((folder / "audit.json").read_text("utf-8"))


def test_the_data_are_encoded_with_the_longer_vocabulary(folder, base):
    old, new = Tokenizer.load(base), Tokenizer.load(folder / "tokenizer")
    extension = read_extension(folder / "tokenizer")
    assert extension.base_vocab_size == old.vocab_size
    assert new.vocab_size == old.vocab_size + ADDED == load_manifest(folder).tokenizer.vocab_size
    for split in ("train", "validation"):
        data = open_split(folder, split)
        ids = data.tokens(0, data.num_tokens)
        assert ids.max() >= old.vocab_size
        for number, text in enumerate(decoded(folder, split)):
            assert data.document(number).tolist() == new.encode(text).tolist()


def test_the_account_says_what_it_brought(folder, base):
    audit, extension = audit_of(folder)["extension"], read_extension(folder / "tokenizer")
    sample = extension.sample
    assert audit == {
        "base_vocab_size": Tokenizer.load(base).vocab_size,
        "new_entries": ADDED,
        "words": sample.words,
        "tokens_per_word_before": sample.tokens_before / sample.words,
        "tokens_per_word": sample.tokens_after / sample.words,
    }
    assert 1 <= audit["tokens_per_word"] < audit["tokens_per_word_before"]
    made = load_manifest(folder).provenance["tokenizer"]
    assert (made["extend"], made["extend_min_count"]) == (ADDED, 5)


def test_the_same_bytes_with_several_workers_and_after_a_kill(values, folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_SMALL_BYTES", 0)
        maskwright.prepare(values, output=tmp_path / "two", workers=2)
    assert tiny_world.prepared_files(tmp_path / "two") == tiny_world.prepared_files(folder)
    with monkeypatch.context() as patch:
        kill_at(patch, Stage, "execute", 3)
        with pytest.raises(Killed):
            maskwright.prepare(values, output=tmp_path / "killed", workers=1)
    maskwright.prepare(values, output=tmp_path / "killed", workers=1, resume=True)
    assert tiny_world.prepared_files(tmp_path / "killed") == tiny_world.prepared_files(folder)


def test_nothing_stays_of_an_earlier_extension(values, folder, tmp_path, monkeypatch):
    Tokenizer.load(folder / "tokenizer").save(tmp_path / "taken")
    content = (folder / "tokenizer" / EXTENSION_FILE).read_bytes()
    (tmp_path / "taken" / EXTENSION_FILE).write_bytes(content)
    taken = {**values, "tokenizer": {"path": str(tmp_path / "taken")}}
    with monkeypatch.context() as patch:
        kill_at(patch, publish, "save_manifest", 0)
        with pytest.raises(Killed):
            maskwright.prepare(taken, output=tmp_path / "data", workers=1)
    assert (tmp_path / "data/tokenizer" / EXTENSION_FILE).read_bytes() == content
    (tmp_path / "taken" / EXTENSION_FILE).unlink()
    maskwright.prepare(taken, output=tmp_path / "data", workers=1, resume=True)
    assert not (tmp_path / "data/tokenizer" / EXTENSION_FILE).exists()
    assert "extension" not in audit_of(tmp_path / "data")


def test_what_an_earlier_run_added_is_not_forgotten(values, folder, tmp_path):
    taken = {**values, "tokenizer": {"path": str(folder / "tokenizer")}}
    maskwright.prepare(taken, output=tmp_path / "data", workers=1)
    assert read_extension(tmp_path / "data/tokenizer") == read_extension(folder / "tokenizer")
    audit, before = audit_of(tmp_path / "data"), audit_of(folder)
    assert audit["extension"] == before["extension"]


def test_a_file_of_another_vocabulary_is_refused(values, folder, base, tmp_path):
    Tokenizer.load(base).save(tmp_path / "mixed")
    content = (folder / "tokenizer" / EXTENSION_FILE).read_bytes()
    (tmp_path / "mixed" / EXTENSION_FILE).write_bytes(content)
    taken = {**values, "tokenizer": {"path": str(tmp_path / "mixed")}}
    with pytest.raises(TokenizerError, match=r"tells of 350 and 20 more entries, but the vocabulary has 350"):
        maskwright.prepare(taken, output=tmp_path / "data", workers=1)


def test_unigram_is_refused(values, tmp_path):
    path = makers.write_unigram(tmp_path / "unigram")
    refused = {**values, "tokenizer": {"path": str(path), "extend": 5}}
    with pytest.raises(TokenizerError, match="is Unigram, which cannot be extended"):
        maskwright.prepare(refused, output=tmp_path / "data", workers=1)


def test_extending_needs_something_to_extend():
    with pytest.raises(ConfigError, match="extend is 5, but no path is given; set path to the tokenizer"):
        parse_config(PrepareConfig, {"tokenizer": {"extend": 5}}, "recipe")
    assert TokenizerConfig().learns
    assert TokenizerConfig(path="x", extend=1).learns
    assert not TokenizerConfig(path="x").learns


def test_an_extension_without_entries_is_none():
    entry = NewEntry(id=10, token="xy", pieces=(3, 4))
    values = {"base_vocab_size": 10, "sample": {"words": 1, "tokens_before": 2, "tokens_after": 1}}
    assert Extension(new=(entry,), **values).new == (entry,)
    with pytest.raises(ConfigError, match="new"):
        parse_config(Extension, {**values, "new": []}, "extension.json")
