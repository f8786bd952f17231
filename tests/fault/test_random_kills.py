"""`kill -9` at any instant of training with saving: the next start goes on, and ends at the same bits.

Processes are forked from one that has the libraries loaded, so that a start takes little of the time in
which a kill may strike.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

import tiny_world
from maskwright.core.config import parse_config
from maskwright.training.pretrain_config import PretrainConfig

STEPS = 200
PRELOADED = ["maskwright.training.pretraining"]


def config(data):
    values = {
        **tiny_world.PRETRAIN,
        "data": str(data),
        "steps": STEPS,
        "batch": {"sequences": 4, "micro_sequences": 4},
        "checkpoint": {"every_steps": 4},
        "evaluation": {"every_steps": 200, "sequences": 8},
        "guards": {"level": "off"},
    }
    return parse_config(PretrainConfig, values, "test")


def train(data, folder):
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from maskwright.training.pretraining import run_pretraining

    torch.set_num_threads(1)
    # Nobody reads the words of a process that is about to be killed.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    run_pretraining(config(data), folder)


def weights(folder):
    return (folder / "export" / "model.safetensors").read_bytes()


def steps_resumed(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "event" and "resumed" in line["message"]]


def kill_and_resume(data, parent, longest, kills, seed):
    """Kill processes at random instants, within the seconds of a whole run, and take each run to its end.

    Returns:
        Folders of the runs, all of which ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    chance, killed, folders = random.Random(seed), 0, []
    while True:
        folders.append(parent / f"run-{len(folders)}")
        folders[-1].mkdir()
        while True:
            process = context.Process(target=train, args=(data, folders[-1]))
            process.start()
            if killed < kills:
                process.join(chance.uniform(0.0, longest))
            else:
                process.join(240)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                killed += 1
                assert killed <= kills, "a run did not end"
                continue
            assert process.exitcode == 0
            break
        if killed >= kills:
            return folders


@pytest.fixture(scope="module")
def expected(data_folder, tmp_path_factory):
    """The weights of a run that nobody disturbed, and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    for _ in range(2):  # the first loads the libraries
        process = context.Process(target=train, args=(data_folder, folder))
        started = time.monotonic()
        process.start()
        process.join(240)
        seconds = time.monotonic() - started
        assert process.exitcode == 0
        found = weights(folder)
        shutil.rmtree(folder)
        folder.mkdir()
    return found, seconds


@pytest.mark.fault
def test_a_few_kills(data_folder, tmp_path, expected):
    whole, seconds = expected
    folders = kill_and_resume(data_folder, tmp_path, seconds, kills=6, seed=7)
    assert all(weights(folder) == whole for folder in folders)
    assert any(steps_resumed(folder) for folder in folders)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills(data_folder, tmp_path, expected, seed):
    """Four times twenty-five."""
    whole, seconds = expected
    folders = kill_and_resume(data_folder, tmp_path, seconds, kills=25, seed=seed)
    assert all(weights(folder) == whole for folder in folders)
