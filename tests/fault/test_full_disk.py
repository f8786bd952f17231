"""A disk that is full when any one file is written: a clear refusal, nothing half-written, and a way on."""

import errno
from pathlib import Path

import pytest
import yaml

import tiny_world

pytestmark = pytest.mark.fault

SHARED = (
    "config.yaml",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "report.html",
)
FILES = {
    "prepare": (
        *("config.yaml", "part-00000.jsonl.zst", "clean.json", "tokenizer.json", "tokenizer_config.json"),
        *("trained.json", "shard-00000.tokens", "shard-00000.documents", "token_counts.bin"),
        *("audit.json", "manifest.json"),
    ),
    "pretrain": (*SHARED, "step-00000024", "summary.json"),
    "finetune": (*SHARED, "step-00000017", "predictions.jsonl", "evaluation.json"),
}


@pytest.fixture(scope="module")
def recipe(data_folder, pretrained, labelled, corpus_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    sections = {
        "prepare": tiny_world.prepare_values(corpus_file),
        "pretrain": {**tiny_world.PRETRAIN, "data": str(data_folder)},
        "finetune": {**tiny_world.FINETUNE, "model": str(pretrained), "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def expected(data_folder, pretrained, finetuned):
    return {"prepare": data_folder, "pretrain": pretrained, "finetune": finetuned}


@pytest.fixture(autouse=True)
def no_peak(monkeypatch):
    monkeypatch.setattr("maskwright.training.pretraining.measure_matrix_peak", lambda device, precision: 1e10)


def fill_disk(monkeypatch, name):
    """Refuse to give a file or folder of some name its final place; its bytes never reached the disk."""

    def refusing(honest):
        def move(self, target):
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
            return honest(self, target)

        return move

    for method in ("replace", "rename"):
        monkeypatch.setattr(Path, method, refusing(getattr(Path, method)))


CASES = [(verb, name) for verb, names in FILES.items() for name in names]


@pytest.mark.parametrize(("verb", "name"), CASES, ids=[f"{verb} {name}" for verb, name in CASES])
def test_no_room_for_one_file(command, recipe, expected, tmp_path, monkeypatch, verb, name):
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        fill_disk(patch, name)
        result = command(verb, recipe, "-o", folder)
    assert result.code == 2, result.err
    assert f"{name}: No space left on device; free some space or choose another folder" in result.err
    assert "Traceback" not in result.err
    assert not list(folder.rglob(name))
    assert not list(folder.rglob("*.partial-*"))
    last = FILES[verb][-1]
    assert name in (last, "report.html") or not list(folder.rglob(last))
    result = command(verb, recipe, "-o", folder, "--resume")
    assert result.code == 0, result.err
    part = folder if verb == "prepare" else folder / "export"
    whole = expected[verb] if verb == "prepare" else expected[verb] / "export"
    assert tiny_world.files_of(part) == tiny_world.files_of(whole)


def test_every_file_of_a_data_folder_was_tried(data_folder):
    assert {Path(name).name for name in tiny_world.files_of(data_folder)} == set(FILES["prepare"])
