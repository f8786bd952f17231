"""A real pretraining run, as small as it gets: resumed, refused, exported, and checked from outside."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import CheckpointError, ConfigError, DataError, Interrupted, TokenizerError
from maskwright.jobs.pretrain import pretrain_model
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training import pretraining
from maskwright.training.evaluation import evaluate_export
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.pretraining import run_pretraining


@pytest.fixture(autouse=True)
def no_peak(monkeypatch):
    monkeypatch.setattr(pretraining, "measure_matrix_peak", lambda device, precision: 1e10)


@pytest.fixture
def values(data_folder):
    return {**tiny_world.PRETRAIN, "data": str(data_folder)}


def records(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def weights(folder):
    return load_file(folder / "export" / "model.safetensors")


def assert_equal_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class StopAt:
    """Asks the run to stop at a training record."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def record(self, record):
        if record["kind"] == "train" and record["step"] == self.step:
            os.kill(os.getpid(), self.number)

    def close(self):
        pass


def test_what_a_run_leaves(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert names == {
        *("config.yaml", "metrics.jsonl", "events", "checkpoints"),
        *("export", "flight", "summary.json", "report.html"),
    }
    assert sorted(path.name for path in (pretrained / "checkpoints").iterdir()) == [
        "step-00000016",
        "step-00000024",
    ]
    summary = json.loads((pretrained / "summary.json").read_text())
    assert summary["steps"] == 24
    assert summary["tokens_seen"] == 24 * 8 * 32
    assert len(summary["samples"]) > 3
    evaluations = records(pretrained, "evaluation")
    assert [record["step"] for record in evaluations] == [8, 16, 24]
    assert evaluations[-1]["loss"] == summary["validation_loss"]


def test_the_loss_falls_and_the_mask_rate_is_the_asked_one(pretrained):
    evaluations = records(pretrained, "evaluation")
    assert evaluations[-1]["loss"] < evaluations[0]["loss"] < np.log(400) + 0.5
    steps = records(pretrained, "train")
    eligible = sum(record["eligible"] for record in steps)
    rate = sum(record["mask_rate"] * record["eligible"] for record in steps) / eligible
    assert abs(rate - 0.15) < 5 * np.sqrt(0.15 * 0.85 / eligible)


def test_the_same_settings_give_the_same_weights(values, pretrained, tmp_path):
    maskwright.pretrain(values, output=tmp_path / "again")
    assert_equal_weights(tmp_path / "again", pretrained)


@pytest.mark.parametrize("stop", [4, 8, 20])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(values, pretrained, tmp_path, stop):
    config = parse_config(PretrainConfig, values, "test")
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM at step {stop} of 24; a checkpoint was saved"):
        run_pretraining(config, folder, hooks=[StopAt(stop)])
    assert not (folder / "export").exists()
    assert not (folder / "summary.json").exists()
    run_pretraining(config, folder)
    assert_equal_weights(folder, pretrained)
    assert [record["step"] for record in records(folder, "train")] == [4, 8, 12, 16, 20, 24]


def test_a_damaged_newest_checkpoint_costs_steps_and_not_the_result(values, pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    tensors = folder / "checkpoints" / "step-00000024" / "__0_0.distcp"
    data = bytearray(tensors.read_bytes())
    data[1000] ^= 8
    tensors.write_bytes(data)
    shutil.rmtree(folder / "export")
    maskwright.pretrain(values, output=folder, resume=True)
    assert records(folder, "event")[-1]["message"] == "resumed from the checkpoint of step 16"
    assert_equal_weights(folder, pretrained)


def test_no_whole_checkpoint_is_an_error(values, pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    for path in (folder / "checkpoints").glob("*/manifest.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole; start a new run"):
        maskwright.pretrain(values, output=folder, resume=True)


def test_micro_batches_may_change_when_a_run_goes_on(values, pretrained, tmp_path):
    folder = tmp_path / "run"
    changed = {**values, "batch": {"sequences": 8, "micro_sequences": 3}}
    maskwright.pretrain(changed, output=folder)
    for name, value in weights(pretrained).items():
        assert (weights(folder)[name] - value).abs().max() < 1e-4, name
    maskwright.pretrain(values, output=folder, resume=True)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "seed was 0, now 1"),
        ("steps=30", "steps was 24, now 30"),
        ("model.num_hidden_layers=3", "model.num_hidden_layers was None, now 3"),
        ("optimizer.lr=1e-3", "optimizer.lr was 0.003, now 0.001"),
        ("masking.mlm_probability=0.3", "masking.mlm_probability was 0.15, now 0.3"),
    ],
)
def test_other_settings_are_refused_by_name(values, pretrained, override, said):
    before = tiny_world.files_of(pretrained)
    with pytest.raises(
        ConfigError, match=rf"run: was begun with other settings \({said}\); resume with the same"
    ):
        maskwright.pretrain(values, override, output=pretrained, resume=True)
    assert tiny_world.files_of(pretrained) == before


def test_an_address_for_copies_is_for_one_run(values, data_folder, tmp_path, caplog):
    """A run with an empty disk goes on from its copies; another one neither takes nor replaces them."""
    values = {**values, "steps": 16, "checkpoint": {"every_steps": 8, "upload": str(tmp_path / "copies")}}
    maskwright.pretrain(values, output=tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"copies: holds checkpoints, the newest of step 16, but this run is"
    ):
        maskwright.pretrain(values, output=tmp_path / "new")
    with pytest.raises(ConfigError, match=r"the newest of step 16, but this run is a new one; add --resume"):
        maskwright.pretrain(values, output=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "export").is_dir()
    with pytest.raises(
        ConfigError,
        match=r"copies: holds checkpoints of another run, .* \(optimizer\.lr was 0\.003, now 0\.1\)",
    ):
        maskwright.pretrain(values, "optimizer.lr=0.1", output=tmp_path / "new", resume=True)
    other = shutil.copytree(data_folder, tmp_path / "data")
    manifest = json.loads((other / "manifest.json").read_text())
    maskwright.prepare(
        {**tiny_world.prepare_values(tiny_world.write_corpus(tmp_path / "other.jsonl", seed=3))},
        output=other,
        overwrite=True,
    )
    assert json.loads((other / "manifest.json").read_text()) != manifest
    with pytest.raises(ConfigError, match=r"holds checkpoints of another run, .*\(the data had fingerprint "):
        maskwright.pretrain(values, f"data={other}", output=tmp_path / "new", resume=True)
    assert not (tmp_path / "new" / "checkpoints").exists()
    maskwright.pretrain(values, output=tmp_path / "new", resume=True)
    events = [record["message"] for record in records(tmp_path / "new", "event")]
    assert "resumed from the checkpoint of step 16" in events
    assert_equal_weights(tmp_path / "new", tmp_path / "run")
    caplog.clear()
    maskwright.pretrain(
        values, "optimizer.lr=0.1", "steps=24", output=tmp_path / "forced", resume=True, force=True
    )
    told = [
        m
        for m in caplog.messages
        if m.startswith("copies of checkpoints of other settings or data, as forced")
    ]
    assert len(told) == 1
    assert "optimizer.lr was 0.003, now 0.1; steps was 16, now 24" in told[0]
    assert len(records(tmp_path / "forced", "evaluation")) == 1


def test_data_may_move(values, pretrained, data_folder, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    moved = shutil.copytree(data_folder, tmp_path / "moved")
    maskwright.pretrain({**values, "data": str(moved)}, output=folder, resume=True)
    assert_equal_weights(folder, pretrained)


def test_other_data_is_refused_by_the_checkpoint(values, pretrained, tmp_path):
    corpus = tiny_world.write_corpus(tmp_path / "other.jsonl", seed=9)
    maskwright.prepare(tiny_world.prepare_values(corpus), output=tmp_path / "data")
    folder = shutil.copytree(pretrained, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"the checkpoint was made with data '[0-9a-f]+', now it is"):
        maskwright.pretrain({**values, "data": str(tmp_path / "data")}, output=folder, resume=True)
    assert (folder / "config.yaml").read_bytes() == (pretrained / "config.yaml").read_bytes()


def test_data_of_another_tokenizer_is_named_before_a_tensor_is_read(
    values, pretrained, corpus_file, tmp_path
):
    prepared = {**tiny_world.prepare_values(corpus_file), "tokenizer": {"vocab_size": 380}}
    maskwright.prepare(prepared, output=tmp_path / "data")
    folder = shutil.copytree(pretrained, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"the checkpoint was made with data '[0-9a-f]+', now it is"):
        maskwright.pretrain({**values, "data": str(tmp_path / "data")}, output=folder, resume=True)


def test_a_plan_that_ends_before_the_checkpoint(values, pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    with pytest.raises(
        ConfigError, match='the checkpoint is of step 24, but "steps" is 12; give at least as many'
    ):
        maskwright.pretrain(values, "steps=12", output=folder, resume=True, force=True)
    assert (folder / "config.yaml").read_bytes() == (pretrained / "config.yaml").read_bytes()
    assert (folder / "summary.json").read_bytes() == (pretrained / "summary.json").read_bytes()


def test_a_plan_that_ends_at_a_checkpoint_without_an_evaluation(values, tmp_path):
    """Whatever happened before, the summary has the numbers of the last step."""
    plan = {**values, "steps": 12, "checkpoint": {"every_steps": 6}, "evaluation": {"every_steps": 100}}
    folder = tmp_path / "run"
    maskwright.pretrain(plan, output=folder)
    shutil.rmtree(folder / "checkpoints" / "step-00000012")
    result = maskwright.pretrain(plan, "steps=6", output=folder, resume=True, force=True)
    assert (result["steps"], result["validation_loss"] > 0) == (6, True)
    assert yaml.safe_load((folder / "config.yaml").read_text())["steps"] == 6


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fp8=true", '"fp8" is on, but the model is on the cpu; set fp8=false'),
        ("parallel.engine=fsdp2", "needs a launcher even for one process; start it with maskwright launch"),
    ],
)
def test_a_start_that_is_refused_leaves_the_folder_free(values, tmp_path, override, said):
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match=said):
        maskwright.pretrain(values, override, output=folder)
    maskwright.pretrain(values, "steps=1", output=folder)


def test_a_tokenizer_changed_after_the_shards_were_made(values, data_folder, tmp_path):
    folder = shutil.copytree(data_folder, tmp_path / "data")
    Tokenizer.train(["other text"] * 3, 300).save(folder / "tokenizer")
    with pytest.raises(
        TokenizerError, match=r"tokenizer: was changed after the shards were made .*prepare the data"
    ):
        maskwright.pretrain({**values, "data": str(folder)}, output=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_fewer_tokens_than_a_sequence(values, tmp_path):
    with pytest.raises(
        DataError, match=r"split 'validation' has \d+ tokens, fewer than one sequence \(8189 and"
    ):
        maskwright.pretrain(
            values, "sequence_length=8191", "model.max_position_embeddings=8193", output=tmp_path / "run"
        )


def test_positions_must_hold_a_sequence(values, tmp_path):
    said = "sequence_length 65 needs model.max_position_embeddings of at least 67, not 66"
    with pytest.raises(ConfigError, match=said):
        maskwright.pretrain(values, "sequence_length=65", output=tmp_path / "run")


def test_bf16_learns_like_fp32(values, pretrained, tmp_path):
    summary = maskwright.pretrain(values, "precision=bf16", output=tmp_path / "run")
    exact = json.loads((pretrained / "summary.json").read_text())
    assert summary["precision"] == "bf16"
    assert summary["validation_loss"] == pytest.approx(exact["validation_loss"], rel=0.02)
    assert weights(tmp_path / "run")["lm_head.bias"].dtype == torch.float32


def test_the_export_measures_as_the_run_said(pretrained, data_folder):
    summary = json.loads((pretrained / "summary.json").read_text())
    found = evaluate_export(
        pretrained / "export", data_folder, sequence_length=32, num_sequences=16, mlm_probability=0.15, seed=0
    )
    assert found["loss"] == pytest.approx(summary["validation_loss"], rel=1e-6)
    assert found["unigram_loss"] == pytest.approx(summary["unigram_loss"])
    assert found["accuracy"] == pytest.approx(summary["validation_accuracy"])


def test_an_evaluation_longer_than_the_model(pretrained, data_folder):
    with pytest.raises(ConfigError, match=r'"sequence_length" is 65, but .*export takes 64; lower it'):
        evaluate_export(
            pretrained / "export",
            data_folder,
            sequence_length=65,
            num_sequences=4,
            mlm_probability=0.15,
            seed=0,
        )


def test_an_evaluation_on_data_of_another_vocabulary(pretrained, data_folder, tmp_path):
    folder = shutil.copytree(pretrained / "export", tmp_path / "model")
    Tokenizer.train(["other text"] * 3, 300).save(folder)
    with pytest.raises(
        TokenizerError, match=r"was prepared with another vocabulary than .*tokenizer\.path set to"
    ):
        evaluate_export(
            folder, data_folder, sequence_length=32, num_sequences=4, mlm_probability=0.15, seed=0
        )


class TestInitialWeights:
    """Going on from the weights of an exported model, in a run of its own."""

    def start(self, values, tmp_path, source, *overrides):
        bare = {name: value for name, value in values.items() if name != "model"}
        return maskwright.pretrain(
            bare, f"init_from={source}", "steps=1", *overrides, output=tmp_path / "run"
        )

    def test_it_starts_where_the_other_ended(self, values, pretrained, tmp_path):
        summary = self.start(values, tmp_path, pretrained / "export", "optimizer.lr=1e-12")
        before = json.loads((pretrained / "summary.json").read_text())
        assert summary["validation_loss"] == pytest.approx(before["validation_loss"], rel=1e-6)

    def test_settings_of_the_model_are_ignored_with_a_warning(self, values, pretrained, tmp_path, caplog):
        self.start(values, tmp_path, pretrained / "export", "model.size=large")
        assert "init_from gives the shape of the model; what model says is ignored" in caplog.text

    def test_too_long(self, values, pretrained, tmp_path):
        with pytest.raises(ConfigError, match=r'"sequence_length" is 70, but .*export takes 64; lower it'):
            self.start(values, tmp_path, pretrained / "export", "sequence_length=70")

    def test_of_another_vocabulary(self, values, pretrained, tmp_path):
        source = shutil.copytree(pretrained / "export", tmp_path / "source")
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
        with pytest.raises(TokenizerError, match="the model has 500 vocabulary entries, the tokenizer 400"):
            self.start(values, tmp_path, source)


def test_a_config_that_pretraining_refuses_leaves_nothing_that_looks_whole(values, tmp_path):
    config = parse_config(PretrainConfig, {**values, "data": str(tmp_path / "nothing")}, "test")
    with pytest.raises(maskwright.UserError, match=r"nothing: has no manifest\.json, so no finished data"):
        pretrain_model(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
