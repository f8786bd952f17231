"""A disk that is full when any one file is written: a clear refusal, nothing half-written, and a way on."""

import errno
import re
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
        *("config.yaml", "part-00000-00000.jsonl.zst", "part-00000-00000.digests", "task-00000.json"),
        *("drops-00000.npy", "part-00000.jsonl.zst", "tokenizer.json", "tokenizer_config.json"),
        *("shard-00000.tokens", "shard-00000.documents", "counts-00000.bin", "token_counts.bin"),
        *("audit.json", "timings.json", "inputs.json", "data_report.html", "manifest.json"),
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
    assert name in (last, "report.html", "data_report.html") or not list(folder.rglob(last))
    result = command(verb, recipe, "-o", folder, "--resume")
    assert result.code == 0, result.err
    if verb == "prepare":
        assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(expected[verb])
        assert (folder / "data_report.html").exists()
    else:
        assert tiny_world.files_of(folder / "export") == tiny_world.files_of(expected[verb] / "export")


def test_every_file_of_a_data_folder_was_tried(data_folder):
    kinds = {re.sub(r"-\d{5}", "-00000", Path(name).name) for name in tiny_world.files_of(data_folder)}
    assert kinds <= set(FILES["prepare"])
