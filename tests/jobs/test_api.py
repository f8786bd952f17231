"""The verbs in Python: recipes by name, path and mapping, and the same results as on the command line."""

import json

import pytest
import yaml

import maskwright
import tiny_world
from maskwright.core.errors import ConfigError
from maskwright.jobs import evaluate as evaluate_module


def test_a_recipe_by_path_and_as_a_mapping(corpus_file, data_folder, tmp_path):
    values = tiny_world.prepare_values(corpus_file)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"prepare": {**values, "seed": 5}}))
    by_path = maskwright.prepare(str(path), "seed=0", output=str(tmp_path / "one"))
    by_mapping = maskwright.prepare(values, output=tmp_path / "two")
    assert by_path["fingerprint"] == by_mapping["fingerprint"]
    assert maskwright.inspect(data_folder)["fingerprint"] == by_path["fingerprint"]
    assert values == tiny_world.prepare_values(corpus_file)


def test_a_wrong_key_says_which_section():
    with pytest.raises(ConfigError, match='values of pretrain: unknown key "stepz"; did you mean "steps"'):
        maskwright.pretrain({"data": "x", "stepz": 3}, output="never")


def test_evaluate(finetuned, labelled, tmp_path):
    found = maskwright.evaluate(finetuned, data=labelled["test"], output=tmp_path)
    said = json.loads((finetuned / "evaluation.json").read_text())
    assert found["accuracy"] == said["accuracy"]
    assert found["split"] == "test.jsonl"
    with pytest.raises(
        ConfigError, match='values of evaluate: unknown key "txt_field"; did you mean "text_field"'
    ):
        maskwright.evaluate(finetuned, "txt_field=x", data=labelled["test"])


def test_evaluate_a_model_of_a_kind_to_come(finetuned, labelled, monkeypatch):
    monkeypatch.setattr(evaluate_module, "load", lambda path: object())
    with pytest.raises(ConfigError, match="evaluate knows classifiers and masked language models"):
        maskwright.evaluate(finetuned, data=labelled["test"])


def test_load_takes_a_run_and_its_export(finetuned, pretrained):
    text = "The cook boils the onion."
    assert maskwright.load(finetuned).predict([text]) == maskwright.load(str(finetuned / "export")).predict(
        [text]
    )
    (answer,) = maskwright.load(pretrained).predict(["The <mask>"])
    assert len(answer["fills"][0]) == 5
