"""One global batch gives the same loss curve on every engine, with any split and any number of processes.

The runs are those of `maskwright pretrain`, from a data folder to an exported model, with dropout on and
micro-batches that do not divide evenly.
"""

import json
from pathlib import Path

import pytest
import torch

import tiny_world
from maskwright.core.config import parse_config
from maskwright.model.hf import load_encoder_config
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.pretraining import run_pretraining
from ranks import run_ranks

pytestmark = pytest.mark.distributed

STEPS = 50
MODEL = {**tiny_world.PRETRAIN["model"], "num_attention_heads": 4}


def values(data: Path, **changes):
    return {
        **tiny_world.PRETRAIN,
        "model": MODEL,
        "data": str(data),
        "steps": STEPS,
        "batch": {"sequences": 10, "micro_sequences": 3},
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every_steps": 1000},
        "evaluation": {"every_steps": 25, "sequences": 10},
        "log_every_steps": 1,
        **changes,
    }


def pretrain(world, folder: Path, data: Path, changes: dict):
    """A whole run on the processes that are there; on rank 0 its curve and its summary."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = run_pretraining(parse_config(PretrainConfig, values(data, **changes), "test"), folder)
    if not world.is_main:
        return None
    return curve(folder), summary["validation_loss"], summary["tokens_seen"]


def curve(folder: Path):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def pretrain_all(world, folder: Path, data: Path, settings: dict[str, dict]):
    return {name: pretrain(world, folder / name, data, changes) for name, changes in settings.items()}


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory):
    """What one process reaches, and the folder of its run."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    from maskwright.parallel.world import SOLO

    return pretrain(SOLO, folder, data_folder, {}), folder


def check(found, alone, folder: Path):
    (expected, loss, tokens), reference = alone
    assert len(expected) == STEPS
    assert expected[-1] < expected[0]
    for name, (losses, validation, seen) in found.items():
        assert losses == pytest.approx(expected, rel=1e-5), name
        assert validation == pytest.approx(loss, rel=1e-5), name
        assert seen == tokens, name
        shape, _ = load_encoder_config(folder / name / "export")
        assert shape == load_encoder_config(reference / "export")[0], name


def weights(folder: Path):
    from safetensors.torch import load_file

    return load_file(folder / "export" / "model.safetensors")


TWO = {
    "ddp": {"parallel": {"engine": "ddp"}},
    "ddp-small-buckets": {
        "parallel": {"engine": "ddp", "bucket_mb": 1},
        "batch": {"sequences": 10, "micro_sequences": 1},
    },
    "fsdp2": {"parallel": {"engine": "fsdp2"}},
    "fsdp2-kept": {"parallel": {"engine": "fsdp2", "reshard_after_forward": False}},
    "tensor": {"parallel": {"engine": "fsdp2", "tensor": 2}},
}
FOUR = {
    "ddp": {"parallel": {"engine": "ddp"}},
    "fsdp2": {"parallel": {"engine": "fsdp2"}},
    "hybrid": {"parallel": {"engine": "fsdp2", "replicas": 2}},
    "fsdp2-tensor": {"parallel": {"engine": "fsdp2", "tensor": 2}},
}


def test_two_processes(alone, data_folder, tmp_path):
    found = run_ranks(2, pretrain_all, tmp_path, data_folder, TWO)[0]
    check(found, alone, tmp_path)
    mine, others = weights(tmp_path / "ddp"), weights(alone[1])
    for name, weight in others.items():
        assert torch.allclose(mine[name], weight, rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_four_processes(alone, data_folder, tmp_path):
    found = run_ranks(4, pretrain_all, tmp_path, data_folder, FOUR, patience=280.0)[0]
    check(found, alone, tmp_path)


@pytest.mark.slow
def test_deepspeed(alone, data_folder, tmp_path):
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    stages = {
        f"zero-{stage}": {"parallel": {"engine": "deepspeed", "zero_stage": stage}} for stage in (1, 2, 3)
    }
    # As in a model of ordinary size: no weight is so small that every process keeps it.
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    (tmp_path / "ds_config.json").write_text(json.dumps({"zero_optimization": zero}))
    stages["zero-3-shared-out"] = {
        "parallel": {"engine": "deepspeed", "deepspeed_config": str(tmp_path / "ds_config.json")}
    }
    found = run_ranks(2, pretrain_all, tmp_path, data_folder, stages, patience=280.0)[0]
    check(found, alone, tmp_path)


def test_more_processes_than_samples(data_folder, tmp_path):
    """A rank without a sample takes part, and counts nothing."""
    changes = {"batch": {"sequences": 1, "micro_sequences": 1}, "steps": 6}
    from maskwright.parallel.world import SOLO

    expected, loss, tokens = pretrain(SOLO, tmp_path / "alone", data_folder, changes)
    settings = {name: {**changes, "parallel": {"engine": name}} for name in ("ddp", "fsdp2")}
    found = run_ranks(2, pretrain_all, tmp_path, data_folder, settings)[0]
    for losses, validation, seen in found.values():
        assert losses == pytest.approx(expected, rel=1e-5)
        assert (validation, seen) == (pytest.approx(loss, rel=1e-5), tokens)
