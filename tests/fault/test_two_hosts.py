"""Two hosts joined by one cable that is pulled: the run ends in time, and goes on exactly later.

The hosts are network namespaces with a veth pair between them; each runs torchrun. They have the disk in
common, as hosts of a cluster do. Making namespaces needs rights that not every machine gives.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import yaml

import tiny_world

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, PATIENCE = 300, 20
ADDRESSES = ("10.213.7.1", "10.213.7.2")
DEADLINE_SECONDS = 150


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def refusal():
    """Why no namespaces can be made here, or None."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"mw-{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return None


@pytest.fixture
def hosts():
    """Names of two namespaces that see each other, and the device of the first."""
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    names = [f"mw-{os.getpid()}-{number}" for number in (0, 1)]
    devices = [f"mw{os.getpid() % 100_000}v{number}" for number in (0, 1)]
    with contextlib.ExitStack() as undo:
        for name in names:
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
        ip("link", "add", devices[0], "type", "veth", "peer", "name", devices[1])
        for name, device, address in zip(names, devices, ADDRESSES, strict=True):
            ip("link", "set", device, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, devices


def degrade(name, device):
    """Delay and lose packets, where the kernel can; whether it can."""
    rule = ["tc", "qdisc", "add", "dev", device, "root", "netem", "delay", "2ms", "loss", "0.5%"]
    return subprocess.run(["ip", "netns", "exec", name, *rule], capture_output=True).returncode == 0


def start(hosts, recipe, folder, logs):
    """torchrun on both hosts."""
    names, devices = hosts
    processes = []
    for rank, (name, device) in enumerate(zip(names, devices, strict=True)):
        command = [
            *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)),
            *("--master-addr", ADDRESSES[0], "--master-port", "29555"),
            *("-m", "maskwright", "pretrain", str(recipe), "-o", str(folder), "--resume"),
        ]
        variables = {"GLOO_SOCKET_IFNAME": device, "OMP_NUM_THREADS": "1"}
        with (logs / f"host-{rank}.log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    command, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT
                )
            )
    return processes


def ended(processes):
    """Exit codes, waited for together."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    return [process.wait(max(1.0, give_up - time.monotonic())) for process in processes]


def steps(folder):
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may still be written
    return [json.loads(line)["step"] for line in lines if '"kind": "train"' in line]


def wait_for(folder, step, processes):
    give_up = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < give_up:
        if max(steps(folder), default=0) >= step:
            return
        assert all(process.poll() is None for process in processes)
    pytest.fail(f"step {step} was not reached")


def test_the_cable_is_pulled(hosts, data_folder, tmp_path):
    values = {
        **tiny_world.PRETRAIN,
        "data": str(data_folder),
        "steps": STEPS,
        "checkpoint": {"every_steps": 10},
        "log_every_steps": 1,
        "parallel": {"engine": "ddp", "timeout_seconds": PATIENCE},
    }
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump({"pretrain": values}))
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()

    names, devices = hosts
    degraded = degrade(names[0], devices[0])
    processes = start(hosts, recipe, tmp_path / "cut" / "run", tmp_path / "cut")
    wait_for(tmp_path / "cut" / "run", 25, processes)
    ip("-n", names[0], "link", "set", devices[0], "down")
    cut_at = time.monotonic()
    codes = ended(processes)
    assert time.monotonic() - cut_at < DEADLINE_SECONDS
    assert all(code != 0 for code in codes)
    said = [(tmp_path / "cut" / f"host-{rank}.log").read_text() for rank in (0, 1)]
    assert "error: rank 1 has not been heard of for" in said[0]
    assert "its last step was" in said[0]
    assert not [text for text in said if "internal:" in text]

    ip("-n", names[0], "link", "set", devices[0], "up")
    assert ended(start(hosts, recipe, tmp_path / "cut" / "run", tmp_path / "cut")) == [0, 0]
    assert ended(start(hosts, recipe, tmp_path / "whole" / "run", tmp_path / "whole")) == [0, 0]
    weights = [
        (tmp_path / name / "run" / "export" / "model.safetensors").read_bytes() for name in ("cut", "whole")
    ]
    assert weights[0] == weights[1]
    print("with delay and loss" if degraded else "without delay and loss: the kernel has no netem")
