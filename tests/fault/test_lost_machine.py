"""Machines that come and go: one is lost, another one comes later, and it is one run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

import maskwright
import tiny_world

pytestmark = [pytest.mark.fault, pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 3_000
DEADLINE_SECONDS = 200


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def records(folder, kind):
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may still be written
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(folder):
    """Steps and losses; those since the last checkpoint were computed twice after a crash."""
    return [(record["step"], record["loss"]) for record in records(folder, "train")]


def worker(folder, rank):
    """The process of a rank, as it says itself."""
    path = folder / "flight" / f"rank-{rank:05d}.jsonl"
    return json.loads(path.read_text().splitlines()[0])["pid"]


def wait_for(folder, step, processes):
    end = time.monotonic() + DEADLINE_SECONDS
    while max((step for step, _ in losses(folder)), default=0) < step:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_machine_is_lost_and_another_one_comes(data_folder, tmp_path):
    values = {
        **tiny_world.PRETRAIN,
        "data": str(data_folder),
        "steps": STEPS,
        "evaluation": {"every_steps": STEPS},
        "checkpoint": {"every_steps": 100},
        "log_every_steps": 1,
        "parallel": {"engine": "ddp", "timeout_seconds": 60},
    }
    recipe, port = tmp_path / "tiny.yaml", free_port()
    recipe.write_text(yaml.safe_dump({"pretrain": values}))

    def machine(number):
        command = [
            *(sys.executable, "-m", "maskwright", "launch", "pretrain", str(recipe)),
            *("--output", str(tmp_path / "run"), "--nodes", "1:2", "--node-rank", str(number)),
            *("--address", f"127.0.0.1:{port}", "--processes", "1"),
        ]
        with (tmp_path / f"machine-{number}.log").open("ab") as log:
            variables = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=variables)

    both = [machine(0), machine(1)]
    wait_for(tmp_path / "run", 250, both)
    # All at once, as when the power is cut: nobody can save.
    victims = {worker(tmp_path / "run", rank) for rank in (0, 1)} & children(both[1].pid)
    assert len(victims) == 1
    for process in (both[1].pid, *victims):
        os.kill(process, signal.SIGKILL)
    both[1].wait(DEADLINE_SECONDS)
    reached = max(step for step, _ in losses(tmp_path / "run"))
    wait_for(tmp_path / "run", reached + 200, both[:1])
    both[1] = machine(1)
    assert [process.wait(DEADLINE_SECONDS) for process in both] == [0, 0]

    said = (tmp_path / "machine-0.log").read_text()
    assert "all ranks start again from the newest checkpoint (restart 1 of 3)" in said
    assert "another machine is there" in said
    told = [record["message"] for record in records(tmp_path / "run", "event")]
    alone, together = (text for text in told if text.startswith("resumed from"))
    assert "processes" not in alone
    assert together.endswith("on 2 processes, ddp")
    noise = [line for number in (0, 1) for line in lines_of(tmp_path / f"machine-{number}.log")]
    assert not [line for line in noise if "Traceback" in line or "TCPStore" in line]

    maskwright.pretrain({**values, "parallel": {"engine": "single"}}, output=tmp_path / "alone")
    found, expected = losses(tmp_path / "run"), dict(losses(tmp_path / "alone"))
    assert {step for step, _ in found} == expected.keys() == set(range(1, STEPS + 1))
    # No sample is lost, and one that is seen again has the same mask: one curve, whoever computed it.
    assert [loss for _, loss in found] == pytest.approx([expected[step] for step, _ in found], rel=1e-5)


def lines_of(path):
    return path.read_text("utf-8", "replace").splitlines()


def children(pid):
    """The processes that a process has started, and theirs."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    own = {int(word) for word in found.split()}
    return own.union(*(children(one) for one in own))
