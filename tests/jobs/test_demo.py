"""The demo on files: from text to its report, stopped anywhere and gone on with."""

import json
import os
import signal

import pytest
import yaml

import maskwright
import tiny_world
from maskwright.core.errors import ConfigError, Interrupted
from maskwright.jobs import demo as job
from maskwright.training.hooks import JsonLines


@pytest.fixture(scope="module")
def recipe(corpus_file, labelled, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    sections = {
        "prepare": tiny_world.prepare_values(corpus_file),
        "pretrain": tiny_world.PRETRAIN,
        "finetune": {**tiny_world.FINETUNE, "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, maskwright.demo(str(recipe), output=folder)


def exports(folder):
    return {path.parent.parent.name: path.read_bytes() for path in folder.glob("*/export/model.safetensors")}


def test_what_it_leaves(finished):
    folder, results = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("data", "pretrain", "finetune-pretrained", "finetune-random"),
        *("results.json", "report.html"),
    }
    assert results["report"] == str(folder / "report.html")
    written = json.loads((folder / "results.json").read_text())
    assert {**written, "report": results["report"]} == results
    assert results["documents"] == 240
    assert set(results["classifier"]) == {"pretrained", "random"}
    configs = [
        yaml.safe_load((folder / f"finetune-{name}" / "config.yaml").read_text())
        for name in ("pretrained", "random")
    ]
    assert configs[0].pop("random_weights") is False
    assert configs[1].pop("random_weights") is True
    assert configs[0] == configs[1]
    page = (folder / "report.html").read_text()
    assert "pretrained encoder" in page
    assert "random weights" in page


def test_its_parts_equal_the_single_commands(finished, data_folder, pretrained):
    folder, _ = finished
    assert tiny_world.prepared_files(folder / "data") == tiny_world.prepared_files(data_folder)
    name = "export/model.safetensors"
    assert (folder / "pretrain" / name).read_bytes() == (pretrained / name).read_bytes()


def test_run_again_it_trains_nothing(finished, recipe, monkeypatch):
    folder, results = finished
    for name in ("pretrain_model", "finetune_model"):
        monkeypatch.setattr(job, name, None)
    before = tiny_world.files_of(folder, "report.html", "results.json")
    again = maskwright.demo(str(recipe), output=folder)
    assert again == results
    assert tiny_world.files_of(folder, "report.html", "results.json") == before


@pytest.mark.parametrize("override", ["pretrain.steps=30", "finetune.seed=4", "prepare.seed=3"])
def test_a_finished_step_of_other_settings_is_not_passed_off(finished, recipe, override):
    folder, _ = finished
    before = tiny_world.files_of(folder)
    section, _, rest = override.partition(".")
    said = rf"{section if section != 'prepare' else 'data'}[\w-]*: was begun with other settings \({rest[:4]}"
    with pytest.raises(ConfigError, match=said):
        maskwright.demo(str(recipe), override, output=folder)
    assert tiny_world.files_of(folder) == before


def test_stopped_in_every_part_and_gone_on_with(finished, recipe, tmp_path, monkeypatch):
    """SIGINT at some training record of every run: the same command ends with the same weights."""
    honest, stops = JsonLines.record, {("pretrain", 8), ("finetune-pretrained", 6), ("finetune-random", 16)}

    def record(self, values):
        honest(self, values)
        place = (self._path.parent.name, values["step"])
        if values["kind"] == "train" and place in stops:
            stops.discard(place)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(JsonLines, "record", record)
    for left in (2, 1, 0):
        with pytest.raises(Interrupted, match="stopped by SIGINT at step"):
            maskwright.demo(str(recipe), output=tmp_path / "out")
        assert len(stops) == left
    results = maskwright.demo(str(recipe), output=tmp_path / "out")
    folder, expected = finished
    assert exports(tmp_path / "out") == exports(folder)
    assert results["validation_loss"] == expected["validation_loss"]
    accuracy = [
        {name: found["accuracy"] for name, found in r["classifier"].items()} for r in (results, expected)
    ]
    assert accuracy[0] == accuracy[1]


def test_the_closing_table(finished, recipe, command):
    folder, results = finished
    result = command("demo", recipe, "-o", folder)
    assert result.code == 0
    for value in (results["unigram_loss"], results["validation_loss"]):
        assert f"{value:.3f}" in result.out
    assert "pretrained weights" in result.out
    assert "random weights" in result.out
    assert result.out.endswith(f"report: {folder / 'report.html'}\n")
    assert command("demo", recipe, "-o", folder, "--json").json == json.loads(json.dumps(results))


def test_a_section_left_empty(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("prepare:\npretrain:\nfinetune:\n")
    sections = job.resolve_sections(str(path), tmp_path / "out", ["pretrain.steps=3"])
    assert sections["pretrain"] == {"steps": 3, "data": str(tmp_path / "out" / "data")}
    assert sections["finetune"]["data"]["test"] == str(tmp_path / "out" / "data" / "topics" / "test.jsonl")
