"""Classification with BERT-shaped models: pairs with one separator and token types, from data to answers."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import maskwright
import tiny_world
from maskwright.core.errors import CheckpointError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.hf import export_model
from maskwright.model.layout import Layout
from maskwright.tasks.classification.batches import (
    ROBERTA_PAIRS,
    ExampleStream,
    PairForm,
    classification_loss,
    encode_texts,
    pair_form,
    sorted_batches,
)
from maskwright.tasks.classification.predictor import ClassificationPredictor
from maskwright.tokens.tokenizer import Tokenizer

BERT_PAIRS = PairForm(num_separators=1, token_types=True)
SHAPE = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
FIRST = ["The rose", "a", "The captain steers the ferry in the morning.", "", "The cook boils"]
SECOND = ["An oven", "The muddy hedge feeds the gull", "", "b", "The ripe onion!"]


def write_pairs(path, count):
    """Pairs of sentences; the label says whether both are of one topic."""
    chance, names = random.Random(count), sorted(tiny_world.TOPICS)
    rows = []
    for number in range(count):
        one = chance.choice(names)
        other = one if number % 2 else chance.choice([name for name in names if name != one])
        row = {"text": tiny_world.sentence(chance, one), "second": tiny_world.sentence(chance, other)}
        rows.append({**row, "label": "same" if number % 2 else "other"})
    return tiny_world.write_rows(path, rows)


@pytest.fixture(scope="module")
def tokenizer():
    chance = random.Random(3)
    texts = [tiny_world.text(chance, topic, 40) for topic in sorted(tiny_world.TOPICS)]
    return Tokenizer.train(texts, 300, "wordpiece")


@pytest.fixture(scope="module")
def shape(tokenizer):
    return EncoderConfig(**SHAPE, vocab_size=tokenizer.vocab_size)


@pytest.fixture(scope="module")
def encoder(tokenizer, shape, tmp_path_factory):
    """A masked language model of BERT's kind, as others publish it."""
    folder = tmp_path_factory.mktemp("bert") / "model"
    model = MaskedLM(shape.replace(pooler=True))
    initialize(model, 7, 0.1)
    export_model(folder, model, model.config)
    tokenizer.save(folder, shape.max_length)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    counts = {"train": 60, "validation": 40}
    return {name: str(write_pairs(folder / f"{name}.jsonl", count)) for name, count in counts.items()}


@pytest.fixture(scope="module")
def run(encoder, pairs, tmp_path_factory):
    """A classifier of pairs, fine-tuned from the encoder."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    values = {
        **tiny_world.FINETUNE,
        "model": str(encoder),
        "data": {**pairs, "text_b_field": "second"},
        "epochs": 2,
    }
    maskwright.finetune(values, output=folder)
    return folder


@pytest.fixture
def published(tokenizer, shape, tmp_path):
    """A classifier that `transformers` made and saved, with weights large enough to tell faults."""
    transformers = pytest.importorskip("transformers")
    names = ("model_type", "next_sentence", "pooler")
    values = {name: value for name, value in shape.model_dump().items() if name not in names}
    config = transformers.BertConfig(**values, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    torch.manual_seed(1)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path / "published")
    tokenizer.save(tmp_path / "published", shape.max_length)
    return tmp_path / "published", model


class TestForm:
    """How each kind of model reads a pair."""

    def test_only_bert_has_one_separator(self, shape):
        assert pair_form(shape) == BERT_PAIRS
        assert pair_form(shape.replace(type_vocab_size=1)) == PairForm(1, token_types=False)
        for kind in ("roberta", "xlm-roberta", "camembert"):
            assert pair_form(EncoderConfig(model_type=kind)) == ROBERTA_PAIRS
            assert pair_form(EncoderConfig(model_type=kind, type_vocab_size=2)) == ROBERTA_PAIRS

    def test_one_text_and_a_pair(self, tokenizer):
        a, b = (tokenizer.encode(text).tolist() for text in ("The rose", "An oven"))
        cls, sep = tokenizer.bos_id, tokenizer.eos_id
        single = encode_texts(tokenizer, ["The rose"], None, 32, BERT_PAIRS)
        assert single.rows[0].tolist() == [cls, *a, sep]
        assert single.first_lengths is None
        pair = encode_texts(tokenizer, ["The rose"], ["An oven"], 32, BERT_PAIRS)
        assert pair.rows[0].tolist() == [cls, *a, sep, *b, sep]
        assert pair.first_lengths.tolist() == [len(a) + 2]
        untyped = encode_texts(tokenizer, ["The rose"], ["An oven"], 32, PairForm(1, token_types=False))
        assert untyped.first_lengths is None

    @settings(deadline=None)
    @given(first=st.integers(0, 40), second=st.integers(0, 40), max_length=st.integers(5, 40))
    def test_what_is_too_long_is_cut_to_fit(self, tokenizer, first, second, max_length):
        texts = (["! " * first], ["; " * second])  # signs never merge
        encoded = encode_texts(tokenizer, *texts, max_length, BERT_PAIRS)
        (row,), (length,) = encoded.rows, encoded.first_lengths
        assert len(row) == min(max_length, first + second + 3)
        assert (row[[0, length - 1, -1]] == [tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_id]).all()
        assert (row[1 : length - 1] == tokenizer.encode("!")[0]).all()
        assert (row[length:-1] == tokenizer.encode(";")[0]).all()
        assert encoded.num_truncated == (first + second + 3 > max_length)

    @pytest.mark.parity
    def test_the_tokenizer_of_transformers_writes_pairs_alike(self, encoder, tokenizer, shape):
        transformers = pytest.importorskip("transformers")
        theirs = transformers.AutoTokenizer.from_pretrained(encoder)(FIRST, SECOND)
        ours = encode_texts(tokenizer, FIRST, SECOND, shape.max_length, pair_form(shape))
        assert [row.tolist() for row in ours.rows] == theirs["input_ids"]
        types = [
            (np.arange(len(row)) >= n).tolist() for row, n in zip(ours.rows, ours.first_lengths, strict=True)
        ]
        assert types == theirs["token_type_ids"]


class TestBatches:
    """Token types stay with their examples."""

    rows = tuple(np.array([2, *[10 + number] * number, 3, 50 + number, 3]) for number in range(9))
    first_lengths = np.arange(9) + 2

    def stream(self, micro=4, first_lengths=first_lengths):
        return ExampleStream(self.rows, list(range(9)), 0, 4, micro, first_lengths)

    def assert_types(self, batch):
        expected = [
            [0] * (label + 2) + [1, 1] for label in batch.labels_B.tolist()
        ]  # each label is the number of its row
        assert batch.token_types_N.tolist() == [kind for row in expected for kind in row]
        assert batch.token_types_N.dtype == torch.int64

    @pytest.mark.parametrize("micro", [1, 3, 4])
    def test_in_training(self, micro):
        stream = self.stream(micro)
        for _ in range(5):
            for batch in stream.next_step():
                self.assert_types(batch)

    def test_in_evaluation(self):
        numbers = []
        for chosen, batch in sorted_batches(
            self.rows[::-1], list(range(9))[::-1], 4, self.first_lengths[::-1]
        ):
            self.assert_types(batch)
            numbers += chosen.tolist()
        assert sorted(numbers) == list(range(9))

    def test_none_where_there_are_none(self):
        (batch,) = self.stream(first_lengths=None).next_step()
        assert batch.token_types_N is None

    def test_a_place_of_examples_with_other_types_is_refused(self):
        state = self.stream().state()
        self.stream().restore(state)
        for other in (None, self.first_lengths - 1):
            with pytest.raises(CheckpointError, match=r"made with data '\w+', now it is '\w+'"):
                self.stream(first_lengths=other).restore(state)


@pytest.mark.parity
class TestParity:
    """The same numbers as `BertForSequenceClassification`."""

    def expected(self, folder, model, *texts):
        transformers = pytest.importorskip("transformers")
        encoded = transformers.AutoTokenizer.from_pretrained(folder)(
            *texts, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            return model(**encoded).logits

    def test_logits_of_pairs(self, published):
        folder, reference = published
        expected = self.expected(folder, reference, FIRST, SECOND)
        predictor = ClassificationPredictor(folder)
        encoded = encode_texts(predictor.tokenizer, FIRST, SECOND, 40, pair_form(predictor.model.config))
        found, untyped = torch.empty_like(expected), torch.empty_like(expected)
        labels = [0] * len(FIRST)
        with torch.no_grad():
            for chosen, batch in sorted_batches(encoded.rows, labels, 2, encoded.first_lengths):
                layout = Layout(batch.lengths)
                found[chosen] = predictor.model(batch.ids_N, layout, None, batch.token_types_N)
                untyped[chosen] = predictor.model(batch.ids_N, layout)
        assert (found - expected).abs().max() <= 1e-5
        assert (untyped - expected).abs().max() > 1e-2  # so the types are what makes them equal

    @pytest.mark.parametrize("texts", [(FIRST,), (FIRST, SECOND)])
    def test_probabilities(self, published, texts):
        folder, reference = published
        expected = self.expected(folder, reference, *texts).softmax(-1).numpy()
        predictor = ClassificationPredictor(folder)
        assert np.abs(predictor.probabilities(*texts) - expected).max() <= 1e-5
        assert predictor.labels == ["a", "b", "c"]

    def test_loss_and_gradients(self, published):
        folder, reference = published
        labels = torch.tensor([0, 2, 1, 1, 0])
        transformers = pytest.importorskip("transformers")
        encoded = transformers.AutoTokenizer.from_pretrained(folder)(
            FIRST, SECOND, padding=True, return_tensors="pt"
        )
        reference(**encoded, labels=labels).loss.backward()
        predictor = ClassificationPredictor(folder)
        texts = encode_texts(predictor.tokenizer, FIRST, SECOND, 40, BERT_PAIRS)
        stream = ExampleStream(texts.rows, labels.tolist(), 0, 5, 5, texts.first_lengths)
        (batch,) = stream.next_step()
        losses, _ = classification_loss(predictor.model, batch, train=False)
        (losses["loss"] / 5).backward()
        ours = predictor.model.encoder.embeddings.token_type.weight.grad
        theirs = reference.bert.embeddings.token_type_embeddings.weight.grad
        assert theirs[1].abs().max() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1)

    def test_the_export_of_a_run(self, run):
        transformers = pytest.importorskip("transformers")
        folder = run / "export"
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        assert type(model).__name__ == "BertForSequenceClassification"
        expected = self.expected(folder, model, FIRST, SECOND).softmax(-1).numpy()
        assert np.abs(maskwright.load(run).probabilities(FIRST, SECOND) - expected).max() <= 1e-5

    def test_a_classifier_whose_names_of_classes_are_the_default(self, published):
        """`transformers` writes no names into a config of two classes without names."""
        folder, _ = published
        config = json.loads((folder / "config.json").read_text())
        transformers = pytest.importorskip("transformers")
        transformers.BertForSequenceClassification(
            transformers.BertConfig(**{k: v for k, v in config.items() if k not in ("id2label", "label2id")})
        ).save_pretrained(folder)
        assert "id2label" not in json.loads((folder / "config.json").read_text())
        assert ClassificationPredictor(folder).labels == ["LABEL_0", "LABEL_1"]


class TestRun:
    """Fine-tuning, evaluating and predicting with pairs."""

    def test_the_last_validation_is_what_the_exported_model_gives(self, run, pairs):
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = [record for record in records if record["kind"] == "evaluation"][-1]
        report = maskwright.evaluate(run, "text_b_field=second", data=pairs["validation"])
        assert report["accuracy"]["value"] == pytest.approx(last["accuracy"], abs=1e-9)
        written = json.loads((run / "evaluation.json").read_text())
        assert written["accuracy"]["value"] == report["accuracy"]["value"]
        assert written["labels"] == ["other", "same"]

    def test_the_second_type_is_trained(self, run, encoder):
        name = "bert.embeddings.token_type_embeddings.weight"
        before, after = (
            load_file(folder / "model.safetensors")[name] for folder in (encoder, run / "export")
        )
        assert ((before - after).abs().amax(1) > 1e-3).all()

    def test_answers(self, run):
        answers = maskwright.load(run).predict(FIRST, SECOND)
        assert [set(answer["scores"]) for answer in answers] == [{"other", "same"}] * len(FIRST)
        swapped = maskwright.load(run).probabilities(SECOND, FIRST)
        assert np.abs(swapped - maskwright.load(run).probabilities(FIRST, SECOND)).max() > 1e-6

    def test_the_pooler_of_the_encoder_is_taken_over(self, encoder, pairs, tmp_path):
        values = {
            **tiny_world.FINETUNE,
            "model": str(encoder),
            "data": {**pairs, "text_b_field": "second"},
            "epochs": 0.2,
            "optimizer": {"lr": 1e-12},
        }
        maskwright.finetune(values, output=tmp_path / "run")
        name = "bert.pooler.dense.weight"
        before = load_file(encoder / "model.safetensors")[name]
        after = load_file(tmp_path / "run" / "export" / "model.safetensors")[name]
        assert (before - after).abs().max() < 1e-6
