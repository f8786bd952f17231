"""Small states of a run, and what tests of checkpoints do with files."""

import torch

from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints

PROGRESS = {"stream": {"consumed": 96, "seed": 0}, "seconds": 1.25, "tokens": 7, "evaluation": {"loss": 0.1}}


def state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {
            "a.weight": torch.randn(40, 30, generator=generator),
            "b": torch.randn(7, generator=generator),
        },
        "optimizer": {
            "a.weight": {"step": torch.tensor(3.0), "exp_avg": torch.randn(40, 30, generator=generator)},
            "b": {"step": torch.tensor(3.0), "exp_avg": torch.zeros(7).bfloat16()},
        },
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[name])
        else:
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name])


def make(folder, *, keep=2, **options):
    """Saves are waited for, unless a test says otherwise."""
    config = CheckpointConfig(**{"keep": keep, "asynchronous": False, "every_steps": 1, **options})
    return Checkpoints(folder / "checkpoints", config, {"config": "x: 1\n"})


def files(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)
