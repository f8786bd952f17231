"""LAMB and Muon on shards: what they do to a whole matrix, whoever has which part of it."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from test_equivalence import pretrain, weights

from maskwright.parallel.world import SOLO
from maskwright.training.optimizers import muon
from ranks import run_ranks

pytestmark = pytest.mark.distributed

STEPS = 20
# Widths that no number of ranks here divides.
SHAPE = {"hidden_size": 20, "intermediate_size": 36, "num_attention_heads": 4}
OPTIMIZERS = {
    "lamb": {"name": "lamb", "lr": 4e-3, "weight_decay": 0.1},
    "muon": {"name": "muon", "lr": 2e-3, "weight_decay": 0.1},
}
TWO = {"full": {"engine": "fsdp2"}, "tensor": {"engine": "fsdp2", "tensor": 2}}
FOUR = {
    "full": {"engine": "fsdp2"},
    "hybrid": {"engine": "fsdp2", "replicas": 2},
    "tensor": {"engine": "fsdp2", "tensor": 2},
}


def pretrain_all(world, folder: Path, data: Path, meshes: dict[str, dict]):
    """Runs of each optimiser on each mesh, with products in fp32 as the rest."""
    from test_equivalence import MODEL

    with patch.object(muon, "native_bf16", lambda: False):
        return {
            (name, mesh): pretrain(
                world,
                folder / f"{name}-{mesh}",
                data,
                {"steps": STEPS, "model": {**MODEL, **SHAPE}, "optimizer": optimizer, "parallel": parallel},
            )
            for name, optimizer in OPTIMIZERS.items()
            for mesh, parallel in meshes.items()
        }


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return pretrain_all(SOLO, folder, data_folder, {"single": {}}), folder


def check(found, alone, folder: Path):
    expected, reference = alone
    for (name, mesh), (losses, validation, seen) in found.items():
        curve, loss, tokens = expected[name, "single"]
        assert len(curve) == STEPS
        assert curve[-1] < curve[0]
        assert losses == pytest.approx(curve, rel=1e-5), (name, mesh)
        assert (validation, seen) == (pytest.approx(loss, rel=1e-5), tokens), (name, mesh)
        mine = weights(folder / f"{name}-{mesh}")
        for weight_name, weight in weights(reference / f"{name}-single").items():
            assert torch.allclose(mine[weight_name], weight, rtol=1e-3, atol=1e-5), (name, mesh, weight_name)


def test_two_processes(alone, data_folder, tmp_path):
    check(run_ranks(2, pretrain_all, tmp_path, data_folder, TWO)[0], alone, tmp_path)


@pytest.mark.slow
def test_four_processes(alone, data_folder, tmp_path):
    found = run_ranks(4, pretrain_all, tmp_path, data_folder, FOUR, patience=280.0)[0]
    check(found, alone, tmp_path)
