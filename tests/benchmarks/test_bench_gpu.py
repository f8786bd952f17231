"""The GPU benchmark runs from end to end on the CPU with a small shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_gpu.py"


@pytest.mark.slow
def test_it_measures_every_group_and_prints_one_table():
    pytest.importorskip("transformers")
    name = f"trial-{os.getpid()}"
    made = [SCRIPT.parent / "results" / f"{name}{suffix}" for suffix in (".md", ".json")]
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--name", name]
    command += ["--warmup", "1", "--block", "1", "--blocks", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
        groups = json.loads(made[1].read_text())["groups"]
        assert made[0].exists()
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    assert all(results for results in groups.values())
    assert [one for results in groups.values() for one in results if "failed" in one] == []
    assert "times the tokens/s of hf large" in done.stdout
    assert "ours documents, dropout 0.1" in done.stdout
    assert "reading and masking, base" in done.stdout


@pytest.mark.slow
def test_without_time_it_says_so_and_ends():
    name = f"trial-{os.getpid()}"
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--name", name, "--minutes", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    finally:
        for suffix in (".md", ".json"):
            (SCRIPT.parent / "results" / f"{name}{suffix}").unlink(missing_ok=True)
    assert "hf base: no time left" in done.stderr
    assert "failed or no time left" in done.stdout
