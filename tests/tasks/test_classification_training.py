"""Fine-tuning for classification: batches, a run and its resumption, the export, the predictor."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import CheckpointError, ConfigError, DataError, Interrupted, TokenizerError
from maskwright.tasks.classification.batches import ExampleStream, encode_texts, sorted_batches
from maskwright.tasks.classification.finetune import FinetuneConfig, find_model, run_finetuning
from maskwright.tasks.classification.predictor import ClassificationPredictor
from maskwright.tokens.tokenizer import Tokenizer

TOPICS = ["garden", "harbour", "kitchen"]


@pytest.fixture(scope="module")
def tokenizer(data_folder):
    return Tokenizer.load(data_folder / "tokenizer")


@pytest.fixture
def values(pretrained, labelled):
    return {**tiny_world.FINETUNE, "model": str(pretrained), "data": dict(labelled)}


def read_rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def weights(folder):
    return load_file(folder / "export" / "model.safetensors")


def assert_equal_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class TestEncoding:
    """Texts and pairs as ids that fit."""

    def test_one_text_and_a_pair(self, tokenizer):
        a, b = (tokenizer.encode(text).tolist() for text in ("The rose", "An oven"))
        single = encode_texts(tokenizer, ["The rose", ""], None, 32)
        assert [row.tolist() for row in single.rows] == [[0, *a, 2], [0, 2]]
        pair = encode_texts(tokenizer, ["The rose"], ["An oven"], 32)
        assert [row.tolist() for row in pair.rows] == [[0, *a, 2, 2, *b, 2]]
        assert (single.num_truncated, pair.num_truncated) == (0, 0)
        assert encode_texts(tokenizer, [], None, 32).rows == []

    @settings(deadline=None)
    @given(first=st.integers(0, 40), second=st.integers(0, 40) | st.none(), max_length=st.integers(5, 40))
    def test_what_is_too_long_is_cut_to_fit(self, tokenizer, first, second, max_length):
        # Digits of this kind never merge, so a text has as many tokens as characters.
        texts_b = None if second is None else ["\x01" * second]
        (row,) = encode_texts(tokenizer, ["\x02" * first], texts_b, max_length).rows
        kept_a = (row == tokenizer.encode("\x02")[0]).sum()
        kept_b = (row == tokenizer.encode("\x01")[0]).sum()
        room = max_length - (2 if second is None else 4)
        assert len(row) <= max_length
        assert kept_a + kept_b == min(room, first + (second or 0))
        if second is not None and first + second > room:
            # The longer one is cut, to half of the room at the lowest.
            assert kept_a == first or kept_a >= room // 2
            assert kept_b == second or kept_b >= room // 2

    def test_cut_texts_are_counted(self, tokenizer):
        assert (
            encode_texts(tokenizer, ["The rose " * 20, "The", "An oven " * 20], None, 16).num_truncated == 2
        )


class TestOrder:
    """Examples in keyed order, each once an epoch, however a step is cut."""

    rows = tuple(np.array([0, 10 + number, 2]) for number in range(11))

    def stream(self, seed=0, batch=4, micro=4):
        return ExampleStream(self.rows, list(range(11)), seed, batch, micro)

    def labels(self, stream, steps):
        return [
            label for _ in range(steps) for batch in stream.next_step() for label in batch.labels_B.tolist()
        ]

    def test_each_example_once_an_epoch(self):
        order = self.labels(self.stream(), 11)
        epochs = [order[start : start + 11] for start in range(0, 44, 11)]
        assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4
        assert order != self.labels(self.stream(seed=1), 11)

    @pytest.mark.parametrize("micro", [1, 3, 100])
    def test_micro_batches_change_nothing(self, micro):
        whole, parts = self.stream(), self.stream(micro=micro)
        for _ in range(5):
            (one,), several = whole.next_step(), parts.next_step()
            assert torch.equal(one.ids_N, torch.cat([batch.ids_N for batch in several]))
            assert torch.equal(one.labels_B, torch.cat([batch.labels_B for batch in several]))
            assert one.dropout.rows.tolist() == [key for batch in several for key in batch.dropout.rows]
            assert sum(batch.num_targets for batch in several) == one.num_targets == 4
            assert sum(batch.num_tokens for batch in several) == one.num_tokens == 12

    def test_dropout_keys_never_repeat(self):
        stream = self.stream()
        keys = [key for _ in range(50) for batch in stream.next_step() for key in batch.dropout.rows.tolist()]
        assert len(set(keys)) == 200

    def test_a_saved_place_is_reached_at_once(self):
        stream = self.stream()
        self.labels(stream, 7)
        again = self.stream()
        again.restore(stream.state())
        assert self.labels(again, 3) == self.labels(stream, 3)

    def test_a_place_of_other_examples_or_another_seed_is_refused(self):
        state = self.stream().state()
        with pytest.raises(
            CheckpointError, match="the checkpoint was made with seed 0, now it is 1; resume with"
        ):
            self.stream(seed=1).restore(state)
        other = ExampleStream(self.rows, [0] * 11, 0, 4, 4)
        with pytest.raises(CheckpointError, match=r"made with data '\w+', now it is '\w+'"):
            other.restore(state)

    def test_batches_for_evaluation_are_sorted_by_length(self):
        rows = [np.arange(length) for length in (5, 2, 9, 2, 7)]
        found = [(numbers.tolist(), batch) for numbers, batch in sorted_batches(rows, [0, 1, 2, 3, 4], 2)]
        assert [numbers for numbers, _ in found] == [[1, 3], [0, 4], [2]]
        assert [batch.labels_B.tolist() for _, batch in found] == [[1, 3], [0, 4], [2]]


def test_what_a_run_leaves(finetuned, labelled):
    names = {path.name for path in finetuned.iterdir()}
    assert names == {
        *("config.yaml", "metrics.jsonl", "events", "checkpoints", "export"),
        *("evaluation.json", "predictions.jsonl", "report.html"),
    }
    evaluation = json.loads((finetuned / "evaluation.json").read_text())
    assert evaluation["split"] == "test"
    assert evaluation["num_examples"] == {"train": 90, "validation": 30, "test": 30}
    assert evaluation["steps"] == 17  # 3 epochs of 90 in batches of 16, rounded up
    predictions = read_rows(finetuned / "predictions.jsonl")
    assert [row["label"] for row in predictions] == [row["label"] for row in read_rows(labelled["test"])]
    right = np.mean([row["label"] == row["predicted"] for row in predictions])
    assert evaluation["accuracy"]["value"] == pytest.approx(right)


def test_topics_are_learned(values, tmp_path):
    changes = ("epochs=12", "optimizer.lr=1e-2", "batch_size=4")
    evaluation = maskwright.finetune(values, *changes, output=tmp_path / "run")
    assert evaluation["accuracy"]["value"] > 0.9


def test_random_weights_take_shape_and_tokenizer_alone(values, tmp_path):
    maskwright.finetune(values, "random_weights=true", "optimizer.lr=1e-12", output=tmp_path / "random")
    maskwright.finetune(values, "optimizer.lr=1e-12", output=tmp_path / "given")
    name = "roberta.embeddings.word_embeddings.weight"
    source = load_file(find_model(values["model"]) / "model.safetensors")[name]
    assert (weights(tmp_path / "given")[name] - source).abs().max() < 1e-6
    assert (weights(tmp_path / "random")[name] - source).abs().max() > 0.01
    head = "classifier.dense.weight"
    assert (weights(tmp_path / "given")[head] - weights(tmp_path / "random")[head]).abs().max() < 1e-6


class StopAt:
    """Asks the run to stop at a training record."""

    def __init__(self, step):
        self.step = step

    def record(self, record):
        if record["kind"] == "train" and record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self):
        pass


@pytest.mark.parametrize("stop", [1, 6, 16])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(values, finetuned, tmp_path, stop):
    config = parse_config(FinetuneConfig, values, "test")
    with pytest.raises(Interrupted, match=f"stopped by SIGINT at step {stop} of 17"):
        run_finetuning(config, tmp_path, [StopAt(stop)])
    assert not (tmp_path / "evaluation.json").exists()
    run_finetuning(config, tmp_path)
    assert_equal_weights(tmp_path, finetuned)


def test_the_same_settings_give_the_same_weights(values, finetuned, tmp_path):
    maskwright.finetune(values, output=tmp_path / "again")
    assert_equal_weights(tmp_path / "again", finetuned)


def test_other_settings_are_refused_when_a_run_goes_on(values, finetuned):
    with pytest.raises(ConfigError, match=r"begun with other settings \(epochs was 3\.0, now 4\.0\)"):
        maskwright.finetune(values, "epochs=4", output=finetuned, resume=True)


def test_changed_training_texts_are_refused_when_a_run_goes_on(values, finetuned, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    changed = tiny_world.write_labelled(tmp_path / "labelled", train=60)
    text = (folder / "config.yaml").read_text()
    for split, path in changed.items():
        text = text.replace(values["data"][split], path)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"the checkpoint was made with data '\w+', now it is"):
        maskwright.finetune({**values, "data": changed}, output=folder, resume=True)


def test_a_label_that_training_never_saw(values, tmp_path):
    for split in ("validation", "test"):
        rows = [*read_rows(values["data"][split]), {"text": "The moon", "label": "kitchens"}]
        path = tiny_world.write_rows(tmp_path / f"{split}.jsonl", rows)
        changed = {**values, "data": {**values["data"], split: str(path)}}
        said = rf'{split}\.jsonl:31: the training data has no label "kitchens"; did you mean "kitchen"\?'
        with pytest.raises(DataError, match=said):
            maskwright.finetune(changed, output=tmp_path / split)
        assert not (tmp_path / split).exists()


def test_a_share_of_the_training_texts_validates_where_nothing_else_is_given(values, tmp_path):
    changed = {**values, "data": {"train": values["data"]["train"]}, "epochs": 1}
    evaluation = maskwright.finetune(changed, output=tmp_path / "run")
    assert evaluation["split"] == "validation"
    assert evaluation["num_examples"] == {"train": 81, "validation": 9, "test": 9}


def test_pairs(values, tmp_path):
    paths = {}
    for split, path in values["data"].items():
        rows = [{**row, "other": "The oven."} for row in read_rows(path)]
        paths[split] = str(tiny_world.write_rows(tmp_path / f"{split}.jsonl", rows))
    changed = {**values, "data": {**paths, "text_b_field": "other"}, "epochs": 1}
    maskwright.finetune(changed, output=tmp_path / "run")
    predictor = ClassificationPredictor(tmp_path / "run" / "export")
    (one,), (other,) = predictor.predict(["The rose"], ["The oven."]), predictor.predict(["The rose"], ["x"])
    assert one["scores"] != other["scores"]


def test_cut_texts_are_told(values, tmp_path, caplog):
    maskwright.finetune(values, "max_length=8", "epochs=1", output=tmp_path / "run")
    assert "90 of 90 train texts were cut to 8 tokens" in caplog.text
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["num_truncated"] == {"train": 90, "validation": 30, "test": 30}


def test_no_model_to_start_from(values, tmp_path, data_folder):
    for path in (tmp_path, data_folder):
        said = "holds no exported model; give a finished run or a Hugging Face folder"
        with pytest.raises(CheckpointError, match=said):
            maskwright.finetune({**values, "model": str(path)}, output=tmp_path / "run" / path.name)


def test_vocabulary_and_model_disagree(values, pretrained, tmp_path):
    folder = shutil.copytree(pretrained / "export", tmp_path / "model")
    Tokenizer.train(["other text"] * 3, 300).save(folder)
    for use in (
        lambda: maskwright.finetune({**values, "model": str(folder)}, output=tmp_path / "run"),
        lambda: maskwright.load(folder),
    ):
        with pytest.raises(
            TokenizerError, match=r"model: the model has 400 vocabulary entries, the tokenizer 2\d\d"
        ):
            use()


@pytest.mark.parity
def test_transformers_gives_the_same_probabilities(finetuned, labelled):
    transformers = pytest.importorskip("transformers")
    folder = finetuned / "export"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [row["text"] for row in read_rows(labelled["test"])][:12]
    with torch.no_grad():
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        expected = model(**encoded).logits.softmax(-1)
    predictor = ClassificationPredictor(folder)
    assert np.abs(predictor.probabilities(texts) - expected.numpy()).max() < 1e-5
    assert list(model.config.id2label.values()) == predictor.labels == TOPICS


class TestPredictor:
    """A classifier loaded for use."""

    def test_answers(self, finetuned):
        predictor = maskwright.load(finetuned)
        answers = predictor.predict(["The cook boils the onion.", "The ferry", ""])
        for answer in answers:
            assert list(answer) == ["label", "probability", "scores"]
            shares = list(answer["scores"].values())
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) == pytest.approx(1, abs=1e-6)
            assert (answer["label"], answer["probability"]) == next(iter(answer["scores"].items()))
        assert predictor.predict([]) == []

    def test_an_answer_does_not_depend_on_its_neighbours(self, finetuned):
        predictor = ClassificationPredictor(finetuned / "export")
        texts = ["The cook boils the onion.", "The ferry " * 9, "x"]
        together = predictor.probabilities(texts)
        alone = np.concatenate([predictor.probabilities([text]) for text in texts])
        assert np.abs(together - alone).max() < 1e-6

    def test_a_masked_language_model_is_no_classifier(self, pretrained):
        with pytest.raises(
            CheckpointError, match="export: is not a classifier; fine-tune one with maskwright"
        ):
            ClassificationPredictor(pretrained / "export")

    def test_a_model_of_another_kind(self, finetuned, tmp_path):
        folder = shutil.copytree(finetuned / "export", tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["RobertaForTokens"]}))
        with pytest.raises(CheckpointError, match="holds a RobertaForTokens, which predict does not know"):
            maskwright.load(folder)
