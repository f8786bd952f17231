"""The options of `maskwright prepare`: workers, runners, shares of a stage, and the script for Slurm."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import maskwright
import tiny_world
from maskwright.core.lock import lock_folder
from preparing import write_sources

SBATCH = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$SUBMITTED"; echo >> "$SUBMITTED"
wc -l < "$SUBMITTED"
"""
# Does the work of an array at once, one task after the other.
SBATCH_NOW = """#!/usr/bin/env bash
set -euo pipefail
for word in "$@"; do
  case "$word" in
    --array=*) last="${word#--array=0-}" ;;
    --wrap=*) command="${word#--wrap=}" ;;
  esac
done
for number in $(seq "$last" -1 0); do SLURM_ARRAY_TASK_ID="$number" bash -c "$command" >&2; done
echo 1
"""
STAGES = ["count", "contamination", "clean", "exact", "bands", "clusters", "lines", "sample", "tokenizer"]
STAGES += ["encode", "finish"]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def expected(values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "data"
    maskwright.prepare(values, output=folder, workers=1)
    return tiny_world.prepared_files(folder)


@pytest.fixture
def recipe(values, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"prepare": values}))
    return path


@pytest.fixture
def submit(tmp_path):
    """Run a script with a stand-in for sbatch first on the path."""

    def run(script, stand_in, *options):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "sbatch").write_text(stand_in)
        (tmp_path / "bin" / "sbatch").chmod(0o755)
        folders = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        variables = {**os.environ, "PATH": ":".join(folders), "SUBMITTED": str(tmp_path / "calls")}
        return subprocess.run(
            ["bash", script, *options], cwd=tmp_path, env=variables, capture_output=True, text=True
        )

    return run


def jobs_of(text):
    """Each job that was submitted: its array, and for each task of it the words of the command."""
    for line in text.splitlines():
        given = dict(
            word.split("=", 1) for word in shlex.split(line) if word.startswith("--") and "=" in word
        )
        tasks = int(given["--array"].removeprefix("0-")) + 1
        yield [
            [str(number) if word == "$SLURM_ARRAY_TASK_ID" else word for word in shlex.split(given["--wrap"])]
            for number in range(tasks)
        ]


def test_workers_and_runner_do_not_change_the_bytes(command, recipe, expected, tmp_path):
    assert command("prepare", recipe, "-o", "d", "--workers", "2", "--runner", "local").code == 0
    assert tiny_world.prepared_files(tmp_path / "d") == expected
    timings = json.loads((tmp_path / "d" / "timings.json").read_text())
    assert (timings["workers"], timings["runner"]) == (2, "local")
    assert [stage["name"] for stage in timings["stages"]] == STAGES[:-1]


def test_a_script_for_slurm_does_what_a_plain_run_does(command, recipe, expected, submit, tmp_path):
    made = command(
        "prepare", recipe, "-o", "d", "--slurm", "go.sh", "--num-tasks", "2", "--workers=3", "--json"
    )
    assert made.json == {"script": "go.sh", "next": "bash go.sh"}
    assert not (tmp_path / "d").exists()
    done = submit("go.sh", SBATCH)
    assert done.returncode == 0, done.stderr
    jobs = list(jobs_of((tmp_path / "calls").read_text()))
    assert [tasks[0][tasks[0].index("--stage") + 1] for tasks in jobs] == STAGES
    assert [len(tasks) for tasks in jobs] == [2, 1, 2, 2, 2, 1, 2, 2, 1, 2, 1]
    for words in (words for tasks in jobs for words in reversed(tasks)):
        assert words[0] == "maskwright"
        assert words[words.index("--workers") + 1] == "3"
        result = command(*words[1:])
        assert result.code == 0, result.err
    assert result.json["documents_kept"] == 146
    assert tiny_world.prepared_files(tmp_path / "d") == expected
    assert not (tmp_path / "d" / "work").exists()


@pytest.mark.slow
def test_the_script_runs_with_the_real_command(command, recipe, expected, submit, tmp_path):
    assert command("prepare", recipe, "-o", "d", "--slurm", "go.sh", "--num-tasks", "3").code == 0
    done = submit("go.sh", SBATCH_NOW)
    assert done.returncode == 0, done.stderr
    assert tiny_world.prepared_files(tmp_path / "d") == expected


@pytest.mark.slow
def test_a_job_that_fails_stops_the_script(command, recipe, submit, tmp_path):
    assert command("prepare", recipe, "-o", "d", "--slurm", "go.sh", "--num-tasks", "1").code == 0
    (tmp_path / "d").write_text("a file in the way")
    done = submit("go.sh", SBATCH_NOW)
    assert done.returncode != 0
    assert "d: is a file, expected a folder" in done.stderr


def test_a_share_says_what_it_did_and_what_is_left(command, recipe, tmp_path):
    assert command("prepare", recipe, "-o", "d", "--stage", "count").code == 0
    assert command("prepare", recipe, "-o", "d", "--stage", "contamination").code == 0
    one = command(
        "prepare", recipe, "-o", "d", "--stage", "clean", "--task", "1", "--num-tasks", "2", "--json"
    )
    assert one.json == {"stage": "clean", "tasks_done": 2, "tasks_left_to_others": 2}
    again = command("prepare", recipe, "-o", "d", "--stage", "clean", "--task=1", "--num-tasks=2", "--json")
    assert again.json == {"stage": "clean", "tasks_done": 0, "tasks_left_to_others": 2}
    too_soon = command("prepare", recipe, "-o", "d", "--stage", "exact")
    assert too_soon.code == 2
    assert "stage clean has 2 of 4 tasks unfinished (0, 2), and exact comes after it" in too_soon.err
    assert "run --stage clean first" in too_soon.err
    finish = command("prepare", recipe, "-o", "d", "--stage", "finish")
    assert finish.code == 2
    assert not (tmp_path / "d" / "manifest.json").exists()


def test_shares_work_side_by_side_but_not_beside_a_whole_run(command, recipe, tmp_path):
    with lock_folder(tmp_path / "d", shared=True):
        assert command("prepare", recipe, "-o", "d", "--stage", "count").code == 0
        whole = command("prepare", recipe, "-o", "d")
        assert whole.code == 2
        assert "d: another maskwright job is writing here" in whole.err
        assert command("prepare", recipe, "-o", "d", "--stage", "finish").code == 2


def test_a_share_of_a_finished_run_does_nothing(command, recipe, expected, tmp_path):
    assert command("prepare", recipe, "-o", "d").code == 0
    assert command("prepare", recipe, "-o", "d", "--stage", "clean").code == 0
    (tmp_path / "d" / ".lock").unlink()  # who shares a folder cannot know to be the last
    assert tiny_world.prepared_files(tmp_path / "d") == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--stage", "cleen"), "--stage is 'cleen', expected one of count, contamination, clean, exact"),
        (("--task", "1"), "--task is 1, but no --stage is given"),
        (("--stage", "clean", "--task", "2", "--num-tasks", "2"), "--task is 2, expected 0 to 1"),
        (("--stage", "clean", "--task", "1"), "--task is 1, expected 0 to 0 (--num-tasks is 1)"),
        (("--stage", "clean", "--num-tasks", "0"), "--num-tasks is 0"),
        (("--workers", "0"), "workers is 0, expected at least 1"),
        (("--runner", "pigeons"), "runner is 'pigeons', expected local or ray"),
        (("--slurm", "go.sh", "--num-tasks", "-1"), "num_tasks is -1 and cpus is 1, expected at least 1"),
        (("--slurm", "go.sh", "--overwrite"), "--overwrite does not go with --slurm: every job would start"),
        (("--stage", "clean", "--overwrite"), "--overwrite does not go with --stage: every job would start"),
    ],
)
def test_senseless_options(command, recipe, tmp_path, options, said):
    result = command("prepare", recipe, "-o", "d", *options)
    assert result.code == 2, result.out
    assert said in result.err
    assert not (tmp_path / "go.sh").exists()
    assert not list(tmp_path.glob("d/*"))


def test_stages_that_are_not_asked_for_do_not_exist(command, recipe):
    shown = command("prepare", recipe, "--stage", "bands", "corpus.deduplication.near=null", "-o", "d")
    assert shown.code == 2
    assert "expected one of count, contamination, clean, exact, lines, sample" in shown.err


def test_a_dry_run_writes_no_script(command, recipe, tmp_path):
    shown = command("prepare", recipe, "--slurm", "go.sh", "--dry-run", "--json")
    assert shown.json["validation_share"] == 0.1
    assert not (tmp_path / "go.sh").exists()
