"""Every command from end to end: what it prints where, the dry run, and `--json`."""

import io
import json
import sys

import pytest
import yaml

import tiny_world
from maskwright.core.config import parse_config
from maskwright.jobs.evaluate import EvaluateConfig
from maskwright.jobs.prepare import PrepareConfig
from maskwright.tasks.classification.finetune import FinetuneConfig
from maskwright.tokens.manifest import load_manifest
from maskwright.training.pretrain_config import PretrainConfig


@pytest.fixture
def recipe(corpus_file, data_folder, pretrained, labelled, tmp_path):
    path = tmp_path / "tiny.yaml"
    sections = {
        "prepare": tiny_world.prepare_values(corpus_file),
        "pretrain": {**tiny_world.PRETRAIN, "data": str(data_folder)},
        "finetune": {**tiny_world.FINETUNE, "model": str(pretrained), "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def numbers_of(results, *left_out):
    """Results without what a clock measured."""
    changing = {"output", "report", "seconds", "machine", "versions", "peak_memory_bytes", *left_out}
    return {name: value for name, value in results.items() if name not in changing}


class TestPrepare:
    """Raw text to data."""

    def test_json(self, command, recipe, data_folder):
        result = command("prepare", recipe, "--json")
        assert result.code == 0
        assert result.out.count("\n") == 1
        assert result.json["output"] == "data/tiny"
        assert result.json["documents_kept"] == 240
        assert result.json["drops"] == {}
        inspected = command("inspect", data_folder, "--json").json
        assert inspected["fingerprint"] == result.json["fingerprint"]
        assert inspected["splits"]["train"]["tokens"] == result.json["train_tokens"]

    def test_for_people(self, command, recipe, tmp_path):
        result = command("prepare", recipe, "-o", tmp_path / "mine")
        assert result.code == 0
        lines = dict(line.split("  ", 1) for line in result.out.splitlines())
        assert lines["output"].strip() == str(tmp_path / "mine")
        assert lines["documents kept"].strip() == "240"
        assert "vocab_size: 400" in result.err

    def test_overwrite_and_resume(self, command, recipe, tmp_path):
        first = command("prepare", recipe, "-o", "d", "--json").json
        before = tiny_world.files_of(tmp_path / "d")
        assert command("prepare", recipe, "-o", "d", "--resume", "--json").json == first
        assert tiny_world.files_of(tmp_path / "d") == before
        again = command("prepare", recipe, "seed=3", "-o", "d", "--overwrite", "--json").json
        assert again["fingerprint"] != first["fingerprint"]


class TestPretrain:
    """Data to a model."""

    def test_json(self, command, recipe, pretrained):
        result = command("pretrain", recipe, "--json")
        assert result.code == 0
        assert result.out.count("\n") == 1
        assert result.json["output"] == "runs/tiny"
        said = json.loads((pretrained / "summary.json").read_text())
        assert result.json["validation_loss"] == said["validation_loss"]
        assert "step 24/24" in result.err
        run = command("inspect", "runs/tiny", "--json").json
        assert (run["kind"], run["finished"]) == ("run", True)
        assert run["checkpoints"] == ["step-00000016", "step-00000024"]
        assert run["last_evaluation"]["loss"] == said["validation_loss"]

    def test_for_people(self, command, recipe):
        result = command("pretrain", recipe, "steps=2")
        assert result.code == 0
        assert "validation loss" in result.out
        assert "validation loss" not in result.err.split("step 2:")[0]


class TestFinetune:
    """A model to a classifier."""

    def test_json(self, command, recipe, finetuned):
        result = command("finetune", recipe, "--json")
        assert result.code == 0
        assert result.out.count("\n") == 1
        assert result.json["output"] == "runs/tiny-finetune"
        said = json.loads((finetuned / "evaluation.json").read_text())
        assert numbers_of(result.json) == numbers_of(said)

    def test_for_people(self, command, recipe):
        result = command("finetune", recipe, "epochs=1")
        (line,) = [line for line in result.out.splitlines() if line.startswith("accuracy")]
        assert line.count("0.") == 3  # the value and both ends of its interval


class TestEvaluate:
    """A model measured on data."""

    def test_a_classifier_gives_the_numbers_of_its_run(self, command, finetuned, labelled, tmp_path):
        result = command("evaluate", finetuned, f"data={labelled['test']}", "-o", "out", "--json")
        assert result.code == 0
        said = json.loads((finetuned / "evaluation.json").read_text())
        shared = ("accuracy", "macro_f1", "per_class", "confusion", "labels", "count")
        for name in shared:
            assert result.json[name] == said[name], name
        written = (tmp_path / "out" / "predictions.jsonl").read_bytes()
        assert written == (finetuned / "predictions.jsonl").read_bytes()
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result.json

    def test_a_language_model(self, command, pretrained, data_folder, tmp_path):
        arguments = ("evaluate", pretrained, f"data={data_folder}", "sequence_length=32", "sequences=16")
        result = command(*arguments, "-o", "out", "--json")
        said = json.loads((pretrained / "summary.json").read_text())
        assert result.json["loss"] == pytest.approx(said["validation_loss"])
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result.json
        people = command(*arguments)
        assert people.out.splitlines()[0].split() == ["task", "masked-lm"]

    def test_without_an_output_nothing_is_written(self, command, finetuned, labelled, tmp_path):
        assert command("evaluate", finetuned, f"data={labelled['test']}").code == 0
        assert not list(tmp_path.iterdir())


class TestPredict:
    """Answers for texts from the command line, a file, or a pipe."""

    texts = ("The cook boils the onion.", "The ferry is late.")

    def test_from_the_command_line(self, command, finetuned):
        result = command("predict", finetuned, *self.texts, "--json")
        assert result.json["count"] == 2
        assert [answer["text"] for answer in result.json["predictions"]] == list(self.texts)
        people = command("predict", finetuned, *self.texts)
        for line, answer in zip(people.out.splitlines(), result.json["predictions"], strict=True):
            assert line == f"{answer['label']}\t{answer['probability']:.4f}\t{answer['text']}"

    def test_from_a_file_and_from_a_pipe(self, command, finetuned, tmp_path, monkeypatch):
        path = tmp_path / "texts.txt"
        path.write_bytes("\r\n".join([*self.texts, "", "naïve 中文"]).encode())
        from_file = command("predict", finetuned, "-i", path, "--json").json
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        from_pipe = command("predict", finetuned, "--json").json
        assert from_file["predictions"] == from_pipe["predictions"]
        assert [answer["text"] for answer in from_file["predictions"]] == [*self.texts, "naïve 中文"]

    def test_into_a_file(self, command, finetuned, tmp_path):
        result = command("predict", finetuned, *self.texts, "-o", "out/answers.jsonl", "--json")
        lines = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == result.json["predictions"]

    def test_nothing_given_at_a_terminal(self, command, finetuned, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stdin", Terminal())
        result = command("predict", finetuned)
        assert result.code == 2
        assert (
            "predict: no text was given; write it after the folder, use --input, or pipe it in" in result.err
        )

    def test_masks_are_filled(self, command, pretrained):
        result = command("predict", pretrained, "The <mask> is <mask>.", "--json")
        (answer,) = result.json["predictions"]
        assert [len(fills) for fills in answer["fills"]] == [5, 5]
        people = command("predict", pretrained / "export", "The <mask> is <mask>.")
        text, *places = people.out.rstrip("\n").split("\t")
        assert text == "The <mask> is <mask>."
        assert len(places) == 2

    def test_many_texts_pass_in_pieces(self, command, finetuned, tmp_path, monkeypatch):
        monkeypatch.setattr("maskwright.cli.predict._CHUNK", 3)
        path = tmp_path / "texts.txt"
        path.write_text("".join(f"The rose {number}\n" for number in range(10)))
        assert command("predict", finetuned, "-i", path, "--json").json["count"] == 10


class TestInspect:
    """A look into folders."""

    def test_data(self, command, data_folder):
        result = command("inspect", data_folder, "--verify", "--document=7", "--split=train", "--json")
        found = result.json
        assert found["kind"] == "data"
        shards = [shard for split in load_manifest(data_folder).splits.values() for shard in split.shards]
        assert found["files_verified"] == 1 + 2 * len(shards)
        assert (found["document"]["split"], found["document"]["number"]) == ("train", 7)
        assert found["document"]["text"].startswith("The ")
        people = command("inspect", data_folder)
        assert people.out.splitlines()[0].split() == ["kind", "data"]

    def test_a_model(self, command, pretrained):
        found = command("inspect", pretrained / "export", "--json").json
        assert (found["kind"], found["hidden_size"]) == ("model", 32)

    def test_a_run_whose_last_line_was_torn(self, command, tmp_path):
        (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "train", "step": 4}\n[]\n{"x": "\xc3')
        found = command("inspect", tmp_path, "--json").json
        assert found["last_train"] == {"kind": "train", "step": 4}
        assert (found["finished"], found["checkpoints"]) == (False, [])


class TestDoctor:
    """What the machine offers."""

    def test_json_and_for_people(self, command):
        found = command("doctor", "--json").json
        assert {line["level"] for line in found["advice"]} <= {"ok", "slow", "missing"}
        assert found["versions"]["torch"]
        people = command("doctor")
        assert people.code == 0
        assert people.out.startswith("processor  ")
        for line in found["advice"]:
            assert line["what"] in people.out

    def test_a_machine_that_tells_nothing(self, command, monkeypatch):
        machine = {"cpu": "unknown", "cores": 1, "memory_bytes": None, "flags": {}, "gpus": []}
        monkeypatch.setattr("maskwright.jobs.doctor.describe_machine", lambda: machine)
        monkeypatch.setattr("maskwright.jobs.doctor.free_disk_bytes", lambda folder: None)
        people = command("doctor")
        assert people.code == 0
        assert "memory     unknown" in people.out
        assert "slow     one core" in people.out


@pytest.mark.parametrize(
    ("verb", "cls"), [("prepare", PrepareConfig), ("pretrain", PretrainConfig), ("finetune", FinetuneConfig)]
)
class TestDryRun:
    """The resolved config, and nothing else."""

    def test_it_parses_back(self, command, recipe, tmp_path, verb, cls):
        result = command(verb, recipe, "seed=7", "--dry-run")
        assert result.code == 0
        config = parse_config(cls, yaml.safe_load(result.out), "test")
        assert config.seed == 7
        path = tmp_path / "again.yaml"
        path.write_text(yaml.safe_dump({verb: yaml.safe_load(result.out)}))
        assert command(verb, path, "--dry-run").out == result.out
        assert sorted(item.name for item in tmp_path.iterdir()) == ["again.yaml", "tiny.yaml"]

    def test_as_json(self, command, recipe, verb, cls):
        values = command(verb, recipe, "--dry-run", "--json").json
        assert parse_config(cls, values, "test").format_version == 1


def test_the_dry_run_of_an_evaluation(command):
    values = command("evaluate", "some/model", "data=some/file", "--dry-run", "--json").json
    assert parse_config(EvaluateConfig, values, "test").model == "some/model"


def test_the_dry_run_of_the_demo(command, tmp_path):
    result = command("demo", "--dry-run", "pretrain.steps=3")
    sections = yaml.safe_load(result.out)
    assert list(sections) == ["prepare", "pretrain", "finetune"]
    assert sections["pretrain"]["steps"] == 3
    assert sections["pretrain"]["data"] == "runs/demo/data"
    assert sections["finetune"]["model"] == "runs/demo/pretrain"
    assert command("demo", "--dry-run", "--json", "pretrain.steps=3").json == sections
    assert not list(tmp_path.iterdir())
