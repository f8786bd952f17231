"""`evaluate` in all its ways: what it takes data for, what it writes, and what it refuses."""

import json
import logging
import math
import shutil

import pytest

import maskwright
import tiny_world
from maskwright.core.errors import ConfigError, DataError
from maskwright.jobs.recognise import recognise
from maskwright.training.evaluation import read_minimal_pairs

PAIRS = [
    {
        "sentence_good": f"The {noun} feeds the gull.",
        "sentence_bad": f"The {noun} feed the gull.",
        "UID": uid,
        "linguistics_term": "agreement",
        "field": "morphology",
    }
    for uid, nouns in (("one", ["captain", "sailor", "gull"]), ("two", ["cook", "guest"]))
    for noun in nouns
]


@pytest.fixture
def pairs(tmp_path):
    return tiny_world.write_rows(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text(
        "The cook stirs the hot kettle.\n\nThe gull follows the ferry. " + "The net. " * 60 + "\n"
    )
    return path


class TestRecognising:
    """Data to task, by content."""

    def said(self, data, is_classifier=False):
        return recognise(str(data), "text", "label", is_classifier)

    def test_what_each_is_taken_for(self, data_folder, pairs, texts, labelled, tmp_path):
        assert self.said(data_folder) == ("masked-lm", "a data folder")
        assert self.said(pairs) == ("minimal-pairs", "it has sentence_good and sentence_bad")
        assert self.said(texts) == ("pseudo-perplexity", "lines of text")
        assert self.said(labelled["test"]) == ("classification", 'it has "label"')
        assert self.said(labelled["test"], is_classifier=True)[0] == "classification"
        folder = tmp_path / "blimp"
        folder.mkdir()
        shutil.copy(pairs, folder / "a.jsonl")
        assert self.said(folder)[0] == "minimal-pairs"
        rows = tiny_world.write_rows(tmp_path / "plain.jsonl", [{"text": "The rose."}])
        assert self.said(rows) == ("pseudo-perplexity", 'it has "text" and no "label"')
        assert self.said(rows, is_classifier=True)[0] == "classification"

    def test_where_nothing_tells(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert self.said(tmp_path / "empty") == ("masked-lm", "a folder")
        assert self.said(tmp_path / "empty", is_classifier=True) == ("classification", "a folder")
        assert self.said(tmp_path / "nothing") == ("masked-lm", "nothing is there")
        assert self.said(tmp_path / "rows.tsv", is_classifier=True) == ("classification", "a file of rows")
        (tmp_path / "rows.tsv").write_text("x\t1\n")
        assert self.said(tmp_path / "rows.tsv") == ("classification", "a table, .tsv")
        (tmp_path / "bad.jsonl").write_text("{")
        assert self.said(tmp_path / "bad.jsonl")[0] == "pseudo-perplexity"
        assert self.said(tmp_path / "bad.jsonl", is_classifier=True)[0] == "classification"

    def test_it_is_said(self, pretrained, pairs, caplog):
        with caplog.at_level(logging.INFO):
            maskwright.evaluate(pretrained, data=pairs)
        assert "taken for minimal-pairs (it has sentence_good and sentence_bad)" in caplog.text


class TestMinimalPairs:
    """A language model on pairs."""

    def test_json_and_file(self, command, pretrained, pairs, tmp_path):
        result = command("evaluate", pretrained, f"data={pairs}", "task=minimal-pairs", "-o", "out", "--json")
        assert result.code == 0
        assert result.json == json.loads((tmp_path / "out" / "evaluation.json").read_text())
        assert (result.json["task"], result.json["count"]) == ("minimal-pairs", 5)
        assert [(entry["name"], entry["count"]) for entry in result.json["paradigms"]] == [
            ("one", 3),
            ("two", 2),
        ]
        assert len(result.json["phenomena"]) == 1

    def test_a_table_for_people(self, command, pretrained, pairs):
        lines = command("evaluate", pretrained, f"data={pairs}", "scoring=word-l2r").out.splitlines()
        assert lines[0].split() == ["task", "minimal-pairs"]
        assert lines[1].split() == ["scoring", "word-l2r"]
        heading = next(line for line in lines if line.startswith("phenomenon"))
        assert heading.split() == ["phenomenon", "field", "pairs", "ties", "accuracy", "low", "high"]
        assert lines[lines.index(heading) + 1].split()[:4] == ["agreement", "morphology", "5", "0"]

    def test_columns_of_chinese_names_stay_aligned(self, command, pretrained, tmp_path):
        rows = [{**PAIRS[0], "linguistics_term": name} for name in ("主谓一致", "ab")]
        path = tiny_world.write_rows(tmp_path / "zh.jsonl", rows)
        lines = command("evaluate", pretrained, f"data={path}").out.splitlines()[-3:]
        at = [line.index("morphology") for line in lines[1:]]
        assert sorted(at) == [at[0], at[0] + 4] or sorted(at) == [at[1], at[1] + 4]

    def test_fewer_pairs(self, pretrained, pairs):
        assert maskwright.evaluate(pretrained, "pairs_per_paradigm=1", data=pairs)["count"] == 2
        assert len(read_minimal_pairs(pairs)) == 5

    def test_a_bad_line(self, command, pretrained, tmp_path):
        path = tiny_world.write_rows(tmp_path / "pairs.jsonl", [PAIRS[0], {"sentence_good": "x"}])
        result = command("evaluate", pretrained, f"data={path}")
        assert result.code == 2
        assert 'pairs.jsonl:2: has no "sentence_bad", only sentence_good; expected a pair' in result.err


class TestPseudoPerplexity:
    """A language model on texts."""

    def test_texts(self, pretrained, texts):
        found = maskwright.evaluate(pretrained, data=texts)
        assert found["task"] == "pseudo-perplexity"
        assert found["pseudo_perplexity"] == pytest.approx(math.exp(found["loss"]))
        small = maskwright.evaluate(pretrained, "batch_tokens=100", data=texts)
        assert small["loss"] == pytest.approx(found["loss"], rel=1e-5)
        first = maskwright.evaluate(pretrained, "sequences=1", data=texts)
        assert first["sequences"] == 1
        # The second text is longer than the 62 tokens that the model takes, and nothing of it is lost.
        assert found["sequences"] == 1 + math.ceil((found["tokens"] - first["tokens"]) / 62) > 2

    def test_a_field_of_json_lines(self, pretrained, texts, tmp_path):
        lines = [line for line in texts.read_text().splitlines() if line]
        rows = tiny_world.write_rows(tmp_path / "texts.jsonl", [{"body": line} for line in lines])
        found = maskwright.evaluate(pretrained, "task=pseudo-perplexity", "text_field=body", data=rows)
        assert found == maskwright.evaluate(pretrained, data=texts)

    def test_a_data_folder(self, pretrained, data_folder):
        settings = ("task=pseudo-perplexity", "sequence_length=32", "sequences=3")
        found = maskwright.evaluate(pretrained, *settings, data=data_folder)
        assert found["sequences"] == 3
        said = r'"scoring" is "word-l2r", but .* is a data folder, .*; set scoring=token, or give texts'
        with pytest.raises(ConfigError, match=said):
            maskwright.evaluate(pretrained, *settings, "scoring=word-l2r", data=data_folder)

    def test_a_sequence_longer_than_the_model(self, pretrained, texts):
        with pytest.raises(ConfigError, match=r'"sequence_length" is 65, but .* takes 64; lower it'):
            maskwright.evaluate(pretrained, "sequence_length=65", data=texts)

    def test_no_such_file(self, pretrained, tmp_path):
        with pytest.raises(DataError, match=r"texts\.txt: no such file; check the path"):
            maskwright.evaluate(pretrained, "task=pseudo-perplexity", data=tmp_path / "texts.txt")


class TestFit:
    """Models and tasks that do not go together."""

    def test_a_language_model_on_labelled_texts(self, pretrained, labelled):
        said = (
            r'test\.jsonl: is for classification \(it has "label"\), but .* is a masked language model; '
            "give a classifier, or set task=pseudo-perplexity"
        )
        with pytest.raises(ConfigError, match=said):
            maskwright.evaluate(pretrained, data=labelled["test"])
        found = maskwright.evaluate(
            pretrained, "task=pseudo-perplexity", "sequences=2", data=labelled["test"]
        )
        assert found["sequences"] == 2

    @pytest.mark.parametrize("task", ["auto", "minimal-pairs"])
    def test_a_classifier_on_pairs(self, finetuned, pairs, task):
        said = r"pairs\.jsonl: is for minimal-pairs \(.*\), but .* is a classifier; give a masked language"
        with pytest.raises(ConfigError, match=said):
            maskwright.evaluate(finetuned, f"task={task}", data=pairs)

    def test_a_classifier_on_a_data_folder(self, finetuned, data_folder):
        with pytest.raises(ConfigError, match=r"is for masked-lm \(a data folder\), but .* is a classifier"):
            maskwright.evaluate(finetuned, data=data_folder)


class TestOutput:
    """What is written, and that a run keeps what is its own."""

    def test_a_run_keeps_its_evaluation_and_predictions(self, finetuned, labelled, tmp_path):
        run = shutil.copytree(finetuned, tmp_path / "run")
        before = tiny_world.files_of(run)
        found = maskwright.evaluate(run, data=labelled["validation"], output=run)
        after = tiny_world.files_of(run)
        assert {name: after[name] for name in before} == before
        added = {"evaluation-classification.json", "predictions-classification.jsonl"}
        assert after.keys() - before.keys() == added
        assert json.loads(after["evaluation-classification.json"]) == found

    def test_a_pretraining_run_gets_a_file_a_task(self, pretrained, pairs, texts, tmp_path):
        run = shutil.copytree(pretrained, tmp_path / "run")
        for data in (pairs, texts):
            maskwright.evaluate(run, data=data, output=run)
        found = {path.name for path in run.iterdir()} - {path.name for path in pretrained.iterdir()}
        assert found == {"evaluation-minimal-pairs.json", "evaluation-pseudo-perplexity.json"}
