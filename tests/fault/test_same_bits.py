"""All processes of a run are killed in its middle: with the same engine it ends with the same bits.

Weights, optimiser state and losses are compared with those of a run that nobody disturbed.
"""

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch

import tiny_world
from maskwright.core.config import parse_config
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.pretrain_config import PretrainConfig
from ranks import environment, free_port

pytestmark = [pytest.mark.fault, pytest.mark.distributed]

STEPS, RANKS = 80, 2
DEADLINE_SECONDS = 150
PRELOADED = ["maskwright.training.pretraining"]
ENGINES = {
    "ddp": {"engine": "ddp"},
    "fsdp2": {"engine": "fsdp2"},
    "fsdp2, two replicas": {"engine": "fsdp2", "replicas": 2},
    "tensor parallel": {"engine": "fsdp2", "tensor": 2},
    "ZeRO 1": {"engine": "deepspeed", "zero_stage": 1},
    "ZeRO 2": {"engine": "deepspeed", "zero_stage": 2},
    "ZeRO 3": {"engine": "deepspeed", "zero_stage": 3},
}


def train(data, folder, parallel, variables):
    os.environ.update(variables, DS_ACCELERATOR="cpu")
    from maskwright.training.pretraining import run_pretraining

    torch.set_num_threads(1)
    # Nobody reads the words of a process that is killed.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    values = {
        **tiny_world.PRETRAIN,
        "data": str(data),
        "steps": STEPS,
        "batch": {"sequences": 12, "micro_sequences": 2},
        "checkpoint": {"every_steps": 7},
        "evaluation": {"every_steps": STEPS, "sequences": 8},
        "log_every_steps": 1,
        "parallel": {**parallel, "timeout_seconds": 60.0},
    }
    run_pretraining(parse_config(PretrainConfig, values, "test"), folder)


def start(data, folder, parallel):
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    processes = [
        context.Process(target=train, args=(data, folder, parallel, environment(rank, RANKS, port)))
        for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes):
    for process in processes:
        process.join(DEADLINE_SECONDS)
    assert [process.exitcode for process in processes] == [0] * RANKS


def records(folder, kind):
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may still be written
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(folder):
    """By step; those since the last checkpoint were computed twice."""
    return {record["step"]: record["loss"] for record in records(folder, "train")}


def kill_at(step, processes, folder):
    end = time.monotonic() + DEADLINE_SECONDS
    while max(losses(folder), default=0) < step:
        assert all(process.is_alive() for process in processes)
        assert time.monotonic() < end
        time.sleep(0.01)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join()


def last_state(folder):
    """Every tensor and number of the last checkpoint, by name."""
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig(), {})
    tensors, found = checkpoints.load(STEPS).tensors, {}

    def walk(tree, name):
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{name}/{key}")
            else:
                found[f"{name}/{key}"] = torch.as_tensor(value)

    walk(tensors, "")
    return found


@pytest.mark.parametrize(
    "engine", [name if name == "fsdp2" else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES]
)
def test_the_bits_are_those_of_a_run_that_nobody_disturbed(data_folder, tmp_path, engine):
    parallel = ENGINES[engine]
    if parallel["engine"] == "deepspeed":
        pytest.importorskip("deepspeed")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(data_folder, whole, parallel))
    processes = start(data_folder, cut, parallel)
    kill_at(31, processes, cut)
    assert max(losses(cut)) < STEPS
    assert not (cut / "export").exists()
    finish(start(data_folder, cut, parallel))
    told = [record["message"] for record in records(cut, "event")]
    (resumed,) = (text for text in told if text.startswith("resumed from"))
    assert int(resumed.split()[6]) % 7 == 0
    assert losses(cut) == losses(whole)
    weights = [folder / "export" / "model.safetensors" for folder in (cut, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    found, expected = last_state(cut), last_state(whole)
    assert found.keys() == expected.keys()
    assert any(name.endswith("/exp_avg_sq") for name in found)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
