"""Short pretraining runs of each variant: they end, say what they did, and go on bit for bit after a stop."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_world import prepare_sentences

import tiny_world
from maskwright.core.config import apply_overrides, parse_config
from maskwright.core.errors import Interrupted
from maskwright.objectives.mlm import MaskedLMStream, masked_lm_loss
from maskwright.parallel.single import SingleEngine
from maskwright.training import loop, pretraining
from maskwright.training.optimizers import optimizer_factory
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.pretrain_setting import build_model, open_setting, prepare_for_device
from maskwright.training.pretraining import run_pretraining

STEPS = 6
SHORT = ("steps=6", "log_every_steps=1", "checkpoint.every_steps=100", "evaluation.every_steps=100")


@pytest.fixture(autouse=True)
def no_peak(monkeypatch):
    monkeypatch.setattr(pretraining, "measure_matrix_peak", lambda device, precision: 1e10)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    return prepare_sentences(tmp_path_factory.mktemp("sentences"))


class StopAt:
    """Asks the run to stop at a training record."""

    def __init__(self, step):
        self.step = step

    def record(self, record):
        if record["kind"] == "train" and record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self):
        pass


def config_of(folder, *overrides, **values):
    base = {**tiny_world.PRETRAIN, "data": str(folder), **values}
    return parse_config(PretrainConfig, apply_overrides(base, [*SHORT, *overrides]), "test")


def run(folder, config, hooks=()):
    folder.mkdir(exist_ok=True)
    return run_pretraining(config, folder, hooks=hooks)


def records(folder, kind="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def check_resumed(folder, config, stop=3):
    """Run whole, and stopped and resumed; returns the summary of the whole run."""
    summary = run(folder / "whole", config)
    with pytest.raises(Interrupted):
        run(folder / "cut", config, [StopAt(stop)])
    run(folder / "cut", config)
    one, other = (load_file(folder / name / "export" / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.isfinite().all()
        assert torch.equal(value, other[name]), name
    losses = [[record["loss"] for record in records(folder / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert np.isfinite(losses[0]).all()
    assert not [one for one in records(folder / "whole", "event") if not one["message"].startswith("samples")]
    return summary


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_every_optimiser_goes_on_bit_for_bit(data_folder, tmp_path, optimizer, precision):
    config = config_of(data_folder, f"optimizer.name={optimizer}", f"precision={precision}")
    summary = check_resumed(tmp_path, config)
    assert (summary["steps"], summary["precision"]) == (STEPS, precision)
    trained = records(tmp_path / "whole")
    assert trained[-1]["loss"] < trained[0]["loss"]


def test_fp16_goes_on_bit_for_bit(data_folder, tmp_path):
    assert check_resumed(tmp_path, config_of(data_folder, "precision=fp16"))["precision"] == "fp16"


VARIANTS = {
    "documents apart": ("attention=document", "guards.accumulation=true", "guards.level=error"),
    "whole words": ("masking.unit=word",),
    "spans": ("masking.unit=span", "attention=document"),
    "full-sentences": ("format.name=full-sentences", "guards.accumulation=true"),
    "doc-sentences": ("format.name=doc-sentences", "masking.unit=word", "guards.accumulation=true"),
    "segment-pair": ("format.name=segment-pair", "guards.accumulation=true"),
    "segment-pair, masks alone": ("format.name=segment-pair", "next_sentence=false"),
    "sentence-pair of bert": ("format.name=sentence-pair", "model.type=bert"),
}


QUICK = ("spans", "doc-sentences", "segment-pair")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(overrides, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, overrides in VARIANTS.items()
    ],
)
def test_every_format_and_unit_goes_on_bit_for_bit(sentences, tmp_path, overrides):
    config = config_of(sentences, *overrides)
    check_resumed(tmp_path, config)
    for record in records(tmp_path / "whole"):
        assert ("next_sentence_loss" in record) == config.predicts_next_sentence
        assert record["mask_rate"] > 0.05


def test_a_rate_that_changes_goes_in_a_straight_line(data_folder, tmp_path):
    config = config_of(data_folder, "masking.mlm_probability=0.1", "masking.final_probability=0.7")
    check_resumed(tmp_path, config)
    trained = records(tmp_path / "whole")
    expected = [0.1 + 0.6 * step / STEPS for step in range(STEPS)]
    assert [record["expected_mask_rate"] for record in trained] == pytest.approx(expected)
    for record in trained:
        spread = np.sqrt(record["mask_variance"]) / record["eligible"]
        assert abs(record["mask_rate"] - record["expected_mask_rate"]) < 5 * spread


class TestStaticMasks:
    """Masks that the epochs take in turn."""

    def masks(self, data_folder, copies, epochs):
        setting = open_setting(config_of(data_folder, f"masking.static_copies={copies}"))
        stream = pretraining._stream(setting)
        number, found = setting.training.samples_per_epoch, []
        for epoch in range(epochs):
            # Windows begin elsewhere in each epoch, so masks are compared by the places in the data.
            batch = stream.batch(epoch * number, number)
            plain = setting.training.batch(epoch * number, number)
            chosen = set(plain.positions[batch.targets_M.numpy()].tolist())
            found.append((chosen, set(plain.positions.tolist())))
        return found

    def agree(self, one, other):
        (chosen, places), (others, other_places) = one, other
        both = places & other_places
        return chosen & both == others & both

    def test_they_come_round(self, data_folder):
        first, second, third, fourth = self.masks(data_folder, 2, 4)
        assert self.agree(first, third)
        assert self.agree(second, fourth)
        assert not self.agree(first, second)

    def test_a_run_goes_on_bit_for_bit(self, data_folder, tmp_path):
        check_resumed(tmp_path, config_of(data_folder, "masking.static_copies=2"))


def test_a_batch_that_grows(data_folder, tmp_path):
    config = config_of(
        data_folder, "batch.warmup_from=2", "batch.warmup_samples=18", "batch.micro_sequences=2"
    )
    check_resumed(tmp_path, config)
    seen = [record["tokens_seen"] for record in records(tmp_path / "whole")]
    # 2 + 6 × consumed / 18, rounded down to twos: 2, 2, 2, 4, 4, 6 sequences.
    assert np.diff(seen, prepend=0).tolist() == [32 * size for size in (2, 2, 2, 4, 4, 6)]


def test_a_budget_of_time_ends_the_run_and_resumes(data_folder, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=50.0)

    def takes_time(model, batch, *, train):
        clock.now += 0.5 if train else 0.0  # a step has two micro-batches
        return masked_lm_loss(model, batch, train=train)

    monkeypatch.setattr(pretraining, "masked_lm_loss", takes_time)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    config = config_of(data_folder, "schedule.budget_seconds=8", "schedule.warmup_share=0.25", "steps=3")
    summary = check_resumed(tmp_path, config)
    assert summary["steps"] == 8
    trained = records(tmp_path / "whole")
    assert [record["share_done"] for record in trained] == [step / 8 for step in range(1, 9)]
    rates = [record["lr"] / 3e-3 for record in trained]
    assert rates == pytest.approx([1e-3, 0.5, *((8 - spent) / 6 for spent in range(2, 8))])
    assert "stopped" in records(tmp_path / "cut", "event")[1]["message"]


def gradient_of(config):
    """The gradient of the first step, by parameter; with dropout, as it is trained."""
    setting = open_setting(config)
    model = build_model(setting)
    factory = optimizer_factory(config.optimizer, model.config.num_attention_heads)
    engine = SingleEngine(model, factory, "cpu", "fp32", 0.0)
    prepare_for_device(engine.model, setting)
    stream = pretraining._stream(setting)
    assert isinstance(stream, MaskedLMStream)
    batches = stream.next_step()
    totals = {name: sum(batch.targets[name] for batch in batches) for name in batches[0].targets}
    for batch in batches:
        engine.forward_backward(masked_lm_loss, batch, totals)
    return engine.masters.gradients()


@pytest.mark.parametrize("attention", ["window", "document"])
@pytest.mark.parametrize("again", ["feed-forward", "full", "selective"])
def test_computing_activations_again_changes_no_gradient(data_folder, again, attention):
    plain = gradient_of(config_of(data_folder, f"attention={attention}"))
    found = gradient_of(config_of(data_folder, f"attention={attention}", f"activation_checkpointing={again}"))
    assert found.keys() == plain.keys()
    norm = torch.cat([value.flatten() for value in plain.values()]).norm()
    for name, value in plain.items():
        assert (found[name] - value).norm() <= 1e-6 * norm, name


@pytest.mark.parametrize("again", ["feed-forward", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_with_activations_computed_again(sentences, tmp_path, again):
    config = config_of(
        sentences, f"activation_checkpointing={again}", "attention=document", "guards.accumulation=true"
    )
    check_resumed(tmp_path, config)


class TestGrown:
    """A larger model that begins as a tiling of a smaller one."""

    LARGER = ("grow=true", "model.num_hidden_layers=4", "model.hidden_size=64", "model.num_attention_heads=4")

    def config(self, data_folder, pretrained, *overrides):
        source = f"init_from={pretrained / 'export'}"
        return config_of(data_folder, source, *self.LARGER, "model.intermediate_size=128", *overrides)

    def test_it_has_the_larger_shape_and_the_dropout_of_the_config(self, data_folder, pretrained):
        drops = ("model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.25")
        setting = open_setting(self.config(data_folder, pretrained, *drops))
        model = build_model(setting)
        shape = model.config
        assert (shape.num_hidden_layers, shape.hidden_size, shape.num_attention_heads) == (4, 64, 4)
        assert (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob) == (0.0, 0.25)
        layer = model.encoder.layers[0]
        assert (layer.hidden_dropout_prob, layer.attention_dropout_prob) == (0.0, 0.25)
        small = load_file(pretrained / "export" / "model.safetensors")[
            "roberta.embeddings.word_embeddings.weight"
        ]
        word = model.encoder.embeddings.word.weight
        # The small model lies in the middle of the large one.
        assert torch.equal(word[:, 16:48], small)

    def test_it_trains_and_goes_on_bit_for_bit(self, data_folder, pretrained, tmp_path):
        summary = check_resumed(tmp_path, self.config(data_folder, pretrained))
        assert (
            summary["num_parameters"]
            > 2 * json.loads((pretrained / "summary.json").read_text())["num_parameters"]
        )

    def test_weights_that_are_only_loaded_take_the_dropout_too(self, data_folder, pretrained, caplog):
        bare = {name: value for name, value in tiny_world.PRETRAIN.items() if name != "model"}
        values = {**bare, "data": str(data_folder), "init_from": str(pretrained / "export")}
        values["model"] = {"hidden_dropout_prob": 0.3}
        setting = open_setting(parse_config(PretrainConfig, values, "test"))
        model = build_model(setting)
        assert model.encoder.layers[0].hidden_dropout_prob == 0.3
        assert model.config.attention_probs_dropout_prob == 0.1
        assert "what model says is ignored" not in caplog.text
