"""A storage goes away in the middle of a run, for longer than the run waits, and comes back."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import yaml

import maskwright
import tiny_world

pytestmark = [pytest.mark.fault, pytest.mark.distributed, pytest.mark.slow]

STEPS = 400
DEADLINE_SECONDS = 150


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing about it."""

    def log_message(self, *arguments):
        pass


def serve(folder, port=0):
    """A web server; with the port of one that was closed it comes back at the same address."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def close(server):
    server.shutdown()
    server.server_close()


def losses(folder):
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    records = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def wait_until(happened, process):
    end = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_outlives_its_storage(tmp_path):
    corpus = tiny_world.write_corpus(tmp_path / "corpus.jsonl", 1500)
    data = tmp_path / "data"
    maskwright.prepare(tiny_world.prepare_values(corpus), output=data)
    values = {
        **tiny_world.PRETRAIN,
        "steps": STEPS,
        "evaluation": {"every_steps": STEPS, "sequences": 16},
        "checkpoint": {"every_steps": 1000},
        "log_every_steps": 1,
        "parallel": {"engine": "ddp", "timeout_seconds": 8},
    }
    recipe, server = tmp_path / "tiny.yaml", serve(data)
    recipe.write_text(yaml.safe_dump({"pretrain": values}))
    port, run = server.server_port, tmp_path / "run"
    # So small a cache that every step asks the storage for something.
    cache = [f"cache.folder={tmp_path / 'cache'}", "cache.block_bytes=4096", "cache.most_bytes=160000"]
    command = [
        *(sys.executable, "-m", "maskwright", "launch", "pretrain", str(recipe)),
        *(f"data=http://127.0.0.1:{port}", *cache, f"--output={run}", "--processes=2"),
    ]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    wait_until(lambda: len(losses(run)) > 50, process)
    close(server)
    wait_until(lambda: "(restart 1 of 3)" in log.read_text(), process)
    said = log.read_text()
    assert "stopped after saving a checkpoint: http://127.0.0.1" in said
    assert "going on in 1 s" in said
    server = serve(data, port)
    assert process.wait(DEADLINE_SECONDS) == 0
    close(server)
    alone = tmp_path / "alone"
    maskwright.pretrain(
        {**values, "data": str(data), "parallel": {"engine": "single"}}, "device=cpu", output=alone
    )
    # No step is lost, and none is computed twice, as all saved before they left.
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in losses(alone)], rel=1e-5)
