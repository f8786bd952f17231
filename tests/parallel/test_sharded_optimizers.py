"""LAMB and Muon on shards: what they do to a whole matrix, whoever has which part of it."""

from pathlib import Path
from unittest.mock import patch

import pytest
import test_moving
import torch
from test_equivalence import MODEL, pretrain, weights

from maskwright.parallel.world import SOLO
from maskwright.training.optimizers import muon
from ranks import run_ranks

pytestmark = pytest.mark.distributed

STEPS = 20
# Shards cut heads of joined matrices in two; some are longer than others, and on four ranks some are empty.
SHAPES = {
    "two heads": {"hidden_size": 14, "intermediate_size": 10, "num_attention_heads": 2},
    "three heads": {"hidden_size": 21, "intermediate_size": 9, "num_attention_heads": 3},
}
OPTIMIZERS = {
    "lamb": {"name": "lamb", "lr": 4e-3, "weight_decay": 0.1},
    "muon": {"name": "muon", "lr": 2e-3, "weight_decay": 0.1},
}
TWO = {
    "full": ("three heads", {"engine": "fsdp2"}),
    "tensor": ("two heads", {"engine": "fsdp2", "tensor": 2}),
}
FOUR = {
    "full": ("three heads", {"engine": "fsdp2"}),
    "hybrid": ("three heads", {"engine": "fsdp2", "replicas": 2}),
    "tensor": ("two heads", {"engine": "fsdp2", "tensor": 2}),
}


def exact():
    """Products of Muon in fp32, as all others are."""
    return patch.object(muon, "native_bf16", lambda: False)


def pretrain_all(world, folder: Path, data: Path, meshes: dict[str, tuple[str, dict]]):
    """Runs of each optimiser on each mesh."""
    with exact():
        return {
            (name, mesh): pretrain(
                world,
                folder / f"{name}-{mesh}",
                data,
                {
                    "steps": STEPS,
                    "model": {**MODEL, **SHAPES[shape]},
                    "optimizer": optimizer,
                    "parallel": parallel,
                },
            )
            for name, optimizer in OPTIMIZERS.items()
            for mesh, (shape, parallel) in meshes.items()
        }


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return pretrain_all(SOLO, folder, data_folder, {shape: (shape, {}) for shape in SHAPES}), folder


def check(found, meshes, alone, folder: Path):
    expected, reference = alone
    for (name, mesh), (losses, validation, seen) in found.items():
        shape = meshes[mesh][0]
        curve, loss, tokens = expected[name, shape]
        assert len(curve) == STEPS
        assert curve[-1] < curve[0]
        assert losses == pytest.approx(curve, rel=1e-5), (name, mesh)
        assert (validation, seen) == (pytest.approx(loss, rel=1e-5), tokens), (name, mesh)
        mine = weights(folder / f"{name}-{mesh}")
        for weight_name, weight in weights(reference / f"{name}-{shape}").items():
            far = torch.linalg.vector_norm(mine[weight_name] - weight)
            # Biases of keys change no loss: they stay near zero, moved by rounding alone.
            size = torch.linalg.vector_norm(weight).clamp(min=1e-2)
            assert far <= 1e-5 * size, (name, mesh, weight_name)


def test_two_processes(alone, data_folder, tmp_path):
    found = run_ranks(2, pretrain_all, tmp_path, data_folder, TWO)[0]
    check(found, TWO, alone, tmp_path)


@pytest.mark.slow
def test_four_processes(alone, data_folder, tmp_path):
    found = run_ranks(4, pretrain_all, tmp_path, data_folder, FOUR, patience=280.0)[0]
    check(found, FOUR, alone, tmp_path)


def move(world, folder: Path, data: Path):
    """A run of each optimiser begins whole, goes on in shards, and ends whole; what stopped it."""
    told = []
    for name, optimizer in OPTIMIZERS.items():
        for engine, stop in (("ddp", 9), ("fsdp2", 13), ("ddp", None)):
            with exact(), patch.object(test_moving, "STOP", stop or 0):
                stopped_by = None if stop is None else 0
                told.append(
                    test_moving.go(world, folder / name, data, engine, stopped_by, optimizer=optimizer)
                )
    return told


@pytest.mark.slow
def test_a_run_moves_between_whole_matrices_and_shards(data_folder, tmp_path):
    ends = [
        f"stopped by SIGTERM at step {step} of {test_moving.STEPS}; a checkpoint was saved"
        for step in (9, 13)
    ]
    for name in OPTIMIZERS:
        (tmp_path / "moved" / name).mkdir(parents=True)
    found = run_ranks(2, move, tmp_path / "moved", data_folder)
    assert found == [[*ends, "finished"] * len(OPTIMIZERS)] * 2
    for name, optimizer in OPTIMIZERS.items():
        folder = tmp_path / "alone" / name
        folder.mkdir(parents=True)
        with exact():
            assert test_moving.go(SOLO, folder, data_folder, "single", optimizer=optimizer) == "finished"
        events = test_moving.check(tmp_path / "moved" / name, folder)
        assert "resumed from the checkpoint of step 9 on 2 processes, fsdp2" in events
        assert "resumed from the checkpoint of step 13 on 2 processes, ddp" in events
