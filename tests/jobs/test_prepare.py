"""Preparing data: the same bytes every time, whatever interrupted it, and held-out documents stay out."""

import json
import shutil

import pytest

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, DataError, OutputExistsError
from maskwright.corpus import read_clean
from maskwright.jobs import prepare as job
from maskwright.jobs.prepare import PrepareConfig, is_validation, prepare_data
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split, verify_folder
from maskwright.tokens.tokenizer import Tokenizer


@pytest.fixture
def values(corpus_file):
    return tiny_world.prepare_values(corpus_file)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(monkeypatch, name, after=0):
    """End the process, so to speak, when a function of the job is called once more than `after` times."""
    honest, calls = getattr(job, name), []

    def run(*arguments, **options):
        calls.append(name)
        if len(calls) > after:
            raise Killed
        return honest(*arguments, **options)

    monkeypatch.setattr(job, name, run)


def test_what_it_leaves(data_folder):
    names = {path.name for path in data_folder.iterdir()}
    assert names == {
        *("config.yaml", "documents", "tokenizer", "train", "validation"),
        *("token_counts.bin", "audit.json", "manifest.json"),
    }
    verify_folder(data_folder)


def test_two_folders_get_the_same_bytes(values, data_folder, tmp_path):
    maskwright.prepare(values, output=tmp_path / "again")
    assert tiny_world.files_of(tmp_path / "again") == tiny_world.files_of(data_folder)


def test_a_rerun_does_nothing(values, data_folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in data_folder.rglob("*") if path.name != "config.yaml"}
    kill_at(monkeypatch, "write_clean")
    kill_at(monkeypatch, "_write_shards")
    summary = maskwright.prepare(values, output=data_folder, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert summary["fingerprint"] == load_manifest(data_folder).fingerprint
    assert summary["documents_kept"] == 240


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("write_clean", 0),
        ("_tokenizer", 0),
        ("_write_shards", 0),
        ("write_array", 0),
        ("write_json", 1),
        ("save_manifest", 0),
        ("_summary", 0),
    ],
)
def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    values, data_folder, tmp_path, monkeypatch, name, after
):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, name, after)
        with pytest.raises(Killed):
            maskwright.prepare(values, output=folder)
    assert (folder / "manifest.json").exists() == (name == "_summary")
    if name != "write_clean":  # before that nothing is there
        with pytest.raises(OutputExistsError, match="is not empty; add --resume to go on"):
            maskwright.prepare(values, output=folder)
    maskwright.prepare(values, output=folder, resume=True)
    assert tiny_world.files_of(folder) == tiny_world.files_of(data_folder)


def test_what_is_finished_is_not_done_again(values, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, "_write_shards")
        with pytest.raises(Killed):
            maskwright.prepare(values, output=folder)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "train", None)
        patch.setattr(job, "open_corpus", lambda *_: iter(()))
        maskwright.prepare(values, output=folder, resume=True)
    verify_folder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "train/shard-00000.tokens",
        "validation/shard-00000.documents",
        "token_counts.bin",
        "tokenizer/tokenizer.json",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_result_is_made_again(values, data_folder, tmp_path, name, damage):
    folder = shutil.copytree(data_folder, tmp_path / "data")
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif path.suffix == ".json":
        path.write_text(path.read_text().replace("a", "b", 3))
    else:
        path.write_bytes(b"\x01" + path.read_bytes()[1:])
    maskwright.prepare(values, output=folder, resume=True)
    assert tiny_world.files_of(folder) == tiny_world.files_of(data_folder)


@pytest.mark.parametrize("content", [None, "", "{}", '{"request": "another"}'])
def test_a_tokenizer_without_its_marker_is_trained_again(values, data_folder, tmp_path, content):
    folder = shutil.copytree(data_folder, tmp_path / "data")
    (folder / "manifest.json").unlink()
    marker = folder / "tokenizer" / "trained.json"
    if content is None:
        marker.unlink()
    else:
        marker.write_text(content)
    Tokenizer.train(["other text"] * 3, 300).save(folder / "tokenizer")
    maskwright.prepare(values, output=folder, resume=True)
    assert tiny_world.files_of(folder) == tiny_world.files_of(data_folder)


def test_changed_sources_are_noticed_and_old_shards_removed(corpus_file, tmp_path):
    path = tmp_path / "corpus.jsonl"
    shutil.copy(corpus_file, path)
    values = tiny_world.prepare_values(path)
    first = maskwright.prepare(values, output=tmp_path / "data")
    (tmp_path / "data" / "train" / "shard-00009.tokens").write_bytes(b"of an earlier start")
    tiny_world.write_corpus(path, seed=8)
    second = maskwright.prepare(values, output=tmp_path / "data", resume=True)
    assert first["fingerprint"] != second["fingerprint"]
    maskwright.prepare(values, output=tmp_path / "fresh")
    assert tiny_world.files_of(tmp_path / "data") == tiny_world.files_of(tmp_path / "fresh")


def test_while_shards_are_written_again_nothing_looks_whole(corpus_file, tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    shutil.copy(corpus_file, path)
    values = tiny_world.prepare_values(path)
    maskwright.prepare(values, output=tmp_path / "data")
    tiny_world.write_corpus(path, seed=8)
    kill_at(monkeypatch, "write_array")
    with pytest.raises(Killed):
        maskwright.prepare(values, output=tmp_path / "data", resume=True)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_held_out_documents_are_chosen_by_their_id(values, data_folder):
    config = parse_config(PrepareConfig, values, "test")
    documents = list(read_clean(data_folder / "documents"))
    held_out = [document for document in documents if is_validation(document, config)]
    data = open_split(data_folder, "validation")
    tokenizer = Tokenizer.load(data_folder / "tokenizer")
    assert data.num_documents == len(held_out)
    texts = [tokenizer.decode(data.document(number)) for number in range(len(held_out))]
    assert texts == [document.text for document in held_out]
    assert 0.03 < len(held_out) / len(documents) < 0.2
    train = open_split(data_folder, "train")
    kept = {tokenizer.decode(train.document(number)) for number in range(train.num_documents)}
    assert not kept & set(texts)


def test_the_tokenizer_never_sees_held_out_text(values, tmp_path, monkeypatch):
    seen = []
    honest = Tokenizer.train

    def train(texts, vocab_size):
        seen.extend(texts)
        return honest(seen, vocab_size)

    monkeypatch.setattr(Tokenizer, "train", staticmethod(train))
    maskwright.prepare(values, output=tmp_path / "data")
    config = parse_config(PrepareConfig, values, "test")
    documents = list(read_clean(tmp_path / "data" / "documents"))
    assert seen == [document.text for document in documents if not is_validation(document, config)]


def test_a_sample_of_the_text_trains_the_tokenizer(values, tmp_path, monkeypatch):
    taken = []
    honest = Tokenizer.train

    def train(texts, vocab_size):
        taken.extend(texts)
        return honest(taken, vocab_size)

    monkeypatch.setattr(Tokenizer, "train", staticmethod(train))
    maskwright.prepare(values, "tokenizer.sample_bytes=30000", output=tmp_path / "data")
    assert 15_000 < sum(len(text.encode()) for text in taken) < 45_000


def test_no_text_to_train_a_tokenizer_on(values, tmp_path):
    said = "has 240 documents, none left to train a tokenizer on; add text or raise tokenizer.sample_bytes"
    with pytest.raises(DataError, match=said):
        maskwright.prepare(values, "tokenizer.sample_bytes=1", output=tmp_path / "data")


def test_no_documents_held_out(values, tmp_path):
    said = "data: the validation split got none of 240 documents; add documents or change validation_share"
    with pytest.raises(DataError, match=said):
        maskwright.prepare(values, "validation_share=1e-9", output=tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_a_tokenizer_that_is_given(values, data_folder, tmp_path):
    maskwright.prepare(values, f"tokenizer.path={data_folder / 'tokenizer'}", output=tmp_path / "data")
    one, other = load_manifest(tmp_path / "data"), load_manifest(data_folder)
    assert one.fingerprint == other.fingerprint
    assert one.provenance != other.provenance


def test_documents_in_pieces_give_the_same_shards(values, data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_BATCH_CHARACTERS", 1000)
    maskwright.prepare(values, output=tmp_path / "data")
    one, other = (open_split(folder, "train") for folder in (tmp_path / "data", data_folder))
    assert len(one.shards) > 3
    assert one.tokens(0, one.num_tokens).tolist() == other.tokens(0, other.num_tokens).tolist()
    assert one.token_counts().tolist() == other.token_counts().tolist()


def test_the_fast_encoder_is_checked_on_the_corpus(values, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(Tokenizer, "check_fast_path", lambda self, texts: checked.append(list(texts)) or True)
    maskwright.prepare(values, output=tmp_path / "data")
    (texts,) = checked
    assert len(texts) == 20


def test_topics_need_their_source(values):
    said = "topics needs a source whose path is local-docs; remove topics or add the source"
    with pytest.raises(ConfigError, match=said):
        parse_config(PrepareConfig, {**values, "topics": {}}, "test")


def test_a_recipe_as_a_mapping_or_by_keyword(values, tmp_path, data_folder):
    config = parse_config(PrepareConfig, values, "test")
    summary = prepare_data(config, tmp_path / "data")
    assert summary["fingerprint"] == load_manifest(data_folder).fingerprint
    audit = json.loads((tmp_path / "data" / "audit.json").read_text())
    tokens = summary["train_tokens"] + summary["validation_tokens"]
    assert audit["num_tokens"] == tokens
    assert summary["bytes_per_token"] == pytest.approx(audit["bytes_kept"] / tokens)
