"""Runs of torchrun and of our launcher: a rank is killed, and named first; the launcher is killed."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import yaml

import tiny_world
from maskwright.training.watching import summarize_flight

pytestmark = [pytest.mark.fault, pytest.mark.distributed, pytest.mark.slow]

DEADLINE_SECONDS = 150


def started(folder, rank):
    """The process of a rank that has done some steps, else None."""
    try:
        lines = (folder / "flight" / f"rank-{rank:05d}.jsonl").read_text().splitlines()
    except OSError:
        return None
    steps = [json.loads(line).get("step", 0) for line in lines[2:]]
    return json.loads(lines[0])["pid"] if max(steps, default=0) >= 5 else None


def write_recipe(data_folder, tmp_path):
    """A run that saves and copies all the time: neither may hide the cause behind what it says."""
    checkpoint = {"every_steps": 2, "upload": str(tmp_path / "copies")}
    values = {**tiny_world.PRETRAIN, "data": str(data_folder), "steps": 100_000, "checkpoint": checkpoint}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"pretrain": values}))
    return [str(tmp_path / "tiny.yaml"), f"--output={tmp_path / 'run'}", "device=cpu"]


def start(arguments, err=subprocess.DEVNULL):
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, env=variables)


def wait_until_started(process, folder, rank):
    """The number of the process of a rank."""
    end = time.monotonic() + DEADLINE_SECONDS
    while (pid := started(folder, rank)) is None:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return pid


@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_rank_is_named_first(data_folder, tmp_path, victim):
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    torchrun += [f"--log-dir={tmp_path / 'logs'}", "--redirects=3"]
    process = start([*torchrun, "-m", "maskwright", "pretrain", *write_recipe(data_folder, tmp_path)])
    os.kill(wait_until_started(process, tmp_path / "run", victim), signal.SIGKILL)
    assert process.wait(DEADLINE_SECONDS) != 0
    survivor = 1 - victim
    [path] = (tmp_path / "logs").glob(f"*/attempt_0/{survivor}/stderr.log")
    said = path.read_text()
    assert "Traceback" not in said
    who = f"rank {survivor}: " if survivor else ""
    lost = rf"{who}error: rank {victim} has not been heard of for \d+ s; its last step was \d+ \([\w ]+\); "
    told = re.search(lost, said, re.MULTILINE)
    assert told, said
    assert "warning" not in said[: told.start()].lower()
    assert "gloo" not in said[: told.start()]
    assert said[told.start() :].count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="waits by pidfd")
def test_the_workers_of_a_killed_launcher_save_and_are_gone_on_with(data_folder, tmp_path):
    folder, arguments = tmp_path / "run", write_recipe(data_folder, tmp_path)
    launcher = start(["maskwright", "launch", "pretrain", *arguments, "--processes=2"])
    workers = [os.pidfd_open(wait_until_started(launcher, folder, rank)) for rank in (0, 1)]
    launcher.kill()
    launcher.wait(DEADLINE_SECONDS)
    for worker in workers:
        assert select.select([worker], [], [], DEADLINE_SECONDS)[0]
        os.close(worker)
    found = summarize_flight(folder)
    assert [rank["how"] for rank in found["ranks"]] == ["stopped", "stopped"]
    assert len({rank["step"] for rank in found["ranks"]}) == 1
    step = found["ranks"][0]["step"]
    for place in (folder / "checkpoints", tmp_path / "copies"):
        assert (place / f"step-{step:08d}" / "manifest.json").exists()
    left = [f"steps={step + 2}", "--resume", "--force", "--processes=2"]
    again = start(["maskwright", "launch", "pretrain", *arguments, *left], subprocess.PIPE)
    _, said = again.communicate(timeout=DEADLINE_SECONDS)
    assert again.returncode == 0, said
    assert f"resumed from the checkpoint of step {step}".encode() in said
