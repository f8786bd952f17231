"""The Slurm script: valid shell, and what it would submit, shown by a stand-in for `sbatch`."""

import os
import shlex
import subprocess

import pytest

from maskwright.core.errors import ConfigError
from maskwright.corpus.runners.slurm import slurm_script

COMMAND = ["maskwright", "prepare", "my recipe.yaml", "--output", "data/it's here"]
SBATCH = """#!/usr/bin/env bash
number=$(($(wc -l < "$SUBMITTED" 2>/dev/null || echo 0) + 1))
printf '%q ' "$@" >> "$SUBMITTED"; echo >> "$SUBMITTED"
echo "$number;cluster"
"""


@pytest.fixture
def submit(tmp_path):
    """Run a script with our own sbatch first on the path; return the arguments of every call."""

    def run(text, *options):
        (tmp_path / "sbatch").write_text(SBATCH)
        (tmp_path / "sbatch").chmod(0o755)
        (tmp_path / "it.sh").write_text(text)
        variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        variables["SUBMITTED"] = str(tmp_path / "calls")
        subprocess.run(["bash", "it.sh", *options], cwd=tmp_path, env=variables, check=True)
        return [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def test_each_stage_waits_for_the_one_before(submit):
    stages = [("clean", True), ("tokenizer", False), ("encode", True)]
    calls = submit(slurm_script(COMMAND, stages, num_tasks=8, memory="6G"), "--partition=cpu")
    assert [next(word for word in call if word.startswith("--array")) for call in calls] == [
        "--array=0-7",
        "--array=0-0",
        "--array=0-7",
    ]
    waits = [[word for word in call if word.startswith("--dependency")] for call in calls]
    assert waits == [[], ["--dependency=afterok:1"], ["--dependency=afterok:2"]]
    assert all("--partition=cpu" in call and "--mem=6G" in call and "--requeue" in call for call in calls)


def test_the_command_survives_quoting(submit, tmp_path):
    calls = submit(slurm_script(COMMAND, [("clean", True)], num_tasks=3))
    wrapped = calls[0][calls[0].index(next(word for word in calls[0] if word.startswith("--wrap")))]
    words = wrapped.removeprefix("--wrap=")
    shown = subprocess.run(
        ["bash", "-c", f"maskwright() {{ printf '%s\\n' \"$@\"; }}; {words}"],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = [*COMMAND[1:], "--stage", "clean", "--task", "2", "--num-tasks", "3"]
    assert shown.stdout.splitlines() == wanted


@pytest.mark.parametrize(("tasks", "cpus"), [(0, 1), (1, 0)])
def test_senseless_numbers(tasks, cpus):
    with pytest.raises(ConfigError, match="expected at least 1 of each"):
        slurm_script(COMMAND, [], num_tasks=tasks, cpus=cpus)
