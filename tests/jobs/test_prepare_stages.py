"""A run that needs every stage: nothing is lost on the way, and how the work is cut decides nothing."""

import json

import pytest

import maskwright
import tiny_world
from maskwright.corpus.runners import stage
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from preparing import ANSWER, NOTICE, clean_documents, decoded, write_sources


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Settings that need every stage."""
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def everything_folder(everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything") / "data"
    maskwright.prepare(everything, output=folder, workers=1)
    return folder


def audit_of(folder):
    return json.loads((folder / "audit.json").read_text())


def test_every_document_of_every_stage_is_accounted_for(everything_folder):
    audit = audit_of(everything_folder)
    documents = clean_documents(everything_folder)
    assert audit["documents_read"] == 150
    assert audit["drops"] == {"contaminated": 1, "exact_duplicate": 2, "near_duplicate": 1}
    assert audit["documents_kept"] == len(documents) == 146
    assert sum(split["documents"] for split in audit["splits"].values()) == 146
    assert sum(source["tokens"] for source in audit["sources"].values()) == audit["num_tokens"]
    assert {name: source["documents"] for name, source in audit["sources"].items()} == {
        "pages": 96,
        "notes": 50,
    }
    assert audit["bytes_kept"] == sum(len(one.text.encode()) for one in documents)
    assert audit["duplicates"]["exact"] == {"documents": 2}
    assert audit["duplicates"]["lines"] == {"lines": 14}
    assert audit["contamination"]["documents"] == 1
    texts = [document.text for document in documents]
    assert sum(NOTICE in text for text in texts) == 1
    assert not any(ANSWER in text for text in texts)
    assert any("<mask> and </s> are words here." in text for text in texts)


def test_samples_and_clusters_name_documents(everything_folder):
    audit = audit_of(everything_folder)
    samples = audit["drop_samples"]["exact_duplicate"]
    assert [sample.split(": ")[:2] for sample in samples] == [
        ["pages:0.jsonl#22", "pages:0.jsonl#4"],
        ["pages:1.jsonl#22", "pages:0.jsonl#5"],
    ]
    (cluster,) = audit["duplicates"]["near"]["largest"]
    assert cluster["kept"] == "pages:2.jsonl#13"
    assert cluster["dropped"] == ["pages:0.jsonl#6"]
    assert cluster["size"] == 2
    assert (everything_folder / "audit.json").read_bytes().find(b"\\u0002") == -1


def test_special_tokens_in_text_stay_text(everything_folder):
    tokenizer, data = Tokenizer.load(everything_folder / "tokenizer"), open_split(everything_folder, "train")
    texts = [
        data.document(number)
        for number in range(data.num_documents)
        if "<mask> and </s> are words here." in tokenizer.decode(data.document(number))
    ]
    (ids,) = texts
    assert tokenizer.eos_id not in ids.tolist()
    assert tokenizer.mask_id not in ids.tolist()


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(
    everything, everything_folder, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(stage, "_SMALL_BYTES", 0)
    maskwright.prepare(everything, output=tmp_path / "data", workers=workers)
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(everything_folder)


@pytest.mark.parametrize("split_bytes", [1_000, 7_777])
def test_files_cut_small_give_the_same_documents(everything, everything_folder, tmp_path, split_bytes):
    folder = tmp_path / "data"
    maskwright.prepare(everything, f"split_bytes={split_bytes}", output=folder, workers=1)
    assert clean_documents(folder) == clean_documents(everything_folder)
    for split in ("train", "validation"):
        assert list(decoded(folder, split)) == list(decoded(everything_folder, split))
    one, other = audit_of(folder), audit_of(everything_folder)
    for name in ("drops", "languages", "length_histogram", "sources", "duplicates", "num_inputs"):
        assert (one[name] == other[name]) == (name != "num_inputs"), name
    assert one["inputs"] == other["inputs"]


def test_more_text_per_shard_gives_the_same_documents(everything, everything_folder, tmp_path):
    maskwright.prepare(everything, "tokens_per_shard=1000000", output=tmp_path / "data", workers=1)
    assert clean_documents(tmp_path / "data") == clean_documents(everything_folder)
    one, other = (load_manifest(folder).splits["train"] for folder in (tmp_path / "data", everything_folder))
    assert list(one.tokens_by_source) == ["pages", "notes"]
    assert one.tokens_by_source == other.tokens_by_source
    assert len(one.shards) < len(other.shards)


def test_shards_of_a_mixture_say_how_often_they_are_seen(everything, tmp_path):
    mixed = {**everything, "mixture": {"epochs": {"notes": 2.5}}}
    maskwright.prepare(mixed, output=tmp_path / "data", workers=1)
    assert load_manifest(tmp_path / "data").repeats == {"notes": 2.5, "pages": 1.0}
    sources = audit_of(tmp_path / "data")["sources"]
    assert {name: source["repeats"] for name, source in sources.items()} == {"notes": 2.5, "pages": 1.0}
