"""The documentation of an environment, prepared with its topic task; the environment is made up."""

import json
import random

import pytest

import maskwright
import tiny_world
from maskwright.core.errors import DataError
from maskwright.corpus.local_docs import DocModule, split_of
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer

PACKAGES = sorted(tiny_world.TOPICS)


def modules():
    chance = random.Random(3)
    return [
        DocModule(package, f"{package}.part{number}", (("", tiny_world.text(chance, package, 6)),))
        for package in PACKAGES
        for number in range(240)
    ]


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        for place in ("local_docs", "readers.local_docs"):
            patch.setattr(f"maskwright.corpus.{place}.load_modules", lambda cache_folder=None: modules())
        patch.setattr("maskwright.corpus.plan.environment_fingerprint", lambda: "made up")
        yield patch


@pytest.fixture(scope="module")
def values(patched):
    topics = {"num_labels": 3, "train_per_label": 20, "test_per_label": 5}
    return {
        "corpus": {"sources": [{"path": "local-docs"}]},
        "tokenizer": {"vocab_size": 400},
        "topics": topics,
    }


@pytest.fixture(scope="module")
def folder(values, tmp_path_factory):
    output = tmp_path_factory.mktemp("topics") / "data"
    maskwright.prepare(values, output=output)
    return output


def test_the_labelled_texts_are_balanced_and_split_by_module(folder):
    for split, count in (("train", 20), ("validation", 5), ("test", 5)):
        lines = (folder / "topics" / f"{split}.jsonl").read_text().splitlines()
        labels = [json.loads(line)["label"] for line in lines]
        assert {label: labels.count(label) for label in set(labels)} == dict.fromkeys(PACKAGES, count)


def test_the_corpus_holds_no_text_of_the_test_split(folder):
    tokenizer = Tokenizer.load(folder / "tokenizer")
    found = {}
    for split in ("train", "validation"):
        data = open_split(folder, split)
        found[split] = [tokenizer.decode(data.document(number)) for number in range(data.num_documents)]
    expected = {"train": [], "validation": [], "test": []}
    for module in modules():
        expected[split_of(module.name)].append(module.pieces[0][1])
    assert found == {split: expected[split] for split in found}
    assert expected["test"]


def test_made_again_the_bytes_are_the_same(values, folder, tmp_path):
    maskwright.prepare(values, output=tmp_path / "data")
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(folder)


def test_a_classifier_trains_on_the_topics(folder, tmp_path):
    maskwright.pretrain({**tiny_world.PRETRAIN, "data": str(folder)}, "steps=1", output=tmp_path / "run")
    paths = {split: str(folder / "topics" / f"{split}.jsonl") for split in ("train", "validation", "test")}
    settings = {**tiny_world.FINETUNE, "model": str(tmp_path / "run"), "data": paths, "epochs": 1}
    result = maskwright.finetune(settings, output=tmp_path / "fine")
    assert result["labels"] == PACKAGES


def test_too_few_packages(values, tmp_path, monkeypatch):
    monkeypatch.setattr("maskwright.corpus.local_docs.load_modules", lambda cache_folder: modules()[:240])
    with pytest.raises(
        DataError, match="give 1 topics with 10 docstrings in every split, expected at least 2"
    ):
        maskwright.prepare(values, output=tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()
