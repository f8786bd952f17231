"""Validation with fixed masks: comparable across runs and settings, by source, in flat memory."""

import gc
import json
import math
import random

import numpy as np
import pytest
import torch

import maskwright
import tiny_world
from maskwright.core.errors import DataError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.masking import FIXED_EPOCH, Masker, MaskingConfig
from maskwright.objectives.mlm import masked_lm_loss
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.evaluation import EvaluationConfig, Probes, Validation
from maskwright.training.evaluation.exported import validate_model
from maskwright.training.unigram import mixture_counts, unigram_loss

LENGTH = 32
SIZES = {"garden": 150, "harbour": 60, "kitchen": 8}


def prepare(folder, **changes):
    sources = []
    for number, (topic, count) in enumerate(SIZES.items()):
        chance = random.Random(number)
        rows = [{"text": tiny_world.text(chance, topic, 4 + chance.randrange(8))} for _ in range(count)]
        path = tiny_world.write_rows(folder / f"{topic}.jsonl", rows)
        sources.append({"path": str(path), "name": topic})
    values = {**tiny_world.PREPARE, "validation_share": 0.3, "corpus": {"sources": sources}, **changes}
    maskwright.prepare(values, output=folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    epochs = {"garden": 0.5, "harbour": 3, "kitchen": 0}
    return prepare(tmp_path_factory.mktemp("mixed"), mixture={"epochs": epochs})


@pytest.fixture(scope="module")
def tokenizer(plain):
    return Tokenizer.load(plain / "tokenizer")


@pytest.fixture(scope="module")
def model(tokenizer):
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH + 2,
    )
    model = MaskedLM(config)
    initialize(model, seed=0, std=0.2)
    return model


def validation(folder, *, sequence_length=LENGTH, num_sequences=24, batch_size=5, **more):
    data, tokenizer = open_split(folder, "validation"), Tokenizer.load(folder / "tokenizer")
    sizes = {"num_sequences": num_sequences, "batch_size": batch_size}
    return Validation(data, tokenizer, sequence_length=sequence_length, **sizes, **more)


def forward_of(model):
    @torch.no_grad()
    def forward(batch):
        losses, sums = masked_lm_loss(model, batch, train=False)
        return {"loss_sum": losses["loss"].item(), "correct": sums["correct"].item()}

    return forward


def counting(batches):
    """A forward pass that keeps what it was given and says that one of ten nats is lost a target."""

    def forward(batch):
        batches.append(batch)
        return {"loss_sum": 2.0 * len(batch.labels_M), "correct": 0.5 * len(batch.labels_M)}

    return forward


def test_sources_share_the_sequences_and_weigh_by_their_text(plain):
    found = validation(plain, num_sequences=40)
    data = open_split(plain, "validation")
    windows = {source.name: source.num_tokens // (LENGTH - 2) for source in data.sources}
    assert 1 <= windows["kitchen"] < 40 // 3
    assert found.sequences_by_source["kitchen"] == windows["kitchen"]
    assert found.sequences_by_source["garden"] == math.ceil((40 - windows["kitchen"]) / 2)
    assert sum(found.sequences_by_source.values()) == 40
    assert found.largest.data.sources[0].name == "garden"
    shares = {name: values["share"] for name, values in found.sources().items()}
    assert shares == pytest.approx({name: count / sum(windows.values()) for name, count in windows.items()})


def test_the_loss_of_all_is_the_mean_by_share(plain, model):
    found = validation(plain)
    record = found.measure(forward_of(model))
    sources = found.sources(record)
    for key in ("loss", "accuracy"):
        mean = sum(values["share"] * values[key] for values in sources.values())
        assert record[key] == pytest.approx(mean)
    assert len({values["loss"] for values in sources.values()}) == 3
    assert record["perplexity"] == pytest.approx(math.exp(record["loss"]))
    assert set(record) == {
        *("loss", "accuracy", "perplexity", "targets"),
        *(f"{key}/{name}" for key in ("loss", "accuracy", "perplexity") for name in SIZES),
    }
    json.dumps(record)


def test_measuring_everything_is_the_plain_mean_over_its_targets(plain, model):
    batches = []
    found = validation(plain, num_sequences=10**6)
    record = found.measure(counting(batches))
    assert record["targets"] == sum(len(batch.labels_M) for batch in batches)
    assert (record["loss"], record["accuracy"]) == pytest.approx((2.0, 0.5))
    record = found.measure(forward_of(model))
    plain_mean = sum(forward_of(model)(batch)["loss_sum"] for batch in batches) / record["targets"]
    # Weighed by windows, not by how many targets chance gave each source.
    assert record["loss"] == pytest.approx(plain_mean, rel=0.02)


def test_batches_seed_of_the_run_and_mixture_change_nothing(plain, mixed, model):
    exact = validation(plain).measure(forward_of(model))
    for other in (validation(plain, batch_size=1), validation(plain, batch_size=64), validation(mixed)):
        assert other.measure(forward_of(model)) == pytest.approx(exact, rel=1e-5)


def test_masks_are_those_of_the_place_in_the_corpus(plain, tokenizer):
    data = open_split(plain, "validation")
    masker = Masker(MaskingConfig(), 0, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
    batches = []
    validation(plain, num_sequences=3, batch_size=1).measure(counting(batches))
    for batch, source in zip(batches, data.sources, strict=True):
        ids = data.tokens(source.first, LENGTH - 2)
        chosen = masker.select(ids, source.first + np.arange(LENGTH - 2), FIXED_EPOCH)
        assert batch.labels_M.tolist() == ids[chosen].tolist()


def test_another_seed_has_other_masks_and_a_rate_its_share(plain):
    def labels(**more):
        batches = []
        validation(plain, **more).measure(counting(batches))
        return [batch.labels_M.tolist() for batch in batches]

    assert labels() == labels(seed=0) != labels(seed=1)
    few, many = (sum(map(len, labels(mlm_probability=share))) for share in (0.05, 0.6))
    assert few * 4 < many


def test_one_source_has_no_names(data_folder, tokenizer):
    found = validation(data_folder)
    record = found.measure(counting([]))
    assert set(record) == {"loss", "accuracy", "perplexity", "targets"}
    assert found.sources(record) == {}
    assert list(found.baseline(np.ones(tokenizer.vocab_size))) == ["unigram_loss"]


def test_sources_can_be_left_unsaid(plain):
    found = validation(plain, per_source=False)
    record = found.measure(counting([]))
    assert set(record) == {"loss", "accuracy", "perplexity", "targets"}
    assert found.sources(record) == {}


def test_the_baseline_is_on_the_same_targets(plain, tokenizer):
    batches, found = [], validation(plain)
    found.measure(counting(batches))
    counts = open_split(plain, "train").token_counts()
    baseline = found.baseline(counts)
    shares = {name: values["share"] for name, values in found.sources().items()}
    mean = sum(share * baseline[f"unigram_loss/{name}"] for name, share in shares.items())
    assert baseline["unigram_loss"] == pytest.approx(mean)
    kitchen = [batch.labels_M.numpy() for batch in batches[-1:]]
    if found.sequences_by_source["kitchen"] <= 5:
        expected = unigram_loss(counts, kitchen, tokenizer.special_ids)
        assert baseline["unigram_loss/kitchen"] == pytest.approx(expected)


def test_memory_does_not_grow_with_the_batches(plain, model):
    """Between batches nothing lives on but the batch itself, and no logits of an earlier one."""
    alive = []
    forward = forward_of(model)
    gc.collect()
    before = [value for value in gc.get_objects() if type(value) is torch.Tensor]  # other tests' own
    known = set(map(id, before))

    def watching(batch):
        sums = forward(batch)
        gc.collect()
        tensors = [
            value for value in gc.get_objects() if type(value) is torch.Tensor and id(value) not in known
        ]
        alive.append((max(value.numel() for value in tensors), sum(value.numel() for value in tensors)))
        return sums

    # Batches differ in how many targets chance gave them, and in nothing else.
    slack = 2 * LENGTH * 4
    found = validation(plain, num_sequences=40, batch_size=4, per_source=False)
    found.measure(watching)
    assert len(alive) >= 8
    # The ids of one batch are the largest; its logits alone would be more than ten times that.
    assert max(largest for largest, _ in alive) == 4 * LENGTH
    assert max(total for _, total in alive[1:]) <= alive[0][1] + slack


def test_a_source_shorter_than_a_sequence_is_named(plain, caplog):
    tokens = {source.name: source.num_tokens for source in open_split(plain, "validation").sources}
    length = tokens["kitchen"] + 3
    found = validation(plain, sequence_length=length)
    assert "kitchen" not in found.sequences_by_source
    said = (
        f"source 'kitchen' is not evaluated: its {tokens['kitchen']} tokens of split 'validation' are fewer"
    )
    assert said in caplog.text


def test_data_shorter_than_a_sequence(plain, data_folder):
    with pytest.raises(DataError, match=r"has \d+ tokens, but no source has as many as one sequence \(99998"):
        validation(plain, sequence_length=100_000)
    with pytest.raises(DataError, match=r"has \d+ tokens, fewer than one sequence \(99998 and two specials"):
        validation(data_folder, sequence_length=100_000)


def test_every_source_has_a_sequence_even_if_one_was_asked_for(plain):
    assert validation(plain, num_sequences=1).sequences_by_source == dict.fromkeys(SIZES, 1)


def test_a_loss_beyond_floats_is_no_error(plain):
    def forward(batch):
        return {"loss_sum": 1e6 * len(batch.labels_M), "correct": 0.0}

    assert validation(plain).measure(forward)["perplexity"] == pytest.approx(math.exp(700))


class TestMixtureCounts:
    """Token frequencies of what training sees."""

    def test_an_even_mixture_has_the_stored_counts(self, plain):
        training = open_split(plain, "train")
        assert mixture_counts(training).tolist() == training.token_counts().tolist()

    def test_a_mixture_counts_each_source_as_often_as_it_occurs(self, mixed):
        training = open_split(mixed, "train")
        expected = np.zeros(len(training.token_counts()))
        for source in training.sources:
            ids = training.tokens(source.first, source.num_tokens)
            expected += source.repeats * np.bincount(ids, minlength=len(expected))
        assert mixture_counts(training) == pytest.approx(expected)

    def test_a_sample_is_near_the_whole(self, mixed):
        training = open_split(mixed, "train")
        exact, found = mixture_counts(training), mixture_counts(training, sample_tokens=1024)
        assert found.sum() == pytest.approx(exact.sum())
        assert found != pytest.approx(exact)
        assert np.abs(found - exact).sum() / exact.sum() < 0.25


class TestProbes:
    """Pseudo-perplexity and minimal pairs of a run."""

    def config(self, tmp_path, **more):
        rows = [
            {"sentence_good": "The rose is green.", "sentence_bad": "The rose are green.", "UID": "u"},
            {"sentence_good": "The gull is grey.", "sentence_bad": "The gull are grey.", "UID": "u"},
        ]
        path = tiny_world.write_rows(tmp_path / "pairs.jsonl", rows)
        return EvaluationConfig(minimal_pairs=str(path), pseudo_perplexity_sequences=4, **more)

    def test_in_full_and_flat(self, tmp_path, plain, tokenizer, model):
        probes = Probes(self.config(tmp_path), tokenizer, validation(plain))
        full, flat = probes.measure(model), probes.while_training(model)
        assert full["minimal_pairs"]["count"] == 2
        assert full["pseudo_perplexity"] > 1
        assert flat == {
            "pseudo_perplexity": full["pseudo_perplexity"],
            "minimal_pairs": full["minimal_pairs"]["accuracy"]["value"],
            "minimal_pairs/u": full["minimal_pairs"]["accuracy"]["value"],
        }

    def test_every_so_many_validations(self, tmp_path, plain, tokenizer, model):
        config = self.config(tmp_path, probe_every=3, pairs_per_paradigm=1)
        probes = Probes(config, tokenizer, validation(plain))
        assert [bool(probes.while_training(model)) for _ in range(6)] == [False, False, True] * 2
        assert probes.measure(model)["minimal_pairs"]["count"] == 1

    def test_a_compiled_model_runs_as_written(self, tmp_path, plain, tokenizer, model):
        compiled = []

        def backend(graph, inputs):
            compiled.append(graph)
            return graph.forward

        probes = Probes(self.config(tmp_path), tokenizer, validation(plain))
        expected = probes.measure(model)
        part = model.head_norm
        model.head_norm = torch.compile(part, backend=backend)
        try:
            assert probes.measure(model) == expected
            assert not compiled
            validation(plain, num_sequences=1).measure(forward_of(model))
            assert compiled  # it would have been, otherwise
        finally:
            model.head_norm = part

    def test_none_by_default(self, plain, tokenizer, model):
        probes = Probes(EvaluationConfig(), tokenizer, validation(plain))
        assert probes.measure(model) == probes.while_training(model) == {}

    def test_pseudo_perplexity_is_of_the_first_windows_of_each_source(self, plain):
        found, data = validation(plain), open_split(plain, "validation")
        windows = found.windows(3)
        for window, source in zip(windows, data.sources, strict=True):
            assert window[1:-1].tolist() == data.tokens(source.first, LENGTH - 2).tolist()


def test_a_model_on_data_of_several_sources(plain, model):
    found = validate_model(model, validation(plain))
    assert list(found["sources"]) == list(SIZES)
    for values in found["sources"].values():
        assert set(values) == {"share", "sequences", "loss", "accuracy", "perplexity", "unigram_loss"}
    assert found["unigram_loss"] < math.log(400)
